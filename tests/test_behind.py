"""What is behind a cause: inputs that have changed, weights that began far too large, dropouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from records_by_hand import deep, linear, record

from trainer.diagnosis import Diagnosis
from trainer.finding import Finding
from trainer.record import StepRecord

STEPS = (*range(11), 20, 30, 40, 50, 100, 150, 200, 250, 300)


def found(records: list[StepRecord]) -> dict[str, Finding]:
    """The last alarm of each verdict."""
    diagnosis = Diagnosis()
    for one in records:
        diagnosis.add(one)
    return {finding.verdict: finding for finding in diagnosis.findings if finding.alarm}


def given(one: StepRecord, signal: float) -> StepRecord:
    """The record with inputs of which that share depends on the sample."""
    assert one.layers is not None
    shares = one.layers.signal_fraction.copy()
    shares[0] = signal
    return replace(one, layers=replace(one.layers, signal_fraction=shares))


class TestInputsThatChanged:
    """At step 150, after all had been well."""

    def constant(self, signal: float = 0.0, rms: float = 1.0) -> dict[str, Finding]:
        made = []
        for s in STEPS:
            late = s >= 150
            share = 0.0 if late else 1.0
            layers = [replace(k, signal=k.signal * share) for k in deep(3, update=5e-3)]
            one = record(s, layers, loss=1.0, input_rms=rms if late else 1.0)
            made.append(given(one, signal if late else 0.8))
        return found(made)

    def test_to_the_same_for_all(self) -> None:
        (alarm,) = self.constant().values()
        assert alarm.verdict == "constant_output"
        assert alarm.cause.startswith("data: the inputs are the same for every sample now (RMS 1);")
        assert alarm.remedy == "look at what the network is given since" and alarm.change == {}

    def test_to_zeros(self) -> None:
        """Of which no share depends on anything."""
        (alarm,) = self.constant(signal=np.nan, rms=0.0).values()
        assert alarm.cause.startswith("data: the inputs are the same for every sample now (RMS 0);")

    @pytest.mark.parametrize(("size", "weights"), [(1.0, False), (1.0, True), (300.0, False)])
    def test_a_module_that_makes_less_of_them(self, size: float, weights: bool) -> None:
        """Before the first weights, as one that divides by 255."""
        rows = [replace(k, signal=0.0) for k in deep(3, update=5e-3)]
        rows = [replace(rows[1], kind="Scale", rms=size, weight=0.1 if weights else None), *rows]
        made = [given(record(s, rows, input_rms=300.0), 0.8) for s in STEPS]
        cause = found(made)["constant_output"].cause
        assert cause.startswith("initialisation: " if (size, weights) == (1.0, False) else "data: ")

    def test_zeros_from_the_start(self) -> None:
        rows = [replace(k, signal=0.0, rms=0.0) for k in deep(3, update=5e-3)]
        made = [given(record(s, rows, input_rms=0.0), np.nan) for s in STEPS]
        (alarm,) = found(made).values()
        assert alarm.cause.startswith("data: the inputs are zero for every sample; ")
        assert alarm.remedy == "give the network what tells one sample from another"
        rows[2] = replace(rows[2], signal=0.3, rms=1.0)  # others than the first layer's
        made = [given(record(s, rows, input_rms=0.0), np.nan) for s in STEPS]
        assert found(made)["constant_output"].cause.startswith("initialisation: ")

    def test_not_at_all(self) -> None:
        (alarm,) = self.constant(signal=0.8).values()
        assert alarm.cause.startswith("initialisation: ")

    @pytest.mark.parametrize(("times", "category"), [(100.0, "data"), (10.0, "learning rate")])
    def test_of_another_size(self, times: float, category: str) -> None:
        made = []
        for s in STEPS:
            late = s >= 150
            layers = deep(3, update=0.2 if late else 1e-3)
            made.append(record(s, layers, loss=3.0**(s / 50) if late else 1.0,
                               input_rms=times if late else 1.0))  # fmt: skip
        alarm = found(made)["learning_rate_too_high"]
        assert alarm.cause.startswith(f"{category}: ")
        if category == "data":
            assert "the inputs are 100 times as large as at the start" in alarm.cause


class TestStartValues:
    """A rate is not to blame for what start values do."""

    def thrown(self, *weights: float, sizes: tuple[float, ...]) -> Finding:
        layers = [linear(rms=r, weight=w, update=2.0) for w, r in zip(weights, sizes, strict=True)]
        return found([record(s, layers, loss=2.0**s) for s in range(11)])["exploding"]

    def test_of_one_layer(self) -> None:
        """30 inputs and an RMS of 100 make 550 times as much."""
        alarm = self.thrown(0.2, 100.0, 0.2, sizes=(1.0, 550.0, 500.0))
        assert alarm.where == "1"
        assert alarm.cause.startswith("initialisation: 1 makes 600 times as much of what it is")
        assert alarm.remedy.startswith("draw the start values")
        assert alarm.remedy.endswith("or bound the gradient"), "which may help as well"

    def test_of_all_layers(self) -> None:
        alarm = self.thrown(1.0, 1.0, 1.0, sizes=(5.0, 25.0, 125.0))
        assert alarm.where is None
        assert alarm.cause.startswith("initialisation: the output starts 100 times as large as")

    def test_not_of_a_function_that_no_module_tells_of(self) -> None:
        """The weights of the layer are of a usual size."""
        alarm = self.thrown(0.2, 0.2, 0.2, sizes=(1.0, 550.0, 25.0))
        assert alarm.cause.startswith("learning rate: ")

    @pytest.mark.parametrize(("size", "category"), [(200.0, "init"), (50.0, "learning rate")])
    def test_of_sums_that_no_weight_tells_of(self, size: float, category: str) -> None:
        """As of blocks that are added up without a norm."""
        alarm = self.thrown(0.2, 0.2, 0.2, sizes=(5.0, 0.2 * size, size))
        assert alarm.cause.startswith(category)

    def test_not_of_start_values_as_usual(self) -> None:
        alarm = self.thrown(0.2, 0.2, 0.2, sizes=(1.0, 1.0, 1.0))
        assert alarm.cause.startswith("learning rate: ")


def test_a_state_that_the_first_update_has_thrown_is_no_data() -> None:
    """A model that is given what it has made, as by a differential equation's solver."""

    def cause(first: float) -> str:
        made = [
            record(s, deep(3, update=first if s == 0 else 0.2), input_rms=1.0 if s == 0 else 4e4,
                   loss=100.0 if s else 1.0, optimizer="Adam")
            for s in STEPS
        ]  # fmt: skip
        return found(made)["learning_rate_too_high"].cause

    assert cause(30.0).startswith("learning rate: an update changed the weights by 30 of")
    assert cause(0.2).startswith("data: the inputs are 40000 times as large as at the start")


def test_small_inputs_are_not_behind_what_is_dead() -> None:
    """Unless the biases are all there is to the first layer's output."""

    def cause(first: float) -> str:
        rows = deep(3)
        shut = replace(rows[1], rms=0.0, signal=0.0, dead=1.0, gradient=0.0)
        lost = [replace(rows[0], gradient=0.0, weight_gradient=0.0, signal=first), shut]
        later = [replace(each, signal=0.0) for each in rows[2:]]
        return found([record(s, [*lost, *later], input_rms=0.02) for s in STEPS])[
            "dead_units"
        ].cause

    assert cause(0.8).startswith("initialisation: all units of 1 are zero")
    assert cause(0.01).startswith("data: the inputs have an RMS of 0.02; beside that")


def test_what_was_lost_at_first_no_decay_has_taken() -> None:
    """Though it has taken much before that is told."""

    def cause(since: int) -> str:
        lost, kept = deep(8, backward=0.45, signal=0.45, update=3e-3), deep(8, update=3e-3)
        made = [record(s, lost if s >= since else kept) for s in STEPS]
        shrunk = [replace(r, parameter_rms=r.parameter_rms * 0.7 ** (r.step / 10)) for r in made]
        return found(shrunk)["vanishing"].cause.partition(":")[0]

    assert cause(0) == "initialisation" and cause(50) == "decay"
