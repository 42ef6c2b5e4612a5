"""The same statistics by numpy, for a few values: the kernel's import would cost far more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import memmove, string_at
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.record import BINS, COUNT, MAGNITUDES, MAX_ABS, MOMENTS, NORM, SIGN, SUM_ABS, ZEROS
from trainer.statistics import operations

_VALUES = 16384  # together
_FORMATS = {torch.float32: np.float32, torch.float64: np.float64}
_ZERO = MAGNITUDES  # a bin that stays empty, borrowed while counting
_OCTAVES = 2 * (1023 - 127)  # the bin of float64's exponent where float32's begins


def fits(tensors: Sequence[Tensor]) -> bool:
    """Whether the tensors, which share their dtype, are few values that numpy can read."""
    sizes = [*map(Tensor.numel, tensors)]
    return 0 < min(sizes) and sum(sizes) <= _VALUES and tensors[0].dtype in _FORMATS


@np.errstate(all="ignore")
def summarize(tensors: Sequence[Tensor], histograms: bool) -> Any:
    """Moments (N, 7) and, if asked for, counts (N, 1024) of tensors of one dtype."""
    flat, starts, sizes = _flat(tensors)
    bits: NDArray[Any] = flat.view(np.uint32 if flat.dtype == np.float32 else np.uint64)
    absolute = np.abs(flat, dtype=np.float64)
    largest = np.maximum.reduceat(absolute, starts)
    zeros = None if absolute.all() else absolute == 0
    extremes = largest.tolist()
    # Elsewhere squares may leave float64, or the thread may read denormals as zero. NaN fails too.
    if not all(1e-25 < each < 1e100 or each == 0 for each in extremes) or (
        zeros is not None and (bits[zeros] << 1).any()
    ):
        return operations.summarize(tensors, histograms)
    moments = np.zeros((len(sizes), MOMENTS))
    moments[:, COUNT] = sizes
    moments[:, NORM] = np.sqrt(np.add.reduceat(absolute * absolute, starts))
    moments[:, SUM_ABS] = np.add.reduceat(absolute, starts)
    moments[:, MAX_ABS] = largest
    if zeros is not None:
        moments[:, ZEROS] = np.add.reduceat(zeros, starts, dtype=np.float64)
    if not histograms:
        return moments, None
    if flat.dtype == np.float32:
        bins = (bits >> 22).astype(np.intp)
    else:  # not by way of float32: the nearest one may lie in the next bin
        octaves = (bits >> 51).astype(np.intp) & 4095
        bins = np.clip(octaves - _OCTAVES, 0, 509) + (octaves == _OCTAVES)
        bins += SIGN * (bits >> 63).astype(np.intp)
    if zeros is not None:
        bins[zeros] = _ZERO
    counts = np.zeros((len(sizes), BINS), np.int64)
    for row, start in enumerate(starts):
        part = bins[start : start + sizes[row]]
        if len(part) == 1:
            counts[row, part[0]] = 1
        else:
            counts[row] = np.bincount(part, minlength=BINS)
    counts[:, _ZERO] = 0
    return moments, counts


def copy(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> NDArray[Any]:
    """The sums of squares (N,) of the tensors, which are copied into `copies`."""
    flat, starts, sizes = _flat(tensors)
    for target, source, size in zip(copies, tensors, sizes, strict=True):
        memmove(target.data_ptr(), source.data_ptr(), size * flat.itemsize)
    return _sums_of_squares(flat, starts)


@np.errstate(all="ignore")
def compare(tensors: Sequence[Tensor], before: Sequence[Tensor]) -> NDArray[Any]:
    """The sums of squared differences, and how many values are the same (N, 2)."""
    now, starts, _ = _flat(tensors)
    old, _, _ = _flat(before)
    bits = np.uint32 if now.dtype == np.float32 else np.uint64
    same = np.add.reduceat(now.view(bits) == old.view(bits), starts, dtype=np.float64)
    return np.stack([_sums_of_squares(now.astype(np.float64) - old, starts), same], axis=1)


@np.errstate(all="ignore")
def signal(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """RMS and fractions (4,) of values seen as (samples, units, positions)."""
    seen = values.numpy().reshape(shape).astype(np.float64)
    size = shape[0] * shape[2]
    means = seen.mean(0 if shape[0] > 1 else (0, 2), keepdims=True)
    variances = np.add.reduce(np.square(seen - means), axis=(0, 2)) / size
    squares = variances + np.square(means).mean((0, 2))
    rms = math.sqrt(np.add.reduce(squares) / len(squares))
    if not math.isfinite(rms):
        return operations.signal(values, shape)
    zeros = np.add.reduce(seen == 0, axis=(0, 2), dtype=np.float64)
    fractions = np.sort(np.sqrt(variances / squares))  # NaN, at the end, of units always zero
    middle = (np.count_nonzero(fractions == fractions) - 1) // 2
    median = fractions[middle] if size > 1 else math.nan
    dead = np.count_nonzero(zeros == size) / len(zeros)
    return torch.tensor(
        [rms, float(np.add.reduce(zeros)) / seen.size, median, dead], dtype=torch.float64
    )


def _flat(tensors: Sequence[Tensor]) -> tuple[NDArray[Any], list[int], list[int]]:
    """All values one after the other, where each tensor starts, and how many it has."""
    sizes = [*map(Tensor.numel, tensors)]
    kind = np.dtype(_FORMATS[tensors[0].dtype])
    pairs = zip(tensors, sizes, strict=True)
    data = b"".join([string_at(tensor.data_ptr(), n * kind.itemsize) for tensor, n in pairs])
    return np.frombuffer(data, kind), [0, *accumulate(sizes[:-1])], sizes


@np.errstate(all="ignore")
def _sums_of_squares(values: NDArray[Any], starts: list[int]) -> NDArray[Any]:
    return np.asarray(np.add.reduceat(np.square(values, dtype=np.float64), starts))
