"""What one record says about the layers, in order of execution: signal, flow and gain of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import median

import numpy as np
from numpy.typing import NDArray

from trainer.record import TIME_STEPS, LayerTable

Array = NDArray[np.float64]

RECTIFIERS = frozenset({"ReLU", "ReLU6", "Threshold"})
EXPONENTIALS = frozenset({"Exponential", "Exp"})
# The largest slope of activations that flatten out on both sides.
SATURATING = {"Tanh": 1.0, "Sigmoid": 0.25, "Hardtanh": 1.0, "Hardsigmoid": 1 / 6, "Softsign": 1.0}
ACTIVATIONS = (
    RECTIFIERS
    | SATURATING.keys()
    | {"LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Softplus"}
    | {"Hardswish", "LogSigmoid", "Tanhshrink", "Softshrink", "Hardshrink"}
    | EXPONENTIALS
)
RECURRENT = frozenset({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"})
NO_MOMENTS = np.full((1, 7), np.nan)
SOFT = frozenset({"Softmax", "LogSoftmax", "Softmin"})


@dataclass(frozen=True)
class View:
    """The rows that layers put out, and the gradients beside them."""

    table: LayerTable

    @cached_property
    def rows(self) -> list[int]:
        """Their numbers in the table, where the network's input and the ends of sequences stand
        as well."""
        return self.table.rows

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.table.names[row] for row in self.rows)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.table.kinds[row] for row in self.rows)

    @cached_property
    def rms(self) -> Array:
        return self.table.rms[self.rows]

    @cached_property
    def signal(self) -> Array:
        return self.table.signal_fraction[self.rows]

    @cached_property
    def dead(self) -> Array:
        return self.table.dead_fraction[self.rows]

    @cached_property
    def input_rms(self) -> float:
        """RMS of what the network was given; NaN for tokens."""
        return float(self.table.rms[0]) if self.table.has_input else np.nan

    @cached_property
    def _moments(self) -> Array:
        """(L, MOMENTS) of the activation gradients; NaN where none came."""
        gradients = self.table.gradients
        place = {name: row for row, name in enumerate(gradients.names)}
        # A module called `input` has the same name as the input's row, which no gradient reaches.
        which = [place.get(name, -1) for name in self.names]
        moments: Array = np.concatenate([gradients.moments, NO_MOMENTS])[which]
        return moments

    @cached_property
    def gradient_rms(self) -> Array:
        """(L,) of d(loss)/d(output): NaN where none came or where it is not finite."""
        count, norm, _, _, _, nans, infinities = self._moments.T
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(nans + infinities > 0, np.nan, norm / np.sqrt(count))

    @cached_property
    def gradient_lost(self) -> NDArray[np.bool_]:
        """(L,) whether a gradient came that is zero throughout."""
        return np.asarray(self._moments[:, 4] == self._moments[:, 0])

    @cached_property
    def gradient_not_finite(self) -> NDArray[np.bool_]:
        """(L,) whether the gradient that came has a NaN or an infinity."""
        return np.asarray(self._moments[:, 5] + self._moments[:, 6] > 0)

    @cached_property
    def flow(self) -> Array:
        """(L,) ‖output‖·‖d(loss)/d(output)‖: blind to the loss' scale and to that of a layer whose
        next one makes up for it. NaN where no finite gradient came."""
        return self.rms * self.gradient_rms * self._moments[:, 0]

    @cached_property
    def flow_ratio(self) -> float:
        """The flow at the first quarter of the layers over that at the last; NaN without."""
        flow = [value for value in self.flow.tolist() if math.isfinite(value)]
        if len(flow) < 2:
            return np.nan
        quarter = max(1, len(flow) // 4)
        last = median(flow[-quarter:])
        return median(flow[:quarter]) / last if last > 0 else np.nan

    @cached_property
    def time_ratio(self) -> float:
        """The gradient's RMS at the first steps of a recurrent layer's input over that at the last
        ones, of the layer where it is smallest; NaN without."""
        gradients = self.table.gradients
        rms = {
            name: row[1] / np.sqrt(row[0])
            for name, row in zip(gradients.names, gradients.moments, strict=True)
        }
        ratios = [
            rms[first] / rms[last]
            for first, last in self._ends
            if first in rms and rms.get(last, 0) > 0
        ]
        return float(min(ratios, default=np.nan))

    @cached_property
    def _ends(self) -> list[tuple[str, str]]:
        names, kinds = self.table.names, self.table.kinds
        ends = [name for name, kind in zip(names, kinds, strict=True) if kind == TIME_STEPS]
        return list(zip(ends[::2], ends[1::2], strict=True))

    @cached_property
    def recurrent(self) -> str | None:
        """The first recurrent layer."""
        pairs = zip(self.names, self.kinds, strict=True)
        return next((name for name, kind in pairs if kind in RECURRENT), None)

    @cached_property
    def output_signal(self) -> float:
        """The signal fraction of the last layer: how much of it depends on the sample. 0 where it
        is zero throughout."""
        for kind, signal, rms in zip(
            reversed(self.kinds), self.signal[::-1], self.rms[::-1], strict=True
        ):
            if kind not in SOFT:
                return 0.0 if np.isnan(signal) and rms == 0 else float(signal)
        return np.nan

    @cached_property
    def forward_ratio(self) -> float:
        """The RMS of the output, before its own activation, over that of the input (of the first
        layer for tokens). Blind to scales that one layer gives and the next takes back."""
        bounded = ACTIVATIONS | SOFT
        outputs = [row for row, kind in enumerate(self.kinds) if kind not in bounded]
        start = self.input_rms if self.table.has_input else self.rms[:1].sum()
        if not outputs or not start > 0:
            return np.nan
        return float(self.rms[outputs[-1]] / start)

    @cached_property
    def dead_row(self) -> int | None:
        """The first layer through which no gradient passes while one arrives behind it."""
        lost, reached = self.gradient_lost, ~np.isnan(self.gradient_rms)
        for row, kind in enumerate(self.kinds):
            if kind in RECTIFIERS and self.dead[row] == 1.0 and (row == 0 or self.rms[row - 1] > 0):
                if (lost[:row] | ~reached[:row]).all() and (row == 0 or lost[:row].any()):
                    return row
        # Functions that no module tells of: a gradient arrives at a layer, none at the one before.
        alive = np.flatnonzero(reached & ~lost)
        if any(kind in ACTIVATIONS for kind in self.kinds) or not len(alive):
            return None
        if not lost[: alive[0]].any() or self.output_signal > 0:
            return None
        return int(alive[0]) - 1

    @cached_property
    def normalised(self) -> bool:
        """Whether some layer normalises."""
        return any("Norm" in kind for kind in self.kinds)

    @cached_property
    def gains(self) -> Array:
        """(L,) of row l: what its module makes of the gradient on the way back, the RMS before it
        over the RMS after it; NaN for the first row."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.concatenate([[np.nan], self.gradient_rms[:-1] / self.gradient_rms[1:]])
