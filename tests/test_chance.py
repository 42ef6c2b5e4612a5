"""Guesses and squared errors are told by their gradients, of torch's losses on any scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor
from trainer.diagnosis import chance, standstill, target
from trainer.diagnosis.chance import look
from trainer.diagnosis.history import History
from trainer.diagnosis.view import view
from trainer.finding import Finding
from trainer.record import StepRecord

Loss = Callable[[Tensor, Tensor], Tensor]


def seen(
    outputs: int,
    size: float,
    loss: Loss,
    targets: Tensor,
    bias: Tensor | None = None,
    steps: int = 1,
) -> list[StepRecord]:
    """The records of a linear network with weights of that size on noise, which is not trained."""
    torch.manual_seed(0)
    layer, records = nn.Linear(20, outputs), list[StepRecord]()
    model = nn.Sequential(layer)
    with torch.no_grad():
        layer.weight.mul_(size)
        layer.bias.copy_(torch.zeros(outputs) if bias is None else bias)
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(steps):
            value = loss(model(torch.randn(len(targets), 20)), targets)
            value.backward()
            with monitor.step(step, value):
                pass
            model.zero_grad()
    return records


def guesses(*given: object) -> bool:
    (made,) = seen(*given)  # type: ignore[arg-type]
    found = view(made)
    assert found is not None
    return look(found, made).is_a_guess


class Functional(nn.Module):
    """One that multiplies with weights itself, of which nobody knows what they are for."""

    def __init__(self, classes: int, size: float) -> None:
        super().__init__()
        self.head = nn.Parameter(size * torch.randn(classes, 20))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.head)


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_classes_that_nobody_knows_are_told_by_the_gradient(classes: int, factor: float) -> None:
    def told(size: float, loss: Loss) -> bool:
        torch.manual_seed(0)
        model, records = Functional(classes, size), list[StepRecord]()
        with Monitor(model, sinks=[records.append]) as monitor:
            value = factor * loss(model(torch.randn(640, 20)), torch.arange(640) % classes)
            value.backward()
            with monitor.step(0, value):
                pass
        found = view(records[0])
        assert found is not None and chance.classes(found, records[0]) is None
        beside = look(found, records[0])
        assert beside.is_a_guess or beside == chance.UNKNOWN
        return beside.is_a_guess

    def squared(out: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(out, torch.randn(out.shape))

    assert told(0.01, functional.cross_entropy)
    assert not told(3.0, functional.cross_entropy) and not told(0.01, squared)


def binary(out: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(out[:, 0], y.float())


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_equal_shares_are_a_guess(classes: int, factor: float) -> None:
    y = torch.arange(64) % classes

    def mean(out: Tensor, y: Tensor) -> Tensor:
        return factor * functional.cross_entropy(out, y)

    def total(out: Tensor, y: Tensor) -> Tensor:
        return factor * functional.cross_entropy(out, y, reduction="sum")

    assert guesses(classes, 0.01, mean, y) and guesses(classes, 0.01, total, y)
    assert not guesses(classes, 10.0, mean, y)  # sure, and right about a few


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_one_output_that_says_a_half(factor: float) -> None:
    y = torch.arange(64) % 2
    assert guesses(1, 0.01, lambda out, y: factor * binary(out, y), y)
    assert not guesses(1, 10.0, lambda out, y: factor * binary(out, y), y)


def test_what_has_been_learnt_is_none() -> None:
    y = torch.zeros(64, dtype=torch.long)
    for strength in (1.0, 3.0, 10.0):
        bias = torch.tensor([strength, 0.0, 0.0])
        assert not guesses(3, 0.01, functional.cross_entropy, y, bias)
        assert not guesses(1, 0.01, binary, y, -bias[:1])
    few = torch.tensor([0] * 60 + [1] * 4)  # wrong about some, and sure
    assert not guesses(2, 0.01, functional.cross_entropy, few, torch.tensor([5.0, 0.0]))


@pytest.mark.parametrize("away", [0.1, 1.0, 2.0, 2.8, 10.0, 1e5])
def test_errors_of_numbers_are_none(away: float) -> None:
    torch.manual_seed(1)
    y = away * torch.randn(64, 1)
    for loss in (functional.mse_loss, functional.l1_loss):
        assert not guesses(1, 0.01, loss, y)
    many = (torch.arange(64)[:, None] % 10 == torch.arange(10)).float()
    assert not guesses(10, 10.0, functional.binary_cross_entropy_with_logits, many)


def test_a_squared_error_that_looks_like_a_guess_is_none() -> None:
    """Five outputs with errors of a certain size have the loss and the evenness of one."""
    torch.manual_seed(1)
    y = 1.6 * torch.randn(256, 5)
    records = seen(5, 0.5, functional.mse_loss, y, steps=152)
    history = History()
    for made in records:
        history.add(made)
    assert all(each.is_a_guess for each in history.guesses) and history.steps >= 150
    assert not standstill.guesses(history)


def test_a_loss_that_never_changes_is_no_squared_error() -> None:
    history = History()
    for made in seen(3, 0.0, functional.cross_entropy, torch.arange(64) % 3, steps=5):
        history.add(made)
    assert not target.is_squared(history)


@pytest.mark.parametrize("factor", [0.5, 1e-6, 1e6])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_error_tells_how_far_the_targets_are(factor: float, reduction: str) -> None:
    torch.manual_seed(1)
    y = 300 + 40 * torch.randn(64, 2)
    given: list[tuple[Loss, str]] = [
        (lambda out, y: factor * functional.mse_loss(out, y, reduction=reduction), "squared"),
        (lambda out, y: factor * functional.l1_loss(out, y, reduction=reduction), "absolute"),
        (lambda out, y: factor * functional.huber_loss(out, y, reduction=reduction), "absolute"),
        (lambda out, y: factor * (out - y).pow(4).mean(), "other"),
    ]
    for loss, kind in given:
        history = History()
        for made in seen(2, 30.0, loss, y, steps=5):
            history.add(made)
        assert target.is_squared(history) is (kind == "squared")
        assert target.is_absolute(history) is (kind == "absolute")
        said = target.beyond(history, history.trail.now)
        if kind == "other":
            assert said is None
        else:
            assert said is not None and said.startswith("the targets are 3e+02 away")
        if kind == "squared":
            wanted = float((y**2).mean().sqrt())
            assert target.distance(history.trail.now) == pytest.approx(wanted, rel=0.05)


def stalled(last: nn.Module, loss: Loss, targets: Tensor, rate: float = 0.1) -> list[Finding]:
    """What is found in a small classifier with such a last layer."""
    torch.manual_seed(0)
    classes = int(targets.max()) + 1
    means, found = torch.randn(classes, 8), list[Finding]()
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, classes), last)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    with Monitor(model, found=found.append) as monitor:
        for step in range(210):
            value = loss(model(means[targets] + 0.1 * torch.randn(len(targets), 8)), targets)
            optimizer.zero_grad()
            value.backward()
            with monitor.step(step, value):
                optimizer.step()
    return [each for each in found if each.alarm]


def test_a_softmax_before_a_loss_that_has_one() -> None:
    targets = torch.arange(100) % 50
    (found,) = stalled(nn.Softmax(1), functional.cross_entropy, targets)
    assert (found.verdict, found.level, found.steps) == ("stalled", "warning", (150, 150))
    assert found.cause.startswith("last activation: after 150 steps nothing is learnt but to guess")
    assert "a Softmax comes before a loss that has its own" in found.cause
    assert "leave it out" in found.remedy
    # Where it learns all the same, and of losses that take shares.
    assert stalled(nn.Softmax(1), functional.cross_entropy, targets % 2, 1.0) == []
    assert stalled(nn.Identity(), functional.cross_entropy, targets) == []

    def logarithm(out: Tensor, y: Tensor) -> Tensor:
        return functional.nll_loss(out.log(), y)

    for rate in (0.1, 1e-3):
        assert stalled(nn.Softmax(1), logarithm, targets, rate) == []


def test_a_softmax_between_the_model_and_a_loss_that_has_one() -> None:
    """Nobody sees it but by the size of the gradient."""
    targets = torch.arange(100) % 50

    def twice(out: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(out.softmax(1), y)

    (found,) = stalled(nn.Identity(), twice, targets)
    assert "a softmax comes before a loss that has its own" in found.cause
    # Where it learns all the same, and where the gradient is as small for another reason.
    assert stalled(nn.Identity(), twice, targets % 5, 1.0) == []
    assert stalled(nn.Identity(), lambda o, y: functional.cross_entropy(o / 9, y), targets) == []


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("classes", [3, 10, 100])
def test_a_softmax_makes_the_gradient_of_a_guess_smaller(classes: int, factor: float) -> None:
    torch.manual_seed(0)

    def softened(times: int) -> bool:
        model, records = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, classes)), list[StepRecord]()
        with Monitor(model, sinks=[records.append]) as monitor:
            out = model(torch.randn(128, 4))
            for _ in range(times):
                out = out.softmax(1)
            value = factor * functional.cross_entropy(out, torch.arange(128) % classes)
            value.backward()
            with monitor.step(0, value):
                pass
        found = view(records[0])
        assert found is not None
        return chance.softened(found, records[0])

    assert [softened(times) for times in range(3)] == [False, True, False]


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_a_sigmoid_before_a_loss_that_has_one(factor: float) -> None:
    def doubled(loss: Loss) -> str | None:
        model, records = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), list[StepRecord]()
        nn.init.constant_(model[0].bias, -5.0)  # type: ignore[arg-type]
        with Monitor(model, sinks=[records.append]) as monitor:
            targets = torch.arange(64) % 2
            value = factor * loss(model(torch.randn(64, 4)), targets)
            value.backward()
            with monitor.step(0, value):
                pass
        found = view(records[0])
        assert found is not None
        return chance.doubled(found, records[0])

    assert doubled(binary) == "Sigmoid"
    assert doubled(lambda out, y: functional.binary_cross_entropy(out[:, 0], y.float())) is None
    assert doubled(lambda out, y: functional.mse_loss(out[:, 0], y.float())) is None


def test_what_has_arrived_may_lose_its_signal() -> None:
    """Half of the outputs are asked for by nobody: their signal is none that is missed."""
    targets = (torch.arange(100) % 10 == 0).long()

    def one_of_two(out: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy(out[:, 1], y.float())

    assert stalled(nn.Sigmoid(), one_of_two, targets) == []


class Tied(nn.Module):
    """A language model whose head is its table of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.hidden = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.table.weight
        nn.init.normal_(self.table.weight, 0, 1e-2)

    def forward(self, tokens: Tensor) -> Tensor:
        made: Tensor = self.head(self.norm(self.hidden(self.table(tokens))))
        return made


def test_a_head_that_is_tied_to_a_table_of_tokens() -> None:
    torch.manual_seed(0)
    model, records = Tied(), list[StepRecord]()
    with Monitor(model, sinks=[records.append]) as monitor:
        tokens = torch.randint(0, 11, (64, 5))
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        with monitor.step(0, loss):
            pass
    looked = view(records[0])
    assert looked is not None and looked.order.last_with_parameters == looked.names.index("head")
    assert chance.classes(looked, records[0]) == 11 and chance.look(looked, records[0]).is_a_guess
