"""What one record says about the layers, in order of execution: signal, flow and gain of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainer.diagnosis import dead, flow, time_ends
from trainer.diagnosis.order import ACTIVATIONS, RECURRENT, Names, Order, order
from trainer.record import (
    COUNT,
    INFINITIES,
    MAX_ABS,
    MOMENTS,
    NANS,
    ZEROS,
    LayerTable,
    StepRecord,
    owner,
)  # fmt: skip

Array = NDArray[np.float64]

CUT = 1e-6  # of the largest gradient: far from the smallest number that a type holds
ROUNDED_FROM, ROUNDED_TO = 0.01, 1e-6  # of what a layer puts out depends on the sample
PASSED_STRAIGHT = 1e-3  # of the flow comes through
NO_MOMENTS = np.full((1, MOMENTS), np.nan)


@dataclass(frozen=True)
class View:
    """The rows that layers put out, and the gradients beside them."""

    table: LayerTable
    parameters: tuple[str, ...] = ()  # their names, which begin with those of their layers
    own_flows: tuple[float, ...] = ()  # ‖weights‖·‖their gradient‖ of each matrix, in their order
    # Layers of whose matrices, which are not zero, all get zeros; and whether all layers are such.
    idle: frozenset[str] = frozenset()
    is_idle: bool = False

    @cached_property
    def order(self) -> Order:
        """Of the layers."""
        return order(self.table, self.parameters)

    @property
    def names(self) -> Names:
        return self.order.names

    @property
    def kinds(self) -> Names:
        return self.order.kinds

    @cached_property
    def rms(self) -> Array:
        return self.table.rms[self.order.rows]

    @cached_property
    def signal(self) -> Array:
        return self.table.signal_fraction[self.order.rows]

    @cached_property
    def dead(self) -> Array:
        return self.table.dead_fraction[self.order.rows]

    @cached_property
    def has_input(self) -> bool:
        """Whether it is known what the network was given: no tokens, nor a mask of infinities."""
        known = self.table.has_input and self.order.begins
        return known and (math.isfinite(self.table.rms[0]) or not np.isfinite(self.rms).all())

    @cached_property
    def input_rms(self) -> float:
        """RMS of what the network was given; NaN for tokens."""
        return float(self.table.rms[0]) if self.has_input else np.nan

    @cached_property
    def input_signal(self) -> float:
        """How much of what the network was given depends on the sample; NaN for tokens."""
        return float(self.table.signal_fraction[0]) if self.has_input else np.nan

    @cached_property
    def moments(self) -> Array:
        """(L, MOMENTS) of the activation gradients; NaN where none came."""
        moments: Array = np.concatenate([self.table.gradients.moments, NO_MOMENTS])
        return moments[self.order.gradients]

    @cached_property
    def gradient_rms(self) -> Array:
        """(L,) of d(loss)/d(output): NaN where none came or where it is not finite."""
        count, norm, _, _, _, nans, infinities = self.moments.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(nans + infinities > 0, np.nan, norm / np.sqrt(count))

    @cached_property
    def gradient_lost(self) -> NDArray[np.bool_]:
        """(L,) whether a gradient came that is zero throughout."""
        return np.asarray(self.moments[:, ZEROS] == self.moments[:, COUNT])

    @cached_property
    def gradient_not_finite(self) -> NDArray[np.bool_]:
        """(L,) whether the gradient that came has a NaN or an infinity."""
        return np.asarray(self.moments[:, NANS] + self.moments[:, INFINITIES] > 0)

    @cached_property
    def flow(self) -> Array:
        """(L,) ‖output‖·‖d(loss)/d(output)‖: blind to the loss' scale and to that of a layer whose
        next one makes up for it. NaN where no finite gradient came."""
        return self.rms * self.gradient_rms * self.moments[:, COUNT]

    @cached_property
    def flow_ratio(self) -> float:
        """The flow at the first quarter of the layers over that at the last; NaN without. Of
        branches that meet in the loss, of the one where it is farthest from one."""
        if len(self.names) == 1:
            return flow.of_weights(np.array(self.own_flows))
        return flow.of_layers(self.flow[rows] for rows in self.order.branches)

    @cached_property
    def time_ratio(self) -> float:
        """The gradient's RMS at the first steps of a recurrent layer's input over that at the last
        ones, of the layer where it is smallest; NaN without."""
        return min(self._time_ratios, default=np.nan)

    @cached_property
    def largest_time_ratio(self) -> float:
        """The same, of the layer where it is largest."""
        return max(self._time_ratios, default=np.nan)

    @cached_property
    def _time_ratios(self) -> list[float]:
        return time_ends.ratios(self.table, self.order.ends)

    @cached_property
    def recurrent(self) -> str | None:
        """The first recurrent layer, or the first that is called step by step."""
        pairs = zip(self.names, self.kinds, strict=True)
        return next((name for name, kind in pairs if kind in RECURRENT), self.order.looping)

    @cached_property
    def without_sequence(self) -> frozenset[str]:
        """The recurrent layers that are given zeros at the first and at the last steps."""
        return time_ends.zeros(self.table)

    @cached_property
    def output_signal(self) -> float:
        """The signal fraction of the last layer: how much of it depends on the sample. 0 where it
        is zero throughout. Of branches that meet in the loss, that of which most does."""
        known = [signal for row in self.order.outputs if (signal := self._signal_of(row)) == signal]
        return max(known, default=np.nan)

    @cached_property
    def is_rounded(self) -> bool:
        """Whether between two layers all samples are made the same and a gradient comes back all
        the same, as where a codebook's nearest entry is passed on (van den Oord et al. 2017); not
        by an activation, nor by the last layer, whose bias may be large."""
        cut = (self.signal[:-1] >= ROUNDED_FROM) & (self.signal[1:] <= ROUNDED_TO)
        cut &= self.flow[:-1] >= PASSED_STRAIGHT * self.flow[1:]
        rows = np.flatnonzero(cut[:-1]) + 1
        return any(self.kinds[row] not in ACTIVATIONS for row in rows)

    def _signal_of(self, row: int) -> float:
        signal = float(self.signal[row])
        if self.order.ends and self.kinds[row] not in RECURRENT:
            signal = min(signal, time_ends.left(self.table, self.names[row]))
        return 0.0 if np.isnan(signal) and self.rms[row] == 0 else signal

    @cached_property
    def forward_ratio(self) -> float:
        """The RMS of what the last layer with weights puts out over that of the input (of the
        first layer for tokens). Blind to scales that one layer gives and the next takes back, and
        to what is done to the output after it, such as to bring it into the targets' units."""
        output = self.order.last_with_parameters
        start = self.input_rms if self.has_input else self.rms[:1].sum()
        if output is None or not start > 0:
            return np.nan
        return float(self.rms[output] / start)

    @cached_property
    def steepest(self) -> float:
        """The largest derivative of the loss by a value that the last layer with weights puts out,
        times the number of those values: blind to the size of a batch. NaN without."""
        row = self.order.last_with_parameters
        size = math.nan if row is None else self.moments[row, MAX_ABS] * self.moments[row, COUNT]
        return float(size)

    @property
    def pull(self) -> tuple[float, float]:
        """‖g‖·√N of the gradient g by the N values of the last output, and N; NaN without."""
        if not len(self.names):
            return math.nan, math.nan
        count, norm = self.moments[-1, :2].tolist()
        return norm * math.sqrt(count), count

    @property
    def output_rms(self) -> float:
        """Of the last output; NaN without."""
        return float(self.rms[-1]) if len(self.names) else math.nan

    @cached_property
    def dead_row(self) -> int | None:
        """The first layer through which no gradient passes while one arrives behind it."""
        return dead.first(self)

    @cached_property
    def barrier(self) -> int | None:
        """The first layer whose output gets a gradient that is not zero throughout."""
        alive = np.flatnonzero(~np.isnan(self.gradient_rms) & ~self.gradient_lost)
        return int(alive[0]) if len(alive) else None

    @property
    def is_cut(self) -> bool:
        """Whether the gradient ends from one layer to the next, not by becoming less and less."""
        row, rms = self.barrier, self.gradient_rms
        return row is not None and bool(rms[row] >= CUT * np.nanmax(rms))

    @property
    def normalised(self) -> bool:
        return self.order.normalised

    @cached_property
    def gains(self) -> Array:
        """(L,) of row l: what its module makes of the gradient on the way back, the RMS before it
        over the RMS after it; NaN for the first row."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([[np.nan], self.gradient_rms[:-1] / self.gradient_rms[1:]])


def view(record: StepRecord) -> View | None:
    """That of a record; None where its layers were not observed."""
    table = record.layers
    if table is None:
        return None
    idle = record.idle_layers()
    shaped = zip(record.parameters, record.shapes, strict=True) if idle else ()
    is_idle = bool(idle) and idle.issuperset(owner(name) for name, s in shaped if len(s) > 1)
    seen = View(table, record.parameters, idle=idle, is_idle=is_idle)
    if len(seen.names) != 1:
        return seen
    return replace(seen, own_flows=tuple(record.own_flows()))
