"""How does the gradient's flow at the first layers compare with that at the last ones?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median

import numpy as np
from numpy.typing import NDArray


def of_layers(flows: Iterable[NDArray[np.float64]]) -> float:
    """The flow at the first quarter of the layers over that at the last; NaN without.

    Of several branches, of the one where it is farthest from one.
    """
    ends = filter(None, map(_ends, flows))
    ratios = [first / last for first, last in ends if last > 0]
    return max(ratios, key=_distance_from_one, default=math.nan)


def of_weights(flows: NDArray[np.float64]) -> float:
    """The same where weights are used without a module, of their own flows, which are as blind to
    scales; below 1, since nobody knows which are used first."""
    ends = _ends(flows)
    return min(ends) / max(ends) if ends and max(ends) > 0 else math.nan


def _ends(flows: NDArray[np.float64]) -> tuple[float, float] | None:
    """The medians of the first and the last quarter of those that are known, if there are two."""
    known = flows[np.isfinite(flows)].tolist()
    quarter = max(1, len(known) // 4)
    return (median(known[:quarter]), median(known[-quarter:])) if len(known) > 1 else None


def _distance_from_one(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0 else math.inf
