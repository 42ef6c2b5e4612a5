"""How much of what it is given do the weights of a matrix make?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from trainer.diagnosis.view import Array
from trainer.record import owner

if TYPE_CHECKING:
    from trainer.diagnosis.history import History

LARGE = 3.0  # times what a matrix is given, which start values make one or two
MINUTE = 0.08  # of what a matrix is given: far less than with any usual start values


def weight_gains(
    parameters: Sequence[str], shapes: Sequence[tuple[int, ...]], sizes: Array
) -> dict[str, float]:
    """Of each parameter of two dimensions and more: weights of RMS r, for n inputs, make r·√n times
    as much (He et al. 2015, arXiv:1502.01852)."""
    return {
        name: rms * math.sqrt(math.prod(shape[1:]))
        for name, rms, shape in zip(parameters, sizes.tolist(), shapes, strict=True)
        if len(shape) > 1
    }


def at_first(history: History) -> float:
    """The median of a run's matrices as it began; NaN where layers or parameters are not known."""
    first, record = history.first_view, history.record
    if first is None or history.first_parameters != record.parameters:
        return math.nan
    kinds = dict(zip(first.names, first.kinds, strict=True))
    made = weight_gains(record.parameters, record.shapes, history.first_sizes)
    known = [gain for name, gain in made.items() if kinds.get(owner(name)) != "Embedding"]
    return median(known or made.values()) if made else math.nan
