"""Programs that train, each with what looks like a fault: nothing is said of them; near ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor
from trainer.finding import Finding

Loss = Callable[[int], Tensor]


def watched(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, steps: int
) -> list[Finding]:
    """The alarms of a run."""
    with Monitor(model) as monitor:
        for step in range(steps):
            cost = loss(step)
            optimizer.zero_grad()
            cost.backward()
            with monitor.step(step, cost):
                optimizer.step()
    return [found for found in monitor.findings if found.alarm]


@pytest.mark.parametrize("spread", [0.0, 1e-3])
@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_small_head_on_frozen_layers(spread: float, rate: float) -> None:
    """Of which the first updates are many times its size, and ought to be."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    model[0].requires_grad_(False)
    nn.init.normal_(model[2].weight, 0, spread)  # type: ignore[arg-type]
    nn.init.zeros_(model[2].bias)  # type: ignore[arg-type]
    teacher = torch.randn(64, 10)

    def loss(step: int) -> Tensor:
        x = torch.randn(64, 64)
        return nn.functional.cross_entropy(model(x), (x @ teacher).argmax(1))

    assert not watched(model, torch.optim.SGD(model[2].parameters(), rate), loss, 160)


def test_a_likelihood_that_becomes_sharp() -> None:
    """Its loss begins near zero and falls below, to where the noise is; its gradient grows."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2)
    )

    def loss(step: int) -> Tensor:
        x = 2 * torch.rand(128, 2) - 1
        y = 0.1 * x[:, 0] * x[:, 1] + 0.003 * torch.randn(128)
        mean, log = model(x).unbind(1)
        return (0.5 * log + 0.5 * (y - mean).square() * (-log).exp()).mean()

    assert not watched(model, torch.optim.Adam(model.parameters(), 1e-3), loss, 500)


def test_heads_that_take_turns() -> None:
    """Each of which gets no gradient in most steps, and at most looks."""
    torch.manual_seed(0)
    trunk, heads = nn.Linear(8, 16), nn.ModuleList(nn.Linear(16, 1) for _ in range(20))
    model = nn.ModuleList([trunk, heads])
    tasks = torch.randn(20, 8)

    def loss(step: int) -> Tensor:
        x, task = torch.randn(64, 8), step % 20
        noisy = x @ tasks[task] / 8 + torch.randn(64)
        made: Tensor = heads[task](torch.tanh(trunk(x)))
        return (made[:, 0] - noisy).square().mean()

    assert not watched(model, torch.optim.Adam(model.parameters(), 3e-3), loss, 400)


def test_an_encoder_that_is_detached_on_the_way_is_told() -> None:
    """Which is not in turn with another."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    model = nn.ModuleList([encoder, nn.Linear(16, 4)])

    def loss(step: int) -> Tensor:
        x, made = torch.randn(64, 8), encoder
        coded = made(x).detach() if step >= 60 else made(x)
        return nn.functional.cross_entropy(model[1](coded), (x[:, :4]).argmax(1))

    [found] = watched(model, torch.optim.Adam(model.parameters(), 1e-3), loss, 300)
    assert found.verdict == "unused_parameter" and found.where == "0.2"


class Newest(nn.Module):
    """A recurrent network that reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        read: Tensor = self.head(self.memory(x)[0][:, -1])
        return read


class TestNoise:
    """Of which most of a loss is: it hardly falls, although all that there is has been learnt."""

    def test_a_sequence_of_which_the_end_matters(self) -> None:
        torch.manual_seed(2)
        model = Newest()

        def loss(step: int) -> Tensor:
            x = torch.randn(64, 80, 1)
            y = 0.3 * x[:, -1] + 0.2 * x[:, -2] + torch.randn(64, 1)
            return (model(x) - y).square().mean()

        assert not watched(model, torch.optim.Adam(model.parameters(), 3e-3), loss, 300)

    def test_beside_a_large_mean(self) -> None:
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
        nn.init.constant_(model[2].bias, 5.0)  # type: ignore[arg-type]
        weights = torch.randn(10, 1)
        weights *= 0.22 / weights.norm()

        def loss(step: int) -> Tensor:
            x = torch.randn(256, 10)
            return (model(x) - (5 + x @ weights + torch.randn(256, 1))).square().mean()

        assert not watched(model, torch.optim.Adam(model.parameters(), 1e-3), loss, 600)

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_classes_that_hardly_differ(self, seed: int) -> None:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1))
        weights = torch.randn(12)
        weights *= 0.2 / weights.norm()

        def loss(step: int) -> Tensor:
            x = torch.randn(2048, 12)
            y = (torch.rand(2048) < (x @ weights).sigmoid()).float()
            return nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y)

        assert not watched(model, torch.optim.Adam(model.parameters(), 1e-3), loss, 500)


@pytest.mark.parametrize("kind", ["absolute", "huber", "cross-entropy"])
def test_small_start_values_beside_noise_that_is_most_of_the_loss(kind: str) -> None:
    """The first update is as large as the weights, they grow many times, the loss hardly falls: and
    what there is to learn is learnt."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.0, 0.005 if parameter.dim() > 1 else 0.0)
    x = torch.randn(4096, 16)
    clean = torch.tanh(x @ torch.randn(16, 1) / 4)
    noisy = clean + 3 * torch.randn_like(clean)
    if kind == "cross-entropy":
        noisy = torch.bernoulli(clean.sigmoid())
    of = {
        "absolute": functional.l1_loss,
        "huber": functional.smooth_l1_loss,
        "cross-entropy": functional.binary_cross_entropy_with_logits,
    }[kind]

    def loss(step: int) -> Tensor:
        some = torch.randint(0, 4096, (64,))
        cost: Tensor = of(model(x[some]), noisy[some])
        return cost

    assert not watched(model, torch.optim.Adam(model.parameters(), 0.01), loss, 400)
    told = torch.stack([model(x)[:, 0], clean[:, 0]])
    assert torch.corrcoef(told)[0, 1] > 0.5
