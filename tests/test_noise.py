"""Losses that noise is most of: a network that has learnt what there is to learn is no sick one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from test_trains import watched
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
ROWS = 4000
logits = functional.binary_cross_entropy_with_logits


def data(inputs: int = 16) -> tuple[Tensor, Tensor]:
    """Inputs, and what can be learnt of them, of a standard deviation of 1."""
    torch.manual_seed(0)
    x = torch.randn(ROWS, inputs)
    clean = x @ torch.randn(inputs) / 4 + torch.sin(2 * x[:, 0]) / 2
    return x, (clean / clean.std())[:, None]


def perceptron(bias: float = 0.0, scale: float = 1.0) -> nn.Sequential:
    """The last layer begins at the mean of its targets, as is good practice."""
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    with torch.no_grad():
        model[4].bias.fill_(bias)  # type: ignore[union-attr, operator]
        for layer in model[::2]:
            layer.weight.mul_(scale)  # type: ignore[union-attr, operator]
    return model


def verdicts(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss, rate: float, steps: int, size: int = 64
) -> set[str]:
    """Of the alarms, where it is trained with Adam."""

    def cost(step: int) -> Tensor:
        rows = torch.randint(0, len(x), (size,))
        return loss(model(x[rows]), y[rows])

    adam = torch.optim.Adam(model.parameters(), rate)
    return {found.verdict for found in watched(model, adam, cost, steps)}


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.detach().flatten(), other.flatten()]))[0, 1])


def student(prediction: Tensor, target: Tensor) -> Tensor:
    return torch.log1p((prediction - target).square() / 3).mean()


@pytest.mark.parametrize("loss", [functional.mse_loss, functional.huber_loss, student])
def test_a_bias_that_begins_at_the_mean(loss: Loss) -> None:
    x, clean = data()
    y, model = 20 + clean + 2 * torch.randn_like(clean), perceptron(20.0)
    assert not verdicts(model, x, y, loss, 1e-3, 500)
    assert correlation(model(x), clean) > 0.6


def test_an_output_that_begins_too_large_without_one() -> None:
    x, clean = data()
    model = perceptron(scale=20.0)
    assert verdicts(model, x, clean, functional.mse_loss, 1e-3, 300) & {"signal_blow_up"}


def test_counts_whose_rate_is_known_from_the_start() -> None:
    x, clean = data()
    y, model = torch.poisson((3 + 0.15 * clean).exp()), perceptron(3.0)
    loss = partial(functional.poisson_nll_loss, full=True)
    assert not verdicts(model, x, y, loss, 1e-3, 500)
    assert correlation(model(x), clean) > 0.5


class Latest(nn.Module):
    """The last state of a recurrent network, of whose sequences the latest steps matter."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.out(self.rnn(x)[0][:, -1])
        return made


@pytest.mark.parametrize("classes", [False, True])
def test_sequences_of_which_the_end_matters(classes: bool) -> None:
    """Nothing is to come back to the first steps."""
    torch.manual_seed(0)
    x = torch.randn(2000, 100, 1)
    clean = x[:, -3:].sum(1) / 3**0.5
    y = torch.bernoulli(torch.sigmoid(1.2 * clean)) if classes else clean
    y = y if classes else clean + 1.5 * torch.randn_like(clean)
    loss, model = logits if classes else functional.l1_loss, Latest()
    assert not verdicts(model, x, y, loss, 3e-3, 210)
    assert correlation(model(x), clean) > 0.8


def test_a_sequence_of_which_the_beginning_matters_is_told() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 100, 1)
    clean = x[:, :3].sum(1) / 3**0.5
    assert verdicts(Latest(), x, clean, functional.l1_loss, 3e-3, 210) == {"vanishing"}


def test_a_line_that_is_weaker_than_start_values() -> None:
    """Its weights shrink to what there is, and no decay does that."""
    torch.manual_seed(0)
    x = torch.randn(20000, 16)
    clean = x @ torch.randn(16, 1) / 4
    y, model = torch.bernoulli(torch.sigmoid(0.1 * clean)), nn.Linear(16, 1)
    assert not verdicts(model, x, y, logits, 3e-3, 400, size=1024)
    assert correlation(model(x), clean) > 0.6
