"""What an observed step says: its numbers and their histogram bins."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

# The bin of a value is the leading 10 bits of its float32 representation: sign, exponent (8 bits)
# and one mantissa bit, so there are two bins an octave and every bin is fixed for all time.
# A float64 outside float32's range counts in the outermost bin of its sign.
MAGNITUDES = 510  # finite bins of one sign; bin 0 holds (0, 2^-127)
SIGN = 512  # a negative value's bin is its magnitude's bin + SIGN
BINS = 1024  # both signs; the bins of zero and of non-finite values stay empty


def bin_edges() -> NDArray[np.float64]:
    """(MAGNITUDES + 1,) edges of the bins of |value|: bin k holds edges[k] <= |value| < edges[k+1].

    The first edge is 0 (zeros themselves are counted apart), the last is infinity.
    """
    bits = np.arange(MAGNITUDES, dtype=np.uint32) << np.uint32(22)
    return np.append(bits.view(np.float32).astype(np.float64), np.inf)


@dataclass(frozen=True)
class TensorStatistics:
    """Exact statistics of one tensor; norm, mean and maximum are over its finite values."""

    count: int
    norm: float  # L2
    sum_abs: float
    max_abs: float
    zeros: int
    nans: int
    infinities: int
    histogram: NDArray[np.int64] | None = None  # (BINS,): counts by `bin_edges`, + SIGN if negative

    @property
    def finite(self) -> int:
        """How many values are finite."""
        return self.count - self.nans - self.infinities

    @property
    def rms(self) -> float:
        """Root mean square of the finite values; NaN when there is none."""
        return self.norm / math.sqrt(self.finite) if self.finite else math.nan

    @property
    def mean_abs(self) -> float:
        """Mean of |value| over the finite values; NaN when there is none."""
        return self.sum_abs / self.finite if self.finite else math.nan


UsedBins = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # row, bin, count

MOMENTS = 7  # the fields of TensorStatistics before `histogram`, in that order:
COUNT, NORM, SUM_ABS, MAX_ABS, ZEROS, NANS, INFINITIES = range(MOMENTS)


@dataclass(frozen=True)
class TensorTable:
    """The statistics of several tensors, one row each."""

    names: tuple[str, ...]
    moments: NDArray[np.float64]  # (N, MOMENTS)
    histograms: NDArray[np.int64] | None = None  # (N, BINS)

    def __getitem__(self, name: str) -> TensorStatistics:
        """The statistics of the named tensor; KeyError when there is no such row."""
        row = self._rows[name]
        count, norm, sum_abs, max_abs, zeros, nans, infinities = self.moments[row].tolist()
        histogram = None if self.histograms is None else self.histograms[row]
        return TensorStatistics(
            int(count), norm, sum_abs, max_abs, int(zeros), int(nans), int(infinities), histogram
        )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    @cached_property
    def is_zero(self) -> NDArray[np.bool_]:
        """(N,) whether all values of a tensor are zero, as those of an empty one are."""
        return np.asarray(self.moments[:, ZEROS] == self.moments[:, COUNT])

    def only(self, names: Collection[str]) -> TensorTable:
        """The rows with one of these names."""
        rows = [row for row, name in enumerate(self.names) if name in names]
        histograms = None if self.histograms is None else self.histograms[rows]
        return TensorTable(tuple(self.names[row] for row in rows), self.moments[rows], histograms)

    @cached_property
    def used_bins(self) -> UsedBins:
        """The histograms without their empty bins; none at all where there are no histograms."""
        if self.histograms is None:
            return (np.zeros(0, np.int64),) * 3
        where = np.flatnonzero(self.histograms != 0)
        # BINS is a power of two.
        return where >> BINS.bit_length() - 1, where & BINS - 1, self.histograms.ravel()[where]

    def norms(self) -> NDArray[np.float64]:
        """(N,) L2 norms that the optimizer meets: NaN with any NaN, else inf with any infinity."""
        moments = self.moments
        norm, nans, infinities = moments[:, NORM], moments[:, NANS], moments[:, INFINITIES]
        if not np.count_nonzero(moments[:, NANS:]):
            return norm
        return np.where(nans > 0, np.nan, np.where(infinities > 0, np.inf, norm))


def norm_of(norms: NDArray[np.float64]) -> float:
    """The L2 norm of all values of several tensors that have these, NaN with any that is."""
    each = norms.tolist()
    # hypot says that of infinity and NaN it is infinity.
    return math.hypot(*each) if all(map(math.isfinite, each)) else float(sum(each))


SIGNALS = 4  # the numbers of a layer's output in LayerTable, in that order
INPUT = "Input"  # the kind of the row that no module put out
TIME_STEPS = "TimeSteps"  # that of the two ends, in time, of what a recurrent layer is given
ENDS = ("first_steps", "last_steps")  # the last parts of their names


@dataclass(frozen=True)
class LayerTable:
    """The outputs of layers, one row each in order of execution, and d(loss)/d(output).

    Before them stands what the first layer was given, unless that is no floating-point tensor: a
    row named `input` of the kind `Input`. Several calls of a layer in a step, and several backward
    passes through one, are taken for one with the values of all.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]  # class names of the modules, INPUT for the input
    dtypes: tuple[str, ...]  # of the output: `float32`, `bfloat16`, …
    rms: NDArray[np.float64]  # (L,) of the output; finite exactly if all its values are
    zero_fraction: NDArray[np.float64]  # (L,)
    signal_fraction: NDArray[np.float64]  # (L,) median over units of std over the batch / RMS
    dead_fraction: NDArray[np.float64]  # (L,) of the units that are zero in all of the batch
    gradients: TensorTable  # rows of the layers that a gradient reached
    # Of each row the last layer whose output hangs on its own, if that is known; () if they all
    # lead to one.
    leads_to: tuple[str, ...] = ()

    @property
    def rows(self) -> list[int]:
        """The numbers of the rows that layers put out."""
        return [row for row, kind in enumerate(self.kinds) if kind not in (INPUT, TIME_STEPS)]

    @property
    def has_input(self) -> bool:
        """Whether the first row is the network's input."""
        return self.kinds[:1] == (INPUT,)

    def with_gradients(self, gradients: TensorTable) -> LayerTable:
        """The same outputs with these gradients, as far as they are of its rows."""
        return replace(self, gradients=gradients.only(self.names))


# NaN with its sign set: the loop told a loss, which was NaN. NaN without it: it told none.
UNDEFINED = math.copysign(math.nan, -1.0)


def is_told(loss: float) -> bool:
    """Whether a record's loss is what the loop told, be it a number or not."""
    return not math.isnan(loss) or math.copysign(1.0, loss) < 0


@dataclass(frozen=True)
class StepRecord:
    """The numbers of one observed step: what held before its update, and that update.

    A number that does not apply is NaN: `loss` and `clip_coefficient` when the loop told of none,
    `step_ms` at the first record, `update_ratio` of a parameter that is all zeros,
    `carried_gradients` when the step before was not observed, `loss_before` where all weights are
    finite or nobody waited for that loss, `strangers` and `opponents` after the first record.
    """

    step: int
    wall_time: float  # seconds since 1970
    loss: float
    learning_rate: float
    gradient_norm: float  # of all gradients together, before clipping
    clip_coefficient: float  # what the gradients were multiplied by
    step_ms: float  # mean duration of a step since the record before
    monitor_ms: float  # of measuring it; sinks and diagnosis get the record after that
    carried_gradients: float  # how many gradients were added to those of the step before
    optimizer: str  # class name of what made the update; empty if unknown
    gradients: TensorTable  # one row per parameter that has a gradient
    parameters: tuple[str, ...]  # names of the rows of the five below
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]  # `float32`, `bfloat16`, …
    parameter_rms: NDArray[np.float64]  # (P,) before the update
    update_ratio: NDArray[np.float64]  # (P,) RMS(after - before) / RMS(before)
    unchanged_fraction: NDArray[np.float64]  # (P,) of the values that the update left as they were
    layers: LayerTable | None = None  # at the steps whose activations are observed
    loss_before: float = math.nan  # of the step before, observed or not
    # Parameters that the loss hangs on and neither the model nor an optimizer has.
    strangers: float = math.nan
    opponents: float = math.nan  # those that an optimizer has which has none of the model's

    def own_flows(self) -> list[float]:
        """‖weights‖·‖their gradient‖ of each matrix that has a gradient, in their order: blind to
        the loss' scale and to that of a layer whose next one makes up for it."""
        norms = dict(zip(self.gradients.names, self.gradients.norms().tolist(), strict=True))
        sized = zip(self.parameters, self.parameter_rms.tolist(), self.shapes, strict=True)
        return [
            rms * math.sqrt(math.prod(shape)) * norms[name]
            for name, rms, shape in sized
            if len(shape) > 1 and name in norms
        ]

    def idle_layers(self) -> frozenset[str]:
        """The layers that have matrices, none of them zero, all of which get zeros for a gradient:
        what they are given is zero, or nothing comes back to them."""
        lost = self.gradients.is_zero
        if not lost.any():
            return frozenset()
        zeros = {*compress(self.gradients.names, lost.tolist())}
        sized = zip(self.parameters, self.parameter_rms.tolist(), self.shapes, strict=True)
        idle = [(owner(name), name in zeros and rms > 0) for name, rms, s in sized if len(s) > 1]
        return frozenset(layer for layer, _ in idle) - {
            layer for layer, is_idle in idle if not is_idle
        }


def owner(parameter: str) -> str:
    """The layer that has the parameter; empty for the model itself."""
    layer, computed, _ = f".{parameter}".partition(".parametrizations.")  # of torch.nn.utils
    if not computed:
        layer = layer.rpartition(".")[0]
    return layer.removeprefix(".")
