"""The rules of other detectors, applied to the same records as ours.

Each rule is a function of the records of one run and of how many steps it was to have; it gives
the alarms in their order, of which `PEERS` keeps the first of each verdict. The verdicts bear our
names, and where a peer has one name for two things of ours, it gets the one that is right.

What no record holds, no rule gets: accuracies, validation losses, targets, values of weights and
outputs one by one. Where a rule wants a kernel's gradient, it gets that of a parameter of two
dimensions or more; where it wants the mean of a layer's output, which it compares with 0 or with
itself, it gets the root mean square, which is 0 or stays the same when all values do. A peer that
looks once an epoch or every 500 steps looks at each record here, which is to its advantage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.record import LayerTable, StepRecord


class Alarm(NamedTuple):
    """What a detector said first of one kind."""

    step: int
    verdict: str
    where: str | None = None
    cause: str = ""


Records = Sequence[StepRecord]
Rule = Callable[[Records, int], Iterator[Alarm]]
COUNT, NORM, SUM_ABS, _, ZEROS, NANS, INFINITIES = range(7)  # columns of TensorTable.moments


class Gradients(NamedTuple):
    """The gradients of some parameters in the order of the model."""

    names: list[str]
    moments: NDArray[np.float64]  # (N, 7)

    @property
    def norms(self) -> NDArray[np.float64]:
        """(N,) L2, NaN where not finite."""
        return np.where(self.broken, np.nan, self.moments[:, NORM])

    @property
    def mean_abs(self) -> NDArray[np.float64]:
        """(N,) NaN where not finite."""
        return np.where(self.broken, np.nan, self.moments[:, SUM_ABS] / self.moments[:, COUNT])

    @property
    def zero_share(self) -> NDArray[np.float64]:
        """(N,) of the values that are exactly zero."""
        return self.moments[:, ZEROS] / self.moments[:, COUNT]

    @property
    def broken(self) -> NDArray[np.bool_]:
        """(N,) whether there is a NaN or an infinity."""
        return (self.moments[:, NANS] + self.moments[:, INFINITIES]) > 0


def gradients(record: StepRecord, dimensions: int = 1) -> Gradients:
    """The gradients of the parameters with so many dimensions or more."""
    shapes = dict(zip(record.parameters, record.shapes, strict=True))
    rows = [
        row
        for row, name in enumerate(record.gradients.names)
        if len(shapes.get(name, ())) >= dimensions and record.gradients.moments[row, COUNT] > 0
    ]
    return Gradients([record.gradients.names[r] for r in rows], record.gradients.moments[rows])


def kernels(record: StepRecord) -> Gradients:
    """The gradients of matrices and convolutions."""
    return gradients(record, 2)


def before(layers: LayerTable, kinds: set[str]) -> list[int]:
    """The rows of the layers that stand before one of these kinds: its inputs."""
    return [row - 1 for row in range(1, len(layers.kinds)) if layers.kinds[row] in kinds]


def ratios(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N - 1,) of each value to the next; NaN or infinite where the next is 0."""
    with np.errstate(all="ignore"):
        return values[:-1] / values[1:]


def autotrainer(records: Records, steps: int, judged_from: float = 0.0) -> Iterator[Alarm]:
    """AutoTrainer (ICSE 2021), AutoTrainer/utils/monitor.py at 04f4033a.

    First / last kernel gradient (L2) below 1e-3 with the first below 1e-4: vanishing; above 70:
    exploding; 70 % of all gradient values exactly 0: dying ReLU; a loss or a gradient that is not
    finite, or a loss of 1e5. Flags stay up; the first problem found is the only one. Its
    verdicts on slow and on oscillating training read accuracies, which a record does not have.
    """
    dead = exploding = vanishing = False
    for record in records:
        every, kernel = gradients(record), kernels(record)
        if not record.loss < 1e5 or every.broken.any():
            yield Alarm(record.step, "non_finite")
            return
        if len(kernel.names):
            first, last = kernel.norms[0], kernel.norms[-1]
            ratio = first / last if last > 0 else math.inf if first > 0 else math.nan
            vanishing |= bool(ratio < 1e-3 and first < 1e-4)
            exploding |= bool(ratio > 70)
            dead |= bool(every.moments[:, ZEROS].sum() >= 0.7 * every.moments[:, COUNT].sum())
        found = {"dead_units": dead, "exploding": exploding, "vanishing": vanishing}
        if record.step >= judged_from * steps and any(found.values()):
            yield Alarm(record.step, next(verdict for verdict, up in found.items() if up))
            return


def autotrainer_gated(records: Records, steps: int) -> Iterator[Alarm]:
    """The same, which speaks after 30 % of the steps, and (but of numbers that are none) only of
    runs whose accuracy is too low: `gated` leaves out the others once it is known how they end."""
    return autotrainer(records, steps, 0.3)


def gated(alarms: list[Alarm], progress: float) -> list[Alarm]:
    """What AutoTrainer says of a run that came so far; 60 % is its bar for the accuracy."""
    return [a for a in alarms if progress < 0.6 or a.verdict == "non_finite"]


def sagemaker_gradients(records: Records, steps: int) -> Iterator[Alarm]:
    """VanishingGradient and ExplodingTensor of SageMaker Debugger, by its documentation.

    A mean absolute gradient below 1e-7; any tensor with a value that is not finite.
    """
    for record in records:
        every = gradients(record)
        for row in np.flatnonzero(every.broken)[:1]:
            yield Alarm(record.step, "non_finite", every.names[row])
        if not math.isfinite(record.loss):
            yield Alarm(record.step, "non_finite")
        for row in np.flatnonzero(every.mean_abs < 1e-7)[:1]:
            yield Alarm(record.step, "vanishing", every.names[row])


def sagemaker(records: Records, steps: int) -> Iterator[Alarm]:
    """The rules above with PoorWeightInitialization, DeadRelu, WeightUpdateRatio and
    LossNotDecreasing, by the documentation of SageMaker Debugger.

    In the first 10 steps: variances of inputs of ReLU layers that differ tenfold, a gradient whose
    5th and 95th percentiles are less than 0.001 apart (of a normal distribution: 3.29 standard
    deviations), a loss that has not fallen for 5 steps. Half of a ReLU layer's units active for
    less than 1 % of a batch (here: for none of it). Updates above 10 or below 1e-8 of the weight.
    A loss that is not below that of 10 steps before.
    """
    yield from sagemaker_gradients(records, steps)
    yield from poor_initialisation(records)
    compared = records[0]
    for record in records:
        layers = record.layers
        if layers is not None:
            relu = [k == "ReLU" for k in layers.kinds]
            for row in np.flatnonzero(np.array(relu) & (layers.dead_fraction > 0.5))[:1]:
                yield Alarm(record.step, "dead_units", layers.names[row])
        for row in np.flatnonzero(record.update_ratio > 10)[:1]:
            yield Alarm(record.step, "learning_rate_too_high", record.parameters[row])
        for row in np.flatnonzero(record.update_ratio < 1e-8)[:1]:
            yield Alarm(record.step, "starved_update", record.parameters[row])
        if record.step - compared.step >= 10:
            if record.loss >= compared.loss:
                yield Alarm(record.step, "stalled")
            compared = record


def poor_initialisation(records: Records) -> Iterator[Alarm]:
    """SageMaker's PoorWeightInitialization, of which each part alone is documented to suffice."""
    best, since = math.inf, 0
    for record in records:
        if record.step >= 10:
            return
        every, layers = gradients(record), record.layers
        spread = 3.29 * every.moments[:, NORM] / np.sqrt(every.moments[:, COUNT])
        best, since = min(best, record.loss), 0 if record.loss < best else since + 1
        poor = bool((spread < 1e-3).any()) or since >= 5
        if layers is not None:
            variances = np.square(layers.rms[before(layers, {"ReLU"})])
            poor |= len(variances) > 1 and bool(variances.max() > 10 * variances.min())
        if poor:
            yield Alarm(record.step, "poor_initialisation")
            return


def unchanged(values: Sequence[NDArray[np.float64]]) -> list[int]:
    """The rows that have been the same in all of these arrays, the first of a block of 5."""
    if len(values) % 5 or len({len(row) for row in values[-5:]}) > 1:
        return []
    block = np.array(values[-5:])
    return np.flatnonzero((block == block[0]).all(0)).tolist()


NO_LAYERS = {"Input", "Flatten", "TimeSteps"}  # rows that DeepLocalize has not, or leaves out


class Localizer:
    """What DeepLocalize and DeepDiagnosis share: values that are 0, not finite or do not change."""

    def __init__(self, patient: bool) -> None:
        self.patient = patient  # zeros count once they are in half of what was seen
        self.zeros: dict[str, int] = {}
        self.history: dict[str, list[NDArray[np.float64]]] = {}
        self.seen = 0

    def check(self, record: StepRecord) -> Iterator[Alarm]:
        """The alarms of the next record, forward before backward."""
        self.seen += 1
        layers, kernel = record.layers, kernels(record)
        if layers is not None:
            inner = [row for row, kind in enumerate(layers.kinds) if kind not in NO_LAYERS]
            names = [layers.names[row] for row in inner]
            yield from self.of(record.step, "forward", names, layers.rms[inner])
        loss = np.array([record.loss])
        if not math.isfinite(record.loss):
            yield Alarm(record.step, "non_finite")
        yield from self.of(record.step, "loss", ["loss"], loss, zero=False)
        matrices = [row for row, shape in enumerate(record.shapes) if len(shape) > 1]
        weights = [record.parameters[row] for row in matrices]
        yield from self.of(record.step, "weight", weights, record.parameter_rms[matrices])
        yield from self.of(record.step, "gradient", kernel.names, kernel.norms)

    def of(
        self, step: int, kind: str, names: list[str], values: NDArray[np.float64], zero: bool = True
    ) -> Iterator[Alarm]:
        """The alarms of one kind of tensor."""
        self.history.setdefault(kind, []).append(values)
        verdict = "vanishing" if kind == "gradient" else "dead_units"
        for name, value in zip(names, values.tolist(), strict=True):
            if not math.isfinite(value):
                yield Alarm(step, "non_finite", name)
            if value == 0 and zero:
                key = f"{kind} {name}"
                self.zeros[key] = self.zeros.get(key, 0) + 1
                if not self.patient or self.zeros[key] >= self.seen / 2:
                    yield Alarm(step, verdict, name)
        for row in unchanged(self.history[kind])[:1]:
            yield Alarm(step, "stalled", names[row])


def deeplocalize(records: Records, steps: int) -> Iterator[Alarm]:
    """DeepLocalize (ICSE 2021), class DeepLocalize of callback/callbacks.py in the artefact of
    DeepDiagnosis at 500b0176.

    The mean of a layer's output, a weight or its gradient is not finite, or 0 in half of the
    batches, or has not changed in 5; the same of the loss. It stops at the first, and names no
    problem but a layer.
    """
    localizer = Localizer(patient=True)
    for record in records:
        yield from localizer.check(record)


def deepdiagnosis(records: Records, steps: int) -> Iterator[Alarm]:
    """DeepDiagnosis (ICSE 2022), class mapFaluireToFix of callback/callbacks.py at 500b0176.

    As above, but 0 once is enough; a kernel's mean absolute gradient below 1e-7; at every fifth
    look half of the inputs of a sigmoid or tanh beyond 5 (of a normal distribution: an RMS above
    7.41); at the end 70 % of a ReLU layer's outputs at 0. The range of the last layer's output is
    compared with that of targets, which a record does not have; nor has it accuracies.
    """
    localizer = Localizer(patient=False)
    for number, record in enumerate(records, start=1):
        yield from localizer.check(record)
        kernel, layers = kernels(record), record.layers
        for row in np.flatnonzero(kernel.mean_abs < 1e-7)[:1]:
            yield Alarm(record.step, "vanishing", kernel.names[row])
        if layers is not None and number % 5 == 0:
            for row in before(layers, {"Sigmoid", "Tanh"}):
                if layers.rms[row] > 7.41:
                    yield Alarm(record.step, "saturated", layers.names[row + 1])
    looked = [record for record in records if record.layers is not None]
    if looked and records[-1].step >= 0.9 * (steps - 1):
        layers = looked[-1].layers
        assert layers is not None
        for row, kind in enumerate(layers.kinds):
            if kind == "ReLU" and layers.zero_fraction[row] >= 0.7:
                yield Alarm(records[-1].step, "dead_units", layers.names[row])


ACTIVATIONS = {"ReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "LeakyReLU", "ELU"}


def traintools(records: Records, steps: int) -> Iterator[Alarm]:
    """traintools 0.6.2, gradhealth.py and plasticity.py.

    A parameter's gradient that is not finite, of a norm of at most 1e-12 or at least 1e3; learning
    rate * gradient / weight (as if by SGD) at least 0.1 of a parameter or at most 1e-8 of all;
    more than half of an activation's units dormant (below 1e-3; here: 0 in all of the batch).
    """
    for record in records:
        every = gradients(record)
        sizes = dict(zip(record.parameters, record.parameter_rms.tolist(), strict=True))
        weights = np.array([sizes[name] for name in every.names]) * np.sqrt(every.moments[:, COUNT])
        steps_made = record.learning_rate * every.norms
        with np.errstate(all="ignore"):
            share = np.where(weights > 0, steps_made / weights, 0.0)
        for verdict, bad in (
            ("non_finite", every.broken),
            ("vanishing", every.norms <= 1e-12),
            ("exploding", every.norms >= 1e3),
            ("learning_rate_too_high", share >= 0.1),
        ):
            for row in np.flatnonzero(bad)[:1]:
                yield Alarm(record.step, verdict, every.names[row])
        total = np.linalg.norm(weights)
        if total > 0 and np.linalg.norm(steps_made) / total <= 1e-8:
            yield Alarm(record.step, "starved_update")
        if record.layers is not None:
            for row, kind in enumerate(record.layers.kinds):
                if kind in ACTIVATIONS and record.layers.dead_fraction[row] > 0.5:
                    yield Alarm(record.step, "dead_units", record.layers.names[row])


def trainpulse(records: Records, steps: int) -> Iterator[Alarm]:
    """trainpulse 0.4.0, src/trainpulse/detectors.py at 31df47d6.

    A loss or a gradient norm that is not finite; a gradient norm above 100, or below 1e-7 but not
    0; a loss above five times the mean of the 50 before; a learning rate that changes tenfold at
    once; a loss without progress (1e-5) for 100 steps. Its watch on slow steps is left out.
    """
    losses: list[float] = []
    rate = 0.0
    best, reached = math.inf, 0
    for record in records:
        norm, loss = record.gradient_norm, record.loss
        if not (math.isfinite(loss) and math.isfinite(norm)):
            yield Alarm(record.step, "non_finite")
        if norm > 100:
            yield Alarm(record.step, "exploding")
        if 0 < norm < 1e-7:
            yield Alarm(record.step, "vanishing")
        if len(losses) >= 50 and loss > 5 * np.mean(losses[-50:]) > 0:
            yield Alarm(record.step, "loss_spike")
        if rate > 0 and record.learning_rate > 0:
            if not 0.1 <= record.learning_rate / rate <= 10:
                yield Alarm(record.step, "learning_rate")
        if loss < best - 1e-5:
            best, reached = loss, record.step
        elif record.step - reached >= 100:
            yield Alarm(record.step, "stalled")
        losses.append(loss)
        rate = record.learning_rate


def epochs(records: Records, steps: int) -> Iterator[Records]:
    """The records of each twentieth of the run, where there are any."""
    for number in range(20):
        low, high = number * steps / 20, (number + 1) * steps / 20
        part = [record for record in records if low <= record.step < high]
        if part:
            yield part


def bttackler_gradients(records: Records, steps: int) -> Iterator[Alarm]:
    """VG, EG and DR of BTTackler (KDD 2024), bttackler/bridger/btassessor.py at 0fa9071c with
    default_config.yaml at a3db43f3.

    Means over an epoch (20 in a run) of each weight's mean absolute gradient: their median above
    1e4, or the median of the ratios of neighbours above 1000; in the first half of the run below
    1e-5, ratios below 1e-4, or one of them 0; half of the gradient values 0 (median of weights)
    after 5 epochs. That a trial among the best tenth of 10 is spared needs other trials.
    """
    for number, part in enumerate(epochs(records, steps), start=1):
        step, kernel = part[-1].step, [kernels(record) for record in part]
        if len({len(k.names) for k in kernel}) > 1 or not kernel[0].names:
            continue
        size = np.mean([k.mean_abs for k in kernel], axis=0)
        ratio = ratios(size)
        if np.isnan(size).any():
            yield Alarm(step, "non_finite")
            continue
        if np.median(size) > 1e4 or (size > 0).all() and len(ratio) and np.median(ratio) > 1e3:
            yield Alarm(step, "exploding")
        small = bool(np.median(size) < 1e-5 or (size == 0).any())
        if step < steps / 2 and (small or len(ratio) and np.median(ratio) < 1e-4):
            yield Alarm(step, "vanishing")
        zeros = np.mean([k.zero_share for k in kernel], axis=0)
        if number >= 5 and np.median(zeros) > 0.5:
            yield Alarm(step, "dead_units")


def bttackler(records: Records, steps: int) -> Iterator[Alarm]:
    """The rules above with SC, HO and NMG of BTTackler on the mean losses of epochs.

    In the first half a loss that varies by less than 1e-4; in the second one that varies more (std
    / mean) after its own half than before; the last 6 rising by 0.01 an epoch and varying by 20 %;
    the mean of the last 3 above that of the 3 before. Validation losses a record does not have.
    """
    yield from bttackler_gradients(records, steps)
    losses: list[float] = []
    for part in epochs(records, steps):
        step = part[-1].step
        losses.append(float(np.mean([record.loss for record in part])))
        if not np.isfinite(losses).all():
            return
        half, last = len(losses) // 2, losses[-6:]
        if step < steps / 2:
            if len(losses) >= 3 and variation(losses) < 1e-4:
                yield Alarm(step, "stalled")
        elif len(losses) >= 6:
            if variation(losses[:half]) < variation(losses[half:]):
                yield Alarm(step, "stalled")
            slope = np.polyfit(np.arange(6), last, 1)[0]
            if slope >= 0.01 and variation(last) > 0.2:
                yield Alarm(step, "oscillating")
        if len(last) == 6 and np.mean(last[:3]) < np.mean(last[3:]):
            yield Alarm(step, "stalled")


def variation(values: Sequence[float]) -> float:
    """Standard deviation / mean."""
    with np.errstate(all="ignore"):
        return float(np.std(values) / np.mean(values))


def first_of_each(alarms: Iterable[Alarm]) -> list[Alarm]:
    """The earliest alarm of each verdict, in the order of steps."""
    kept: dict[str, Alarm] = {}
    for alarm in sorted(alarms, key=lambda alarm: alarm.step):
        kept.setdefault(alarm.verdict, alarm)
    return list(kept.values())


def first(alarms: Iterable[Alarm]) -> list[Alarm]:
    """The earliest alarm alone, of a detector that ends the training with it."""
    return first_of_each(alarms)[:1]


Peer = Callable[[Records, int], list[Alarm]]


def peer(rule: Rule, kept: Callable[[Iterable[Alarm]], list[Alarm]] = first_of_each) -> Peer:
    """The rule as a function that gives what is kept of its alarms."""
    return lambda records, steps: kept(rule(records, steps))


GATED = "AutoTrainer"
PEERS: dict[str, Peer] = {
    GATED: peer(autotrainer_gated, first),
    "AutoTrainer without its gate": peer(autotrainer, first),
    "SageMaker, gradient rules": peer(sagemaker_gradients),
    "SageMaker, all rules": peer(sagemaker),
    "DeepDiagnosis": peer(deepdiagnosis, first),
    "DeepLocalize": peer(deeplocalize, first),
    "traintools": peer(traintools),
    "trainpulse": peer(trainpulse),
    "BTTackler, gradient rules": peer(bttackler_gradients),
    "BTTackler, all rules": peer(bttackler),
}
