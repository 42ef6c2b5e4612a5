"""How the exact bins of a record become histograms that TensorBoard can draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.record import BINS, MAGNITUDES, SIGN, TensorTable, bin_edges

LOG_BUCKETS = 64
SIGNED_BUCKETS = 33  # 16 bins (8 octaves) of each sign below the largest, and all smaller values

_EDGES = bin_edges()
_EDGES[-1] = np.finfo(np.float32).max
_LOG_EDGES = np.log10(np.append(2.0**-149, _EDGES[1:]))  # a float32 is at least 2^-149 or zero


def log10_buckets(table: TensorTable) -> list[NDArray[np.float64]]:
    """For each tensor (K, 3) rows of left and right edge of log10|value| and count, K ≤ 64.

    Zeros and non-finite values are left out; K = 0 when nothing is left. Where the used bins are
    more than 64, 2, 4 or 8 neighbours are added together, so counts stay exact.
    """
    row, column, counts = _used(table)
    magnitude = column % SIGN
    number = len(table.names)
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
    group = base[:, None] + np.arange(LOG_BUCKETS + 1)
    edges = _LOG_EDGES[np.minimum(group << shift[:, None], MAGNITUDES)]
    with np.errstate(divide="ignore"):
        edges = np.minimum(edges, np.log10(table.moments[:, 3:4]))  # none beyond the largest value
    end = np.where(used, (last >> shift) - base + 1, 0)
    return _rows(index, counts, edges, np.zeros_like(end), end)


def signed_buckets(table: TensorTable) -> list[NDArray[np.float64]]:
    """For each tensor (K, 3) rows of left edge, right edge and count of its values, K ≤ 33.

    TensorBoard draws this on a linear axis with 30 bins, so what is smaller than 2^-7 of the
    largest is one bucket around zero. Non-finite values are left out.
    """
    half, width = SIGNED_BUCKETS // 2, SIGNED_BUCKETS
    row, column, counts = _used(table)
    magnitude = column % SIGN
    top = np.full(len(table.names), -1)
    np.maximum.at(top, row, magnitude)
    below = np.maximum(top - half, -1)  # the largest bin that the middle bucket takes in
    place = np.maximum(magnitude - below[row], 0)
    index = row * width + half + np.where(column < SIGN, place, -place)
    index = np.append(index, np.arange(len(top)) * width + half)
    counts = np.append(counts, table.moments[:, 4].astype(np.int64))
    positive = _EDGES[np.minimum(below[:, None] + 1 + np.arange(half + 1), MAGNITUDES)]
    positive = np.minimum(positive, table.moments[:, 3:4])  # none beyond the largest value
    edges = np.concatenate([-positive[:, ::-1], positive], axis=1)
    used = np.bincount(index, counts, len(top) * width).reshape(-1, width) > 0
    first, end = used.argmax(axis=1), width - used[:, ::-1].argmax(axis=1)
    return _rows(index, counts, edges, first, np.where(used.any(axis=1), end, first))


def _used(table: TensorTable) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, bin and count of the bins that are not empty, in order of rows."""
    assert table.histograms is not None
    where = np.flatnonzero(table.histograms != 0)
    return where // BINS, where % BINS, table.histograms.ravel()[where]


def _rows(
    index: NDArray[np.int64],
    counts: NDArray[np.int64],
    edges: NDArray[np.float64],
    first: NDArray[np.int64],
    end: NDArray[np.int64],
) -> list[NDArray[np.float64]]:
    """Rows first to end of each tensor's buckets; `index` is where each count belongs."""
    number, width = len(edges), edges.shape[1] - 1
    total = np.bincount(index, counts, number * width).reshape(number, width)
    buckets = np.stack([edges[:, :-1], edges[:, 1:], total], axis=-1)
    return [
        buckets[i, a:b] for i, (a, b) in enumerate(zip(first.tolist(), end.tolist(), strict=True))
    ]
