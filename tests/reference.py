"""The statistics of trainer.statistics in plain numpy, one value's worth of thought at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.record import BINS, MAGNITUDES, SIGN, bin_edges


def as_float64(tensor: torch.Tensor) -> NDArray[np.float64]:
    """The values, flattened and exact; complex numbers as two values each."""
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    if dense.is_complex():
        dense = torch.stack([dense.real, dense.imag])
    return np.array(dense.reshape(-1).tolist(), dtype=np.float64)


def moments(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """COUNT, NORM, SUM_ABS, MAX_ABS, ZEROS, NANS, INFINITIES."""
    finite = np.abs(values[np.isfinite(values)]).astype(np.longdouble)  # room for squares
    return np.array(
        [
            values.size,
            float(np.sqrt(np.sum(finite**2))),
            float(np.sum(finite)),
            float(np.max(finite, initial=0)),
            np.sum(values == 0),
            np.sum(np.isnan(values)),
            np.sum(np.isinf(values)),
        ],
        dtype=np.float64,
    )


def histogram(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The counts of the log bins, found by searching the edges."""
    counts = np.zeros(BINS, np.int64)
    edges = bin_edges()
    for value in values[np.isfinite(values) & (values != 0)]:
        k = int(np.searchsorted(edges, abs(value), side="right")) - 1
        counts[min(k, MAGNITUDES - 1) + (SIGN if value < 0 else 0)] += 1
    return counts


def signal(values: NDArray[np.float64], units: int) -> NDArray[np.float64]:
    """RMS, zero, signal and dead fraction of values (units, samples of each, positions)."""
    assert len(values) == units
    fractions = []
    for unit in values:
        middle = unit.mean(0) if len(unit) > 1 else unit.mean()
        if unit.any():
            fractions.append(np.sqrt(np.mean((unit - middle) ** 2)) / np.sqrt(np.mean(unit**2)))
    lower_median = np.sort(fractions)[(len(fractions) - 1) // 2] if fractions else np.nan
    median = lower_median if values[0].size > 1 else np.nan
    dead = np.mean([not unit.any() for unit in values])
    return np.array([np.sqrt(np.mean(values**2)), np.mean(values == 0), median, dead])
