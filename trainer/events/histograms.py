"""How the exact bins of a record become histograms that TensorBoard can draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from trainer.record import MAGNITUDES, MAX_ABS, SIGN, ZEROS, TensorTable, bin_edges

LOG_BUCKETS = 64
SIGNED_BUCKETS = 33  # 16 bins (8 octaves) of each sign below the largest, and all smaller values

_EDGES = bin_edges()
_EDGES[-1] = np.finfo(np.float32).max
_LOG_EDGES = np.log10(np.append(2.0**-149, _EDGES[1:]))  # a float32 is at least 2^-149 or zero


class Filled(NamedTuple):
    """The bins of several tensors that are not empty, in order of the tensors."""

    tensor: NDArray[np.int64]  # (F,) whose bin it is
    magnitude: NDArray[np.int64]  # (F,) the bin without its sign
    is_positive: NDArray[np.bool_]  # (F,)
    counts: NDArray[np.int64]  # (F,)
    used: NDArray[np.bool_]  # (N,) whether a tensor has any
    lowest: NDArray[np.int64]  # (N,) its smallest magnitude; -1 where there is none
    highest: NDArray[np.int64]  # (N,)
    moments: NDArray[np.float64]  # (N, MOMENTS)

    @classmethod
    def of(cls, tables: Sequence[TensorTable]) -> Self:
        """Those of all rows of all tables, one after the other."""
        starts = np.cumsum([0, *(len(table.names) for table in tables)]).tolist()
        rows, bins, counts = zip(*(table.used_bins for table in tables), strict=True)
        tensor = np.concatenate([row + start for row, start in zip(rows, starts, strict=False)])
        column = np.concatenate(bins)
        magnitude = column & (SIGN - 1)
        start = np.searchsorted(tensor, np.arange(starts[-1] + 1))
        used = start[1:] > start[:-1]
        lowest, highest = np.full((2, starts[-1]), -1)
        if used.any():
            lowest[used] = np.minimum.reduceat(magnitude, start[:-1][used])
            highest[used] = np.maximum.reduceat(magnitude, start[:-1][used])
        moments = np.concatenate([table.moments for table in tables])
        return cls(
            tensor, magnitude, column < SIGN, np.concatenate(counts), used, lowest, highest, moments
        )


class Buckets(NamedTuple):
    """Rows of left edge, right edge and count, those of one tensor after those of another."""

    rows: NDArray[np.float64]  # (B, 3)
    numbers: NDArray[np.int64]  # (N,) how many of the rows each tensor has

    def each(self) -> list[NDArray[np.float64]]:
        """The rows of each tensor."""
        ends = np.cumsum(self.numbers).tolist()
        return [self.rows[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def log10_buckets(filled: Filled) -> Buckets:
    """Of each tensor up to 64 buckets of log10|value|.

    Zeros and non-finite values are left out; no buckets when nothing is left. Where the used bins
    are more than 64, 2, 4 or 8 neighbours are added together, so counts stay exact.
    """
    first, last = filled.lowest, filled.highest
    shift = np.zeros_like(first)
    for _ in range(3):
        shift += (last >> shift) - (first >> shift) >= LOG_BUCKETS
    base = first >> shift
    start = np.arange(len(base)) * LOG_BUCKETS - base
    if shift.any():
        index = (filled.magnitude >> shift[filled.tensor]) + start[filled.tensor]
    else:
        index = filled.magnitude + start[filled.tensor]
    with np.errstate(divide="ignore"):
        largest = np.log10(filled.moments[:, MAX_ABS])

    def edges(tensor: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
        bins = np.minimum((base[tensor] + place) << shift[tensor], MAGNITUDES)
        # None is beyond the largest value.
        return np.asarray(np.minimum(_LOG_EDGES[bins], largest[tensor]))

    total = _added(index, filled.counts, len(base) * LOG_BUCKETS)
    numbers = np.where(filled.used, (last >> shift) - base + 1, 0)
    return _buckets(total, LOG_BUCKETS, edges, np.zeros_like(numbers), numbers)


def signed_buckets(filled: Filled) -> Buckets:
    """Of each tensor up to 33 buckets of the values.

    TensorBoard draws this on a linear axis with 30 bins, so what is smaller than 2^-7 of the
    largest is one bucket around zero. Non-finite values are left out.
    """
    half, width = SIGNED_BUCKETS // 2, SIGNED_BUCKETS
    below = np.maximum(filled.highest - half, -1)  # the largest bin that the middle bucket takes in
    middle = np.arange(len(below)) * width + half
    place = np.maximum(filled.magnitude - below[filled.tensor], 0)
    np.negative(place, where=~filled.is_positive, out=place)
    total = _added(middle[filled.tensor] + place, filled.counts, len(below) * width)
    total[middle] += filled.moments[:, ZEROS]
    largest = filled.moments[:, MAX_ABS]

    def edges(tensor: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of bucket `place` the left edge; those of negative values mirror the others'."""
        outward = np.maximum(place - half - 1, half - place)
        bins = np.minimum(below[tensor] + 1 + outward, MAGNITUDES)
        edge = np.minimum(_EDGES[bins], largest[tensor])  # none beyond the largest value
        return np.asarray(np.where(place > half, edge, -edge))

    used = total.reshape(-1, width) > 0
    first, end = used.argmax(axis=1), width - used[:, ::-1].argmax(axis=1)
    numbers = np.where(used.any(axis=1), end - first, 0)
    return _buckets(total, width, edges, first, numbers)


def _added(index: NDArray[np.int64], counts: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """(number,) the counts of each index together."""
    total = np.bincount(index, counts, number)
    return np.asarray(total, np.float64)  # of no counts it is made of integers


def _buckets(
    total: NDArray[np.float64],
    width: int,
    edges: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
    first: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> Buckets:
    """The buckets from `first` on of each tensor, so many as `numbers` says.

    `total` has the counts of `width` buckets a tensor; `edges` tells the left ones.
    """
    tensor = np.repeat(np.arange(len(first)), numbers)
    place = np.arange(len(tensor)) - (np.cumsum(numbers) - numbers - first)[tensor]
    rows = np.empty((len(tensor), 3))
    rows[:, 0], rows[:, 1] = edges(tensor, place), edges(tensor, place + 1)
    rows[:, 2] = total[tensor * width + place]
    return Buckets(rows, numbers)
