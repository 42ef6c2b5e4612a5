"""What the values of tensors say: moments, log histograms, changes and the signal of a layer.

Everything stays on the device the tensors live on until `fetch`, which copies it to the host at
once. Values in the CPU's memory are read by a compiled kernel, or by numpy when they are few and
the kernel, whose import would cost far more, is not loaded; all others by torch operations that
never wait for the device.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.record import BINS, SIGNALS
from trainer.statistics import operations, small

# The columns of a row of moments, float64. NORM (L2), SUM_ABS and MAX_ABS are over finite values.
COUNT, NORM, SUM_ABS, MAX_ABS, ZEROS, NANS, INFINITIES = range(7)

_PLAIN = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_KERNEL = "trainer.statistics.threads"


def summarize(tensors: Sequence[Tensor], histograms: bool) -> tuple[Tensor, Tensor | None]:
    """Moments (N, 7) float64 of the tensors and, if asked for, log histograms (N, 1024) int64.

    The columns are COUNT .. INFINITIES, the bins those of `trainer.record`; zeros and values that
    are not finite have no bin. Any shape, stride, layout and dtype, on any device: a complex number
    counts as two values, and what a sparse tensor leaves out as zeros. Values never raise. The
    results are on the device of the first tensor, in float32 where it has no float64.
    """
    if not tensors:
        none = torch.zeros(0, BINS, dtype=torch.int64)
        return torch.zeros(0, 7, dtype=torch.float64), none if histograms else None
    dense = _all_dense(tensors)
    moments, counts = _by_kind(dense, lambda kind, group: kind.summarize(group, histograms))
    for row, (tensor, values) in enumerate(zip(tensors, dense, strict=True)):
        if dense is tensors:
            break
        if tensor.layout != torch.strided:
            left_out = size(tensor) - values.numel()
            moments[row, COUNT] += left_out
            moments[row, ZEROS] += left_out
    return moments, counts


def snapshot(
    tensors: Sequence[Tensor], into: list[Tensor] | None = None
) -> tuple[list[Tensor], Tensor]:
    """Copies of the tensors, and their sums of squares (N,) float64.

    `into`, the copies of an earlier call for the same tensors, is overwritten and returned: fresh
    memory costs several times what copying does. A value that is not finite makes its sum so.
    """
    dense = _all_dense(tensors)
    if into is None or not _all_alike(dense, into):
        into = [torch.empty_like(values, requires_grad=False) for values in dense]
    if not tensors:
        return into, torch.zeros(0, dtype=torch.float64)
    (squares,) = _by_kind(dense, lambda kind, *groups: (kind.copy(*groups),), into)
    return into, squares


def changes(tensors: Sequence[Tensor], before: list[Tensor]) -> Tensor:
    """The sums of (now - before)^2 and how many values are the same, bit for bit: (N, 2) float64.

    `before` is a `snapshot` of the same tensors; ValueError if it is not.
    """
    dense = _all_dense(tensors)
    if not _all_alike(dense, before):
        row, values, old = next(
            (row, values, old)
            for row, (values, old) in enumerate(zip(dense, before, strict=True))
            if not _all_alike([values], [old])
        )
        raise ValueError(
            f"tensor {row} is {tuple(values.shape)} {values.dtype} on {values.device}, but its"
            f" snapshot is {tuple(old.shape)} {old.dtype} on {old.device}: take a new snapshot"
        )
    if not tensors:
        return torch.zeros(0, 2, dtype=torch.float64)
    rows: Tensor = _by_kind(dense, lambda kind, *groups: (kind.compare(*groups),), before)[0]
    return rows


def signal(output: Tensor) -> Tensor:
    """RMS, fraction of zeros, signal fraction and dead fraction of a layer's output (batch first):
    (4,) float64.

    The RMS is finite exactly if all values are. The signal fraction is the median over units of
    std / RMS, both over batch and positions; a unit is an entry of the last dimension or, from 4
    dimensions on, of the second (a channel). The mean is subtracted before squaring, so that it is
    exact for a signal far below the mean. Units that are always zero are left out, and of an even
    number the lower median is taken; the dead fraction is their share of all units. NaN for what is
    undefined: no values, a signal from a single sample of each unit.
    """
    values = _dense(output)
    shape = _units(values)
    if values.numel() == 0:
        return torch.full((SIGNALS,), torch.nan, dtype=torch.float64, device=values.device)
    result = _tensor(_kind([values]).signal(values.detach(), shape))
    assert result is not None
    return result


def signals(outputs: Sequence[Tensor]) -> Tensor:
    """What `signal` says of each output: (N, 4). Many small ones take a fraction of a call each."""
    dense = _all_dense(outputs)
    same = len({*map(_DTYPE, dense)}) == len({*map(_DEVICE, dense)}) == 1
    kind = _kind(dense) if len(dense) > 1 and same and all(map(Tensor.numel, dense)) else None
    if kind is None or not hasattr(kind, "signals"):
        return torch.stack([signal(values) for values in dense])
    result: Tensor = kind.signals(dense, [_units(values) for values in dense])
    return result


def _units(values: Tensor) -> tuple[int, int, int]:
    """A layer's output seen as (samples, units, positions)."""
    if values.dim() >= 4:
        return values.shape[0], values.shape[1], values[0, 0].numel() if len(values) else 0
    units = values.shape[-1] if values.dim() > 1 else 1
    return values.numel() // units if units else 0, units, 1


def size(tensor: Tensor) -> int:
    """How many values a tensor has for the functions above: a complex number is two."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def fetch(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The tensors as numpy arrays, with one copy from each device, whatever their number.

    Those in the CPU's memory are not copied: the arrays share it.
    """
    arrays: dict[int, NDArray[Any]] = {}
    devices: dict[torch.device, list[int]] = {}
    for position, tensor in enumerate(tensors):
        devices.setdefault(tensor.device, []).append(position)
    for device, positions in devices.items():
        group = [tensors[position].detach() for position in positions]
        if device.type != "cpu":
            group = operations.unpack(operations.pack(group).cpu(), group)
        arrays.update(zip(positions, (tensor.numpy() for tensor in group), strict=True))
    return [arrays[position] for position in range(len(tensors))]


def _dense(tensor: Tensor) -> Tensor:
    """The values that are there, contiguous, real and of a dtype that the kinds can read."""
    if tensor.layout is torch.strided and tensor.dtype in _PLAIN and not tensor.is_neg():
        if tensor.is_contiguous():
            return tensor
    values = tensor.detach()
    if values.layout != torch.strided:
        sparse = values.layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)
        if values.layout == torch.sparse_coo:
            values = values.coalesce()
        values = values.values() if sparse else values.to_dense()
    if values.dtype not in _PLAIN:
        if values.is_complex():
            values = torch.view_as_real(values.resolve_conj())
        if values.dtype not in _PLAIN:
            values = values.to(torch.float32 if values.is_floating_point() else torch.float64)
    return values.resolve_neg().contiguous()


# Some twenty tensors at each observed step: loops that stay in C take a third of the time.
_LAYOUT, _DTYPE, _DEVICE, _SHAPE = map(attrgetter, ("layout", "dtype", "device", "shape"))


def _all_dense(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors as `_dense` has them: the same sequence where none needs a change."""
    if (
        {*map(_LAYOUT, tensors)} <= {torch.strided}
        and {*map(_DTYPE, tensors)} <= {*_PLAIN}
        and all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
    ):
        return tensors
    return [_dense(tensor) for tensor in tensors]


def _all_alike(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all([*map(kind, ones)] == [*map(kind, others)] for kind in (_SHAPE, _DTYPE, _DEVICE))


def _kind(tensors: Sequence[Tensor]) -> Any:
    """The module that reads these tensors, which share device and dtype: see the top."""
    if tensors[0].device.type != "cpu":
        return operations
    if _KERNEL not in sys.modules and small.fits(tensors):
        return small
    return _kernel()


@cache
def _kernel() -> Any:
    try:
        return import_module(_KERNEL)
    except ImportError:  # no numba, or one that does not fit this numpy
        return operations


def _by_kind(dense: Sequence[Tensor], read: Any, others: Sequence[Tensor] | None = None) -> Any:
    """What `read(kind, tensors[, others])` gives (a tuple) for each group that shares device and
    dtype, put together in the order of the tensors."""
    device = dense[0].device
    if len({*map(_DTYPE, dense)}) == len({*map(_DEVICE, dense)}) == 1:
        results = read(_kind(dense), *(each for each in (dense, others) if each is not None))
        return [_tensor(part) for part in results]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for row, values in enumerate(dense):
        groups.setdefault((values.device, values.dtype), []).append(row)
    parts = []
    for rows in groups.values():
        inputs = [[each[row] for row in rows] for each in (dense, others) if each is not None]
        parts.append([_tensor(part) for part in read(_kind(inputs[0]), *inputs)])
    order = torch.tensor([row for rows in groups.values() for row in rows]).argsort()
    return [
        None if columns[0] is None else torch.cat([c.to(device) for c in columns])[order.to(device)]
        for columns in zip(*parts, strict=True)
    ]


def _tensor(result: Any) -> Tensor | None:
    return torch.from_numpy(result) if isinstance(result, np.ndarray) else result
