"""Networks that learn a little of what they could, or whose losses say less than they seem to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from records_by_hand import deep, record
from test_diagnosis import TestInputs as Inputs
from test_ending import STEPS, ended
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor
from trainer.diagnosis import Diagnosis, chance
from trainer.finding import Finding
from trainer.record import UNDEFINED

Loss = Callable[[Tensor, Tensor], Tensor]


def said(findings: list[Finding]) -> set[str]:
    """Verdict and category of all that is an alarm."""
    return {f"{each.verdict}, {each.cause.partition(':')[0]}" for each in findings if each.alarm}


def trained(
    model: nn.Module,
    loss: Loss,
    targets: Callable[[Tensor], Tensor],
    scale: float = 1.0,
    steps: int = 210,
    **optimizer: float,
) -> list[Finding]:
    """What is found where it is trained with Adam on fresh inputs, and at the end."""
    made, found = torch.Generator().manual_seed(0), list[Finding]()
    adam = torch.optim.Adam(model.parameters(), **{"lr": 3e-3, **optimizer})
    with Monitor(model, found=found.append) as monitor:
        for step in range(steps):
            x = torch.randn(64, 8, generator=made)
            value = loss(model(scale * x), targets(x))
            adam.zero_grad()
            value.backward()
            with monitor.step(step, value):
                adam.step()
    return found


def mlp(outputs: int, *last: nn.Module, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    hidden = [nn.Linear(8, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 32), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(32, outputs), *last)


def waves(x: Tensor) -> Tensor:
    return x[:, :1] + x[:, 1:2] * x[:, 2:3]


def classes(x: Tensor) -> Tensor:
    return 2 * (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def test_targets_and_inputs_on_another_scale() -> None:
    """Of which the mean may have been learnt; told at the end."""
    far = trained(mlp(1), functional.mse_loss, lambda x: 1e4 * (waves(x) + 10), lr=0.01)
    assert said(far) == {"stalled, data"}
    assert "without having learnt; the targets are " in far[-1].cause
    small = trained(mlp(1), functional.mse_loss, lambda x: waves(x) + 3, scale=1e-5)
    assert said(small) == {"stalled, data"}
    assert "without having learnt; the inputs have an RMS of 1.0" in small[-1].cause
    assert said(trained(mlp(1), functional.mse_loss, waves)) == set()
    # Whatever their unit is, if they are explained.
    known = trained(mlp(1), functional.mse_loss, lambda x: 1e3 * waves(x), lr=0.1)
    assert said(known) == set()


def test_a_decay_that_outweighs_the_loss() -> None:
    """Added to the gradient, as Adam does it, it leaves an output that answers a little."""
    found = trained(mlp(1), functional.mse_loss, lambda x: waves(x) + 2, weight_decay=3.0, lr=0.01)
    assert "signal_collapse, decay" in said(found)
    usual = trained(mlp(1), functional.mse_loss, lambda x: waves(x) + 2, weight_decay=1e-4)
    assert said(usual) == set()


def test_weights_that_are_meant_to_become_small() -> None:
    """Those of a line through inputs that are larger than the targets, beside noise."""
    noise = torch.Generator().manual_seed(2)

    def targets(x: Tensor) -> Tensor:
        return waves(x) + torch.randn(len(x), 1, generator=noise)

    torch.manual_seed(0)
    line = nn.Linear(8, 1)
    assert said(trained(line, functional.mse_loss, targets, scale=30.0, lr=0.01)) == set()


def test_a_dropout_that_leaves_next_to_nothing() -> None:
    found = trained(mlp(4, dropout=0.97), functional.cross_entropy, classes)
    assert said(found) == {"stalled, dropout"}
    assert "dropout takes 9" in found[-1].cause and "little is learnt" in found[-1].cause
    assert said(trained(mlp(4, dropout=0.3), functional.cross_entropy, classes)) == set()


def test_a_dropout_of_the_input() -> None:
    """Beside that, there is no layer before it."""

    def model(share: float) -> nn.Sequential:
        return nn.Sequential(nn.Dropout(share), *mlp(4))

    assert said(trained(model(0.995), functional.cross_entropy, classes)) == {"stalled, dropout"}
    assert said(trained(model(0.2), functional.cross_entropy, classes)) == set()


class Product(nn.Module):
    """What two tables give for two tokens, multiplied."""

    def __init__(self, size: float) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.one, self.other = nn.Embedding(4, 16), nn.Embedding(4, 16)
        with torch.no_grad():
            self.one.weight.mul_(size)

    def forward(self, x: Tensor) -> Tensor:
        one, other = ((x[:, at : at + 2] > 0).long() @ torch.tensor([2, 1]) for at in (0, 2))
        made: Tensor = (self.one(one) * self.other(other)).sum(1)
        return made


def test_a_table_that_is_given_is_no_fault() -> None:
    """Its values are no start values: it is not trained."""
    given = Product(50.0)
    given.one.weight.requires_grad_(False)
    scaled = nn.Sequential(given)
    found = trained(scaled, lambda out, y: functional.mse_loss(out / 50, y), lambda x: x[:, 0] * 0)
    assert said(found) == set()


def test_what_noise_leaves_is_all_there_is() -> None:
    """A sixteenth of the variance is learnt, to the full."""
    noise = torch.Generator().manual_seed(5)

    def targets(x: Tensor) -> Tensor:
        return 50 * x[:, :1] + 200 * torch.randn(len(x), 1, generator=noise)

    torch.manual_seed(0)
    assert said(trained(nn.Linear(8, 1), functional.mse_loss, targets, lr=1.0, steps=400)) == set()


def test_a_fixed_part_of_a_loss_hides_nothing() -> None:
    """Beside which it is the same to a thousandth; its gradient falls all the same."""
    found = trained(mlp(1), lambda out, y: 5000 + functional.mse_loss(out, y), waves, lr=0.01)
    assert said(found) == set()


def test_a_table_that_begins_far_too_large() -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(out, y)

    def wanted(x: Tensor) -> Tensor:
        return (x[:, 0] * x[:, 2] > 0).float()

    found = trained(Product(50.0), loss, wanted)
    assert said(found) == {"signal_blow_up, initialisation"}
    assert found[0].where == "one" and "one gave values with an RMS of 5" in found[0].cause
    assert said(trained(Product(0.3), loss, wanted, lr=0.05)) == set()


class Adapted(nn.Module):
    """A linear layer that stays, and a product beside it that begins with a matrix of zeros."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.base = nn.Linear(8, 1).requires_grad_(False)
        self.down, self.up = nn.Linear(8, 4, bias=False), nn.Linear(4, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.base(x) + self.up(self.down(x))
        return made


def test_steps_beside_a_matrix_that_begins_at_zero() -> None:
    """Of which any is more than there was."""
    found = trained(Adapted(), functional.mse_loss, lambda x: 3 * torch.sign(x[:, :1]), lr=1e-8)
    assert said(found) == {"starved_update, learning rate"}
    assert "no weight matrix that did not begin at zero has moved by more than " in found[0].cause
    assert said(trained(Adapted(), functional.mse_loss, lambda x: x[:, :1], lr=0.01)) == set()


def test_an_output_that_began_too_large_and_explains_little() -> None:
    def model(factor: float) -> nn.Module:
        made = mlp(1)
        with torch.no_grad():
            made[0].weight.mul_(factor)
            made[3].weight.mul_(factor)
        return made

    found = trained(model(12.0), functional.mse_loss, lambda x: torch.sin(9 * waves(x)))
    assert said(found) == {"signal_blow_up, initialisation"}
    assert "times as large as the input, and the run ended after 210 steps with " in found[-1].cause
    assert said(trained(model(1.0), functional.mse_loss, waves)) == set()


def test_a_softmax_twice_where_it_creeps() -> None:
    found = trained(mlp(4, nn.Softmax(1)), functional.cross_entropy, classes, lr=4e-4)
    assert said(found) == {"stalled, last activation"}
    assert "a Softmax comes before a loss that has its own" in found[0].cause
    fast = trained(mlp(4, nn.Softmax(1)), functional.cross_entropy, classes, lr=0.02)
    assert said(fast) == set()


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_how_low_a_doubled_softmax_leads(count: int) -> None:
    """Of the best answer that there is, by torch's own loss."""
    if count == 1:
        best, right = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
        given = functional.binary_cross_entropy_with_logits
        guess = given(torch.full((2,), 0.5), right)
        expected = given(best, right) / guess
    else:
        best = torch.zeros(1, count).index_fill_(1, torch.tensor([0]), 1.0)
        expected = functional.cross_entropy(best, torch.tensor([0])) / math.log(count)
    assert chance.lowest_of_doubled(count) == pytest.approx(float(expected), rel=1e-5)


def test_one_output_for_two_classes_that_is_sure_and_wrong() -> None:
    def model(factor: float) -> nn.Module:
        made = mlp(1)
        with torch.no_grad():
            for each in made.parameters():
                each.mul_(factor if each.dim() > 1 else 1)
        return made

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(out[:, 0], (y > 1).float())

    found = trained(model(8.0), loss, classes, lr=1e-3)
    assert said(found) == {"signal_blow_up, initialisation"}
    assert "sure and wrong" in found[0].cause
    assert said(trained(model(1.0), loss, classes)) == set()


def test_a_loss_that_hardly_hangs_on_the_output() -> None:
    """Which moves all the same, by an optimizer that does not care how small a gradient is."""
    found = trained(mlp(4), lambda out, y: functional.cross_entropy(1e-6 * out, y), classes)
    assert said(found) == {"signal_collapse, initialisation"}
    assert "what they make hardly reaches it" in found[-1].cause


def test_an_output_that_never_answers() -> None:
    """While the mean of the targets is learnt, and the loss falls."""

    def found(signal: float, size: float = 5.0) -> set[str]:
        keys = {"signal": signal ** (1 / 3), "update": 0.01}
        rows = [Inputs.squared(k, 10.0 if k < 12 else 5.0, size, **keys) for k in STEPS]
        return {f"{each.verdict}, {each.cause.partition(':')[0]}" for each in ended(rows)}

    assert found(0.01) == {"signal_collapse, initialisation"}
    assert found(0.05) == found(0.5) == set()


def test_what_was_negative_has_no_size() -> None:
    """A critic's loss drifts through zero; where it blows up, so does its gradient."""

    def found(norm: float, low: float) -> set[str]:
        diagnosis, told = Diagnosis(), list[Finding]()
        for step in (*range(12), 20, 50, 100, 150, 200, 250, 300, 350, 400):
            loss = low if step == 10 else 0.2 if step < 100 else 2.0 ** ((step - 50) / 50)
            gradient = norm if step > 300 else 1.0
            rows = [replace(each, weight_gradient=gradient) for each in deep(3, update=0.03)]
            told += diagnosis.add(record(step, rows, loss=loss, optimizer="Adam"))
        return {each.verdict for each in told if each.alarm}

    assert "diverging" in found(1.0, 0.1)
    assert "diverging" not in found(1.0, -0.1)
    assert "diverging" in found(50.0, -0.1)


class Masked(nn.Module):
    """Is given tokens and a mask of infinities, and has a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(6, 8), nn.Linear(8, 6)
        self.places = nn.Parameter(torch.zeros(4, 8))
        self.factor = 1.0

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.factor * (self.table(tokens) + self.places)
        made: Tensor = self.head(torch.softmax(mask, -1) @ x)
        return made


class Mixed(nn.Module):
    """Is given codes and numbers, the latter to its second layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.head = nn.Embedding(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        made: Tensor = self.head(self.table(codes) + self.norm(numbers))
        return made


def broken(model: nn.Module, breaks: Callable[[int], tuple[Tensor, Tensor]]) -> Finding:
    """What is found when numbers that are none come in, or arise, at step 30 and later."""
    torch.manual_seed(0)
    found, optimizer = list[Finding](), torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, found=found.append) as monitor:
        for step in range(40):
            out = model(*breaks(step))
            value = out.square().mean()
            optimizer.zero_grad()
            value.backward()
            with monitor.step(step, value):
                optimizer.step()
    (first,) = [each for each in found if each.verdict == "non_finite"]
    return first


@pytest.mark.parametrize("step_of_it", [30, 33])  # which is looked at, and not
def test_a_nan_that_comes_in_by_the_second_argument(step_of_it: int) -> None:
    def given(step: int) -> tuple[Tensor, Tensor]:
        numbers = torch.randn(8, 4)
        return torch.randint(6, (8,)), numbers.log() if step >= step_of_it else numbers

    told = broken(Mixed(), given)
    assert (told.where, told.steps[0]) == ("input", step_of_it)
    assert told.cause.startswith("data: the data that the network is given are not finite")


def test_a_mask_of_infinities_is_no_input() -> None:
    model = Masked()

    def given(step: int) -> tuple[Tensor, Tensor]:
        model.factor = math.inf if step >= 30 else 1.0  # the weights stay numbers
        return torch.randint(6, (8, 4)), torch.triu(torch.full((4, 4), -math.inf), 1)

    told = broken(model, given)
    assert told.where != "input" and not told.cause.startswith("data")


def test_a_gradient_of_zero_had_not_grown() -> None:
    """From nothing, as what a loss of 0 / 0 gives back to a network."""
    diagnosis, told = Diagnosis(), list[Finding]()
    for step in (*range(12), 20, 30):
        rows = [replace(each, weight_gradient=0.0) if step == 30 else each for each in deep(3)]
        one = record(step, rows, loss=UNDEFINED if step == 30 else 1.0, observed=step < 30)
        told += diagnosis.add(one)
    (found,) = [each for each in told if each.verdict == "non_finite"]
    assert found.cause.startswith("operation: the loss is not finite; the layers of this step ")


def test_an_output_that_is_nearly_all_mean() -> None:
    """Beside it what depends on the sample is small, and with it signal and gradient: no matter."""
    noise = torch.Generator().manual_seed(3)

    def targets(x: Tensor) -> Tensor:
        return 100 + torch.tanh(2 * x[:, :1]) + 0.5 * torch.randn(len(x), 1, generator=noise)

    def model(scale: float) -> nn.Sequential:
        made = mlp(1)
        with torch.no_grad():
            made[-1].bias.fill_(100.0)  # the targets' mean
            for layer in (made[0], made[3]):
                layer.weight.mul_(scale)
        return made

    for loss in (functional.l1_loss, functional.huber_loss):
        assert said(trained(model(1.0), loss, targets, steps=400, lr=1e-3)) == set()
    found = trained(model(1e-6), functional.l1_loss, targets, lr=1e-5)
    assert "vanishing, initialisation" in said(found)
    torch.manual_seed(1)  # nor while it trains
    one = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    with torch.no_grad():
        one[2].bias.fill_(300.0)
    wanted = lambda x: targets(x) + 200  # noqa: E731
    assert said(trained(one, functional.l1_loss, wanted, steps=400, lr=1e-2)) == set()
