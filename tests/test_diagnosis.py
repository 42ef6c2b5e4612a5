"""Each verdict: hand-made records that call for it, and near misses that do not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from records_by_hand import VALUES, Layer, deep, linear, of_a_mean, record
from torch import nn

from trainer import Monitor
from trainer.diagnosis import Diagnosis
from trainer.diagnosis.history import History
from trainer.diagnosis.order import RECTIFIERS
from trainer.finding import Finding
from trainer.record import BINS, UNDEFINED, StepRecord, TensorTable

STEPS = (*range(11), 20, 30, 40, 50, 100, 150, 200, 250, 300)


def diagnosed(records: Iterable[StepRecord], **configuration: object) -> dict[str, Finding]:
    """The findings by verdict, which are the same in other units of the loss, and where a layer
    before a rectifier gives what the next one takes.

    A mean in place of a sum over 32 samples is such a change of units, too.
    """
    records, diagnosis = list(records), Diagnosis(configuration or None)
    for one in records:
        diagnosis.add(one)
    said = verdicts(records)
    assert said == [(f.verdict, f.level, f.steps, f.resolved) for f in diagnosis.findings]
    for factor in (1e-6, 1 / 32, 1e6):
        other = verdicts(scaled(one, factor) for one in records)
        # Underflow alone compares with a size: the smallest that the type holds.
        assert [f for f in other if f[0] != "underflow"] == [f for f in said if f[0] != "underflow"]
    for layer in rectified(records):
        for factor in (1e-6, 1e6):
            assert verdicts(rescaled(one, factor, layer) for one in records) == said
    return {finding.verdict: finding for finding in diagnosis.findings}


def alarms(records: Iterable[StepRecord]) -> set[str]:
    return {verdict for verdict, finding in diagnosed(records).items() if finding.alarm}


def guessing(made: StepRecord) -> StepRecord:
    """The record with the gradient of a cross-entropy that gives all of 30 classes one share."""
    assert made.layers is not None
    moments, classes = made.layers.gradients.moments, made.shapes[-1][0]
    samples, other = VALUES / classes, 1 - 1 / classes
    norm = made.loss / np.sqrt(samples) * np.sqrt(other) / np.log(classes)
    moments[-1, 1:4] = norm, 2 * norm * np.sqrt(samples * other), norm / np.sqrt(samples)
    return made


def run(layers: list[Layer], **keys: object) -> list[StepRecord]:
    """The same layers at all steps, and a loss that falls slowly."""
    return [record(step, layers, loss=1 / (1 + step / 100), **keys) for step in STEPS]  # type: ignore[arg-type]


def test_numbers_are_written_out() -> None:
    """Those of which a reader would have to count the digits, not those of which nobody would."""

    def cause(size: float) -> str:
        thrown = (record(step, deep(3, update=30.0), input_rms=size) for step in (0, 1))
        return diagnosed(thrown)["exploding"].cause

    assert "have an RMS of 178; " in cause(178.0) and "have an RMS of 3140; " in cause(3.14e3)
    assert "have an RMS of 3.14e+08; " in cause(3.14e8)


def test_losses_whose_quotient_is_no_float() -> None:
    diagnosis = Diagnosis()
    losses = [1e200, 1e200, 1e-200, *[1e-200] * (len(STEPS) - 3)]
    sizes = np.geomspace(3.0, 1.5, len(STEPS))
    for size, loss, step in zip(sizes, losses, STEPS, strict=True):
        diagnosis.add(record(step, deep(8, forward=float(size)), loss=loss))
    assert all(math.isfinite(f.steps[1]) for f in diagnosis.findings)


@pytest.mark.parametrize("part", range(4))
def test_nothing_that_a_record_may_hold_makes_it_fail(part: int) -> None:
    """Zeros, numbers that are none, layers and parameters that come and go."""
    numbers = [0.0, math.nan, math.inf, 1e-30, 1e-5, 1.0, 1e4, 1e30]
    losses = [math.nan, math.inf, -math.inf, -1.0, -1e6, 0.0, 1e-9, 1.0, 2.0, 1e30]
    kinds = ["Linear", "ReLU", "Tanh", "RNN", "LSTM", "BatchNorm1d", "Softmax", "Embedding"]

    for seed in range(100 * part, 100 * part + 100):
        drawn = random.Random(seed)

        def one(usual: float, share: float = 0.3, drawn: random.Random = drawn) -> float:
            return drawn.choice(numbers) if drawn.random() < share else usual

        names = [(drawn.choice(kinds), drawn.random() < 0.7) for _ in range(drawn.randint(0, 5))]
        diagnosis, layers, often = Diagnosis(), list[Layer](), drawn.choice([0.2, 1.0])
        for step in STEPS:
            if step == 0 or drawn.random() < often:
                layers = [
                    Layer(
                        kind, one(1.0), drawn.choice([0.0, math.nan, 1e-7, 1e-3, 0.5]),
                        drawn.choice([None, *[one(1.0)] * 9]), drawn.choice([0.0, 0.5, 1.0]),
                        one(0.1, 0.2) if weights else None, one(1e-3),
                        drawn.choice([None, *[one(1.0, 0.4)] * 9]),
                    )
                    for kind, weights in names
                ]  # fmt: skip
            diagnosis.add(
                record(
                    step, layers, loss=drawn.choice([1.0, drawn.choice(losses)]),
                    input_rms=drawn.choice([None, 1.0, one(1.0)]), observed=drawn.random() < 0.8,
                    learning_rate=drawn.choice([0.1, 1.0, math.nan]),
                    optimizer=drawn.choice(["SGD", "Adam", ""]),
                    dtype=drawn.choice(["float32", "float16"]),
                    carried=drawn.choice([0.0, math.nan, 2.0]),
                )
            )  # fmt: skip


def test_a_healthy_run_has_no_findings() -> None:
    assert diagnosed(run(deep(12))) == {}
    assert diagnosed(run(deep(12, "Sigmoid", backward=0.7))) == {}


class TestVanishing:
    @pytest.mark.parametrize("activation", ["Sigmoid", "ReLU"])
    def test_signal_and_flow_die_over_depth(self, activation: str) -> None:
        layers = deep(8, activation, backward=0.25, signal=0.25, update=0.02)
        found = diagnosed(run(layers))["vanishing"]
        assert found.level == "critical" and found.where == "0"
        assert found.cause.startswith("initialisation: ") or found.cause.startswith("activation: ")
        assert found.evidence["flow_first_over_last"] == pytest.approx(0.25**6, rel=0.9)

    @pytest.mark.parametrize("activation", ["Sigmoid", "ReLU"])
    def test_is_certain_at_once_where_only_rounding_is_left(self, activation: str) -> None:
        records = run(deep(12, activation, backward=0.2, signal=0.2))
        found = diagnosed(records[:2])["vanishing"]
        assert found.steps == (0, 1) and found.confidence == 0.99

    def test_a_norm_between_layers_that_do_not_flatten_out_is_to_blame(self) -> None:
        def cause(activation: str, norm: str = "LayerNorm") -> str:
            layers = deep(12, activation, backward=0.2, signal=0.2)
            layers[1:1] = [Layer(norm, signal=0.5, gradient=layers[1].gradient)]
            return diagnosed(run(layers)[:2])["vanishing"].cause

        assert cause("GELU").startswith("normalisation: ")
        assert not cause("Tanh").startswith("normalisation: ")
        assert not cause("GELU", "Identity").startswith("normalisation: ")

    def test_a_single_layer_is_named(self) -> None:
        layers = deep(6, backward=0.99, signal=0.99, update=0.02)
        layers = [
            replace(k, gradient=1e-6 * (k.gradient or 0)) if n < 6 else replace(k, signal=1e-5)
            for n, k in enumerate(layers)
        ]
        assert diagnosed(run(layers))["vanishing"].where == "6"

    def test_a_flow_that_never_was(self) -> None:
        """Whatever part of the output depends on the sample, under whatever optimizer."""

        def said(
            flow: float,
            fall: float = 0.0,
            first: float = 5e-5,
            at: int = 0,
            last: float = 3e-3,
            still: int = 8,
        ) -> set[str]:
            layers = deep(8, backward=flow ** (1 / 6))
            layers = [replace(k, update=first if n < still else last) for n, k in enumerate(layers)]
            return alarms(
                record(s, layers if s >= at else deep(8), loss=1 - fall * s, optimizer="Adam")
                for s in STEPS if s <= 150
            )  # fmt: skip

        assert said(1e-5) == {"vanishing"}
        assert said(1e-3) == said(1e-5, fall=2e-3) == said(1e-5, first=1e-3) == set()
        assert said(1e-7, at=20) == set()
        # A hundredth of that is enough where the last layer has learnt something of it, not all.
        assert said(1e-7, fall=2e-3, still=16) == {"vanishing"}
        assert said(1e-7, fall=4e-3, still=16) == said(1e-7, fall=2e-3) == set()
        assert said(1e-7, fall=2e-3, first=1e-3, still=16) == set()
        assert said(1e-7, last=6e-5) == set()  # nothing moves much

    def test_a_step_function_in_between(self) -> None:
        """Whose gradient is zero, not lost."""
        layers = [
            replace(k, gradient=0.0, weight_gradient=0.0, update=0.0) if n < 4 else k
            for n, k in enumerate(deep(2))
        ]
        rows = [record(s, layers, loss=1 - s / 500) for s in STEPS if s <= 150]
        assert diagnosed(rows)["vanishing"].cause.startswith("blocked: ")
        assert alarms(rows) == {"vanishing"} and alarms(rows[:-1]) == set()
        # What another layer than the last learns goes another way.
        beside = [replace(k, update=1e-3) if n == 2 else k for n, k in enumerate(layers)]
        assert alarms(record(s, beside, loss=1 - s / 500) for s in STEPS if s <= 150) == set()
        # What becomes less and less is not cut off.
        fades = [replace(k, gradient=10.0 ** (8 * (n - 4)) if n else 0.0)
                 if n < 4 else k for n, k in enumerate(layers)]  # fmt: skip
        found = diagnosed(record(s, fades, loss=1 - s / 500) for s in STEPS if s <= 150)
        assert not found["vanishing"].cause.startswith("blocked: ")

    def test_a_gated_network_that_has_learnt_how_often_each_class_comes(self) -> None:
        """The rest of its output is small beside that for a while, as of a language model."""

        def said(kind: str = "LSTM", fall: float = 2e-3, first: float = 0.8) -> set[str]:
            rows = [*deep(3, update=0.25), linear(kind=kind, update=0.25)]
            lost = [replace(each, gradient=1e-6) for each in rows[:2]]
            ends = [linear(signal=first, gradient=1.0, update=0.25),
                    linear(signal=5e-3, gradient=1.0, update=0.25)]  # fmt: skip
            return alarms(
                record(s, [*lost, *rows[2:], ends[s > 5]], loss=1 - fall * s)
                for s in STEPS if s <= 50
            )  # fmt: skip

        assert said() == set() and said(first=5e-3) == {"vanishing"}
        assert said("Linear") == said("Linear", fall=0) == {"vanishing"}

    def test_not_while_the_signal_recovers(self) -> None:
        records = [
            record(step, deep(8, "Tanh", backward=share, signal=share), loss=1.0)
            for step, share in zip(STEPS, np.linspace(0.4, 0.9, len(STEPS)), strict=True)
        ]
        assert alarms(records) == set()

    def test_shares_that_grow_beside_an_output_that_fades_are_no_recovery(self) -> None:
        def said(left: float) -> set[str]:
            rows = []
            for n, step in enumerate(s for s in STEPS if s <= 150):
                layers = deep(8, "Tanh", backward=0.2 * 1.05**n, signal=0.2 * 1.05**n, update=0.01)
                layers[-1] = replace(layers[-1], rms=left**n)
                rows.append(record(step, layers, optimizer="Adam"))
            return alarms(rows)

        assert said(0.3) == {"vanishing"} and said(1.0) == said(0.9) == set()

    def test_a_loop_that_is_watched_late_is_waited_for_as_well(self) -> None:
        """Steps that nobody saw tell nothing: all is as in a run that begins with the first one."""
        layers = deep(8, backward=0.4, signal=0.4, update=3e-6)

        def said(start: int) -> list[tuple[str, int]]:
            made = [record(start + s, layers) for s in STEPS]
            return [(f.verdict, f.steps[0] - start) for f in diagnosed(made).values() if f.alarm]

        assert said(0) == said(5000) != []

    def test_not_of_a_small_gradient_alone(self) -> None:
        assert alarms(run(deep(8, backward=0.25))) == set()
        assert alarms(run(deep(8, signal=0.25), optimizer="Adam")) == set()
        assert alarms(run(deep(8, signal=0.25))[:-4]) == set()  # which is no long time

    def test_not_before_the_weights_have_moved(self) -> None:
        layers = deep(8, backward=0.4, signal=0.4, update=3e-4)
        assert alarms(run(layers)[:-6]) == set()
        assert "vanishing" in alarms(record(s, layers) for s in (*STEPS, 500, 1000, 1500, 2000))

    def test_is_no_alarm_for_fifty_steps_where_the_first_layers_move(self) -> None:
        def said(optimizer: str, first: float, start: int = 0) -> list[int]:
            """The steps, from the first that was seen, at which it is raised to an alarm."""
            rows = [
                replace(k, update=first if n < 10 else 0.1)
                for n, k in enumerate(deep(8, backward=0.4, signal=0.4))
            ]
            diagnosis = Diagnosis()
            return [
                k for k in STEPS
                for f in diagnosis.add(record(start + k, rows, optimizer=optimizer))
                if f.verdict == "vanishing" and f.alarm
            ]  # fmt: skip

        assert said("SGD", 1e-2)[:1] == said("SGD", 1e-2, start=1000)[:1] == [50]
        assert said("SGD", 1e-3)[:1] == [100]  # they have not come far before that,
        assert said("SGD", 1e-4) == []  # and may still
        assert said("SGD", 1e-6)[:1] == [6]  # they stand still
        assert said("Adam", 1e-3)[:1] == [100]  # what is more than rounding, it follows

    def test_is_no_alarm_where_signal_and_flow_are_on_their_way_back(self) -> None:
        """Though they were no lower when the second half of the way began."""

        def said(signals: list[float], flows: list[float]) -> list[str]:
            diagnosis, raised = Diagnosis(), []
            shares = zip((0, 1, 10, 20, 80, 120), signals, flows, strict=True)
            for step, signal, flow in shares:
                rows = deep(8, backward=flow ** (1 / 6), signal=signal ** (1 / 8), update=0.02)
                found = diagnosis.add(record(step, rows, optimizer="Adam"))
                raised += [f.level for f in found if f.verdict == "vanishing"]
            return raised

        back, still = [0.5, 0.1, 2e-3, 2e-3, 3e-4, 2e-3], [0.5, 0.1, 2e-3, 2e-3, 2e-3, 2e-3]
        assert said(back, back) == ["info"]
        assert said(still, still) == said(back, still) == said(still, back) == ["info", "warning"]

    def test_is_an_alarm_where_a_long_way_back_leads_nowhere(self) -> None:
        def said(update: float) -> list[str]:
            steps = (*range(12), 20, 40, 90, 160)
            shares = [0.5] * 12 + [2e-3, 2e-3, 3e-4, 2e-3]
            diagnosis, raised = Diagnosis(), []
            for step, share in zip(steps, shares, strict=True):
                rows = deep(8, backward=share ** (1 / 6), signal=share ** (1 / 8), update=update)
                found = diagnosis.add(guessing(record(step, rows, optimizer="Adam")))
                raised += [f.level for f in found if f.verdict == "vanishing"]
            return raised

        assert said(0.1) == ["info", "warning"]  # the weights have come ten times as far
        assert said(0.015) == ["info"]

    def test_a_signal_that_is_back_in_vain(self) -> None:
        """Whatever flow there is then: where it leads somewhere the loss falls at once, of a
        classifier; nobody knows by how much another one can."""

        def said(
            back: float = 0.5,
            since: int = 100,
            last: float = 1.0,
            first: float = 1e-6,
            classes: bool = True,
        ) -> list[tuple[int, str]]:
            diagnosis, raised = Diagnosis(), []
            for step in (*range(12), 20, 30, 50, 100, 150):
                signal = (first if step < since else back) ** (1 / 8)
                rows = deep(8, signal=signal, update=5e-3)
                one = record(step, rows, last if step == 150 else 1.0, optimizer="Adam")
                found = diagnosis.add(guessing(one) if classes else one)
                raised += [(step, f.cause) for f in found if f.verdict == "vanishing" and f.alarm]
            return raised

        [(step, cause)] = said()
        assert step == 150 and cause.startswith("initialisation: 8e-07 of the output ")
        assert cause.endswith(
            " on the sample at first; now 0.4 does, and the loss is still the same"
        )
        assert said(since=150) == said(last=0.9) == said(first=0.02) == said(back=5e-4) == []
        assert said(classes=False) == []

    def test_a_signal_of_rounding_that_grows_is_awaited_for_as_long_as_another(self) -> None:
        def said(signals: Iterable[float]) -> list[int]:
            diagnosis = Diagnosis()
            return [
                step
                for step, signal in zip((*range(11), 20, 30, 40, 50, 100), signals, strict=True)
                for f in diagnosis.add(record(step, deep(
                    8, backward=0.1, signal=signal ** (1 / 8), update=0.02), optimizer="Adam"))
                if f.alarm
            ]  # fmt: skip

        assert said([1e-7] * 16) == [50]
        looks = np.array([*range(11), 20, 30, 40, 50, 100])
        assert said(1.5e-8 * (1 + looks) ** 1.42) == [100]

    def test_nothing_moves_where_steps_would_grow_with_the_gradient(self) -> None:
        """Only biases do, which say nothing of a sample."""

        def said(update: float, optimizer: str = "SGD", **changing: object) -> list[int]:
            rows, diagnosis = deep(8, backward=0.3, signal=0.4, update=update), Diagnosis()
            return [
                k for n, k in enumerate(STEPS)
                for f in diagnosis.add(record(k, rows, optimizer=optimizer, learning_rate=0.1 * (
                    1.5**n if changing else 1)))
                if f.verdict == "vanishing" and f.alarm
            ]  # fmt: skip

        assert said(1e-9) == [100]
        assert said(1e-9, "Adam") == [50]  # whose steps do not: the gradient is below its epsilon
        assert said(5e-5) == said(1e-9, rising=True) == []
        small = [record(s, deep(8, backward=0.3, signal=0.4, update=1e-9), optimizer="Adam",
                        learning_rate=1e-10) for s in STEPS]  # fmt: skip
        assert "starved_update" in diagnosed(small)  # of a rate that is as small it is the rate

    def test_of_single_samples_by_the_loss(self) -> None:
        """Nothing is known of a signal then."""
        lost = deep(8, "Sigmoid", backward=0.25, signal=math.nan, update=0.02)
        found = diagnosed(record(s, lost) for s in STEPS)["vanishing"]
        assert (
            found.level == "warning" and found.steps[0] == 100 and "the loss stays" in found.cause
        )
        assert alarms(record(s, lost, loss=0.9**n) for n, s in enumerate(STEPS)) == set()
        near = deep(8, "Sigmoid", backward=0.5, signal=math.nan, update=0.02)
        assert alarms(record(s, near) for s in STEPS) == set()

    def test_less_is_lost_where_the_loss_stays(self) -> None:
        """Signal and flow are each lost less, together as much, and 150 steps changed nothing."""

        def said(
            signal: float, flow: float, end: float = 1.0, update: float = 0.01, surprise: float = 1
        ) -> list[int]:
            layers = deep(6, "Sigmoid", backward=flow ** (1 / 6), signal=(signal / 0.8) ** (1 / 6))
            layers = [replace(k, update=update) if k.weight else k for k in layers]
            losses = np.geomspace(1.0, end, len(STEPS))
            pairs = zip(STEPS, losses, strict=True)
            made = [guessing(record(s, layers, loss=float(x))) for s, x in pairs]
            found = diagnosed(replace(one, loss=surprise * one.loss) for one in made)
            return [f.steps[0] for f in found.values() if f.alarm and f.verdict == "vanishing"]

        assert said(0.05, 1e-4) == said(1e-3, 0.01) == [150]
        assert said(0.05, 1e-4, end=0.5) == said(0.05, 0.05) == []
        assert said(0.2, 1e-4) == [300]  # after a way that is ten times as long as another's
        assert said(0.2, 1e-4, surprise=0.8) == []  # what there was to learn was learnt at once
        assert said(0.05, 1e-4, update=1e-4) == []  # nor have the weights moved

    def test_first_layers_that_stand_still_all_the_way(self) -> None:
        """What dropout adds is no signal and looks like one."""

        def said(
            end: float = 1.0, first: float = 1e-7, flow: float = 1e-3, optimizer: str = "SGD"
        ) -> list[int]:
            layers = deep(6, backward=flow ** (1 / 6))
            layers = [replace(k, update=first if n < 7 else 1e-4) for n, k in enumerate(layers)]
            pairs = zip(STEPS, np.geomspace(1.0, end, len(STEPS)), strict=True)
            found = diagnosed(record(s, layers, loss=float(x), optimizer=optimizer)
                              for s, x in pairs)  # fmt: skip
            assert all(
                f.cause.endswith("and the first ones stand still")
                for f in found.values()
                if f.alarm
            )
            return [f.steps[0] for f in found.values() if f.alarm]

        assert said() == [150]
        assert said(end=0.5) == said(first=2e-5) == said(flow=0.2) == said(optimizer="Adam") == []

    def test_a_signal_that_may_be_a_dropout_s(self) -> None:
        """Then a gradient that does not arrive is enough, if all was in vain."""

        def found(
            flow: float, kind: str = "Dropout", late: int = 0, update: float = 0.01
        ) -> Finding | None:
            def rows(step: int) -> list[Layer]:
                backward = (flow if step >= late else 0.1) ** (1 / 6)
                made = deep(6, backward=backward, update=update)
                return [*made[:-1], replace(made[-2], kind=kind), made[-1]]

            return diagnosed(record(s, rows(s), optimizer="Adam") for s in STEPS).get("vanishing")

        lost = found(1e-3)
        assert lost is not None and lost.steps[0] == 150 and lost.level == "warning"
        assert lost.cause.endswith("of that at the last ones and the loss stays")
        assert found(1e-6, update=1e-4) is not None
        assert found(0.02) is found(1e-3, kind="ReLU") is found(1e-3, update=1e-4) is None
        # It has to be so over the second half of the steps, not at one look alone.
        assert found(1e-3, late=250) is None

    def test_nothing_that_leads_back(self) -> None:
        """The rest of a way that would have to be doubled many times is not waited for."""

        def said(
            growth: float, last: int = 250, update: float = 1e-3, rising: bool = False
        ) -> list[int]:
            def rows(step: int) -> list[Layer]:
                share = 0.3 * (1 + step) ** growth
                return deep(8, "Tanh", backward=share, signal=share, update=update)

            # A loss that is no longer that of the first batches is not in vain.
            found = diagnosed(
                record(s, rows(s), optimizer="Adam", loss=1.0 if s <= last else 0.3,
                       learning_rate=1.02**n if rising else 0.1)
                for n, s in enumerate(STEPS) if s <= 150
            )  # fmt: skip
            return [f.steps[0] for f in found.values() if f.alarm and f.verdict == "vanishing"]

        assert said(0.0) == said(0.02) == [150]
        assert said(0.1) == said(0.0, last=10) == said(0.0, rising=True) == []
        assert said(0.0, update=1e-4) == []  # which may be the rate's

    def test_an_output_that_never_depended_on_the_sample(self) -> None:
        """Whatever the loss does, under an optimizer whose steps shrink with the gradient."""

        def said(
            signal: float = 0.002, flow: float = 0.05, end: float = 0.5, grows: float = 1.0,
            optimizer: str = "SGD", until: int = 200, from_step: int = 0, inputs: float = 0.8,
            rising: bool = False, peak: float = 1.0, update: float = 1e-3,
            then: float | None = None, single: int = -1,
        ) -> dict[str, Finding]:  # fmt: skip
            made = list[StepRecord]()
            steps = [s for s in STEPS if s <= until]
            for n, (step, loss) in enumerate(
                zip(steps, np.geomspace(1.0, end, len(steps)), strict=True)
            ):
                came = flow if then is None or step <= 100 else then
                rows = of_a_mean(deep(6, backward=came ** (1 / 6), update=update))
                loss *= peak if 10 <= step <= 50 else peak**0.5 if step > 50 else 1.0
                share = signal * grows**step if step >= from_step else 0.5
                share = math.nan if step == single else share
                one = record(
                    step, [*rows[:-1], replace(rows[-1], signal=share)], loss=float(loss),
                    optimizer=optimizer, learning_rate=1.05**n if rising else 0.1,
                )  # fmt: skip
                assert one.layers is not None
                one.layers.signal_fraction[0] = inputs
                made.append(one)
            return {k: f for k, f in diagnosed(made).items() if f.alarm}

        lost = said()["vanishing"]
        assert lost.steps == (150, 200) and lost.level == "warning"
        assert lost.cause.endswith(
            "of that at the last ones and 0.002 of the output depends on the sample"
        )
        assert {*said(flow=0.5)} == {"constant_output"}  # no layer is at fault for its gradient
        assert {*said(from_step=30)} == {*said(signal=0.006, until=250)} == {"vanishing"}
        assert said(until=150) == said(from_step=100) == said(signal=0.006) == {}
        assert said(update=1e-5) == {}  # which may be the rate's
        assert said(optimizer="Adam") == said(rising=True) == said(grows=1.02) == {}
        assert said(signal=4.5e-4, grows=1.0105) == {} != said(signal=1e-3, grows=1.002)
        assert said(flow=1e-3, then=0.2) == {} != said(flow=0.2)  # the gradient is back
        assert said(single=100) == said(single=200) == {}  # of one sample nobody knows
        # Nor is a loss asked that had risen and comes down.
        assert {*said(signal=0.006, until=250, end=1.0, peak=9.0)} == {"vanishing"}
        # Beside what their samples have in common, or those of the inputs, little may be all.
        assert said(end=1e-3) == said(inputs=0.1) == {}

    def test_norms_and_biases_are_not_asked_whether_they_stand_still(self) -> None:
        def said(first: float) -> set[str]:
            layers = deep(8, backward=0.3)
            layers = [replace(k, update=first if n < 9 else 1e-3) for n, k in enumerate(layers)]
            made = [record(s, layers) for s in STEPS]
            norms = [(30,) if n % 2 else (30, 30) for n in range(9)]
            return alarms(replace(each, shapes=tuple(norms)) for each in made)

        assert said(1e-3) == set() and said(1e-7) == {"vanishing"}

    def test_first_layers_that_stand_still_though_the_loss_falls_to_the_mean(self) -> None:
        def said(signal: float) -> list[int]:
            layers = deep(6, backward=0.25, signal=(signal / 0.8) ** (1 / 6))
            layers = [replace(k, update=1e-7 if n < 7 else 1e-2) for n, k in enumerate(layers)]
            pairs = zip(STEPS, np.geomspace(1.0, 0.9, len(STEPS)), strict=True)
            found = diagnosed(record(s, layers, loss=float(x)) for s, x in pairs)
            return [f.steps[0] for f in found.values() if f.alarm]

        assert said(0.05) == [150] and said(0.3) == []

    def test_nothing_moves_while_signal_and_flow_are_lost(self) -> None:
        """Nor does the loss; a falling one is on its way, and a rate that rises will be large."""

        def said(end: float, rising: bool = False) -> list[int]:
            layers = deep(8, backward=0.4, signal=0.57, update=3e-6)
            layers[-1] = replace(layers[-1], update=2e-5)
            rows = zip(STEPS, np.geomspace(1.0, end, len(STEPS)), strict=True)
            found = diagnosed(
                record(s, layers, loss=float(x), learning_rate=1.05**n if rising else 0.1)
                for n, (s, x) in enumerate(rows)
            )
            return [f.steps[0] for f in found.values() if f.verdict == "vanishing" and f.alarm]

        assert said(1.0) == [150]
        assert said(0.5) == said(1.0, rising=True) == []

    def test_a_gradient_that_has_faded(self) -> None:
        """Not where the loss falls, nor where it was small from the start, which Adam heals."""

        def said(start: float, now: float, end: float = 1.0, size: float = 0.01) -> list[int]:
            losses = np.geomspace(1.0, end, len(STEPS))
            first, later = deep(6, backward=start ** (1 / 6)), deep(6, backward=now ** (1 / 6))
            later[-1] = replace(later[-1], rms=size)
            found = diagnosed(
                record(s, first if s < 20 else later, loss=float(x), optimizer="AdamW")
                for s, x in zip(STEPS, losses, strict=True)
            )
            assert all(f.cause.endswith("and the loss stays") for f in found.values() if f.alarm)
            return [f.steps[0] for f in found.values() if f.alarm]

        assert said(1.0, 1e-6) == [150]
        assert said(1.0, 1e-6, end=0.5) == said(1e-6, 1e-6) == said(1.0, 1e-2) == []
        assert said(1.0, 1e-6, size=0.1) == []  # most of the output is still there

    def test_an_update_that_left_no_gradient(self) -> None:
        def cause(update: float, before: float) -> str:
            lost = [replace(k, gradient=0.0, weight_gradient=0.0, update=0.0) for k in deep(3)]
            first = deep(3, update=update, weight_gradient=before)
            records = [record(0, first), *[record(s, lost) for s in STEPS[1:5]]]
            return diagnosed(replace(r, optimizer="Adam") for r in records)["vanishing"].cause

        assert alarms(
            record(s, [linear(), linear(weight_gradient=math.nan)], loss=2.0) for s in STEPS
        ) == {"non_finite"}  # it is not zero but none
        assert cause(9.0, 1.0).startswith("learning rate: ") and "by 9 of their" in cause(9.0, 1.0)
        assert cause(0.01, 1.0).startswith("blocked: ")
        assert cause(9.0, 0.0).startswith("blocked: ")

    def test_weights_that_are_all_zero(self) -> None:
        """One matrix that is zero, such as a head, gets a gradient."""

        def said(zeros: int) -> list[tuple[str, str | None]]:
            dead = linear(rms=0.0, signal=0.0, gradient=0.0, weight_gradient=0.0, update=math.nan)
            pair = [dead, Layer("ReLU", rms=0.0, signal=0.0, gradient=0.0, dead=1.0)]
            layers = [*pair * 6, replace(dead, rms=0.1, gradient=1.0)]  # a bias is learnt
            records = [record(s, layers) for s in STEPS]
            rms = np.where(np.arange(7) < zeros, 0.0, 0.1)
            found = diagnosed(replace(each, parameter_rms=rms) for each in records)
            return [(f.cause.partition(":")[0], f.where) for f in found.values() if f.alarm]

        assert said(7) == said(2) == [("initialisation", "0.weight")]
        assert said(1) == []

    def test_every_gradient_is_zero(self) -> None:
        """As before a softmax over one number; not where nothing is left to learn."""

        def said(
            last: float, losses: Iterable[float], weight_gradient: float = 0.0, learnt: int = 0
        ) -> list[Finding]:
            learns = [*deep(3), Layer("Softmax")]
            stops = [
                replace(layer, gradient=0.0, update=0.0, weight_gradient=weight_gradient)
                for layer in deep(3)
            ]
            stops.append(Layer("Softmax", signal=0.0, gradient=last))
            found = diagnosed(
                record(s, learns if n < learnt else stops, loss=x, optimizer="Adam")
                for n, (s, x) in enumerate(zip(STEPS, losses, strict=False))
            )
            return [finding for finding in found.values() if finding.alarm]

        (found,) = said(1.0, [3.0] * 3)
        assert (found.verdict, found.level, found.where) == ("vanishing", "critical", "7")
        assert found.steps == (0, 2) and "Softmax, or what is done before it" in found.cause
        (found,) = said(0.0, [3.0] * 3)
        assert found.where is None and "the loss has no derivative" in found.cause
        assert said(1.0, [3.0] * 2) == said(1.0, [0.0] * 9) == said(1.0, [3.0] * 3, 1e-30) == []
        assert len(said(1.0, [3.0] * 16, learnt=9)) == 1
        for end in (1.0, 2.8):  # it knows what it was to learn; the loss need not be near zero
            assert said(1.0, [3.0] * 3 + [end] * 13, learnt=9) == []

    def test_a_rate_that_lost_a_signal_is_to_blame(self) -> None:
        """Not where it was lost from the start, nor where no update was large."""

        def cause(start: float, update: float) -> str:
            first = record(0, deep(8, backward=start, signal=start, update=update))
            rest = [record(s, deep(8, backward=0.4, signal=0.4, update=0.02)) for s in STEPS[1:]]
            return diagnosed([first, *rest])["vanishing"].cause.partition(":")[0]

        assert cause(1.0, 0.5) == "learning rate"
        assert cause(0.4, 0.5) == cause(1.0, 0.02) == "initialisation"

    def test_is_no_alarm_where_the_signal_will_soon_be_back(self) -> None:
        """Gains alike of a signal that is far from enough, and of one that is near."""

        def gains(start: float) -> set[str]:
            powers = [start * (1 + step) ** 0.04 for step in STEPS]
            return alarms(
                record(step, deep(8, "Tanh", backward=0.3, signal=x, update=0.02))
                for step, x in zip(STEPS, powers, strict=True)
                if step <= 100
            )

        assert gains(0.25) == {"vanishing"}
        assert gains(0.45) == set()

    def test_a_signal_that_grows_is_no_recovery_where_the_first_layers_stand_still(self) -> None:
        """The last ones can make more of it; a flow that grows reaches the first ones as well."""

        def grown(first: float, signal: float, flow: float) -> set[str]:
            records = []
            for step in (s for s in STEPS if s <= 100):
                shares = {
                    "signal": 0.3 * (1 + step) ** signal,
                    "backward": 0.3 * (1 + step) ** flow,
                }
                rows = [
                    replace(k, update=first if n < 10 else 0.02)
                    for n, k in enumerate(deep(8, "Tanh", **shares))
                ]
                records.append(record(step, rows))
            return alarms(records)

        assert grown(1e-6, 0.11, 0.0) == {"vanishing"}
        assert grown(1e-6, 0.11, 0.11) == set()
        assert grown(1e-3, 0.11, 0.0) == set()

    def test_is_no_alarm_while_an_adaptive_optimizer_may_enlarge_it(self) -> None:
        records = run(deep(12, "Sigmoid", backward=0.2, signal=0.2), optimizer="Adam")
        early = diagnosed(k for k in records if k.step < 50)["vanishing"]
        assert early.level == "info" and early.steps == (0, 40) and early.change == {}
        late = diagnosed(k for k in records if k.step <= 50)["vanishing"]
        assert late.level == "warning" and late.steps == (0, 50)
        assert diagnosed(records)["vanishing"].level == "critical"

    def test_is_no_alarm_while_a_loss_that_had_risen_comes_down(self) -> None:
        layers = deep(8, "Tanh", backward=0.4, signal=0.4, update=0.05)
        late = [0.0, *np.geomspace(1000, 1, len(STEPS) - 1)]

        def fitted(losses: Iterable[float]) -> set[str]:
            pairs = zip(STEPS, losses, strict=True)
            return alarms(record(k, layers, loss=1 + x, optimizer="Adam") for k, x in pairs)

        assert fitted(late) == set()
        assert "vanishing" in fitted([0.0, *[1.0] * (len(STEPS) - 1)])

    def test_ends_when_it_is_over(self) -> None:
        sick, well = deep(12, backward=0.2, signal=0.2), deep(12)
        diagnosis = Diagnosis()
        said = [diagnosis.add(record(k, sick if k < 5 else well)) for k in range(16)]
        assert [k for k, new in enumerate(said) if new] == [1, 14]  # ten steps after the last
        assert [f.resolved for f in diagnosis.findings] == [True]
        assert diagnosis.findings[0].steps == (0, 4)


def test_the_way_is_that_of_the_matrix_that_moved_most() -> None:
    history, rows = History(), (linear(update=0.01), linear(update=0.04), linear(update=9.0))
    for step in (0, 1, 2, 10):
        made = record(step, rows)
        history.add(replace(made, shapes=((30, 30), (30, 30), (30,))))
    assert history.path == pytest.approx(10 * 0.04)
    assert history.update == pytest.approx(0.025)
    history.add(replace(record(11, [linear(update=5.0)] * 3), shapes=((9, 9),) * 3))
    assert history.path == pytest.approx(10 * 0.04 + (0.04 + 1) / 2)


def test_a_long_way_is_remembered_from_its_beginning() -> None:
    """A thousand looks at a network that never recovers: more than are kept."""
    sick, diagnosis = deep(12, "Sigmoid", backward=0.2, signal=0.2, update=0.02), Diagnosis()
    for step in range(1000):
        diagnosis.add(record(step, sick))
    assert [(f.verdict, f.steps) for f in diagnosis.findings if f.alarm] == [
        ("vanishing", (0, 999))
    ]
    history = History()
    for step in range(1000):
        history.add(record(step, sick))
        assert history.trail.half_way.path <= history.path / 2
        assert step < 40 or history.trail.half_way.path > 0.4 * history.path
    assert len(history.trail.marks) <= 64


class TestOverTime:
    def layers(
        self,
        ratio: float,
        loss: float,
        step: int,
        signal: float = 0.8,
        kind: str = "RNN",
        update: float = 1e-2,
    ) -> StepRecord:
        rows = [linear(kind=kind, update=update), linear(signal=signal, update=update)]
        made = record(step, rows, loss=loss)
        assert made.layers is not None
        ends = ("0.first_steps", "0.last_steps")
        old, rows = made.layers, (0, 1, 1, 1, 2)
        gradients = old.gradients
        scaled = gradients.moments[[0, 0, 0, 1]] * np.array([[1.0]] * 4)
        scaled[0, 1] *= ratio
        return replace(made, layers=replace(
            old, names=("input", *ends, "0", "1"),
            kinds=("Input", "TimeSteps", "TimeSteps", kind, "Linear"), dtypes=("float32",) * 5,
            rms=old.rms[[*rows]], zero_fraction=old.zero_fraction[[*rows]],
            signal_fraction=old.signal_fraction[[*rows]], dead_fraction=old.dead_fraction[[*rows]],
            gradients=replace(gradients, names=(*ends, "0", "1"), moments=scaled),
        ))  # fmt: skip

    def test_a_gradient_that_dies_on_its_way_through_the_sequence(self) -> None:
        found = diagnosed(self.layers(1e-12, 1.0, step) for step in STEPS)["vanishing"]
        assert found.where == "0" and found.cause.startswith("recurrence: ")
        assert found.level == "warning"

    def test_half_the_way_is_enough_where_the_loss_stays(self) -> None:
        def said(end: float) -> set[str]:
            losses = np.geomspace(1.0, end, len(STEPS))
            return alarms(
                self.layers(1e-12, float(loss), step, kind="LSTM", update=0.0025)
                for step, loss in zip(STEPS, losses, strict=True) if step <= 200
            )  # fmt: skip

        assert said(1.0) == {"vanishing"} and said(0.9) == set()

    def test_not_where_gates_open(self) -> None:
        """The gradient is small yet, and a thousand times what it was."""

        def said(start: float, kind: str = "LSTM") -> set[str]:
            first = self.layers(start, 1.0, 0, kind=kind)
            rest = [self.layers(1e-10, 1.0, step, kind=kind) for step in STEPS[1:]]
            return alarms([first, *rest])

        assert said(1e-14) == set()
        assert said(1e-12) == said(0.0) == said(1e-14, kind="RNN") == {"vanishing"}

    def test_not_while_the_loss_falls_or_where_it_arrives(self) -> None:
        falls = [self.layers(1e-12, 0.9**n, step) for n, step in enumerate(STEPS)]
        assert alarms(falls) == set()
        assert alarms(self.layers(1e-5, 1.0, step) for step in STEPS) == set()

    def test_not_at_the_look_at_which_the_loss_falls(self) -> None:
        """The median of the latest lags behind."""

        def said(kind: str, last: float) -> set[str]:
            steps = [step for step in STEPS if step <= 150]
            losses = [*[1.0] * (len(steps) - 1), last]
            pairs = zip(steps, losses, strict=True)
            return alarms(self.layers(1e-12, loss, step, kind=kind) for step, loss in pairs)

        for kind in ("RNN", "LSTM"):
            assert said(kind, 0.5) == set() and said(kind, 0.8) == {"vanishing"}

    def test_no_alarm_where_a_classifier_has_learnt_without_the_first_steps(self) -> None:
        def found(loss: float) -> Finding:
            """What is left of the loss is far below that of a guess for this gradient, or at it."""
            losses = np.geomspace(1.0, loss, 8).tolist()
            losses += [loss] * (len(STEPS) - len(losses))
            made = [
                self.layers(1e-12, each, step) for each, step in zip(losses, STEPS, strict=True)
            ]
            return diagnosed(made)["vanishing"]

        assert found(0.6).level == "info" and found(0.8).level == "warning"

    def test_a_loss_that_falls_is_no_comfort_where_the_output_is_much_the_same_for_all(
        self,
    ) -> None:
        """It learns the mean of the targets, for which no sequence is needed."""

        def falls(signals: Iterable[float]) -> set[str]:
            rows = enumerate(zip(STEPS, signals, strict=True))
            return alarms(self.layers(1e-12, 0.9**n, step, signal) for n, (step, signal) in rows)

        assert falls([0.05] * len(STEPS)) == {"vanishing"}
        assert falls([0.5] * len(STEPS)) == set()
        assert falls(np.geomspace(0.01, 0.09, len(STEPS))) == set()

    def test_a_small_rate_is_no_excuse_where_no_gate_can_open(self) -> None:
        """As long as there is some way, and the losses stay among those of the first batches."""

        def said(kind: str = "RNN", update: float = 1e-3, fall: float = 0.0) -> set[str]:
            rows = enumerate(zip(STEPS, [1.0, 1.02, 0.99] * 7, strict=False))
            return alarms(
                self.layers(1e-12, loss * (1 - fall * step / 300), step, 0.8, kind, update)
                for _, (step, loss) in rows
            )

        assert said() == said("Linear") == {"vanishing"}  # called step by step
        assert said("LSTM", 9e-4) == said(fall=0.15) == said(update=3e-4) == set()

    def test_a_loss_that_falls_at_a_small_rate_is_no_comfort_either(self) -> None:
        """Where no gate can open and the output is much the same for all."""

        def falls(signal: float, kind: str = "RNN", ratio: float = 1e-12) -> set[str]:
            return alarms(
                self.layers(ratio, 0.9**n, step, signal, kind, 1e-3) for n, step in enumerate(STEPS)
            )

        assert falls(0.05) == falls(0.05, ratio=1e-7) == {"vanishing"}
        assert falls(0.5) == falls(0.05, kind="LSTM") == falls(0.05, ratio=1e-5) == set()

    def test_less_is_lost_where_no_gate_can_open(self) -> None:
        def made(
            ratio: float, kind: str = "RNN", fall: float = 0.0, optimizer: str = "SGD"
        ) -> list[StepRecord]:
            losses = [1.0, 1.02, 0.99] * 7
            return [
                replace(
                    self.layers(ratio, loss * (1 - fall * step / 300), step, kind=kind),
                    optimizer=optimizer,
                )
                for step, loss in zip(STEPS, losses, strict=False)
            ]

        assert alarms(made(1e-7)) == {"vanishing"}
        assert alarms(made(1e-5)) == alarms(made(1e-7, fall=0.15)) == set()
        # Gates may open yet, but not by steps that shrink with the gradient.
        assert alarms(made(1e-7, "LSTM", optimizer="Adam")) == set()
        shut = diagnosed(made(1e-7, "LSTM"))["vanishing"]
        assert shut.steps[0] == 150 and shut.cause.startswith("memory: ")
        assert "forget gate" in shut.remedy
        # Inputs may be what brings gates to their limits.
        for kind in ("LSTM", "RNN"):
            flooded = made(1e-7, kind)
            for each in flooded:
                assert each.layers is not None
                each.layers.rms[0] = 300.0
            found = diagnosed(flooded)["vanishing"]
            assert found.cause.startswith("data: the inputs have an RMS of 300; ")
            assert found.remedy.startswith("scale the inputs to a mean of 0 and an RMS of 1; or ")
        assert alarms(made(1e-5, "LSTM")) == alarms(made(1e-7, "LSTM", fall=0.15)) == set()
        opens = [
            replace(one, optimizer="SGD")
            for one in (self.layers(1e-7 if s < 50 else 1e-3, 1.0, s, kind="LSTM") for s in STEPS)
        ]
        assert alarms(opens) == set()
        thrown = [
            self.layers(1e-12, 1.0, s, kind="LSTM", update=1.5 if s < 2 else 0.01) for s in STEPS
        ]
        found = diagnosed(replace(one, optimizer="Adam") for one in thrown)["vanishing"]
        assert found.cause.startswith("learning rate: ")

    def test_a_gradient_that_grows_on_its_way_through_the_sequence(self) -> None:
        found = diagnosed(self.layers(1e5, 1.0, step) for step in STEPS)["exploding"]
        assert found.where == "0" and found.cause.startswith("recurrence: ")
        assert found.level == "critical" and found.steps[0] == 10
        for ratio, cause in ((20.0, "recurrence: "), (5.0, "learning rate: ")):
            at_once = (self.layers(ratio, 1.0, step, update=3.0) for step in (0, 1))
            assert diagnosed(at_once)["exploding"].cause.startswith(cause)
        thrown = [self.layers(1e5 if s else 1.0, 1.0, s, update=0.3) for s in STEPS]
        assert diagnosed(thrown)["exploding"].cause.startswith("learning rate: ")
        falls = [self.layers(1e5, 0.9**n, step) for n, step in enumerate(STEPS)]
        assert alarms(falls) == set()
        assert alarms(self.layers(300.0, 1.0, step) for step in STEPS) == set()


class TestForward:
    def test_collapse(self) -> None:
        first = record(0, deep(8, forward=0.2, backward=0.2))
        rest = [record(s, deep(8, signal=0.2, backward=0.2)) for s in STEPS[1:]]
        found = diagnosed([first, *rest])["signal_collapse"]
        assert found.cause.startswith("initialisation: ") and found.level == "critical"

    def test_an_output_that_stays_minute(self) -> None:
        """Whatever of it depends on the sample, if 150 steps have not changed the loss."""

        def said(now: float, end: float) -> set[str]:
            layers, grown = (deep(8, forward=x, backward=x) for x in (0.2, now))
            pairs = zip(STEPS, np.geomspace(1.0, end, len(STEPS)), strict=True)
            return alarms(record(s, grown if s else layers, loss=float(x)) for s, x in pairs)

        assert said(0.2, 1.0) == {"signal_collapse"}
        assert said(0.2, 0.5) == said(0.5, 1.0) == set()

    def test_no_alarm_of_a_collapse_that_is_on_its_way_back(self) -> None:
        def levels(grows: float) -> list[str]:
            diagnosis = Diagnosis()
            diagnosis.add(record(0, deep(8, forward=0.2, update=0.02), optimizer="Adam"))
            return [
                f.level
                for step in STEPS[1:16]
                for f in diagnosis.add(record(step, deep(
                    8, backward=0.3, signal=0.12 * (1 + step) ** grows, update=0.02,
                ), optimizer="Adam"))
                if f.verdict == "signal_collapse"
            ]  # fmt: skip

        assert levels(0.0) == ["info", "warning"]
        assert set(levels(0.25)) == {"info"}

    def test_no_collapse_while_weights_move_that_have_not_come_far(self) -> None:
        def begun(update: float) -> set[str]:
            lost = deep(8, backward=0.3, signal=0.3, update=update)
            rest = [record(s, lost) for s in STEPS[1:] if s <= 100]
            return alarms([record(0, deep(8, forward=0.2, update=update)), *rest])

        assert begun(1e-4) == set()
        assert "signal_collapse" in begun(1e-2)
        learns = [replace(k, signal=0.8) for k in deep(8, update=1e-6)]
        still = [record(0, deep(8, forward=0.2)), *[record(s, learns) for s in STEPS[1:4]]]
        assert alarms(still) == {"signal_collapse"}
        learns[-1] = replace(learns[-1], update=1e-2)
        moving = [record(0, deep(8, forward=0.2)), *[record(s, learns) for s in STEPS[1:4]]]
        assert alarms(moving) == set()

    def test_no_collapse_of_a_zero_head_or_of_what_learns(self) -> None:
        zero = [*deep(8)[:-1], linear(rms=0.0, signal=math.nan)]
        assert alarms([record(0, zero), *run(deep(8))[1:]]) == set()
        assert alarms([record(0, deep(8, forward=0.2)), *run(deep(8))[1:]]) == set()

    def test_blow_up(self) -> None:
        found = diagnosed(run(deep(8, forward=4.0)))["signal_blow_up"]
        assert found.steps[0] == 0 and found.cause.startswith("initialisation: ")

    def test_blow_up_that_training_survives(self) -> None:
        """Adam does where the output is some thousand times the input, not where it is 1e9."""
        layers = deep(8, forward=3.0)
        assert "signal_blow_up" in alarms(run(layers))
        falling = [record(s, layers, loss=0.8**n) for n, s in enumerate(STEPS)]
        assert alarms(falling) == set()
        thrown = [record(s, deep(8, forward=3.0, update=0.3), loss=0.8**s) for s in range(3)]
        assert alarms(thrown) == {"signal_blow_up"}
        # Of Adam and its like updates are no sign of the gradient's size.
        assert alarms(replace(made, optimizer="RMSprop") for made in thrown) == set()
        losses = np.geomspace(1, 1e-3, len(STEPS))

        def adam(layers: list[Layer], losses: Iterable[float]) -> set[str]:
            pairs = zip(STEPS, losses, strict=True)
            return alarms(record(k, layers, loss=x, optimizer="Adam") for k, x in pairs)

        assert adam(layers, losses) == set()
        assert adam(layers, [1.0] * len(STEPS)) == {"signal_blow_up"}
        assert adam(deep(8, forward=20.0), losses) == {"signal_blow_up"}
        one_class = [0.0 if n % 2 else 0.5**n for n in range(len(STEPS))]
        assert adam(deep(8, forward=20.0), one_class) == {"signal_blow_up"}
        halved = [deep(8, forward=size) for size in np.geomspace(5.0, 1.75, len(STEPS))]
        pairs = list(zip(STEPS, halved, np.geomspace(1, 0.05, len(STEPS)), strict=True))
        shrinks = [record(k, rows, loss=x, optimizer="Adam") for k, rows, x in pairs]
        assert alarms(shrinks) == {"signal_blow_up"}
        assert alarms(replace(made, loss=made.loss**9) for made in shrinks) == set()
        hundred = deep(8, forward=1.9)
        assert adam(hundred, [1.0] * len(STEPS)) == {"signal_blow_up"}
        assert adam(hundred, losses) == adam(deep(8, forward=1.7), [1.0] * len(STEPS)) == set()
        assert adam(hundred, -losses) == set()  # nobody knows where such a loss stands still
        early = [record(k, deep(8, forward=20.0), loss=0.8**n, optimizer="Adam")
                 for n, k in enumerate(STEPS) if k < 50]  # fmt: skip
        assert alarms(early) == set()
        assert adam(deep(8, forward=20.0), np.geomspace(1, 1e-30, len(STEPS))) == set()

    def test_blow_up_that_is_all_of_the_loss(self) -> None:
        """Which falls with the square of the output then: the targets are nothing beside it."""

        def said(power: float, first: float = 2.5, later: float | None = None) -> set[str]:
            bases = np.geomspace(first, first / 1.5, len(STEPS))
            outputs = (bases / first) ** 8
            losses = outputs**power
            if later is not None:
                half = len(STEPS) // 2
                losses[half:] = losses[half] * (outputs[half:] / outputs[half]) ** later
            return alarms(
                record(k, deep(8, forward=float(base)), loss=float(loss), optimizer="Adam")
                for k, base, loss in zip(STEPS, bases, losses, strict=True)
            )

        assert said(2.0) == said(2.0, first=1.6) == {"signal_blow_up"}
        assert said(1.0) == said(3.0) == said(2.0, later=0.5) == said(2.0, first=1.5) == set()

    def test_blow_up_of_a_classifier_that_is_sure_and_wrong(self) -> None:
        """Nothing but 0 and ±1/N is in its gradient, which tells how many nats the loss is."""

        def said(
            losses: Iterable[float],
            wrong: float = 0.5,
            sharp: float = 1.0,
            forward: float = 1.5,
            varies: float = 0.8,
            tokens: bool = False,
            classes: int = 30,
            units: Iterable[float] = (1.0,) * len(STEPS),
        ) -> list[int]:
            records, samples = list[StepRecord](), VALUES / classes
            layers, input_rms = deep(8, forward=forward), 1.0
            if tokens:
                layers = [replace(k, rms=30 * k.rms) for k in deep(8, "GELU", forward=forward)]
                layers[0], input_rms = replace(layers[0], kind="Embedding"), None
            for step, loss, unit in zip(STEPS, losses, units, strict=True):
                one = record(step, layers, loss=loss, optimizer="Adam", input_rms=input_rms)
                shapes = (*one.shapes[:-1], (classes, 30))
                assert one.layers is not None
                if not tokens:
                    one.layers.signal_fraction[0] = varies
                some, largest = 2 * wrong * samples, unit / samples
                norm, rest = math.sqrt(sharp * some) * largest, VALUES - some
                one.layers.gradients.moments[-1, 1:5] = norm, some * largest, largest, rest
                records.append(replace(one, shapes=shapes))
            found = diagnosed(records)
            return [found[verdict].steps[0] for verdict in found if found[verdict].alarm]

        falls = np.geomspace(400, 50, len(STEPS))
        assert said(falls) == said(falls, wrong=1.0) == said(falls, sharp=0.85) == [100]
        assert said(falls, wrong=0.2) == said(falls, wrong=1.1) == said(falls, sharp=0.75) == []
        assert said(falls, forward=1.2) == said(falls / 10) == []
        # An offset of the input is nothing that its output could be measured by, nor is a large
        # embedding.
        assert (
            said(falls, forward=1.2, varies=0.05) == said(falls, forward=1.0, tokens=True) == [100]
        )
        back_soon = [5e6 * 0.4**n for n in range(len(STEPS))]
        was_right = [0.1 if step == 50 else 50.0 for step in STEPS]
        assert said(falls, classes=2) == [100] and said(falls, classes=2, wrong=1.0) == []
        # A square's derivative falls with it, and that of absolute values is the same for all.
        assert said(falls, units=np.geomspace(1, 0.03, len(STEPS))) == []
        assert said(back_soon) == []
        assert 100 not in said(was_right)

    def test_no_blow_up_with_norms_or_of_what_grows_later(self) -> None:
        normed = deep(8, forward=4.0)
        normed[3] = replace(normed[3], kind="LayerNorm")
        assert alarms(run(normed)) == set()
        assert alarms([*run(deep(8))[:5], *run(deep(8, forward=4.0))[5:]]) == set()
        assert alarms(run(deep(8, forward=2.0))) == set()


class TestExploding:
    def test_over_depth(self) -> None:
        layers = self.whose_weights_have_it(deep(10, backward=3.0))
        found = diagnosed(record(step, layers) for step in STEPS)["exploding"]
        assert found.level == "critical" and found.steps[0] == 10

    def test_not_over_depth_while_training_gets_on(self) -> None:
        layers = self.whose_weights_have_it(deep(10, backward=3.0))
        falls = [record(s, layers, loss=0.8**n) for n, s in enumerate(STEPS)]
        assert alarms(falls) == set()

    def test_not_over_depth_where_it_does_not_get_to_the_weights(self) -> None:
        """It is that of padding, which an embedding drops."""
        assert alarms(record(step, deep(10, backward=3.0)) for step in STEPS) == set()

    def whose_weights_have_it(self, layers: list[Layer]) -> list[Layer]:
        return [replace(each, weight_gradient=each.gradient) for each in layers]

    def test_of_an_update(self) -> None:
        assert "exploding" in alarms(run(deep(3, update=30.0))[:2])
        assert alarms(run(deep(3, update=0.3))[:2]) == set()

    def test_of_an_update_that_is_over(self) -> None:
        """It has thrown the weights where there is no gradient any more."""

        def thrown(update: float, losses: Iterable[float], optimizer: str = "SGD") -> set[str]:
            pairs = zip(STEPS, losses, strict=True)
            return alarms(
                record(step, deep(3, update=1e-3 if step else update), loss=loss,
                       optimizer=optimizer)
                for step, loss in pairs
            )  # fmt: skip

        stays, falls = [1.0] * len(STEPS), 0.9 ** np.arange(len(STEPS))
        assert thrown(30.0, stays) == {"exploding"}
        assert thrown(0.9, stays) == thrown(30.0, falls) == thrown(0.9, stays, "Adam") == set()
        assert thrown(30.0, falls, "Adam") == set()
        assert thrown(30.0, stays, "Adam") == {"learning_rate_too_high"}
        # At once it fell, and goes on: to a tenth in some batches, to less than none before in few.
        noisy = [3.0, 1.0, 1.0, *[0.3 if n % 4 == 0 else 1.2 for n in range(len(STEPS) - 3)]]
        assert thrown(30.0, noisy) == set()
        assert thrown(30.0, [1.0, *noisy[1:]]) == thrown(30.0, [3.0, *stays[1:]]) == {"exploding"}

    def test_first_layers_that_were_thrown_and_stand_still(self) -> None:
        """What the last ones learn of what is left is no comfort."""

        def said(
            backward: float = 5.0,
            thrown: float = 10.0,
            then: float = 1e-5,
            fall: float = 0.4,
            optimizer: str = "SGD",
            rate: float = 0.1,
            one: float = 10.0,
        ) -> set[str]:
            rows = []
            for step in (s for s in STEPS if s <= 150):
                update = then if step else thrown
                layers = deep(8, backward=1.0 if step else backward)
                layers = [replace(k, update=update if n < 8 else 0.01)
                          for n, k in enumerate(layers)]  # fmt: skip
                if not step:
                    layers[0] = replace(layers[0], update=one)
                loss = 1 - fall if step else 1.0
                rows.append(record(step, layers, loss=loss, optimizer=optimizer,
                                   learning_rate=rate if step > 50 else 0.1))  # fmt: skip
            return alarms(rows)

        assert said() == {"exploding"}
        assert said(backward=1.0) == said(thrown=2.0) == said(then=1e-3) == set()
        assert said(fall=0.8) == said(optimizer="Adam") == set()
        assert said(rate=0.01) == set()  # which is why
        assert said(one=0.1) == set()
        # While they move the loss has to have stayed, and one that was not thrown is no comfort.
        assert said(then=1e-3, fall=0.1) == said(then=1e-3, fall=0.1, one=0.1) == {"exploding"}
        assert said(backward=1.0, then=1e-3, fall=0.1) == set()
        assert said(thrown=2.0, then=1e-3, fall=0.1) == set()

    def test_updates_that_nobody_saw(self) -> None:
        def said(times: float, loss: float, before: float = 1.0) -> set[str]:
            rows = [record(s, deep(3), loss=before) for s in STEPS if s <= 100]
            larger = record(150, deep(3), loss=loss)
            return alarms([*rows, replace(larger, parameter_rms=larger.parameter_rms * times)])

        assert said(1e4, 3.0) == {"exploding"}
        assert said(30.0, 3.0) == said(1e4, 1.5) == set()
        assert said(1e4, 3.0, before=-1.0) == set()
        # Weights that began near zero grow as much in the first steps.
        for steps in ((0, 20), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 21)):
            *rows, last = [record(s, deep(3), loss=3.0 if s == steps[-1] else 1.0) for s in steps]
            assert alarms([*rows, replace(last, parameter_rms=last.parameter_rms * 1e4)]) == set()

    def test_what_an_adaptive_optimizer_begins_with_is_waited_for(self) -> None:
        def said(optimizer: str, until: int) -> set[str]:
            return alarms(
                record(s, deep(3, update=0.2, weight_gradient=3.0**n), loss=1.5**n,
                       optimizer=optimizer)
                for n, s in enumerate(s for s in STEPS if s <= until)
            )  # fmt: skip

        assert said("SGD", 10) == said("Adam", 30) - {"learning_rate_too_high"}
        assert said("SGD", 10) == {"exploding", "diverging"} and said("Adam", 10) == set()
        # What led to numbers that are none is no longer in doubt.
        grows = [record(s, deep(3, update=0.2, weight_gradient=3.0**s), loss=1.5**s,
                        optimizer="Adam") for s in range(10)]  # fmt: skip
        none = record(10, deep(3, weight_gradient=math.nan), loss=math.nan, optimizer="Adam")
        assert alarms([*grows, none]) == {"exploding", "diverging", "non_finite"}

    def test_a_loss_that_falls_below_zero_without_end(self) -> None:
        """As in gradient ascent; not where neither output nor gradient grows with it."""

        def said(output: float, gradient: float, loss: float) -> set[str]:
            shares = np.linspace(0, 1, len(STEPS))
            return alarms(
                record(s, [linear(), linear(rms=output**x, weight_gradient=gradient**x)],
                       loss=-(loss**x))
                for s, x in zip(STEPS, shares, strict=True)
            )  # fmt: skip

        assert said(1e5, 1e5, 1e5) == {"exploding"}
        grows = np.geomspace(1.0, 1e5, len(STEPS))
        rows = [
            record(s, [linear(), linear(rms=x, weight_gradient=x)], loss=1 - x)
            for s, x in zip(STEPS, grows, strict=True)
        ]
        end = [linear(), linear(rms=1e5, weight_gradient=1e5)]
        rows += [record(s, end, loss=-1e5) for s in range(350, 5000, 50)]
        found = diagnosed(rows, optimizer={"maximize": True, "lr": 0.1})["exploding"]
        assert found.cause.startswith("objective: ") and not found.resolved  # it has no end
        assert found.change == {"optimizer.maximize": False} and "sign of the loss" in found.remedy
        assert said(10.0, 1e5, 1e5) == said(1e5, 3.0, 1e5) == said(1e5, 1e5, 10.0) == set()

    def test_a_gradient_that_was_zero_has_not_exploded(self) -> None:
        none, some = deep(3, weight_gradient=0.0), deep(3)
        records = [record(s, none) for s in range(6)]
        rising = [record(s, some, loss=3.0) for s in (6, 7)]
        assert "exploding" not in alarms([*records, *rising])

    def test_over_time(self) -> None:
        calm, wild = deep(3), deep(3, weight_gradient=500.0)
        records = [record(s, calm) for s in range(6)]
        rising = [record(s, wild, loss=3.0) for s in (6, 7)]
        found = diagnosed([*records, *rising])["exploding"]
        assert found.cause.startswith("learning rate: ") and found.where == "0.weight"
        leaving_a_plateau = [record(s, wild, loss=0.9) for s in (6, 7)]
        assert alarms([*records, *leaving_a_plateau]) == set()


class TestNonFinite:
    def where(self, layers: list[Layer], **keys: object) -> Finding:
        return diagnosed([record(0, deep(3)), record(1, layers, **keys)])["non_finite"]  # type: ignore[arg-type]

    def test_the_first_layer_that_makes_it(self) -> None:
        layers = [replace(k, rms=math.nan) if n >= 3 else k for n, k in enumerate(deep(3))]
        found = self.where(layers, loss=math.nan)
        assert (found.where, found.level, found.steps) == ("3", "critical", (1, 1))
        assert "ReLU makes values that are not finite of finite ones" in found.cause

    def test_a_function_may_come_before_a_layer_with_weights(self) -> None:
        layers = [replace(k, rms=math.nan) if n >= 2 else k for n, k in enumerate(deep(3))]
        found = self.where(layers, loss=math.nan)
        assert found.where == "2" and "Linear, or what is done before it, makes" in found.cause

    def test_after_an_update_that_replaced_the_weights_it_is_the_rate(self) -> None:
        def cause(update: float, size: float, at: int = 3) -> str:
            before = deep(3, update=update, weight=0.1)
            bad = [replace(k, rms=math.nan) if n >= at else k
                   for n, k in enumerate(deep(3, weight=size))]  # fmt: skip
            records = [record(0, before), record(1, bad, loss=math.nan)]
            return diagnosed(records)["non_finite"].cause

        assert cause(1.5, 1.0).startswith("learning rate: ReLU makes values that are not finite ")
        assert cause(1.5, 1.0).endswith(", since an update changed the weights by 2 of their size")
        assert not cause(0.5, 1.0).startswith("learning rate: ")
        assert not cause(1.5, 0.1).startswith("learning rate: ")  # they began far smaller

    def test_backward_only(self) -> None:
        def found(upto: int) -> Finding:
            layers = [replace(k, gradient=math.nan, weight_gradient=math.nan) if n < upto else k
                      for n, k in enumerate(deep(3))]  # fmt: skip
            return self.where(layers)

        assert found(3).where == "3"
        assert found(3).cause.startswith(
            "operation: the derivative of 3 is not finite although its output is"
        )
        # Weights multiply and add, which breaks nothing: it is what nobody can call by a name.
        assert found(4).where == "3"
        assert "of 4 is not finite although its output is, or that of what is" in found(4).cause

    def test_backward_only_in_a_loop_that_tells_no_loss(self) -> None:
        layers = deep(3)
        layers[:3] = [replace(k, gradient=math.nan, weight_gradient=math.nan) for k in layers[:3]]
        found = self.where(layers, loss=math.nan)
        assert found.where == "3" and found.cause.startswith("operation: the derivative of 3 ")

    def test_experts_are_no_exponentials(self) -> None:
        layers = [replace(deep(3)[0], kind="Experts"), *deep(3)[1:]]
        broken = [replace(k, rms=math.nan, weight=math.nan if k.weight else None) for k in layers]
        found = diagnosed([record(0, layers), record(1, broken, loss=math.nan)])["non_finite"]
        assert not found.cause.startswith("activation: ")

    def test_data_loss_and_weights(self) -> None:
        bad = [replace(k, rms=math.nan) for k in deep(3)]
        assert self.where(bad, input_rms=math.nan, loss=math.nan).cause.startswith("data: ")
        assert self.where(deep(3), loss=math.inf).cause.startswith("loss: ")
        grown = self.where([replace(k, rms=1e19) for k in deep(3)], loss=math.inf)
        assert "outputs have grown to an RMS of 1e+19" in grown.cause
        broken = [linear(weight=math.nan, rms=math.nan, gradient=math.nan)]
        found = diagnosed([record(0, [linear()]), record(1, broken, loss=math.nan)])["non_finite"]
        assert found.where == "0.weight"
        assert "not finite; they were finite before the update of step 0" in found.cause
        all_of_them = diagnosed([record(0, deep(2)), record(1, broken * 2, loss=math.nan)])
        assert all_of_them["non_finite"].where is None  # an update by a gradient that was not

    def test_a_gradient_of_weights_alone(self) -> None:
        """As of a penalty on a gradient: no layer passes on what is not finite."""
        broken = [replace(k, weight_gradient=math.nan) if k.weight else k for k in deep(3)]
        found = self.where(broken)
        assert found.where == "6.weight" and found.cause.endswith(
            "though no output is large: a derivative is not defined, such as a root's at 0"
        )
        assert found.cause.startswith("operation: the loss is finite, and the gradient is not ")
        large = [replace(k, rms=1e5) for k in broken]
        assert "no output is large" not in self.where(large).cause

    def test_of_values_of_which_nothing_is_known_before(self) -> None:
        whole = [Layer("Network", rms=math.nan, weight=0.1)]
        [found] = diagnosed([record(0, whole, input_rms=None, loss=math.nan)]).values()
        assert found.cause.startswith("operation: Network")
        assert found.cause.endswith("makes values that are not finite of finite ones")
        later = self.where(whole, input_rms=None, loss=math.nan)
        assert later.cause == "growth: outputs have grown before it"

    def test_of_a_step_whose_layers_nobody_saw(self) -> None:
        """A loss that is not finite says nothing about the place; a gradient beside one that is
        says from where on it is not."""

        def found(loss: float, gradients: list[float]) -> Finding:
            last = [linear(weight_gradient=gradient) for gradient in gradients]
            unseen = replace(record(60, last, loss=loss), layers=None)
            diagnosis = Diagnosis()
            for one in (*run([linear()] * 3)[:12], unseen):
                diagnosis.add(one)
            return diagnosis.findings[-1]

        blind = found(UNDEFINED, [math.nan] * 3)
        assert blind.where is None and "were not looked at" in blind.cause
        backward = found(1.0, [math.nan, math.nan, 1.0])
        assert backward.where == "1.weight" and "the loss is finite" in backward.cause

    def test_of_a_derivative_that_nobody_saw(self) -> None:
        """Weights that are lost behind a loss like all others had a gradient that was none."""

        def found(
            before: float = 0.9, at: int = 65, norm: float = 1.0, update: float = 1e-3
        ) -> Finding:
            diagnosis = Diagnosis()
            layers = [linear()] * 3
            for step in STEPS[:15]:
                last = step == 50
                rows = [linear(weight_gradient=norm, update=update)] * 3 if last else layers
                diagnosis.add(record(step, rows))
            lost = record(at, [linear(weight_gradient=math.nan)] * 3, loss=UNDEFINED)
            nowhere = np.full_like(lost.parameter_rms, np.nan)
            diagnosis.add(replace(lost, parameter_rms=nowhere, loss_before=before))
            return diagnosis.findings[-1]

        assert found().cause == (
            "operation: the weights themselves are not finite since the step before: its loss was "
            "still 0.9, its gradient not finite"
        )
        assert "a small epsilon in log, sqrt and division" in found().remedy
        for other in (
            found(before=30.0), found(before=math.nan), found(at=51), found(norm=500.0),
            found(update=0.5),
        ):  # fmt: skip
            assert "they were finite before the update of step 50" in other.cause

    def test_what_it_leads_to_is_no_news(self) -> None:
        lost = deep(8, backward=0.2, signal=0.2)
        broken = [*lost[:-1], replace(lost[-1], weight_gradient=math.nan)]
        healthy = [record(s, deep(8)) for s in STEPS[:5]]
        assert alarms([*healthy, *[record(s, broken) for s in STEPS[5:]]]) == {"non_finite"}
        assert alarms([*healthy, *[record(s, lost) for s in STEPS[5:]]]) == {"vanishing"}

    def test_not_of_a_step_that_a_scaler_skips(self) -> None:
        """While it looks for its scale, nor once it has found it, until the fifth in a row."""

        def skipped(*steps: int) -> list[StepRecord]:
            rows = deep(2, weight_gradient=math.inf, update=0.0)
            return [record(s, rows, unchanged=1.0) for s in steps]

        assert alarms(skipped(*range(11))) == set()
        found = diagnosed(skipped(*range(11), 20))["non_finite"]
        assert found.cause.endswith("; all updates are left out, as by a GradScaler")
        now_and_then = [replace(one, parameter_rms=one.parameter_rms * (1 + 1e-3 * one.step))
                        for one in skipped(*range(50, 400, 50))]  # fmt: skip
        assert "non_finite" not in alarms(now_and_then)
        well = [record(s, deep(2, update=0.0)) for s in range(50)]
        assert "non_finite" not in alarms([*well, *skipped(50, 100, 150, 200)])
        assert "non_finite" in alarms([*well, *skipped(50, 100, 150, 200, 250)])

    def test_not_of_a_loop_that_tells_no_loss(self) -> None:
        assert alarms(record(s, deep(2), loss=math.nan) for s in STEPS) == set()

    def test_a_loss_that_was_never_finite(self) -> None:
        records = [record(s, deep(2), loss=UNDEFINED) for s in STEPS]
        found = diagnosed(records)["non_finite"]
        assert found.steps[0] == 0 and found.cause.startswith(
            "loss: the outputs of all layers are finite"
        )

    def test_nothing_ends_amid_numbers_that_are_none(self) -> None:
        def ended(loss: float, pace: float = 0.9) -> bool:
            thrown = [record(s, deep(3, update=30.0 if s < 3 else 1e-3), loss=1.0) for s in (0, 1)]
            after = [record(s, deep(3), loss=loss * pace**s) for s in STEPS[2:]]
            return diagnosed([*thrown, *after])["exploding"].resolved

        assert ended(0.5) and not ended(UNDEFINED)
        assert not ended(1.2, pace=1.0), "nor above the loss at the start"

    def test_confirms_what_led_to_it(self) -> None:
        records = [record(0, deep(8, forward=4.0, update=20.0)),
                   record(1, [linear(rms=math.nan, gradient=math.nan)], loss=math.nan)]  # fmt: skip
        assert {"signal_blow_up", "exploding", "non_finite"} <= alarms(records)


class TestUnits:
    def dead(self, at: int, signal: float = 0.03) -> list[Layer]:
        return [
            replace(k, gradient=0.0, **({"dead": 1.0, "rms": 0.0} if n == at else {}))
            if n <= at else replace(k, signal=0.0) if n == at + 1 else k
            for n, k in enumerate(deep(4, signal=signal))
        ]  # fmt: skip

    def test_a_dead_layer_is_named_at_the_second_batch(self) -> None:
        layers = self.dead(3)
        layers[3] = replace(layers[3], gradient=1.0)  # it arrives behind, and goes no further
        found = diagnosed(run(layers)[:2])["dead_units"]
        assert (found.where, found.steps, found.level) == ("3", (0, 1), "critical")
        assert found.cause.startswith("initialisation: ") and "from the start" in found.cause

    def test_a_layer_that_is_nearly_shut_has_ten_batches_to_let_something_through(self) -> None:
        layers = self.dead(3, signal=0.2)
        layers[3] = replace(layers[3], gradient=1.0)
        assert "dead_units" not in alarms(run(layers)[:9])
        assert diagnosed(run(layers)[:10])["dead_units"].steps == (0, 9)
        of_one_sign = [replace(k, signal=0.7 if n == 2 else k.signal) for n, k in enumerate(layers)]
        assert diagnosed(run(of_one_sign)[:2])["dead_units"].steps == (0, 1)
        killed = [record(s, deep(4) if s < 4 else layers) for s in range(6)]
        assert diagnosed(killed)["dead_units"].steps == (4, 5), "it has let something through"

    def test_a_layer_that_is_dead_for_one_sample_after_the_other(self) -> None:
        layers = self.dead(3)
        layers[3] = replace(layers[3], gradient=1.0)
        layers = [replace(k, signal=math.nan) for k in layers]  # each batch is one sample
        well = [replace(k, signal=math.nan) for k in deep(4)]

        def singly(records: list[StepRecord]) -> list[StepRecord]:
            for each in records:
                assert each.layers is not None
                each.layers.signal_fraction[0] = math.nan
            return records

        assert "dead_units" not in alarms(singly(run(layers)[:9]))
        assert diagnosed(singly(run(layers)[:10]))["dead_units"].steps == (0, 9)
        turns = [record(s, well if s % 5 == 0 else layers) for s in range(40)]
        assert "dead_units" not in alarms(singly(turns))

    def test_a_layer_of_one_unit_may_be_zero_for_a_batch(self) -> None:
        layers = self.dead(3)
        layers[3] = replace(layers[3], gradient=1.0)

        def of(values: int) -> list[StepRecord]:
            made = run(layers)
            for one in made:
                assert one.layers is not None
                one.layers.gradients.moments[:, 0] = values
                one.layers.gradients.moments[0:3, 4] = values  # all zero still
            return made

        assert "dead_units" not in alarms(of(32)[:9])
        assert diagnosed(of(32)[:10])["dead_units"].steps == (0, 9)
        assert diagnosed(of(256)[:2])["dead_units"].steps == (0, 1)

    def test_a_dead_last_layer_is_to_be_left_out(self) -> None:
        layers = self.dead(8)[:8] + [
            Layer("ReLU", rms=0.0, dead=1.0, signal=math.nan, gradient=1.0)
        ]
        found = diagnosed(run(layers))["dead_units"]
        assert found.where == "8" and found.cause.startswith("blocked: ")
        assert "a rectifier after the last layer" in found.remedy

    def test_dead_after_a_collapse_is_not_killed_by_the_rate(self) -> None:
        layers = self.dead(3)
        layers[3] = replace(layers[3], gradient=1.0)
        lost = deep(4, backward=1e-4, signal=1e-4, update=0.02)
        late = [record(s, lost if s < 150 else layers) for s in STEPS]
        found = diagnosed(late)
        assert "vanishing" in found and found["dead_units"].cause.startswith("initialisation: ")

    def test_killed_by_a_large_rate(self) -> None:
        layers = self.dead(3)
        layers[3] = replace(layers[3], gradient=1.0)
        well = deep(4, update=0.01)
        soon = diagnosed([record(0, well), *run(layers)[1:3]])["dead_units"]
        assert soon.cause.startswith("initialisation: ") and "steps of small updates" in soon.cause
        late = [record(s, well) if s < 150 else record(s, layers) for s in STEPS]
        for records in ([record(0, deep(4, update=0.5)), *run(layers)[1:3]], late):
            found = diagnosed(records)["dead_units"]
            assert found.cause.startswith("learning rate: ") and "weights moved" in found.cause
        # What was made of the input was next to nothing, beside which small steps are large.
        minute = [record(s, deep(4, forward=0.05, update=0.01) if s < 150 else layers)
                  for s in STEPS]  # fmt: skip
        assert diagnosed(minute)["dead_units"].cause.startswith("initialisation: ")
        zero = record(0, [*well[:-1], replace(well[-1], rms=0.0)])  # a head that began at zero
        assert diagnosed([zero, *late[1:]])["dead_units"].cause.startswith("learning rate: ")

    def test_not_beside_a_skip_nor_of_most_units(self) -> None:
        layers = deep(4)
        layers[3] = replace(layers[3], dead=1.0, rms=0.0)  # the gradient takes another way
        assert alarms(run(layers)) == set()
        assert alarms(run([replace(k, dead=0.9) for k in deep(4)])) == set()

    def test_not_of_a_head_that_starts_at_zero(self) -> None:
        start = [replace(k, gradient=0.0) for k in deep(4)[:-1]]
        assert alarms([record(0, [*start, linear(rms=0.0)]), *run(deep(4))[1:]]) == set()

    def test_saturated(self) -> None:
        layers = deep(4, "Tanh", backward=6.0)
        flat = [
            replace(k, gradient=(k.gradient or 0) * (0.1 if k.kind == "Linear" else 1))
            for k in layers
        ]
        found = diagnosed(record(s, flat) for s in STEPS)["saturated"]
        assert found.level == "warning" and found.cause.startswith("initialisation: ")
        assert "saturated" not in alarms(record(s, layers) for s in STEPS)
        falling = [record(s, flat, loss=0.8**n) for n, s in enumerate(STEPS)]
        assert "saturated" not in alarms(falling)
        adam = [record(s, flat, optimizer="Adam") for s in STEPS]
        assert diagnosed(k for k in adam if k.step <= 50)["saturated"].level == "info"
        assert "saturated" in alarms(k for k in adam if k.step <= 100)
        # A flow that does not grow has to be seen to change nothing.
        even = [replace(k, gradient=0.5) if k.kind == "Linear" else k for k in deep(4, "Tanh")]
        even = [replace(k, gradient=10.0) if k.kind == "Tanh" else k for k in even]
        assert alarms(record(s, even) for s in STEPS) == {"saturated"}
        assert alarms(record(s, even) for s in STEPS if s <= 150) == set()
        steep = [
            replace(k, gradient=(k.gradient or 0) * (0.01 if k.kind == "Linear" else 1))
            for k in layers
        ]
        assert "saturated" not in alarms(record(s, steep) for s in STEPS if s <= 10)
        assert "saturated" in alarms(record(s, steep) for s in STEPS if s <= 20)
        shut = [replace(k, gradient=0.3) if k.kind == "Linear" else k for k in even]
        assert alarms(record(s, shut) for s in STEPS if s <= 150) == {"saturated"}
        assert alarms(record(s, even, loss=0.99**n) for n, s in enumerate(STEPS)) == set()
        grows = [
            record(s, [*even[:-1], replace(even[-1], signal=0.02 if s <= 50 else 0.9)])
            for s in STEPS if s <= 200
        ]  # fmt: skip
        assert alarms(grows) == set()  # the output tells the samples apart by now


class TestLoop:
    def test_gradients_that_pile_up(self) -> None:
        found = diagnosed(record(s, deep(2), carried=3.0 if s else 0.0) for s in range(5))
        assert found["accumulating_gradients"].cause == (
            "loop: the gradients of 3 parameters still hold those of the step before"
        )
        assert alarms(record(s, deep(2), carried=0.0) for s in range(5)) == set()

    def test_gradients_that_pile_up_where_no_optimizer_moves_the_weights(self) -> None:
        still = [linear(update=0.0), *deep(2)]
        found = diagnosed(record(s, still, carried=1.0) for s in range(5))["accumulating_gradients"]
        assert found.where == "0.weight" and found.cause == (
            "optimizer: the gradient of a parameter still holds that of the step before, and no "
            "optimizer moves it"
        )
        assert found.remedy.startswith("give an optimizer all parameters")
        more = diagnosed(record(s, still, carried=2.0) for s in range(5))["accumulating_gradients"]
        assert more.where is None and more.cause.startswith("loop: ")
        # One that moves others, as one that was made before the layers were replaced.
        other = [record(s, [linear(update=0.0)], carried=1.0) for s in STEPS]
        found = diagnosed(other)
        assert [*found] == ["accumulating_gradients"]
        assert found["accumulating_gradients"].where is None
        assert found["accumulating_gradients"].cause.startswith("optimizer: ")
        nobody = diagnosed(replace(one, optimizer="") for one in other)
        assert nobody["accumulating_gradients"].cause.startswith("loop: ")

    def test_what_follows_from_gradients_that_pile_up(self) -> None:
        """Is no matter of the rate."""
        rows = [deep(3, update=0.02 * 2**s) for s in range(11)]
        made = [record(s, k, loss=2.0**s, carried=3.0) for s, k in enumerate(rows)]
        found = diagnosed(made, optimizer={"lr": 0.1, "name": "sgd"})
        assert {"accumulating_gradients", "diverging"} <= found.keys()
        diverging = found["diverging"]
        assert diverging.cause.startswith("loop: gradients pile up; the loss is ")
        assert diverging.change == {} and "zero_grad" in diverging.remedy

    def test_gradients_that_pile_up_do_so_until_the_opposite_is_seen(self) -> None:
        """Which takes two steps in a row that are observed."""

        def ended(carried: float) -> bool:
            first = [record(s, deep(2), carried=3.0 if s else math.nan) for s in range(5)]
            after = [record(s, deep(2), carried=carried) for s in STEPS[11:]]
            return diagnosed([*first, *after])["accumulating_gradients"].resolved

        assert ended(0.0) and not ended(math.nan)
        diagnosis = Diagnosis()  # that it is over is seen in the first steps or not at all
        for s in range(11):
            diagnosis.add(record(s, deep(2), carried=3.0 if 0 < s < 5 else 0.0))
        assert diagnosis.findings[0].resolved and not diagnosis.suspects

    def test_layers_are_looked_at_until_a_finding_has_ended(self) -> None:
        constant = [replace(row, signal=0.0) for row in deep(3, update=5e-3)]
        well, diagnosis, seen = deep(3, update=5e-3), Diagnosis(), list[tuple[bool, bool]]()
        for step in (*range(0, 100, 5), *range(100, 160, 10)):
            rows = well if step in (0, *range(110, 160)) else constant
            diagnosis.add(record(step, rows, loss=1 / (1 + step / 100)))
            if step >= 100:
                seen.append((diagnosis.findings[0].resolved, diagnosis.suspects))
        gone = [(False, True), (False, True), (True, False)]
        assert seen == [(False, False), *gone, (True, False), (True, False)]

    def test_of_weights_that_no_gradient_reaches(self) -> None:
        """The rate is not to blame where signal and flow were lost at first, or where what comes
        after the last layer is flat."""
        lost = deep(8, backward=0.4, signal=0.4, update=1e-9)
        moving = [replace(k, signal=0.5) for k in deep(8, update=1e-9)]
        made = [record(step, moving if step else lost) for step in STEPS]
        found = diagnosed(made)["starved_update"]
        assert found.where == "0" and found.cause.startswith("initialisation: in 50 steps no weig")
        assert found.cause.endswith(
            "of its size: at first 0.0005 of the output depended on the sample, and gradient times "
            "output at the first layers was 0.003 of that at the last"
        )
        assert diagnosed(run(moving))["starved_update"].cause.startswith("learning rate: ")

        def flat(factor: float) -> Finding:
            rows = [guessing(one) for one in run(moving)]
            rows = [replace(one, loss=factor * one.loss) for one in rows]
            [found] = [f for f in diagnosed(rows).values() if f.alarm]
            return found

        assert flat(1e9).verdict == "saturated" and flat(1e5).verdict == "starved_update"
        assert flat(1e9).cause.endswith(
            "what comes after the last layer is flat there, and lets 1e-09 of the gradient pass"
        )
        assert flat(1e9).cause.startswith("last activation: ")
        assert flat(1e5).cause.startswith("learning rate: ")

    def test_updates_of_nothing(self) -> None:
        still = deep(3, update=1e-9)
        assert diagnosed(run(still))["starved_update"].cause.startswith("learning rate: in 50 ")
        narrow = diagnosed(run(still, dtype="bfloat16", unchanged=0.9))["starved_update"]
        assert narrow.cause.startswith("dtype: ") and "90% of the updates" in narrow.cause
        swallowed = (record(s, deep(3, update=5e-5), dtype="bfloat16", unchanged=0.95)
                     for s in STEPS)  # fmt: skip
        late = diagnosed(swallowed)["starved_update"]
        assert late.steps[0] == 150 and "95% of the updates are smaller than" in late.cause
        for keys in ({"dtype": "float32"}, {"unchanged": 0.85}):
            given = {"dtype": "bfloat16", "unchanged": 0.95, **keys}
            made = (record(s, deep(3, update=2e-4), **given) for s in STEPS)  # type: ignore[arg-type]
            assert alarms(made) == set()
        warming = [record(s, still, learning_rate=1e-3 * (s + 1)) for s in STEPS]
        assert alarms(warming) == set()
        # Of a long one, looked at in each step, only the latest records are kept.
        slow = [record(s, still, learning_rate=1e-3 * (s + 1)) for s in range(450)]
        assert alarms(slow) == set()
        # A warm-up that is over explains no longer why nothing moves.
        warm = [record(s, still, learning_rate=1e-3 * (1 + min(s, 50))) for s in STEPS]
        assert diagnosed(warm)["starved_update"].steps[0] == 100
        for treads in ((60, 120, 180, 240), (40, 80, 160)):  # it goes on after each
            rates = {s: 1e-3 * (1 + sum(s >= tread for tread in treads)) for s in range(0, 300, 20)}
            stairs = [record(s, still, learning_rate=rate) for s, rate in rates.items()]
            assert alarms(stairs) == set()
        assert alarms(run(deep(3, update=1e-5))) == set()

    def test_a_layer_that_is_unfrozen(self) -> None:
        """The others have come their way before."""
        head, more = [linear(weight=None), linear()], [linear(), linear()]
        assert alarms(record(s, head if s < 100 else more) for s in STEPS) == set()
        assert alarms(record(s, more if s < 100 else [*more, linear()]) for s in STEPS) == set()
        history = History()
        for s in range(4):
            history.add(record(s, head if s < 3 else more))
        assert history.way.paths.tolist() == pytest.approx([1e-3, 3e-3])
        other = [linear(), linear(weight=None)]
        assert alarms(record(s, (head, other)[n % 2]) for n, s in enumerate(STEPS)) == set()
        stands = [replace(k, update=1e-9) for k in head], [replace(k, update=1e-9) for k in more]
        still = (record(s, stands[s >= 100]) for s in STEPS)
        assert alarms(still) == {"starved_update"}

    def test_updates_of_so_little_that_the_loss_stays(self) -> None:
        def found(update: float, fall: float = 0.0, **keys: float) -> Finding | None:
            layers = [replace(k, gradient=1e-3) for k in deep(3, update=update)]
            rows = (record(s, layers, loss=1 - fall * s, **keys) for s in STEPS)  # type: ignore[arg-type]
            tree = {"optimizer": {"lr": 0.1}, "clip": {"max_grad_value": 1e-6}}
            return diagnosed(rows, **tree).get("starved_update")

        slow, cut = found(5e-5), found(5e-5, clip=1e-4)
        assert slow is not None and slow.steps[0] == 150 and slow.change == {"optimizer.lr": 10.0}
        assert slow.cause.startswith(
            "learning rate: in 150 steps no weight matrix has moved by mor"
        )
        assert cut is not None and cut.change == {"clip.max_grad_value": None}
        assert found(1e-4) is None  # which takes its time
        assert found(5e-5, fall=1e-3) is None
        assert found(5e-5, fall=UNDEFINED) is None  # of a loop that tells no loss
        learnt = [record(s, deep(3, update=5e-5)) for s in STEPS]  # its gradient is that of a few
        assert "starved_update" not in alarms(learnt)

    def test_updates_that_end_before_anything_is_learnt(self) -> None:
        def found(
            later: float,
            rate: float = 1e-9,
            fall: float = 0.0,
            last: float | None = None,
            start: float = 1e-3,
            until: int = 20,
        ) -> Finding | None:
            rows = [deep(3, update=start if s < until else later) for s in STEPS]
            for each in rows if last is not None else ():
                each[-1] = replace(each[-1], update=last)
            made = [
                record(s, k, loss=1 - fall * s, learning_rate=0.1 if s < until else rate)
                for s, k in zip(STEPS, rows, strict=True)
            ]
            tree = {"optimizer": {"lr": 0.1}, "schedule": {"name": "exponentiallr", "gamma": 0.5}}
            return diagnosed(made, **tree).get("starved_update")

        fallen, stopped = found(0.0), found(1e-7, rate=0.1)
        assert fallen is not None and stopped is not None
        assert fallen.steps[0] == stopped.steps[0] == 100
        assert fallen.cause.startswith("schedule: ") and "has fallen to 1e-09" in fallen.cause
        assert fallen.change == {"schedule": {"name": None}}
        assert stopped.cause.startswith("stalled: ") and stopped.change == {}
        assert found(1e-5) is None and found(0.0, last=1e-4) is None
        assert found(0.0, fall=4e-3) is None  # that was enough
        left = found(0.0, start=1e-2)  # for so much longer than it moved
        assert left is not None and left.steps[0] == 150
        assert left.cause.startswith("schedule: ") and "has moved since step 10" in left.cause
        assert found(0.0, start=1e-2, rate=1e-3) is None
        assert found(0.0, start=1e-2, until=200) is None  # as at the end of a fine-tuning
        at_zero = (record(s, deep(2, update=0.0), learning_rate=0.0) for s in STEPS)
        assert "starved_update" in alarms(at_zero)

    def test_updates_that_are_put_back(self) -> None:
        def said(
            last: float = 0.0, update: float = 1e-3, upto: int = 200, fall: float = 0.0
        ) -> list[Finding]:
            made = [record(s, deep(3, update=update), loss=1 - fall * s) for s in STEPS]
            same = [
                replace(k, parameter_rms=made[0].parameter_rms * (1 + last * k.step)) for k in made
            ]
            found = diagnosed(k for k in same if k.step <= upto)
            return [f for f in found.values() if f.verdict == "starved_update"]

        [found] = said()
        assert (found.level, found.steps, found.where) == ("warning", (150, 200), None)
        assert found.cause == (
            "undone: updates change the weights by 0.001 of their size, yet for 150 steps each "
            "look has found them as they were: something puts them back"
        )
        assert "a model that is made anew inside the loop" in found.remedy
        # Signs that change have the same size, and learn.
        assert said(last=1e-12) == said(upto=100) == said(fall=2e-3) == []
        [still] = said(update=0.0)  # of what does not move
        assert still.cause.startswith("learning rate: ")

    def test_updates_that_clipping_leaves_nothing_of(self) -> None:
        def found(clip: float, optimizer: str = "SGD") -> Finding:
            rows = [record(s, deep(3, update=1e-7), clip=clip, optimizer=optimizer) for s in STEPS]
            return diagnosed(rows, clip={"max_grad_norm": 1e-5})["starved_update"]

        cut = found(1e-4)
        assert cut.steps[0] == 50 and cut.change == {"clip.max_grad_norm": 1.0}
        assert cut.cause.startswith("clipping: in 50 steps") and "leaves 0.0001" in cut.cause
        assert found(0.1).cause.startswith("learning rate: ")
        assert found(1e-4, "Adam").cause.startswith("learning rate: ")  # whose updates stay

    def test_no_gradient_at_all(self) -> None:
        rows = [replace(k, weight_gradient=None, gradient=None, update=0.0) for k in deep(3)]
        found = diagnosed(run(rows))["unused_parameter"]
        assert (found.level, found.steps, found.where) == ("critical", (0, 300), None)
        assert found.cause.startswith("detached: none of 4 parameters gets a gradient: ")
        assert "argmax" in found.remedy
        assert alarms(run(rows)[:2]) == set()

    def test_no_step_of_an_optimizer(self) -> None:
        still = deep(3, update=0.0)
        found = diagnosed(run(still, optimizer="", unchanged=1.0))["starved_update"]
        assert found.cause == (
            "loop: no weight has moved: no optimizer made a step while it was watched"
        )
        for other in ({"clip": 1e-4}, {"dtype": "bfloat16"}):  # which then are no reasons
            given: dict[str, object] = {"optimizer": "", "unchanged": 1.0, **other}
            assert diagnosed(run(still, **given))["starved_update"].cause == found.cause
        known = diagnosed(run(still, unchanged=1.0))["starved_update"]
        assert known.cause == (
            "learning rate: in 50 steps no weight matrix has moved by more than 0 of its size"
        )

    def test_weights_that_shrink_with_the_output(self) -> None:
        def found(left: float, output: float, start: float = 1.0) -> Finding | None:
            made = []
            for step in STEPS:
                late = step >= 50
                one = record(step, deep(3), loss=1 / (1 + step))
                assert one.layers is not None
                one.layers.rms[-1] = start * (output if late else 1.0)
                one.parameter_rms[:] *= left if late else 1.0
                made.append(one)
            return diagnosed(made, optimizer={"weight_decay": 3.0}).get("signal_collapse")

        shrunk = found(0.2, 0.05)
        assert shrunk is not None and shrunk.alarm and shrunk.steps[0] == 100
        assert shrunk.cause.startswith("decay: the weights have shrunk to 0.2 of what they began ")
        assert shrunk.change == {"optimizer.weight_decay": 0.0}
        assert found(0.5, 0.05) is found(0.2, 0.5) is None
        assert found(0.2, 0.05, start=1e3) is None  # which was too large

    def test_counts_that_are_multiples_of_the_units_tell_of_copies(self) -> None:
        def found(units: int, counts: Iterable[int], zeros: int = 0) -> set[str]:
            bins = np.zeros((1, BINS), np.int64)
            bins[0, 100 : 100 + len([*counts])] = [*counts]
            made = [record(s, [linear()]) for s in STEPS if s <= 150]
            for one in made:
                one.gradients.moments[0, 4] = zeros
                object.__setattr__(one.gradients, "histograms", bins)
                object.__setattr__(one, "shapes", ((units, 50),))
            return alarms(made)

        assert found(10, [500, 300, 200]) == {"symmetric_units"}
        assert found(10, [501, 299, 200]) == found(10, [500, 300, 190], zeros=5) == set()
        assert found(2, [500, 300, 200]) == set()  # which may be by chance

    def test_units_that_are_copies_of_each_other(self) -> None:
        def found(
            value: float | None, rate: float = 1e-3, steps: int = 152, fall: float = 0.0
        ) -> Finding | None:
            torch.manual_seed(3)
            model = nn.Sequential(
                nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
            )
            if value is not None:
                for parameter in model.parameters():
                    nn.init.constant_(parameter, value)
            records: list[StepRecord] = []
            optimizer = torch.optim.SGD(model.parameters(), rate)
            x, y = torch.randn(96, 6), torch.randint(3, (96,))
            with Monitor(model, sinks=[records.append]) as monitor:
                for step in range(steps):
                    some = torch.randperm(96)[:32]
                    loss = nn.functional.cross_entropy(model(x[some]), y[some])
                    optimizer.zero_grad()
                    loss.backward()
                    with monitor.step(step, loss):
                        optimizer.step()
            told = [replace(r, loss=r.loss * (1 - fall * min(1, r.step / 20))) for r in records]
            return diagnosed(told).get("symmetric_units")

        alike = found(0.1)
        assert alike is not None and (alike.level, alike.steps) == ("warning", (0, 150))
        assert alike.where == "0.weight"
        assert alike.cause.startswith("initialisation: all units of 2 layers get the same gradient")
        early = found(0.1, steps=60)
        assert early is not None and early.level == "info"
        assert found(None) is None
        slow, fast = found(0.1, fall=0.3), found(0.1, fall=0.8)
        assert slow is not None and slow.level == "warning"
        assert fast is not None and fast.level == "info"

    def test_a_dropout_that_leaves_too_little(self) -> None:
        def rows(share: float, given: float = 1.0, **keys: object) -> list[StepRecord]:
            layers = deep(3, **keys)  # type: ignore[arg-type]
            layers.insert(2, Layer("Dropout", dead=share, rms=given * (1 - share) ** -0.5))
            return [record(s, layers) for s in STEPS]

        tree = {"model": {"name": "mlp", "dropout": 0.95}}
        found = diagnosed(rows(0.95), **tree)["stalled"]
        assert found.level == "warning" and found.steps[0] == 150
        assert found.cause.startswith("dropout: after 150 steps dropout takes 95% of what a layer ")
        assert found.change == {"model.dropout": 0.1}
        assert alarms(rows(0.5)) == set()
        # It was given something else than what the layer before put out, which is sparse itself.
        assert alarms(rows(0.95, given=0.3)) == set()
        falls = [replace(one, loss=1 / (1 + one.step / 100)) for one in rows(0.95)]
        assert alarms(falls) == set()
        # A loss that began above that of a guess, and has fallen to it.
        to_a_guess = [
            guessing(replace(one, loss=max(1.0, 3 - one.step / 10))) for one in rows(0.95)
        ]
        assert alarms(to_a_guess) == {"stalled"}
        lost = diagnosed(rows(0.95, backward=0.01, signal=0.01), **tree)["vanishing"]
        assert lost.cause.startswith("dropout: ") and lost.change == {"model.dropout": 0.1}

    def test_dropouts_that_leave_too_little_together(self) -> None:
        def found(depth: int, share: float, fall: float = 0.0) -> Finding | None:
            rows = deep(depth)
            for place in range(2 * depth, 0, -2):
                rows.insert(place, Layer("Dropout", dead=share, rms=(1 - share) ** -0.5))
            return diagnosed(
                record(s, rows, loss=1 / (1 + fall * s)) for s in STEPS
            ).get("stalled")  # fmt: skip

        many = found(8, 0.6)
        assert many is not None and many.level == "warning" and many.steps[0] == 150
        assert many.cause.startswith("dropout: after 150 steps 8 dropouts take 60% each, and")
        # Two leave enough, as do many that take little; nor does it matter where the loss falls.
        for other in (found(2, 0.6), found(16, 0.4), found(8, 0.6, fall=0.01)):
            assert other is None or other.level == "info"

    def test_weights_that_a_decay_has_shrunk(self) -> None:
        def made(left: float, first: float = 1.0) -> list[StepRecord]:
            lost = [record(s, deep(12, backward=0.2, signal=0.2)) for s in (1, 2)]
            begins = record(0, deep(12, backward=first))
            lost = [replace(one, parameter_rms=left * begins.parameter_rms) for one in lost]
            return [begins, *lost]

        def cause(left: float, decay: float = 5.0, first: float = 1.0) -> str:
            rows = made(left, first)
            found = diagnosed(rows, optimizer={"lr": 0.1, "weight_decay": decay})["vanishing"]
            assert (found.change == {"optimizer.weight_decay": 0.0}) == (found.cause[0] == "d")
            return found.cause

        assert cause(0.02).startswith("decay: the weights have shrunk to 0.02 of what they began ")
        assert cause(0.5).startswith("initialisation: ")
        # In a loop of one's own.
        assert diagnosed(made(0.05))["vanishing"].cause.startswith("decay: ")
        assert cause(0.02, decay=0.0).startswith("initialisation: ")
        # What never had a gradient shrinks for want of it.
        assert cause(0.02, first=0.3).startswith("initialisation: ")

    def test_unused(self) -> None:
        spare = run([*deep(2), linear(gradient=None, weight_gradient=None)])
        found = diagnosed(spare)["unused_parameter"]
        assert found.level == "info" and not found.alarm
        cut = [replace(k, gradient=None, weight_gradient=None) for k in deep(2)[:-1]]
        found = diagnosed(run([*cut, linear()]))["unused_parameter"]
        assert found.level == "warning" and found.where == "2"

    def test_half_of_the_weights_unused_where_nothing_is_learnt(self) -> None:
        def found(unused: int, fall: float = 0.0, once: float = 1.0) -> Finding:
            spare = [linear(gradient=None, weight_gradient=None)] * unused
            made = []
            for s in STEPS:
                made.append(record(s, [linear(), linear(), *spare], loss=1 - fall * s))
                made[-1].parameter_rms[2:] *= once if s == 0 else 1.0
            return diagnosed(made)["unused_parameter"]

        half = found(2)
        assert (half.level, half.where) == ("warning", "2.weight")
        assert half.cause.startswith(
            "detached: 2 of 4 parameters get no gradient, and nothing is learnt"
        )
        assert "no detach, no_grad, " in half.remedy
        assert found(1).level == found(2, fall=2e-3).level == "info"
        assert found(2, once=0.9).level == "info"  # moved since, as what is used in turns

    def test_units_that_something_else_killed(self) -> None:
        """No update was large, and much had been learnt; nor is a layer looked at by chance."""

        def found(update: float, fall: float, raised: float = 1.0) -> Finding:
            made = []
            for step in STEPS:
                dead, rows = step >= 100, deep(3, update=update)
                if dead:
                    lost = [replace(each, gradient=0.0, weight_gradient=0.0) for each in rows[:-1]]
                    rows = [*lost[:-1], replace(lost[-1], rms=0.0, dead=1.0), rows[-1]]
                loss = 1.0 if dead or step < 20 else fall
                rate = 1e-3 * (raised if dead else 1)
                made.append(record(step, rows, loss=loss, optimizer="Adam", learning_rate=rate))
            return diagnosed(made)["dead_units"]

        assert found(0.01, 0.3).cause.startswith("relapse: all units of 5 are zero")
        for others in (found(0.05, 0.3), found(0.01, 0.9), found(0.01, 0.3, raised=20.0)):
            assert others.cause.startswith("learning rate: ")

    def test_a_matrix_that_gets_no_gradient_any_more_is_looked_at(self) -> None:
        def suspects(gradient: float | None, moved: bool = True) -> bool:
            rows = deep(3, update=1e-3 if moved else 0.0)
            diagnosis = Diagnosis()
            for step in (0, 1):
                lost = replace(rows[0], weight_gradient=gradient)
                one = record(step, [lost, *rows[1:]] if step else rows, loss=0.5, observed=not step)
                diagnosis.add(one)
            return diagnosis.suspects

        assert suspects(0.0)
        assert not suspects(1.0) and not suspects(0.0, moved=False)

    def test_underflow(self) -> None:
        tiny = deep(2, weight_gradient=1e-9)
        found = diagnosed(run(tiny, dtype="float16", zeros=0.8))["underflow"]
        assert found.cause.startswith("dtype: 80% of its gradient are zero")
        assert alarms(run(tiny, dtype="float32", zeros=0.8)) == set()
        assert alarms(run(deep(2), dtype="float16", zeros=0.8)) == set()  # structural zeros


class TestCourse:
    def test_a_rate_that_throws_weights_away(self) -> None:
        losses = [1.0, 5.0, *[4.0] * (len(STEPS) - 2)]
        thrown = [record(s, deep(3, update=0.4), loss=x, optimizer="Adam")
                  for s, x in zip(STEPS, losses, strict=True)]  # fmt: skip
        found = diagnosed(thrown, optimizer={"name": "adam", "lr": 1.0})["learning_rate_too_high"]
        assert found.level == "warning" and found.change == {"optimizer.lr": 0.1}
        survived = [record(s, deep(3, update=0.4), loss=5.0 if 0 < s < 10 else 1.0,
                           optimizer="Adam") for s in STEPS]  # fmt: skip
        assert alarms(survived) == set()
        falling = [1.0, 9.0, *np.geomspace(2000, 1, len(STEPS) - 2)]
        assert falling[12] > 2 and falling[13] > 2  # at steps 30 and 40
        returning = [record(s, deep(3, update=0.4), loss=x, optimizer="Adam")
                     for s, x in zip(STEPS, falling, strict=True)]  # fmt: skip
        assert alarms(returning) == set()
        lost = deep(8, backward=0.4, signal=0.4, update=0.02)
        to_the_mean = [
            replace(made, layers=record(made.step, lost).layers, update_ratio=np.full(4, 0.4))
            if made.step >= 20 else made for made in returning
        ]  # fmt: skip
        assert "learning_rate_too_high" in alarms(to_the_mean)
        losses = [5.0 if n % 3 else 1 / (n + 1) for n in range(len(STEPS))]
        noisy = [record(s, deep(3, update=0.4), loss=x, optimizer="Adam")
                 for s, x in zip(STEPS, losses, strict=True)]  # fmt: skip
        assert alarms(noisy) == set()  # it fits some batches
        losses = [1.0, 0.2, *[0.8 if n % 4 == 2 else 1.6 for n in range(2, len(STEPS))]]
        uneven = [record(s, deep(3, update=0.4), loss=x, optimizer="Adam")
                  for s, x in zip(STEPS, losses, strict=True)]  # fmt: skip
        assert alarms(uneven) == set()  # as well as the first, if no longer as an easy one
        losses = [1.0 if n == 0 else 9.0 if n % 2 else 4.0 for n in range(len(STEPS))]
        swinging = [record(s, deep(3, update=0.4), loss=x, optimizer="Adam")
                    for s, x in zip(STEPS, losses, strict=True)]  # fmt: skip
        assert alarms(swinging) == {"learning_rate_too_high"}  # lower than the last, not than all

    def test_single_samples_differ_more_than_what_a_rate_does_to_them(self) -> None:
        def said(signal: float, update: float) -> set[str]:
            return alarms(
                record(s, deep(3, signal=signal, update=update if s < 10 else 0.01),
                       loss=2.0 if s else 0.02, optimizer="Adam")
                for s in STEPS
            )  # fmt: skip

        assert said(math.nan, 0.4) == set()
        assert said(math.nan, 1.5) == said(1.0, 0.4) == {"learning_rate_too_high"}

    def test_losses_that_are_no_better_for_a_rate_that_replaced_the_weights(self) -> None:
        def said(
            losses: Callable[[int], float], update: float = 1.5, signal: float = 1.0
        ) -> set[str]:
            keys = {"signal": signal}
            rows = {True: deep(3, update=update, **keys), False: deep(3, update=0.02, **keys)}
            return alarms(
                record(s, rows[s < 5], loss=losses(n), optimizer="Adam")
                for n, s in enumerate(STEPS)
            )

        some_fit = [4.0, 0.1, 9.0, 3.0, 0.5]
        assert said(lambda n: some_fit[n % 5] if n else 1.0) == {"learning_rate_too_high"}
        assert said(lambda n: some_fit[n % 5] if n else 1.0, update=0.5) == set()
        assert said(lambda n: some_fit[n % 5] if n else 1.0, signal=math.nan) == set()
        assert said(lambda n: some_fit[n % 5] / (n + 1) if n else 1.0) == set()
        burst = {3: 50.0, 4: 2e4, 5: 300.0}
        assert said(lambda n: burst.get(n, 1.0), update=0.5) == {"learning_rate_too_high"}
        assert said(lambda n: burst.get(n, 0.999**n), update=0.02) == set()
        assert said(lambda n: burst.get(n, 0.98**n), update=0.5) == set(), "it falls"
        assert said(lambda n: min(burst.get(n, 1.0), 90.0), update=0.5) == set()

    def test_a_rate_that_was_raised(self) -> None:
        """One look is enough where the loss is five times that at the start, two where it is two;
        none where it falls, or the rate was not raised."""

        def said(loss: float, rate: float = 10.0, sign: bool = True, rises: int = 50) -> list[int]:
            diagnosis = Diagnosis()
            return [
                step
                for step in STEPS
                for f in diagnosis.add(
                    record(step, deep(3), loss=loss if sign and step >= rises else 0.9**step,
                           learning_rate=rate if step >= 50 else 0.1)
                ) if f.verdict == "learning_rate_too_high"
            ]  # fmt: skip

        assert said(6.0) == [50] and said(3.0) == [100]
        assert said(6.0, rises=100) == [100]  # the first loss at that rate is from before
        assert said(1.5) == [150]  # less than that, but a hundred times that before the rise
        assert said(1.5, rate=0.5) == said(6.0, rate=0.5) == said(6.0, sign=False) == []

    def test_a_rate_that_was_raised_where_something_was_learnt(self) -> None:
        """Beside what the loss was before, though it is no higher than at the start."""

        def said(
            loss: float,
            rate: float = 10.0,
            back: int = 999,
            slow: int = 5,
            low: float = 0.1,
            between: float = 0.1,
        ) -> list[int]:
            diagnosis = Diagnosis()
            return [
                s
                for s in STEPS
                for f in diagnosis.add(
                    record(s, deep(3), loss=1.0 if s < slow else loss if 150 <= s < back else low,
                           learning_rate=rate if s >= 100 else between if s == 50 else 0.1)
                ) if f.alarm
            ]  # fmt: skip

        assert said(0.9) == [200]
        assert said(0.15) == said(0.9, rate=0.5) == said(0.9, back=200) == []
        # Where the median of the losses before is still that of the start, the lowest tells.
        assert said(0.8, slow=50) == [200]
        assert said(0.7, slow=50) == said(0.8, slow=50, low=0.3) == []
        assert said(0.8, slow=50, rate=5.0) == [200]
        assert said(0.8, slow=50, rate=5.0, between=0.9) == []  # not raised at once

    def test_a_signal_that_large_updates_took(self) -> None:
        """And did not bring back in 150 steps, whatever the loss does meanwhile."""

        def said(
            update: float = 0.15, later: float = 0.1, end: float = 0.6, optimizer: str = "Adam",
            rate: float = 0.1, outputs: int = 1,
        ) -> set[str]:  # fmt: skip
            losses, made = np.geomspace(1.0, end, len(STEPS)), []
            for s, x in zip(STEPS, losses, strict=True):
                rows = deep(3, signal=(later / 0.8) ** (1 / 3) if s > 10 else 1.0,
                            update=update if s < 5 else 2e-3)  # fmt: skip
                one = record(s, rows, loss=x, optimizer=optimizer,
                             learning_rate=rate if s > 10 else 0.1)  # fmt: skip
                assert one.layers is not None
                names = one.layers.names
                leads_to = ("", *("5" if name == "5" else "6" for name in names[1:]))
                several = replace(one.layers, leads_to=leads_to)
                made.append(one if outputs == 1 else replace(one, layers=several))
            return alarms(made)

        assert said() == {"learning_rate_too_high"} and said(outputs=2) == set()
        assert said(later=0.2) == said(update=0.09) == said(end=0.005) == set()
        assert said(optimizer="SGD") == said(rate=0.01) == set()

    def test_weights_that_have_outgrown_those_at_the_start(self) -> None:
        def found(
            grown: float = 150.0, loss: float = 1.0, update: float = 20.0, upto: int = 50
        ) -> Finding | None:
            made = []
            for s in [step for step in STEPS if step <= upto]:
                one = record(s, deep(3, update=1e-2 if s else update), loss=loss if s > 5 else 1.0,
                             optimizer="Adam")  # fmt: skip
                sizes = one.parameter_rms * (grown if s > 5 else 1.0)
                made.append(replace(one, parameter_rms=sizes))
            return diagnosed(made).get("learning_rate_too_high")

        high = found()
        assert high is not None and (high.level, high.steps[0]) == ("warning", 40)
        assert high.cause == (
            "learning rate: an update changed the weights by 20 of their size, they are 200 times "
            "as large as at the start, and the loss is not lower"
        )
        assert found(grown=50.0) is found(loss=0.5) is found(update=0.05) is found(upto=30) is None

    def test_weights_that_grew_while_the_loss_rose(self) -> None:
        """Tenfold since it was lowest, and to twice that at the start."""

        def said(grown: float = 30.0, last: float = 2.5, lowest: float = 0.3) -> set[str]:
            made = []
            for n, s in enumerate(STEPS):
                late = max(0, n - 10) / (len(STEPS) - 11)
                loss = last if s >= 200 else 1.0 if s < 5 else lowest
                layers = [replace(k, weight=k.weight and k.weight * grown**late) for k in deep(3)]
                made.append(record(s, layers, loss=loss))
            return alarms(made)

        assert said() == {"diverging"}
        assert said(grown=5.0) == said(last=1.5) == said(lowest=0.8) == set()

    def test_a_loss_that_rises_a_hundredfold(self) -> None:
        """However small the updates are; half of that targets that move may do, and under an
        optimizer whose updates tell nothing of the gradient all of it."""

        def said(end: float, optimizer: str = "SGD") -> set[str]:
            losses = np.geomspace(1.0, end, len(STEPS))
            made = (record(s, deep(3, update=5e-3), loss=x, optimizer=optimizer)
                    for s, x in zip(STEPS, losses, strict=True))  # fmt: skip
            return alarms(made)

        assert said(300.0) == {"diverging"} and said(50.0) == said(300.0, "Adam") == set()

    def test_what_was_learnt_and_is_gone(self) -> None:
        """Of a classifier that only guesses since."""

        def found(guesses: bool, lowest: float) -> Finding | None:
            made = []
            for s in (*STEPS, 350, 400, 450):
                loss = 1.0 if s < 5 else lowest if s < 200 else 1.0
                one = record(s, [*deep(3)[:-1], linear(signal=0.4)], loss=loss)
                made.append(guessing(one) if guesses and s >= 200 else one)
            diagnosis = Diagnosis()
            for one in made:
                diagnosis.add(one)
            return next((f for f in diagnosis.findings if f.alarm), None)

        gone = found(True, 0.1)
        assert gone is not None and gone.verdict == "stalled"
        assert gone.cause == (
            "relapse: what was learnt is gone: the loss was 0.1 and is now that of a guess"
        )
        assert "checkpoint" in gone.remedy
        assert found(False, 0.1) is None and found(True, 0.5) is None

    def test_is_not_over_while_nothing_is_learnt(self) -> None:
        def said(last: float) -> list[bool]:
            layers = deep(8, backward=0.4, signal=0.4, update=0.01)
            steps = (*STEPS, *range(310, 400, 10))
            found = diagnosed(
                record(s, layers if s <= 150 else deep(8), loss=1.0 if s <= 150 else last)
                for s in steps
            )
            return [f.resolved for f in found.values() if f.verdict == "vanishing" and f.alarm]

        assert said(1.0) == [False] and said(0.5) == [True]

    def test_parameters_that_nobody_has_are_named_where_nothing_is_learnt(self) -> None:
        def found(strangers: float) -> Finding:
            made = [record(s, deep(3, update=0.01)) for s in STEPS]
            return diagnosed([replace(made[0], strangers=strangers), *made[1:]])["stalled"]

        assert found(4.0).level == found(0.0).level == "info"  # somebody may train them after all
        assert found(4.0).cause.startswith("unregistered: after ")
        assert found(4.0).cause.endswith("; it hangs on 4 parameters that the model has not")
        assert "in a ModuleList in place of a list" in found(4.0).remedy
        assert found(0.0).cause.startswith("stalled: ")

    def test_weights_that_were_replaced(self) -> None:
        """By one update; after fifty steps what came in their place is no better than the start."""

        def said(update: float, end: float, signal: float = 0.5) -> set[str]:
            losses = [2.0, *np.geomspace(3.5, end, len(STEPS) - 1)]
            return alarms(
                record(
                    s, deep(3, signal=signal if n else 1.0, update=0.02 if n else update),
                    loss=x, optimizer="Adam",
                )
                for n, (s, x) in enumerate(zip(STEPS, losses, strict=True))
                if s <= 100
            )  # fmt: skip

        assert said(20.0, 2.8, 0.4) == {"learning_rate_too_high"}
        assert said(20.0, 0.5, 0.4) == said(0.5, 2.8, 0.4) == said(20.0, 2.8, 0.6) == set()

    def test_an_update_of_a_few_weights(self) -> None:
        """Which may have begun near zero; of many it is told at once."""

        def said(losses: Iterable[float], shape: tuple[int, int]) -> set[str]:
            made = (record(s, [linear(update=2.0)], loss=x) for s, x in enumerate(losses))
            return alarms(replace(one, shapes=(shape,)) for one in made)

        assert said([1.0, 0.9, 0.8], (1, 3)) == set()
        assert said([1.0, 0.9, 0.8], (30, 30)) == said([1.0, 1.1, 1.2], (1, 3)) == {"exploding"}
        assert said([1.0] + [0.95] * 20, (1, 3)) == {"exploding"}  # it stands for ten steps
        assert said([1.0] + [0.05] * 20, (1, 3)) == set()

    def test_diverging(self) -> None:
        rising = [record(s, deep(2, update=0.05), loss=1.3**n) for n, s in enumerate(STEPS)]
        assert "diverging" in alarms(rising)
        # What hardly moves raises no loss; targets do, as where a critic learns.
        assert alarms(record(s, deep(2), loss=1.25**n) for n, s in enumerate(STEPS)) == set()
        # Small updates do not raise it by much: targets that move, or an adversary, do.
        mildly = [record(s, deep(2, update=0.05), loss=1.13**n) for n, s in enumerate(STEPS)]
        assert alarms(mildly) == set()
        largely = [record(s, deep(2, update=0.1), loss=1.13**n) for n, s in enumerate(STEPS)]
        assert "diverging" in alarms(largely)
        assert alarms(record(s, deep(2), loss=1 + 0.1 * (s % 2)) for s in range(20)) == set()
        negative = [record(s, deep(2), loss=-(1.3**n)) for n, s in enumerate(STEPS)]
        assert alarms(negative) == set()

    def test_the_same_for_every_sample_may_change_again_under_an_adaptive_optimizer(self) -> None:
        constant = [*deep(3)[:-1], linear(signal=1e-7, update=0.05)]

        def said(optimizer: str) -> list[int]:
            diagnosis = Diagnosis()
            records = (record(s, constant, optimizer=optimizer) for s in STEPS)
            return [each.step for each in records for f in diagnosis.add(each) if f.alarm][:1]

        assert said("SGD") == [8] and said("Adam") == [100]

    def test_the_same_for_every_sample(self) -> None:
        constant = [*deep(3)[:-1], linear(signal=1e-9, update=0.05)]
        assert diagnosed(run(constant))["constant_output"].where == "6"
        # Most units are so to the bit only where they are made so, as by an autoregressive mask.
        masked = [*deep(3)[:-1], linear(signal=0.0, update=0.05)]
        assert alarms(run(masked)) == set()
        assert alarms(run([replace(k, signal=0.0) for k in masked])) == {"constant_output"}
        own_units = [*deep(3)[:-1], linear(signal=1e-3, update=0.05)]
        # It learns targets that are much the same, once it has learnt what they have in common.
        falling = [record(s, own_units, loss=(1 + s) ** -2) for s in STEPS]
        assert alarms(falling) == set() and alarms(run(own_units)) == {"constant_output"}
        assert alarms(run(own_units)[:-4]) == alarms(run(own_units, optimizer="Adam")) == set()
        assert alarms(record(s, own_units) for s in STEPS) == {"constant_output"}
        assert alarms(record(s, own_units) for s in STEPS if s <= 100) == set()
        adam = [record(s, own_units, optimizer="Adam") for s in STEPS]
        assert alarms(k for k in adam if k.step <= 150) == set()
        # A loss that has fallen to that of a guess has led nowhere either.
        falls = [3.0 if s < 10 else 1.0 for s in STEPS]
        fell = [record(s, own_units, loss=x) for s, x in zip(STEPS, falls, strict=True)]
        slowly = [replace(each, optimizer="Adam") for each in fell]
        assert alarms(slowly) == set()
        assert alarms(map(guessing, slowly)) == {"constant_output"}
        shown = [record(s, deep(3, update=0.05)) for s in (0, 1)]
        assert alarms(map(guessing, [*shown, *fell[2:]])) == {"constant_output"}
        taken = [replace(one, optimizer="Adam") for one in [*shown, *fell[2:]]]
        assert alarms(map(guessing, taken)) == set()  # which may bring back what it took
        assert alarms(k for k in adam if k.step <= 200) == {"constant_output"}
        slow = [replace(k, signal=0.0) for k in deep(3, update=1e-3)]
        assert alarms(run(slow)[:-2]) == set()
        assert alarms(record(s, slow) for s in STEPS) == {"constant_output"}
        still = [*deep(3, update=1e-7)[:-1], linear(signal=0.0, update=1e-7)]
        before = [record(s, deep(3), loss=1 - s / 400) for s in STEPS if s < 50]
        after = [record(s, still, loss=0.8) for s in STEPS if s >= 50]
        assert alarms([*before, *after]) == {"constant_output"}
        # As a value is, of a chain of states none of which was rewarded yet.
        idle = [record(s, constant, loss=0.0 if s < 100 else 1e-6 * (s % 3)) for s in STEPS]
        assert diagnosed(idle) == {}

    def test_what_is_no_alarm(self) -> None:
        losses = [*[1.0 + 0.01 * (k % 3) for k in range(len(STEPS) - 1)], 9.0]
        found = diagnosed(record(s, deep(2), loss=x) for s, x in zip(STEPS, losses, strict=True))
        assert found["loss_spike"].level == "info"
        swinging = [record(s, deep(2), loss=1.0 + (s % 2)) for s in range(12)]
        found = diagnosed(swinging, optimizer={"name": "sgd", "lr": 0.1})["oscillating"]
        assert found.level == "info" and found.change == {}
        still = [record(s, deep(2, update=0.1)) for s in (*STEPS, 350, 400)]
        assert diagnosed(still)["stalled"].level == "info"
        longer, diagnosis = range(200, 2000, 50), Diagnosis()
        said = [
            (f.verdict, f.resolved)
            for step in (*STEPS[:16], *longer)
            for f in diagnosis.add(record(step, deep(2, update=0.1), loss=0.96 + step % 100 / 1e3))
        ]
        assert said == [("stalled", False)]  # once, and for as long as it holds


def scaled(made: StepRecord, factor: float) -> StepRecord:
    """The record of the same step if the loss were multiplied."""

    def times(table: object) -> object:
        moments = table.moments.copy()  # type: ignore[attr-defined]
        moments[:, 1:4] *= factor
        return replace(table, moments=moments)  # type: ignore[type-var]

    layers = made.layers
    if layers is not None:
        layers = replace(layers, gradients=times(layers.gradients))  # type: ignore[arg-type]
    return replace(
        made, loss=made.loss * factor, gradient_norm=made.gradient_norm * factor,
        gradients=times(made.gradients), layers=layers,
    )  # type: ignore[arg-type]  # fmt: skip


def rectified(records: list[StepRecord]) -> list[str]:
    """The first and the last of the layers that are followed, in all records, by a rectifier and
    another layer with weights."""
    common: set[str] | None = None
    for made in records:
        table = made.layers
        assert table is not None
        rows = zip(table.names, table.names[1:], table.kinds[1:], table.names[2:], strict=False)
        owners = {name.removesuffix(".weight") for name in made.parameters}
        here = {a for a, _, kind, c in rows if kind in RECTIFIERS and {a, c} <= owners}
        common = here if common is None else common & here
    return [pick(common, key=int) for pick in (min, max)] if common else []


def rescaled(made: StepRecord, factor: float, layer: str) -> StepRecord:
    """The record if this layer's weights were multiplied and the next one's divided by as much, as
    can be done around a rectifier without changing what the network computes."""

    def times(table: TensorTable, factors: dict[str, float]) -> TensorTable:
        moments = table.moments.copy()
        moments[:, 1:4] *= np.array([factors.get(name, 1.0) for name in table.names])[:, None]
        return replace(table, moments=moments)

    table = made.layers
    assert table is not None
    row = table.names.index(layer)
    after, last = table.names[row + 1 : row + 3]
    larger = {layer: factor, after: factor}
    smaller = {name: 1 / factor for name in larger}
    own = {f"{layer}.weight": factor, f"{layer}.bias": factor, f"{last}.weight": 1 / factor}
    return replace(
        made,
        parameter_rms=made.parameter_rms * [own.get(name, 1.0) for name in made.parameters],
        gradients=times(made.gradients, {name: 1 / share for name, share in own.items()}),
        layers=replace(
            table, rms=table.rms * [larger.get(name, 1.0) for name in table.names],
            gradients=times(table.gradients, smaller),
        ),
    )  # fmt: skip


def verdicts(records: Iterable[StepRecord]) -> list[tuple[str, str, tuple[int, int], bool]]:
    diagnosis = Diagnosis()
    for one in records:
        diagnosis.add(one)
    return [(f.verdict, f.level, f.steps, f.resolved) for f in diagnosis.findings]


def test_a_rescaled_network_has_the_records_that_are_made_of_its_twin() -> None:
    """What all of the runs above are put to is what torch itself makes of such a network."""
    torch.manual_seed(0)
    x, y = torch.randn(16, 4), torch.randn(16, 2)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    factor = 2.0**10  # no rounding

    def seen() -> StepRecord:
        made = list[StepRecord]()
        model.zero_grad()
        with Monitor(model, sinks=[made.append]) as monitor:
            loss = (model(x) - y).square().mean()
            loss.backward()
            with monitor.step(0, loss):
                pass
        return made[0]

    twin = seen()
    assert rectified([twin]) == ["0", "2"]
    with torch.no_grad():
        model[2].weight.mul_(factor)
        model[2].bias.mul_(factor)
        model[4].weight.div_(factor)
    real, expected = seen(), rescaled(twin, factor, "2")
    assert real.layers is not None and expected.layers is not None
    assert real.loss == twin.loss
    for ours, theirs in (
        (real.parameter_rms, expected.parameter_rms),
        (real.gradients.moments[:, 1], expected.gradients.moments[:, 1]),
        (real.layers.rms, expected.layers.rms),
        (real.layers.signal_fraction, expected.layers.signal_fraction),
        (real.layers.gradients.moments[:, 1], expected.layers.gradients.moments[:, 1]),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert not np.allclose(real.layers.rms, twin.layers.rms)  # type: ignore[union-attr]


def test_the_changes_of_a_configuration() -> None:
    model = {"name": "mlp", "activation": "sigmoid", "init": {"hidden": "default", "bias": "x"}}
    records = run(deep(12, "Sigmoid", backward=0.2, signal=0.2))
    found = diagnosed(records, model=model)["vanishing"]
    assert "model.init.hidden" in found.change
    assert diagnosed(records)["vanishing"].change == {}


class TestInputs:
    """What goes in may be to blame for what comes out: its size, or how little of it differs."""

    @staticmethod
    def signal_of_inputs(made: StepRecord, signal: float) -> StepRecord:
        assert made.layers is not None
        fractions = np.array([signal, *made.layers.signal_fraction[1:]])
        return replace(made, layers=replace(made.layers, signal_fraction=fractions))

    def test_an_output_that_grows_is_not_constant(self) -> None:
        """Also where inputs are small, beside which 3 % of a signal are too little."""

        def said(early: float) -> set[str]:
            rows = [replace(k, rms=0.02) for k in deep(3, update=0.01)]
            return alarms(
                record(s, [*rows[:-1], replace(rows[-1], signal=early if s < 150 else 0.025)],
                       input_rms=0.02) for s in STEPS if s <= 250
            )  # fmt: skip

        assert said(0.025) == {"constant_output"} and said(2e-3) == set()

    def test_too_large(self) -> None:
        def found(size: float) -> Finding:
            thrown = (record(s, deep(3, update=30.0), input_rms=size) for s in (0, 1))
            return diagnosed(thrown, optimizer={"lr": 0.1})["exploding"]

        large, usual = found(200.0), found(20.0)
        assert large.cause.startswith("data: the inputs have an RMS of 200; ")
        assert large.cause.endswith(usual.cause.removeprefix("learning rate: "))
        assert large.remedy == f"scale the inputs to a mean of 0 and an RMS of 1; or {usual.remedy}"
        assert large.change == usual.change != {}

    def test_much_the_same_for_every_sample(self) -> None:
        def cause(signal: float) -> str:
            rows = deep(12, backward=0.2, signal=0.2)
            both = [self.signal_of_inputs(record(s, rows), signal) for s in (0, 1)]
            return diagnosed(both)["vanishing"].cause

        assert cause(3e-4).startswith("data: only 0.0003 of the inputs depends on the sample")
        assert cause(0.1).startswith("initialisation: ")

    def test_nothing_beside_the_biases(self) -> None:
        def cause(size: float, first: float) -> str:
            rows = [*deep(3, update=0.05)[:-1], linear(signal=1e-9, update=0.05)]
            rows[0] = replace(rows[0], signal=first)
            return diagnosed(run(rows, input_rms=size))["constant_output"].cause

        assert cause(1e-4, 1e-3).startswith("data: the inputs have an RMS of 0.0001; ")
        assert cause(1e-4, 0.5).startswith("data: ")  # biases that have grown since
        assert cause(0.5, 1e-3).startswith("initialisation: ")
        rows = [replace(k, signal=0.0) for k in deep(3, update=0.05)]
        same = run(rows)
        for each in same:
            assert each.layers is not None
            each.layers.signal_fraction[0] = 0.0
        found = diagnosed(same)["constant_output"]
        assert found.cause.startswith("data: the inputs are the same for every sample; ")
        assert alarms(one for one in same if one.step < 100) == set()

    def test_one_context_that_is_asked_again_and_again(self) -> None:
        """Of all samples of a batch the same is right, as a policy's answer to one question is."""

        def said(loss: Callable[[int], float]) -> set[str]:
            rows = [replace(k, signal=0.0) for k in deep(3, update=5e-3)]
            return alarms(self.signal_of_inputs(record(s, rows, loss=loss(s)), 0.0) for s in STEPS)

        assert said(lambda s: 1.0) == {"constant_output"}
        assert said(lambda s: 0.96**s) == set()  # it learns the answer
        assert said(lambda s: (-1) ** s * 0.1) == set()  # beside a baseline

    def test_a_codebook_of_which_one_entry_is_used(self) -> None:
        """The gradient passes where the signal does not."""

        def said(through: float, until: int) -> set[str]:
            rows = deep(4, update=5e-3)
            rows = [
                replace(row, gradient=through) if at < 4 else replace(row, signal=0.0)
                for at, row in enumerate(rows)
            ]
            return alarms(record(s, rows, loss=1 / (1 + s / 100)) for s in range(0, until, 25))

        assert said(0.1, 500) == set() and said(0.1, 600) == {"constant_output"}
        assert said(1e-5, 500) != set()

    def test_a_mean_that_the_output_starts_with(self) -> None:
        """Errors that are small beside what differs of it are those of what has been learnt."""

        def said(away: float) -> set[str]:
            made = [self.squared(s, away, 50.0, update=1e-3) for s in STEPS if s <= 200]
            for one in made:
                assert one.layers is not None
                one.layers.signal_fraction[-1] = 0.002  # 0.1 of 50
            return alarms(made)

        assert said(3.0) == {"constant_output"} and said(0.3) == set()

    @staticmethod
    def squared(
        step: int, away: float, output: float, power: float = 2, **keys: float
    ) -> StepRecord:
        """A record whose output lacks `away`: of (power 2) a squared loss; which differs a little
        from step to step."""
        away *= 1 + 0.05 * (step % 3)
        rows = deep(3, **keys)  # type: ignore[arg-type]
        rows[-1] = replace(rows[-1], rms=output, gradient=power * away ** (power - 1) / VALUES)
        return record(step, rows, loss=away**power, input_rms=min(max(output, 1.0), 25.0))

    def test_targets_that_are_far_away(self) -> None:
        def found(
            away: float, output: float, power: float = 2, left: float = 1.0
        ) -> Finding | None:
            sizes = [away if s < 12 else left * away for s in STEPS]
            rows = [
                self.squared(s, size, output, power, update=0.01)
                for s, size in zip(STEPS, sizes, strict=True)
            ]
            return diagnosed(rows, data={"standardize": False}).get("stalled")

        far = found(300.0, 20.0)
        assert far is not None and far.level == "warning" and far.steps[0] == 150
        # Batches of such losses differ.
        noisy, falls = found(300.0, 20.0, left=0.96), found(300.0, 20.0, left=0.9)
        assert noisy is not None and noisy.level == "warning" and falls is None
        assert "the targets are 300 away from an output of 20 (RMS)" in far.cause
        assert far.change == {"data.standardize": True}
        assert far.remedy == "scale inputs and targets to a mean of 0 and an RMS of 1"
        absolute = found(300.0, 20.0, power=1)
        assert absolute is not None and absolute.cause == far.cause
        for near in (found(20.0, 0.1), found(300.0, 100.0), found(300.0, 20.0, power=1.5)):
            assert near is None or near.level == "info"

    def test_targets_behind_a_rate(self) -> None:
        def found(away: float, grows: float = 2.0, power: float = 2) -> Finding:
            rows = [self.squared(s, away * grows**s, 1.0, power, update=30.0) for s in (0, 1)]
            return diagnosed(rows, optimizer={"lr": 0.1}, data={"standardize": False})["exploding"]

        far, near = found(300.0), found(3.0)
        assert far.cause.startswith("data: the targets are 300 away from an output of 1 (RMS); ")
        assert "the targets are 180 away from an output" in found(178.0).cause
        assert far.remedy.startswith("scale the targets to a mean of 0 and an RMS of 1; or ")
        assert far.change == {"data.standardize": True}
        assert near.cause.startswith("learning rate: ") and [*near.change] == ["optimizer.lr"]
        assert found(300.0, power=1).cause.startswith("learning rate: ")

    def test_tiny_inputs_beside_biases_that_grow(self) -> None:
        def said(size: float, fall: float = 0.0, given: float = 0.8) -> set[str]:
            rows = [*deep(3, update=2e-4)[:-1], linear(signal=0.02, update=2e-4)]
            rows = [replace(k, rms=size) for k in rows]
            made = [record(s, rows, input_rms=size, loss=1 - fall * s) for s in STEPS if s <= 200]
            return alarms(self.signal_of_inputs(one, given) for one in made)

        assert said(1e-3) == {"constant_output"}
        assert said(1.0) == said(1e-3, fall=1e-3) == said(1e-3, given=0.02) == set()

    def test_large_inputs_lead_to_all_of_it(self) -> None:
        rows = deep(12, backward=0.2, signal=0.2)
        found = diagnosed([record(s, rows, input_rms=3000.0) for s in (0, 1)])["vanishing"]
        assert found.cause.startswith("data: the inputs have an RMS of 3000; ")

    def test_large_inputs_of_which_nothing_is_learnt(self) -> None:
        def found(size: float, last: float = 1.0, kind: str = "Linear") -> Finding | None:
            rows = [replace(k, rms=size) for k in deep(3)]
            rows[0] = replace(rows[0], kind=kind)
            losses = [last if s >= 150 else 3.0 if s < 10 else 1.0 for s in STEPS]
            made = [
                guessing(record(s, rows, input_rms=size, loss=x))
                for s, x in zip(STEPS, losses, strict=True) if s <= 150
            ]  # fmt: skip
            return diagnosed(made, data={"standardize": False}).get("stalled")

        raw = found(80.0)
        assert raw is not None and raw.level == "warning" and raw.steps[0] == 150
        assert raw.cause.startswith(
            "data: after 150 steps nothing is learnt but to guess; the inpu"
        )
        assert raw.change == {"data.standardize": True}
        assert found(20.0) is found(80.0, last=0.5) is found(80.0, last=0.95) is None
        assert found(80.0, last=0.98) is not None  # which is not on its way
        assert found(80.0, kind="BatchNorm1d") is None  # which is made for any size

    def test_small_inputs_of_which_nothing_is_learnt(self) -> None:
        def found(
            size: float, fall: float = 0.0, kind: str = "Linear", last: float = 1.0
        ) -> Finding | None:
            rows = [replace(k, rms=0.02) for k in deep(3)]
            rows[1] = replace(rows[1], kind=kind)
            losses = [(1 - fall * s) * (last if s >= 300 else 1.0) for s in STEPS[:-4] + (300,)]
            pairs = zip(STEPS[:-4] + (300,), losses, strict=True)
            made = (record(s, rows, input_rms=size, loss=x) for s, x in pairs)
            said = diagnosed(made, data={"standardize": False}).get("stalled")
            return None if said is None or said.level == "info" else said

        tiny = found(1e-3)
        assert tiny is not None and tiny.steps[0] == 300
        assert tiny.cause.startswith("data: after 300 steps nothing is learnt; the inputs have an ")
        assert tiny.change == {"data.standardize": True}
        assert found(0.01) is found(1e-3, fall=1e-3) is found(1e-3, kind="LayerNorm") is None
        assert found(1e-3, last=0.5) is None  # which is on its way

    def test_a_last_activation_that_lets_nothing_back(self) -> None:
        def found(
            slope: float, power: float = 2, output: float = 1e-3, fall: float = 0.0
        ) -> Finding | None:
            made = []
            for s in STEPS:
                one = self.squared(s, 0.9 * (1 - fall * (s > 5)), output, power, update=0.01)
                assert one.layers is not None
                rows = [*deep(3, update=0.01), Layer("Sigmoid", output)]
                errors = one.layers.gradients.moments[-1, 1] / VALUES**0.5
                rows[-1] = replace(rows[-1], gradient=errors)
                rows[-2] = replace(rows[-2], gradient=0.25 * slope * errors)
                made.append(record(s, rows, loss=one.loss))
            said = diagnosed(made).get("saturated")
            return None if said is None or said.where != "7" else said

        shut = found(1e-6)
        assert shut is not None and shut.steps[0] == 100 and shut.level == "warning"
        assert shut.cause == (
            "last activation: the last Sigmoid is at its limit for all samples and lets 1e-06 of "
            "the gradient back"
        )
        assert shut.remedy.startswith("take a cross-entropy that undoes it, or leave it out")
        assert found(1e-2) is found(1e-6, power=1) is found(1e-6, output=2.0) is None
        assert found(1e-6, fall=0.8) is None  # most is learnt, and this batch has none of the rest

    def test_targets_that_the_last_activation_does_not_reach(self) -> None:
        def cause(kind: str, away: float) -> str:
            rows = [self.squared(s, away, 1.0, update=0.01) for s in STEPS]
            for one in rows:
                assert one.layers is not None
                layers = replace(one.layers, kinds=(*one.layers.kinds[:-1], kind))
                object.__setattr__(one, "layers", layers)
            return (
                diagnosed(rows).get("stalled") or Finding("", "info", None, (0, 0), {}, "", "")
            ).cause

        assert cause("Tanh", 12.0).startswith(
            "data: after 150 steps the targets are 12 away from an"
        )
        assert "(RMS), and Tanh gives no more than 1" in cause("Tanh", 12.0)
        assert not cause("Tanh", 5.0).startswith("data") and not cause("Linear", 12.0).startswith(
            "d"
        )

    def test_is_not_to_blame_for_the_loop(self) -> None:
        piled = [record(s, deep(3), input_rms=500.0, carried=4.0) for s in STEPS[:4]]
        assert diagnosed(piled)["accumulating_gradients"].cause.startswith("loop: ")
