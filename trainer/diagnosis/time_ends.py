"""What does a record say of the first and of the last steps of a sequence or a loop?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from trainer.record import COUNT, ENDS, NORM, TIME_STEPS, LayerTable, owner

NO_GRADIENT = 1e-9  # of that at the last steps: what is done at the first ones is forgotten


def ratios(table: LayerTable, ends: Iterable[tuple[int, int]]) -> list[float]:
    """The gradient's RMS at the first steps over that at the last ones, by the rows of both."""
    moments = table.gradients.moments
    rms = moments[:, NORM] / np.sqrt(moments[:, COUNT])
    return [float(rms[first] / rms[last]) for first, last in ends if rms[last] > 0]


def zeros(table: LayerTable) -> frozenset[str]:
    """The recurrent layers that are given zeros at the first and at the last steps."""
    rows = zip(table.names, table.kinds, table.rms.tolist(), strict=True)
    ends = [(owner(name), size) for name, kind, size in rows if kind == TIME_STEPS]
    return frozenset(layer for layer, _ in ends) - {layer for layer, size in ends if size != 0}


def left(table: LayerTable, layer: str) -> float:
    """The signal fraction of what a layer puts out at the last steps of a loop, if no gradient
    comes to what it puts out at the first ones, which then is no output; infinity for any other."""
    names = [f"{layer}.{end}" for end in ENDS]
    if not {*names} <= {*table.gradients.names}:
        return math.inf
    norms = [table.gradients[name].norm for name in names]
    if not norms[0] <= NO_GRADIENT * norms[1]:
        return math.inf
    return float(table.signal_fraction[table.names.index(names[1])])
