"""Updates larger than weights, and what is none the worse for them: fires, and near misses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from records_by_hand import deep, linear, record
from test_diagnosis import alarms, diagnosed
from test_trains import watched
from torch import Tensor, nn

from trainer.diagnosis.history import History
from trainer.record import StepRecord

STEPS = (*range(12), 20, 50, 80, 100, 120, 150)


def test_one_update_that_leaves_nothing_is_enough() -> None:
    """Unless something normalises, for which the size of weights is nothing."""

    def said(
        update: float, kind: str = "ReLU", optimizer: str = "SGD", falls: bool = False
    ) -> list[int]:
        layers = deep(3, kind)
        rows = [[replace(each, update=update if s == 3 else 1e-3) for each in layers]
                for s in range(8)]  # fmt: skip
        made = [record(s, row, loss=0.5**s if falls else 1 + s % 2, optimizer=optimizer)
                for s, row in enumerate(rows)]  # fmt: skip
        found = diagnosed(made).get("exploding")
        return [] if found is None else [found.steps[0]]

    assert said(1000.0) == [3] and said(1000.0, falls=True) == []
    assert said(50.0) == said(1000.0, "BatchNorm1d") == said(1000.0, optimizer="Adam") == []


def test_weights_that_have_grown_far_beyond_an_early_update() -> None:
    """They began near zero; whatever the loss does, that it is no explosion."""

    def made(grown: float) -> list[StepRecord]:
        rows = [record(s, [linear(update=3.0 if s < 2 else 1e-3)], loss=2.0 if s else 1.0)
                for s in STEPS]  # fmt: skip
        # Of as many values as start values of this size are too large for.
        late = [
            replace(r, parameter_rms=r.parameter_rms * grown) if r.step > 2 else r for r in rows
        ]
        return [replace(r, shapes=((30, 30),)) for r in late if r.step != 1]

    assert alarms(made(4.0)) == {"exploding", "learning_rate_too_high"}
    assert alarms(made(40.0)) == {"learning_rate_too_high"} and alarms(made(90.0)) == set()


def test_small_start_values_and_targets_that_are_large() -> None:
    """The first update is six hundred times the weights, and as large as they have to become."""
    torch.manual_seed(0)
    model, true = nn.Linear(8, 1), 30 * torch.randn(8, 1)
    nn.init.normal_(model.weight, 0, 0.01)

    def loss(step: int) -> Tensor:
        x = torch.randn(64, 8)
        return (model(x) - x @ true).square().mean()

    assert not watched(model, torch.optim.SGD(model.parameters(), 0.1), loss, 60)


def test_values_that_are_learnt_from_each_other() -> None:
    """Temporal differences: a table that begins at zero, targets and a loss that grow with it."""
    torch.manual_seed(0)
    states, model = torch.eye(30), nn.Linear(30, 1, bias=False)
    nn.init.zeros_(model.weight)

    def loss(step: int) -> Tensor:
        at = torch.randint(0, 30, (16,))
        with torch.no_grad():
            target = 0.3 + 0.97 * model(states[(at + 1) % 30])
        return (model(states[at]) - target).square().mean()

    assert not watched(model, torch.optim.SGD(model.parameters(), 1.0), loss, 800)


def test_a_chain_of_states_none_of_which_was_rewarded_yet() -> None:
    """One at a time, all zero: nothing of that depends on the sample, and nothing is to be learnt
    until somebody comes to an end of the chain."""
    torch.manual_seed(3)
    states, model, at = torch.eye(19), nn.Linear(19, 1, bias=False), 9
    nn.init.zeros_(model.weight)

    def loss(step: int) -> Tensor:
        nonlocal at
        now, at = at, at + 2 * int(torch.randint(0, 2, ())) - 1
        ended, reward = at in (-1, 19), float(at == 19)
        with torch.no_grad():
            target = reward if ended else float(model(states[at]))
        at = 9 if ended else at
        return (model(states[now]) - target).square().mean() / 2

    assert not watched(model, torch.optim.SGD(model.parameters(), 0.3), loss, 1000)


def test_gates_take_their_time_to_open() -> None:
    """After the first updates of Adam have taken most of a signal that was there."""

    def said(kind: str, upto: int) -> set[str]:
        steps = (*STEPS, *range(200, upto + 1, 50))
        made = []
        for step in steps:
            first, last = step < 5, 0.8 if step < 5 else 0.05
            rows = [linear(kind=kind, update=0.2 if first else 1e-3), linear(signal=last)]
            made.append(record(step, rows, loss=1 - 0.3 * (step > 50), optimizer="Adam"))
        return alarms(made)

    assert said("RNN", 300) == {"learning_rate_too_high"} == said("LSTM", 600)
    assert said("LSTM", 450) == set()


def test_an_output_that_begins_minute_and_weights_that_stand_still() -> None:
    """The start values are to blame, not the rate of an optimizer that follows the gradient."""

    def said(ratio: float, optimizer: str = "SGD", kind: str = "Linear") -> str:
        rows = deep(4, forward=ratio ** (1 / 4), update=1e-9)
        rows = [replace(each, kind=kind) if each.kind == "ReLU" else each for each in rows]
        made = [record(step, rows, loss=1 + 0.02 * (step % 3), optimizer=optimizer)
                for step in STEPS]  # fmt: skip
        [found] = [each for each in diagnosed(made).values() if each.alarm]
        return f"{found.verdict}, {found.cause.partition(':')[0]}"

    assert said(5e-4) == "signal_collapse, initialisation"
    assert said(5e-3) == said(5e-4, "Adam") == said(5e-4, kind="LayerNorm")
    assert said(5e-3) == "starved_update, learning rate"


class OwnNorm(nn.Module):
    """Of which no layer is called; what it is called says nothing of norms."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(8, 8) * 1e-6 for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x[:, :1]


def test_a_model_that_has_a_norm_in_its_name() -> None:
    torch.manual_seed(0)
    model = OwnNorm()

    def loss(step: int) -> Tensor:
        x = torch.randn(32, 8)
        return (model(x) - x[:, :1]).square().mean()

    [found] = watched(model, torch.optim.SGD(model.parameters(), 0.05), loss, 60)
    assert (found.verdict, found.where) == ("signal_collapse", "model")


def test_growth_is_counted_from_what_moved() -> None:
    """An update as an RMS is its ratio times the size before it; the largest of them counts."""
    history = History()
    sizes = (0.1, 0.4, 2.0)
    for step, (size, ratio) in enumerate(zip(sizes, (3.0, 4.0, 0.01), strict=True)):
        one = record(step, [linear(update=ratio)])
        history.add(replace(one, parameter_rms=np.array([size])))
    assert np.allclose(history.way.farthest, 1.6)
    assert np.isclose(history.way.farthest_share, 0.8)


def test_an_update_that_replaces_the_weights_and_leads_nowhere() -> None:
    """Of weights that were next to nothing it is the start values' fault, after 250 steps."""

    def said(
        update: float, size: float = 1.0, fall: float = 0.0, upto: int = 300, once: float = 1.0
    ) -> set[str]:
        steps = [s for s in (*STEPS, 200, 250, 300) if s <= upto]
        made = [
            record(s, deep(3, update=update if s == 0 else 1e-3), optimizer="Adam",
                   loss=once if s == 20 else 1 - fall * s)
            for s in steps
        ]  # fmt: skip
        small = [replace(each, parameter_rms=size * each.parameter_rms) for each in made]
        found = [each for each in diagnosed(small).values() if each.alarm]
        return {f"{each.verdict}, {each.cause.partition(':')[0]}" for each in found}

    assert said(15.0) == {"learning_rate_too_high, learning rate"}
    assert said(15.0, size=1e-4) == {"signal_collapse, initialisation"}
    assert said(15.0, size=1e-4, upto=200) == set()
    # RMSprop begins with ten times its rate; what was once learnt may be left for a harder task.
    assert said(5.0) == said(15.0, fall=1e-3) == said(15.0, upto=80) == set()
    assert said(15.0, once=0.8) == set()
