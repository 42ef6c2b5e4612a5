"""Weights that functions use step after step: where in time does their gradient arrive?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_branches import EVERY, looked_at
from test_trains import watched
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor
from trainer.diagnosis.view import View
from trainer.monitor.measured import Measured
from trainer.record import COUNT, NORM, TIME_STEPS, LayerTable, StepRecord

STEPS = 20
ENDS = ("W.first_steps", "W.last_steps")


class Own(nn.Module):
    """A recurrent network of plain matrices, which keeps what it makes at each step."""

    def __init__(self, scale: float = 0.5, transposed: bool = False, gate: bool = False) -> None:
        super().__init__()
        self.U, self.W = nn.Parameter(torch.randn(3, 8) / 2), nn.Parameter(torch.randn(8, 8))
        self.b, self.V = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.randn(8, 2) / 3)
        self.transposed, self.gate = transposed, gate
        self.made: list[Tensor] = []
        with torch.no_grad():
            nn.init.orthogonal_(self.W).mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        h, self.made = x.new_zeros(len(x), 8), []
        for step in range(x.shape[1]):
            weight = self.W.T if self.transposed else self.W
            self.made.append(h @ weight)
            h = self.made[-1] + x[:, step] @ self.U + self.b
            h = torch.sigmoid(h) * h if self.gate else torch.tanh(h)
        return h @ self.V


def both_ends(table: LayerTable) -> list[float]:
    """The RMS of the gradients at the first and at the last steps."""
    places = [table.gradients.names.index(name) for name in ENDS]
    moments = table.gradients.moments[places]
    return (moments[:, NORM] / np.sqrt(moments[:, COUNT])).tolist()


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_the_first_and_of_the_last_steps(transposed: bool) -> None:
    torch.manual_seed(0)
    model, x = Own(transposed=transposed), torch.randn(5, STEPS, 3)
    table = looked_at(model, x)
    assert [name for name, kind in zip(table.names, table.kinds, strict=True)
            if kind == TIME_STEPS] == [*ENDS]  # fmt: skip
    made = model(x)
    for each in model.made:
        each.retain_grad()
    made.square().mean().backward()
    gradients = torch.stack([each.grad for each in model.made if each.grad is not None])
    quarters = gradients[: STEPS // 4], gradients[-(STEPS // 4) :]
    expected = [part.double().square().mean().sqrt().item() for part in quarters]
    assert np.allclose(both_ends(table), expected, rtol=1e-5)
    assert both_ends(table)[0] < 1e-3 * both_ends(table)[1]


def test_watching_it_changes_nothing() -> None:
    torch.manual_seed(0)
    model, x = Own(), torch.randn(5, STEPS, 3)
    alone = torch.autograd.grad(model(x).square().mean(), [*model.parameters()])
    for _ in range(2):
        with Monitor(model, **EVERY) as monitor:
            model.zero_grad()
            model(x).square().mean().backward()
            with monitor.step(0):
                pass
        gradients = [weight.grad for weight in model.parameters()]
        assert all(map(torch.equal, alone, gradients))  # type: ignore[arg-type]


def test_nothing_is_left_on_a_graph_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, heard = Own(), list[int]()
    gradient = Measured.gradient

    def counted(self: Measured, row: int, *given: Any) -> None:
        heard.append(row)
        gradient(self, row, *given)

    monkeypatch.setattr(Measured, "gradient", counted)
    with Monitor(model, **EVERY) as monitor:
        made = model(torch.randn(5, STEPS, 3)).mean()
        made.backward(retain_graph=True)
        with monitor.step(0):
            pass
        came = len(heard)
        made.backward()
    assert came == 1 + 2 * (STEPS // 4) == len(heard)


def test_a_second_backward_pass_within_the_step() -> None:
    records = list[StepRecord]()
    model = Own()
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        for step in range(3):
            made = model(torch.randn(5, STEPS, 3))
            made.mean().backward(retain_graph=True)
            with monitor.step(step):
                made.square().mean().backward()
    assert len(records) == 3 and all(one.layers is not None for one in records)


class Two(nn.Module):
    """Two such layers, one after the other at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Parameter(torch.randn(3, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h = k = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            h = torch.tanh(h @ self.one + x[:, step])
            k = torch.tanh(k @ self.two + h)
        return k


def test_they_stand_in_the_order_of_the_parameters() -> None:
    for _ in range(8):
        table = looked_at(Two(), torch.randn(5, STEPS, 3))
        assert [name for name in table.names if name.endswith(".first_steps")] == [
            "one.first_steps", "two.first_steps"
        ]  # fmt: skip


class Apart(nn.Module):
    """Uses the same weights for each part, none of which hangs on another."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.tanh(part @ self.W) for part in x.unbind(1)]).sum(0)


class Fixed(nn.Module):
    """Comes to a point that does not depend on where it began, of what is given at each step."""

    def __init__(self, parts: bool) -> None:
        super().__init__()
        self.U, self.W = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 4) / 8)
        self.parts = parts

    def forward(self, x: Tensor) -> Tensor:
        given, h = x @ self.U, x.new_zeros(len(x), 4)
        first = given[:, 0]
        for step in range(x.shape[1]):
            h = torch.tanh(h @ self.W + (given[:, step] if self.parts else first))
        return h


class Called(nn.Module):
    """A layer that is called step by step, which is looked at in any case."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            h = torch.tanh(self.W(h) + x[:, step])
        return h


def test_near_misses() -> None:
    x = torch.randn(5, STEPS, 3)

    def loops(model: nn.Module, given: Tensor = x) -> list[str]:
        names = looked_at(model, given).names
        return [name for name in names if name.endswith("_steps")]

    assert loops(Own()) == [*ENDS]
    assert loops(Own(), x[:, :7]) == []  # too few
    assert loops(Own(gate=True)) == []  # of what opens nobody knows what to expect
    assert loops(Apart()) == loops(Fixed(parts=False)) == []
    assert loops(Fixed(parts=True)) == [*ENDS]
    assert loops(Called()) == [*ENDS]  # its own, once


def test_of_patterns_that_leave_it_out() -> None:
    records, model = [], Own()
    with Monitor(model, sinks=[records.append], exclude=["W"], **EVERY) as monitor:  # type: ignore[arg-type]
        model(torch.randn(5, STEPS, 3)).mean().backward()
        with monitor.step(0):
            pass
    assert records[0].layers is not None and ENDS[0] not in records[0].layers.names


@pytest.mark.parametrize(("scale", "told"), [(0.3, True), (1.0, False)])
def test_a_memory_that_is_too_short(scale: float, told: bool) -> None:
    """The first symbol of a sequence is asked for at its end."""
    torch.manual_seed(0)
    model = Own(scale)

    def loss(step: int) -> Tensor:
        x = torch.randn(32, 40, 3) / 3
        x[:, 0] *= 6
        return functional.cross_entropy(model(x), (x[:, 0, 0] > 0).long())

    found: list[tuple[str, str | None]] = [
        (each.verdict, each.where)
        for each in watched(model, torch.optim.SGD(model.parameters(), 0.1), loss, 260)
    ]
    assert found == ([("vanishing", "W")] if told else [])


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_a_state_that_grows_from_step_to_step_until_it_overflows(rate: float) -> None:
    """That of a layer without an activation, which is given little and makes ever more of it."""

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(12 + 64, 64), nn.Linear(12 + 64, 2)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), 64)
            for at in range(x.shape[1]):
                given = torch.cat((x[:, at], state), 1)
                state = self.hidden(given)
            found: Tensor = self.out(given).log_softmax(1)
            return found

    torch.manual_seed(0)
    tokens = torch.randint(0, 12, (600, 30))
    x, y = nn.functional.one_hot(tokens, 12).float(), (tokens[:, -4:].sum(1) > 22).long()
    model = Plain()

    def loss(step: int) -> Tensor:
        some = torch.randint(0, 600, (32,))
        return nn.functional.nll_loss(model(x[some]), y[some])

    (found,) = watched(model, torch.optim.SGD(model.parameters(), rate), loss, 200)
    assert (found.verdict, found.where) == ("non_finite", "hidden")
    assert found.cause.endswith("be it of its own state, which may have grown from step to step")


@pytest.mark.parametrize("skip", [True, False])
def test_layers_that_are_called_in_a_loop_until_nothing_is_left(skip: bool) -> None:
    """A cellular automaton, whose state is all that one step gives the next: at first the calls of
    its last layer depend on the sample, but only the last of them is the output."""

    class Automaton(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sees, self.becomes = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 1)

        def forward(self, state: Tensor) -> Tensor:
            for _ in range(24):
                made = self.becomes(torch.sigmoid(self.sees(state)))
                state = state + made / 2 if skip else made
            return state[:, :1]

    torch.manual_seed(0)
    seeds = torch.zeros(16, 8, 12, 12)
    for one in range(16):
        seeds[one, :, one % 4 + 4, one // 4 + 4] = 1.0
    table = looked_at(Automaton(), seeds)
    signal = View(table, ("sees.weight", "becomes.weight")).output_signal
    mean = table.signal_fraction[table.names.index("becomes")]
    assert signal == mean > 1e-4 if skip else signal < 1e-6 < 1e-4 < mean
