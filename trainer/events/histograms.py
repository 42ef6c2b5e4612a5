"""How the exact bins of a record become histograms that TensorBoard can draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.record import MAGNITUDES, SIGN, TensorTable, bin_edges

LOG_BUCKETS = 64
SIGNED_BUCKETS = 33  # 16 bins (8 octaves) of each sign below the largest, and all smaller values

_EDGES = bin_edges()
_EDGES[-1] = np.finfo(np.float32).max
_LOG_EDGES = np.log10(np.append(2.0**-149, _EDGES[1:]))  # a float32 is at least 2^-149 or zero


class Buckets(NamedTuple):
    """Rows of left edge, right edge and count, those of one tensor after those of another."""

    rows: NDArray[np.float64]  # (B, 3)
    numbers: NDArray[np.int64]  # (N,) how many of the rows each tensor has

    def each(self) -> list[NDArray[np.float64]]:
        """The rows of each tensor."""
        ends = np.cumsum(self.numbers).tolist()
        return [self.rows[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def log10_buckets(tables: Sequence[TensorTable]) -> Buckets:
    """Of all rows of all tables up to 64 buckets of log10|value| each.

    Zeros and non-finite values are left out; no buckets when nothing is left. Where the used bins
    are more than 64, 2, 4 or 8 neighbours are added together, so counts stay exact.
    """
    row, column, counts, moments = _joined(tables)
    magnitude = column % SIGN
    number = len(moments)
    start = np.searchsorted(row, np.arange(number + 1))
    used = np.diff(start) > 0
    first, last, shift = np.zeros((3, number), np.int64)
    if used.any():
        first[used] = np.minimum.reduceat(magnitude, start[:-1][used])
        last[used] = np.maximum.reduceat(magnitude, start[:-1][used])
    for _ in range(3):
        shift += (last >> shift) - (first >> shift) >= LOG_BUCKETS
    base = first >> shift
    index = row * LOG_BUCKETS + (magnitude >> shift[row]) - base[row]
    with np.errstate(divide="ignore"):
        largest = np.log10(moments[:, 3])

    def edges(tensor: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
        bins = np.minimum((base[tensor] + place) << shift[tensor], MAGNITUDES)
        # None is beyond the largest value.
        return np.asarray(np.minimum(_LOG_EDGES[bins], largest[tensor]))

    numbers = np.where(used, (last >> shift) - base + 1, 0)
    return _buckets(index, counts, LOG_BUCKETS, edges, np.zeros_like(numbers), numbers)


def signed_buckets(tables: Sequence[TensorTable]) -> Buckets:
    """Of all rows of all tables up to 33 buckets of the values each.

    TensorBoard draws this on a linear axis with 30 bins, so what is smaller than 2^-7 of the
    largest is one bucket around zero. Non-finite values are left out.
    """
    half, width = SIGNED_BUCKETS // 2, SIGNED_BUCKETS
    row, column, counts, moments = _joined(tables)
    magnitude = column % SIGN
    top = np.full(len(moments), -1)
    np.maximum.at(top, row, magnitude)
    below = np.maximum(top - half, -1)  # the largest bin that the middle bucket takes in
    place = np.maximum(magnitude - below[row], 0)
    index = row * width + half + np.where(column < SIGN, place, -place)
    index = np.append(index, np.arange(len(top)) * width + half)
    counts = np.append(counts, moments[:, 4].astype(np.int64))
    largest = moments[:, 3]

    def edges(tensor: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of bucket `place` the left edge; those of negative values mirror the others'."""
        outward = np.maximum(place - half - 1, half - place)
        bins = np.minimum(below[tensor] + 1 + outward, MAGNITUDES)
        edge = np.minimum(_EDGES[bins], largest[tensor])  # none beyond the largest value
        return np.asarray(np.where(place > half, edge, -edge))

    used = np.bincount(index, counts, len(top) * width).reshape(-1, width) > 0
    first, end = used.argmax(axis=1), width - used[:, ::-1].argmax(axis=1)
    numbers = np.where(used.any(axis=1), end - first, 0)
    return _buckets(index, counts, width, edges, first, numbers)


def _joined(tables: Sequence[TensorTable]) -> tuple[NDArray[np.int64], ...]:
    """Row, bin and count of the bins that are not empty, in order of rows, and the moments."""
    starts = np.cumsum([0, *(len(table.names) for table in tables)]).tolist()
    rows, bins, counts = zip(*(table.used_bins for table in tables), strict=True)
    row = np.concatenate([row + start for row, start in zip(rows, starts, strict=False)])
    moments = np.concatenate([table.moments for table in tables])
    return row, np.concatenate(bins), np.concatenate(counts), moments


def _buckets(
    index: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    edges: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]],
    first: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> Buckets:
    """The buckets from `first` on of each tensor, so many as `numbers` says.

    `index` is where each count belongs, tensor · width + bucket; `edges` tells the left ones.
    """
    tensor = np.repeat(np.arange(len(first)), numbers)
    place = np.arange(len(tensor)) - (np.cumsum(numbers) - numbers - first)[tensor]
    total = np.bincount(index, counts, len(first) * width)[tensor * width + place]
    rows = np.stack([edges(tensor, place), edges(tensor, place + 1), total], axis=1)
    return Buckets(rows, numbers)
