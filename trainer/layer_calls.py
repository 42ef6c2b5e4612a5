"""The statistics of a layer that was called several times, as those of one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import statistics
from trainer.record import BINS, MOMENTS, SIGNALS, TensorTable


def joined(groups: list[NDArray[Any]], columns: int, dtype: Any) -> NDArray[Any]:
    """The rows of all groups, in their order."""
    return (
        groups[0] if len(groups) == 1 else np.concatenate([np.zeros((0, columns), dtype), *groups])
    )


def mean(
    signals: NDArray[Any], sizes: NDArray[Any], layer: NDArray[np.intp], layers: int
) -> NDArray[Any]:
    """(layers, SIGNALS) of all calls: root mean square of RMS, means of the fractions."""
    parts = signals * sizes[:, None]
    parts[:, 0] *= signals[:, 0]
    total, weight = np.zeros((layers, SIGNALS)), np.zeros((layers, 1))
    np.add.at(total, layer, parts)
    np.add.at(weight, layer, sizes[:, None])
    with np.errstate(invalid="ignore"):
        total /= weight
    total[:, 0] **= 0.5
    return total


def merged(
    names: tuple[str, ...],
    reached: NDArray[np.intp],
    moments: NDArray[Any],
    counts: NDArray[Any] | None,
) -> TensorTable:
    """The rows of each layer that a gradient reached, those of several calls added together."""
    once = len(set(reached.tolist())) == len(reached)
    if once:
        order = np.argsort(reached)
        rows = reached[order]
        moments, counts = moments[order], None if counts is None else counts[order]
        return TensorTable(tuple(names[row] for row in rows), moments, counts)
    rows, place = np.unique(reached, return_inverse=True)
    total_moments = np.zeros((len(rows), MOMENTS))
    np.add.at(total_moments, place, moments)
    for column, merge in ((statistics.NORM, np.hypot), (statistics.MAX_ABS, np.maximum)):
        total_moments[:, column] = 0
        merge.at(total_moments[:, column], place, moments[:, column])
    total = None
    if counts is not None:
        total = np.zeros((len(rows), BINS), np.int64)
        np.add.at(total, place, counts)
    return TensorTable(tuple(names[row] for row in rows), total_moments, total)
