"""Gradients that were not cleared are told from all that only looks like it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trainer import Monitor
from trainer.monitor import leftover
from trainer.record import StepRecord

Clear = Callable[[torch.optim.Optimizer], None]


def train(
    clear: Clear,
    micro_batches: int = 1,
    clip: bool = False,
    scale: bool = False,
    clear_inside: bool = False,
    every_steps: int = 1,
    steps: int = 4,
    told: bool = False,
) -> list[float]:
    """`carried_gradients` of the observed steps of a network with four parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", enabled=scale, init_scale=4.0)
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], every_steps=every_steps)
    for step in range(100, 100 + steps):
        for _ in range(micro_batches):
            scaler.scale(model(torch.randn(5, 3)).square().sum()).backward()
        scaler.unscale_(optimizer)
        with monitor.step(step, optimizer=optimizer if told else None):
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            scaler.step(optimizer)
            scaler.update()
            if clear_inside:
                clear(optimizer)
        if not clear_inside:
            clear(optimizer)
    assert {record.optimizer for record in records} == {"SGD"}
    return [record.carried_gradients for record in records]


def forget(optimizer: torch.optim.Optimizer) -> None:
    pass


def to_none(optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()


def to_zero(optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=False)


def one_by_one(optimizer: torch.optim.Optimizer) -> None:
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad.zero_()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_forgotten(clip: bool, scale: bool, told: bool) -> None:
    first, *others = train(forget, clip=clip, scale=scale, told=told)
    assert np.isnan(first) and others == [4, 4, 4]


@pytest.mark.parametrize("clear", [to_none, to_zero, one_by_one])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    "keys", [{}, {"clip": True}, {"scale": True}, {"micro_batches": 2}, {"told": True}]
)
def test_cleared(clear: Clear, inside: bool, keys: dict[str, bool]) -> None:
    first, *others = train(clear, clear_inside=inside, **keys)
    assert np.isnan(first) and others == [0, 0, 0]


@pytest.mark.parametrize("passes", [2, 3, 8])
@pytest.mark.parametrize("scale", [False, True])
def test_forgotten_among_several_passes(passes: int, scale: bool) -> None:
    first, *others = train(forget, micro_batches=passes, scale=scale)
    assert np.isnan(first) and others == [4, 4, 4]


def test_passes_are_counted_from_one_observed_step_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No hook is left on a parameter whose next step is not looked at, nor after the end."""
    hooks: list[leftover.Passes] = []

    class Hooked(leftover.Passes):
        def __init__(self, parameter: Tensor) -> None:
            super().__init__(parameter)
            hooks.append(self)

        def end(self) -> None:
            super().end()
            if self in hooks:
                hooks.remove(self)

    monkeypatch.setattr(leftover, "Passes", Hooked)
    model = nn.Linear(3, 2)
    monitor = Monitor(model, every_steps=2)
    seen = []
    for step in range(102, 106):
        model(torch.ones(1, 3)).sum().backward()
        with monitor.step(step):
            torch.optim.SGD(model.parameters(), 0.1).step()
        seen.append(len(hooks))
    monitor.close()
    assert [*seen, len(hooks)] == [1, 0, 1, 0, 0]
    for wrong in ("raises", "not entered", "wrong loss"):
        monitor = Monitor(model, every_steps=1)
        for step in range(3):
            model(torch.ones(1, 3)).sum().backward()
            with suppress(ValueError):
                made = monitor.step(step, torch.ones(2) if wrong == "wrong loss" else None)
                if wrong != "not entered":
                    with made:
                        torch.optim.SGD(model.parameters(), 0.1).step()
                        if wrong == "raises":
                            raise ValueError
        monitor.close()
        assert hooks == []


def test_cleared_through_data_which_has_no_version() -> None:
    def through_data(optimizer: torch.optim.Optimizer) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            if parameter.grad is not None:
                parameter.grad.data.zero_()

    for passes in (1, 2):
        first, *others = train(through_data, micro_batches=passes)
        assert np.isnan(first) and others == [0, 0, 0]


@pytest.mark.parametrize("passes", [1, 2])
def test_forgotten_where_a_head_has_no_part_in_the_loss(passes: int) -> None:
    """Its gradient is zero at the step itself, which is no sign of having been cleared."""
    records: list[StepRecord] = []
    for zero in (0, 1):  # the head that is
        torch.manual_seed(0)
        heads = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
        optimizer = torch.optim.SGD(heads.parameters(), 1e-3)
        with Monitor(heads, sinks=[records.append]) as monitor:
            for step in range(4):
                for _ in range(passes):
                    x = torch.randn(5, 3)
                    losses = [
                        (0 if n == zero else 1) * head(x).sum() for n, head in enumerate(heads)
                    ]
                    (losses[0] + losses[1]).backward()
                with monitor.step(step):
                    optimizer.step()
        assert [record.carried_gradients for record in records[1:]] == [4, 4, 4]
        records.clear()


def test_unknown_where_the_step_before_was_not_observed() -> None:
    found = train(forget, every_steps=2)
    assert len(found) == 2 and np.isnan(found).all()


def test_only_some_are_forgotten() -> None:
    def clear_first(optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["params"][0].grad = None

    assert train(clear_first)[1:] == [3, 3, 3]


def test_a_step_without_a_backward_pass_adds_nothing() -> None:
    model = nn.Linear(3, 2)
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], every_steps=1)
    model(torch.ones(1, 3)).sum().backward()
    for step in (0, 1):
        with monitor.step(step):
            pass
    assert records[1].carried_gradients == 0 and records[1].optimizer == ""


def test_no_gradient_is_kept_alive() -> None:
    model = nn.Linear(3, 2)
    monitor = Monitor(model, every_steps=1)
    model(torch.ones(1, 3)).sum().backward()
    alive = weakref.ref(model.weight.grad)
    with monitor.step(0) as observation:
        pass
    assert observation.record is not None
    model.zero_grad()
    gc.collect()
    assert alive() is None
