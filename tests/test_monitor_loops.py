"""Loops that count, retry and clip in their own ways: what is seen of them is what happened."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trainer import Monitor
from trainer.finding import Finding
from trainer.record import StepRecord


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def backward(model: nn.Module) -> Tensor:
    model.zero_grad()
    loss: Tensor = model(torch.ones(5, 3)).square().mean()
    loss.backward()
    return loss


def leave(monitor: Monitor, enters: bool, breaks: bool) -> None:
    """Training that ends, or breaks, inside of the monitor's context or before it is closed."""

    def train() -> None:
        if breaks:
            raise KeyError

    try:
        if enters:
            with monitor:
                train()
        else:
            try:
                train()
            finally:
                monitor.close()
    except KeyError:
        assert breaks


@pytest.mark.parametrize("enters", [True, False])
@pytest.mark.parametrize("breaks", [True, False])
def test_what_is_handled_already_ends_no_training(
    enters: bool, breaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a second attempt, after the first has run out of memory."""
    ends: list[Monitor] = []
    monkeypatch.setattr(Monitor, "end", lambda monitor: ends.append(monitor))
    leave(Monitor(small()), enters, breaks)
    assert len(ends) == (not breaks)
    try:
        raise MemoryError
    except MemoryError:
        monitor, other = Monitor(small()), Monitor(small())  # as of a generator and its critic
        leave(monitor, enters, breaks)
        leave(other, enters, breaks)
    assert len(ends) == 3 * (not breaks)
    try:
        raise MemoryError
    except MemoryError:
        monitor = Monitor(small())
    leave(monitor, enters, breaks)  # of what was handled then nothing is left
    assert len(ends) == 4 * (not breaks)


@pytest.mark.parametrize("every_steps", [1, 10])
def test_steps_that_are_counted_in_tens(every_steps: int) -> None:
    """The layers are seen wherever the cadence asks for them."""
    model, records = small(), list[StepRecord]()
    keys = dict.fromkeys(("every_steps", "activation_every_steps"), every_steps)
    with Monitor(model, sinks=[records.append], **keys) as monitor:
        for step in range(0, 300, 10):
            loss = backward(model)
            with monitor.step(step, loss):
                pass
    assert len(records) == 30 and all(record.layers is not None for record in records)


def test_a_step_that_is_left_out() -> None:
    """Before one that the cadence asks for, which is looked at all the same."""
    model, records = small(), list[StepRecord]()
    every_ten = dict.fromkeys(("every_steps", "activation_every_steps"), 10)
    with Monitor(model, sinks=[records.append], **every_ten) as monitor:
        for step in (s for s in range(1, 60) if s % 10 != 8):
            loss = backward(model)
            with monitor.step(step, loss):
                pass
    assert {20, 30, 40, 50} <= {record.step for record in records}
    assert all(record.layers is not None for record in records)


def alternating(clips: bool, zeroes: bool) -> list[float]:
    """The clipping that is seen of two optimizers in a step, of which the first may clear its
    gradients, and the second may clip its own."""
    model, records = small(), list[StepRecord]()
    parts = [model[0], model[2]]
    first, second = (torch.optim.SGD(part.parameters(), 1e-3) for part in parts)
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(3):
            loss = backward(model)
            with monitor.step(step, loss):
                first.step()
                if zeroes:
                    first.zero_grad(set_to_none=False)
                if clips:
                    nn.utils.clip_grad_norm_(parts[1].parameters(), 1e-9)
                second.step()
    return [record.clip_coefficient for record in records]


def test_an_optimizer_that_clears_its_gradients_has_not_clipped_them() -> None:
    for coefficient in alternating(clips=False, zeroes=True):
        assert math.isnan(coefficient) or coefficient == pytest.approx(1.0, rel=1e-5)


def test_clipping_for_the_second_optimizer_alone() -> None:
    model = small()
    backward(model)
    squares = [sum(float(p.grad.square().sum()) for p in part.parameters()) for part in model[::2]]  # type: ignore[union-attr]
    expected = math.sqrt(squares[0] / sum(squares))
    for zeroes in (False, True):
        assert alternating(clips=True, zeroes=zeroes)[0] == pytest.approx(expected, rel=1e-5)


def test_a_gradient_that_breaks_inside_of_the_step_was_not_clipped() -> None:
    model, records = small(), list[StepRecord]()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with Monitor(model, sinks=[records.append]) as monitor:
        loss = backward(model)
        with monitor.step(0, loss):
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad[0] = math.nan
            optimizer.step()
    assert math.isnan(records[0].clip_coefficient)


@pytest.mark.parametrize("unused", [False, True])
def test_a_network_whose_turn_comes_at_every_fifth_step(unused: bool) -> None:
    """Between two looks it was updated in its own step: nothing is made outside of it."""
    found, model = list[Finding](), small()
    if unused:  # which is told of, as information
        model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model, found=found.append) as monitor:
        for step in range(320):
            loss = None
            if step % 5 == 4 or unused and step < 12:
                x = torch.randn(32, 3)
                loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
                loss.backward()
            with monitor.step(step, loss):
                if loss is not None:
                    optimizer.step()
            optimizer.zero_grad()
    assert not [each for each in found if each.alarm]


def test_weights_that_are_elsewhere_while_the_step_is_made() -> None:
    """As those that are put into half precision for a while: what is recorded is of the weights."""
    model, records = nn.Linear(4, 4, bias=False), list[StepRecord]()
    own = model.weight.data
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(3):
            loss = model(torch.ones(2, 4)).square().sum()
            model.zero_grad()
            loss.backward()
            size = float(own.square().mean().sqrt())
            with monitor.step(step, loss):
                own.mul_(2)
                model.weight.grad, model.weight.data = None, own.half()
            model.weight.data = own
            assert float(records[-1].parameter_rms[0]) == pytest.approx(size, rel=1e-6)


@pytest.mark.parametrize("order", ["before", "between", "within"])
def test_an_update_that_is_made_elsewhere(order: str) -> None:
    """Before the step, and zero_grad before or after it; what a closure does is inside."""
    found, model = list[Finding](), small()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 0.01)
    if order == "within":
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    x = torch.randn(32, 3)

    def closure() -> Tensor:
        loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
        optimizer.zero_grad()
        loss.backward()
        return loss

    with Monitor(model, found=found.append) as monitor:
        for step in range(60):
            loss = closure()
            if order == "within":
                optimizer.zero_grad()
                with monitor.step(step, loss):
                    optimizer.step(closure)
                continue
            optimizer.step()
            if order == "before":
                optimizer.zero_grad()
            with monitor.step(step, loss):
                pass
    told = {"before": ["unused_parameter"], "between": ["starved_update"], "within": []}
    alarms = [each for each in found if each.alarm]
    assert [each.verdict for each in alarms] == told[order]
    assert all(each.cause.startswith("outside: ") for each in alarms)
    assert all("put clipping and the optimizer's step inside of" in each.remedy for each in alarms)
