"""What was learnt and is lost, or was never learnt: fires on hand-made records, and near misses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from records_by_hand import Layer, deep, linear, of_a_mean, record
from test_diagnosis import TestInputs as Inputs
from test_diagnosis import TestOverTime as OverTime
from test_diagnosis import diagnosed, guessing
from test_ending import ended
from torch import Tensor, nn

from trainer import Monitor
from trainer.diagnosis import blame
from trainer.diagnosis.view import view
from trainer.finding import Finding
from trainer.record import NORM, UNDEFINED, StepRecord

STEPS = (*range(12), 20, 50, 80, 100, 120, 150, 200)
Made = Callable[[int], StepRecord]


def end(made: Made, loss: float | None = None) -> str | None:
    """Verdict and cause of what is found at the end, where that is something."""
    found = ended([made(step) for step in STEPS], loss)
    return found[0].verdict + ", " + found[0].cause if found else None


def wavers(step: int) -> float:
    """A loss that neither falls nor stands still."""
    return 1 + 0.02 * (step % 3)


class TestEnd:
    """Of a run that has learnt nothing, or nothing that is left."""

    def test_a_classifier_that_guesses_again(self) -> None:
        def made(signal: float, better: float = 0.2, guess: bool = True, left: float = 1.0) -> Made:
            def at(step: int) -> StepRecord:
                late, middle = step > 100, 10 < step <= 100
                rows = deep(3, signal=signal ** (1 / 3) if late else 1.0, update=0.01)
                one = record(step, rows, loss=better if middle else 1.0)
                one.parameter_rms[:] *= left if late else 1.0
                return one if middle or not guess else guessing(one)

            return at

        found = end(made(0.1))
        assert found is not None and found.startswith("vanishing, relapse: what was learnt is gone")
        assert "0.8 of the output depended on the sample at step 0 and 0.08 at step 200" in found
        shrunk = end(made(0.1, left=0.2))
        assert shrunk is not None and shrunk.startswith("vanishing, decay: what was learnt is gone")
        assert shrunk.endswith("since then the weights have shrunk to 0.2 of their size")
        for near in (made(0.5), made(0.1, guess=False), made(0.1, better=0.9)):
            assert "what was learnt is gone" not in (end(near) or "")

    def test_an_output_that_never_depended_on_the_sample(self) -> None:
        def made(signal: float, falls: float = 1.0) -> Made:
            rows = deep(4, signal=signal ** (1 / 4), update=0.01)
            late = lambda step: falls if step > 50 else 1.0  # noqa: E731
            return lambda step: record(step, rows, loss=late(step) * wavers(step))

        found = end(made(0.03))
        assert found is not None and found.startswith("signal_collapse, initialisation: ")
        assert "what of the output depends on the sample had an RMS of 0.02 at first" in found
        assert end(made(0.2)) is end(made(0.03, falls=0.7)) is None

    def test_first_layers_that_never_got_a_gradient(self) -> None:
        """Whatever little the last ones learn alone."""

        def made(flow: float, later: float | None = None, falls: float = 0.8) -> Made:
            def at(step: int) -> StepRecord:
                ratio = flow if later is None or step < 50 else later
                rows = of_a_mean(deep(4, backward=ratio ** (1 / 3), update=1e-3))
                return record(step, rows, loss=falls if step > 50 else 1.0, optimizer="Adam")

            return at

        found = end(made(1e-3))
        assert found is not None and found.startswith("vanishing, initialisation: ")
        assert (
            "with a loss of 0.8, 1 at first; gradient times output at the first layers was 0.0002"
            in found
        )
        assert end(made(1e-3, falls=0.7)) is end(made(0.1)) is end(made(1e-3, later=0.1)) is None
        # Nor did updates do it where there was none from the start.
        assert (end(made(0.0)) or "").startswith("vanishing, initialisation: ")

    def test_updates_that_have_cut_the_first_layers_off(self) -> None:
        def made(thrown: float, gradient: float = 0.0, loss: float = 0.8) -> Made:
            def at(step: int) -> StepRecord:
                late, rows = step >= 20, deep(3)
                cut = {"gradient": gradient, "weight_gradient": gradient} if late else {}
                rows = [*(replace(each, **cut) for each in rows[:-1]), rows[-1]]
                rows = [replace(each, update=thrown if step == 1 else 1e-3) for each in rows]
                return record(step, rows, loss=loss if late else 1.0, optimizer="Adam")

            return at

        found = end(made(2.0))
        assert found is not None and found.startswith("vanishing, learning rate: the run ended ")
        for near in (made(0.05), made(2.0, gradient=0.1), made(2.0, loss=0.7)):
            assert "gradient times output at the first layers was" not in (end(near) or "")

    def test_first_layers_that_an_activation_lets_nothing_back_to(self) -> None:
        """Exactly zero, so that they have not moved at all; the others learn alone."""

        def made(gradient: float = 0.0, loss: float = 0.5, update: float = 0.0) -> Made:
            lost = {"gradient": gradient, "weight_gradient": gradient}
            rows = [linear(rms=900.0, update=update, **lost), *deep(3, "Hardtanh")[1:]]
            rows = [replace(each, update=0.01) if n and each.weight else each
                    for n, each in enumerate(rows)]  # fmt: skip
            return lambda step: record(step, rows, loss=loss if step > 50 else 1.0)

        found = end(made())
        assert found is not None and found.startswith("vanishing, activation: ")
        assert "Hardtanh lets no gradient pass, and what comes before it has not moved" in found
        for near in (made(gradient=0.1), made(loss=0.2), made(update=1e-4)):
            assert "lets no gradient pass" not in (end(near) or "")

    def test_a_gradient_that_grows_and_explains_nothing(self) -> None:
        def made(flow: float, output: float = 0.02, late: float | None = None) -> Made:
            def at(step: int) -> StepRecord:
                now = flow if late is None or step < 100 else late
                away, size = (1.0, 0.3) if step < 5 else (0.5, output)  # the mean is learnt
                one = Inputs.squared(step, away, size, update=0.01)
                assert one.layers is not None
                gradients = one.layers.gradients
                moments = gradients.moments.copy()
                moments[:-1, [NORM, 2, 3]] *= 1e-5  # as small as what comes of the loss
                moments[0, [NORM, 2, 3]] *= now
                layers = replace(one.layers, gradients=replace(gradients, moments=moments))
                return replace(one, layers=layers)

            return at

        found = end(made(1e7))
        assert found is not None and found.startswith("exploding, ")
        assert "the run ended after 201 steps without having learnt; gradient times out" in found
        for near in (made(1.0), made(1e7, output=1.0), made(1e7, late=1.0)):
            assert "exploding" not in (end(near) or "")

    def test_a_memory_that_never_got_a_gradient(self) -> None:
        def made(ratio: float, late: float, kind: str = "RNN", fall: float = 0.1) -> Made:
            def at(step: int) -> StepRecord:
                loss = 1.0 - fall * (step > 50) + 0.05 * (step % 2)
                rate = 1e-3 if kind == "LSTM" else 1e-5
                return OverTime().layers(late if step > 50 else ratio, loss, step, kind=kind,
                                         update=rate)  # fmt: skip

            return at

        found = end(made(1e-12, 1e-8))
        assert found is not None and found.startswith("vanishing, recurrence: the run ended after")
        assert "was 1e-12 of that at the last ones at first and 1e-08 at step 200" in found
        assert (end(made(1e-12, 1e-10, "LSTM")) or "").startswith("vanishing, memory: ")
        for near in (made(1e-12, 1e-8, "LSTM"), made(1e-12, 1e-5), made(1e-12, 1e-8, fall=0.3)):
            assert "first steps" not in (end(near) or "")

    def test_weights_that_begin_at_zero_warn_nobody(self) -> None:
        """Of which nothing is a share."""

        def made(step: int) -> StepRecord:
            one = record(step, deep(4, signal=0.03 ** (1 / 4), update=0.01), loss=wavers(step))
            one.parameter_rms[:] *= step > 0
            return one

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (end(made) or "").startswith("signal_collapse, ")

    def test_an_output_that_is_minute_beside_its_errors(self) -> None:
        def made(output: float, later: float | None = None, power: float = 2) -> Made:
            def at(step: int) -> StepRecord:
                size = output if later is None or step < 50 else later
                return Inputs.squared(step, 10.0, size, power, update=0.01)

            return at

        found = end(made(0.1))
        assert found is not None and found.startswith("signal_collapse, initialisation: ")
        assert end(made(2.0)) is end(made(0.1, later=2.0)) is None
        assert end(made(0.1, power=4)) is None

    def test_a_loss_that_is_the_same_all_the_way(self) -> None:
        def made(update: float, changes: float = 0.0) -> Made:
            return lambda step: record(step, deep(3, update=update), loss=1 + changes * (step % 2))

        found = end(made(2e-4))
        assert found is not None and found.startswith("starved_update, learning rate: ")
        moved = end(made(2e-3))
        assert moved is not None and moved.startswith("signal_collapse, initialisation: ")
        assert "although weights have moved by 0.4 of their size" in moved
        assert end(made(2e-3, changes=0.01)) is end(made(2e-3), 0.9) is None

    def test_one_of_several_branches(self) -> None:
        def made(share: float) -> Made:
            rows = deep(4, update=0.01)
            rows[2] = replace(rows[2], gradient=share)
            return lambda step: guessing(record(step, rows))

        found = end(made(1e-7))
        assert found is not None and found.startswith("vanishing, ")
        assert "with the loss of a guess; 2 got " in found
        assert (end(made(1e-2)) or "").startswith("stalled, ")

    def test_an_output_that_was_too_large_at_first(self) -> None:
        def made(size: float) -> Made:
            def at(step: int) -> StepRecord:
                rows = deep(3, forward=size ** (1 / 3) if step < 50 else 1.0, update=0.01)
                one = record(step, rows, loss=size if step < 50 else 1.0)
                return one if step < 50 else guessing(one)

            return at

        found = end(made(100.0))
        assert found is not None and found.startswith("signal_blow_up, ")
        assert "started 1e+02 times as large" in found or "started 100 times as large" in found
        assert end(made(10.0)) is None


class TestOnTheWay:
    """While a run goes on."""

    def test_most_units_of_a_layer(self) -> None:
        def found(zeros: float, loss: float, before: float = 0.4) -> Finding | None:
            made = []
            for step in STEPS:
                late, rows = step >= 80, deep(3)
                rows[1] = replace(rows[1], dead=zeros if late else before)
                size = loss if late else 1.0 if step < 12 else 0.2
                made.append(record(step, rows, loss=size))
            return diagnosed(made).get("dead_units")

        alarm = found(0.99, 0.8)
        assert alarm is not None and alarm.alarm and alarm.where == "1"
        assert alarm.cause == (
            "learning rate: 99.0% of what 1 gives is zero, 40% at first, and the loss is 4 times "
            "the lowest"
        )
        assert found(0.9, 0.8) is found(0.99, 0.4) is found(0.99, 0.8, before=0.9) is None

    def test_weights_that_a_decay_takes_back(self) -> None:
        def found(
            left: float, loss: float, lowest: float = 0.2, output: float = 0.05
        ) -> Finding | None:
            made = []
            for step in STEPS:
                late = step >= 100
                size = loss if late else 1.0 if step < 12 else lowest
                rows = deep(3)
                rows[-1] = replace(rows[-1], rms=output if late else 1.0)
                one = record(step, rows, loss=size)
                one.parameter_rms[:] *= left if late else 1.0
                made.append(one)
            found = diagnosed(made).get("signal_collapse")
            return found if found is not None and "what was learnt" in found.cause else None

        alarm = found(0.3, 1.0)
        assert alarm is not None and alarm.alarm
        assert alarm.cause.startswith(
            "decay: what was learnt is gone: the weights have shrunk to 0.3"
        )
        assert found(0.8, 1.0) is found(0.3, 0.5) is found(0.3, 1.0, lowest=0.6) is None
        assert found(0.3, 1.0, output=0.5) is None  # a decay on purpose, beside noise

    def test_activations_that_have_become_flat(self) -> None:
        """What small updates did, in a network that began well, may be what was asked for."""

        def found(first: float, later: float) -> Finding | None:
            made = []
            for step in STEPS:
                slope = first if step < 10 else later
                rows = deep(3, activation="Tanh", update=5e-3)
                for number in (5, 3, 1):  # what comes before an activation gets less
                    rows[number - 1] = replace(rows[number - 1], gradient=slope)
                made.append(record(step, rows, loss=wavers(step), optimizer="Adam"))
            return diagnosed(made).get("saturated")

        flat = found(0.1, 0.1)
        assert flat is not None and flat.alarm
        assert found(0.9, 0.1) is None


class TestCauses:
    """Of what is found late."""

    def test_a_network_that_was_well_has_no_start_values_to_blame(self) -> None:
        def found(lowest: float, signal: float = 1.0, grown: float = 2.0) -> Finding:
            made = []
            for step in STEPS:
                late = step >= 100
                keys = {"signal": 1e-3, "backward": 1e-3} if late else {"signal": signal}
                rows = deep(3, activation="Tanh", update=0.01, **keys)
                one = record(step, rows, loss=1.0 if late or step < 12 else lowest)
                one.parameter_rms[:] *= grown if late else 1.0
                made.append(one)
            return diagnosed(made)["vanishing"]

        late = found(0.2)
        assert late.cause.startswith("learning rate: the loss had come down to 0.2 before; ")
        assert late.remedy.startswith("lower the learning rate")
        # The weights are what they were: a factor, say, has become small.
        other = found(0.2, grown=1.0)
        assert other.cause.startswith("relapse: the loss had come down to 0.2 before; ")
        for near in (found(0.9), found(0.2, signal=1e-2)):
            assert near.cause.startswith(("activation: ", "initialisation: "))

    @pytest.mark.parametrize(("times", "category"), [(10.0, "data"), (3.0, "learning rate")])
    def test_units_that_die_behind_other_inputs(self, times: float, category: str) -> None:
        made = []
        for step in STEPS:
            late, rows = step >= 80, deep(3)
            if late:
                rows[0] = replace(rows[0], gradient=0.0)
                rows[1] = replace(rows[1], dead=1.0, rms=0.0, gradient=0.5)
            made.append(record(step, rows, input_rms=times if late else 1.0))
        alarm = diagnosed(made)["dead_units"]
        assert alarm.cause.startswith(f"{category}: ")
        assert ("the inputs are 10 times as large" in alarm.cause) is (category == "data")

    def test_growth_needs_no_epsilon(self) -> None:
        def broken(size: float) -> Finding:
            made = [record(step, deep(2), loss=wavers(step)) for step in STEPS]
            rows = [linear(), linear(rms=size), linear(rms=math.nan, gradient=math.nan)]
            made.append(record(201, rows, loss=math.nan))
            return diagnosed(made)["non_finite"]

        grown = broken(1e30)
        assert grown.cause.startswith("growth: outputs have grown to an RMS of 1e+30 before it")
        assert "epsilon" not in grown.remedy and "normalise or bound it" in grown.remedy
        assert broken(3.0).cause.startswith("operation: ")

    @pytest.mark.parametrize(("rate", "later"), [(1.0, 2.0), (100.0, 2.0), (100.0, 0.2)])
    def test_a_loss_that_breaks_at_a_rate_that_was_raised(self, rate: float, later: float) -> None:
        """Not where it has fallen at that rate, as after a warm-up."""
        made = [
            record(step, deep(2), loss=wavers(step) * (later if step > 50 else 1.0),
                   learning_rate=0.1 * (rate if step > 50 else 1.0))
            for step in STEPS
        ]  # fmt: skip
        made.append(record(201, deep(2), loss=UNDEFINED, learning_rate=0.1 * rate))
        cause = diagnosed(made)["non_finite"].cause
        raised = rate > 1 and later > 1
        assert ("since the rate was raised to 100 times what it was" in cause) is raised
        assert cause.startswith("learning rate: " if raised else "loss: ")

    @pytest.mark.parametrize("kind", ["ReLU", "GELU", "Tanh"])
    def test_an_activation_is_not_proposed_to_those_that_have_it(self, kind: str) -> None:
        """Of a gradient that gets less in them as well as of one that grows."""

        def category(factor: float, blamed: Callable[..., blame.Blame]) -> str:
            rows = deep(4, activation=kind)
            for number, row in enumerate(rows):  # all of it in the activations
                rows[number] = replace(row, gradient=factor ** (4 - (number + 1) // 2))
            made = record(0, rows)
            seen = view(made)
            assert seen is not None
            return blamed(seen, made).category

        less = category(0.01, lambda seen, made: blame.attenuation(seen, made, seen))
        assert less == ("activation" if kind == "Tanh" else "initialisation")
        assert category(100.0, blame.amplification) == "initialisation"


class Hidden(nn.Module):
    """Undoes its inputs' logarithm before the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.penalty = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(torch.log(x + 6)))
        self.penalty = hidden.mean()  # has a graph, which cannot be copied
        return self.last(hidden)


@pytest.mark.parametrize("step", [0, 5, 43])
@pytest.mark.parametrize("given", [-7.0, math.nan])
def test_data_that_the_model_itself_breaks(step: int, given: float) -> None:
    torch.manual_seed(0)
    model, found = Hidden(), list[Finding]()
    optimizer = torch.optim.Adam(model.parameters())
    with Monitor(model, found=found.append) as monitor:
        for number in range(step + 1):
            x = torch.rand(16, 4)
            if number == step:
                x[0, 0] = given
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            with monitor.step(number, loss):
                if loss.isfinite():
                    optimizer.step()
    [alarm] = [each for each in found if each.verdict == "non_finite"]
    if math.isnan(given):
        assert alarm.where == "input"
        assert alarm.cause.startswith("data: the data that the network is given are not finite, or")
    else:
        assert alarm.where == "model"
        assert alarm.cause.startswith("operation: Hidden itself, at its start, makes values that ")


def test_layers_that_are_all_dead_though_one_far_back_gives_them_something() -> None:
    dead = Layer("ReLU", rms=0.0, signal=0.0, gradient=0.0, dead=1.0)
    rows = [
        linear(gradient=0.0), linear(rms=0.0, gradient=0.0, signal=0.0, dead=1.0), dead,
        linear(rms=0.0, gradient=0.0, signal=0.0, dead=1.0), replace(dead, gradient=1.0),
    ]  # fmt: skip
    alarm = diagnosed(record(step, rows, loss=wavers(step)) for step in STEPS)["dead_units"]
    assert alarm.where == "2" and "all units of 2 are zero for every sample" in alarm.cause


@pytest.mark.parametrize("learns", [True, False])
def test_a_side_branch_whose_only_rectifier_is_shut(learns: bool) -> None:
    """The layers before it get their gradient by another way."""
    gradient = 1.0 if learns else 0.0
    rows = [
        linear(gradient=gradient), Layer("Tanh", gradient=gradient),
        linear(rms=3.0, gradient=0.0), Layer("ReLU", rms=0.0, signal=0.0, gradient=1.0, dead=1.0),
    ]  # fmt: skip
    found = diagnosed(record(step, rows, loss=wavers(step)) for step in STEPS)
    assert ("dead_units" in found) is not learns


def test_a_loss_that_is_made_to_be_constant() -> None:
    """The output changes, whatever the loss says."""

    def made(step: int) -> StepRecord:
        return record(step, deep(3, forward=1 + step / 400, update=2e-3), loss=1.0)

    assert end(made) is None


@pytest.mark.parametrize("grows", [True, False])
def test_a_bounded_state_does_not_overflow(grows: bool) -> None:
    """A layer that a loop calls step by step is where it broke, but not for its growth."""
    torch.manual_seed(0)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step, self.last = nn.Linear(6, 6), nn.Linear(6, 1)
            nn.init.eye_(self.step.weight)
            self.step.weight.data *= 3.0 if grows else 1.0

        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(len(x), 6)
            for given in x.unbind(1):
                state = self.step(state + given / given.abs().sum(-1, keepdim=True))
                state = state if grows else state.tanh()
            return self.last(state)

    model, found = Loop(), list[Finding]()
    with Monitor(model, found=found.append, every_steps=1) as monitor:
        for step, length in enumerate((12, 12, 12, 12, 100)):
            x = torch.rand(16, length, 6)
            if step == 4 and not grows:
                x[3, 5] = 0.0
            loss = model(x).square().mean()
            loss.backward()
            with monitor.step(step, loss):
                pass
            model.zero_grad()
    [alarm] = [each for each in found if each.verdict == "non_finite"]
    assert alarm.where == "step"
    assert alarm.cause.startswith("recurrence: " if grows else "operation: ")
