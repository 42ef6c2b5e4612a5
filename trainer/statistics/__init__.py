"""What the values of tensors say: moments, log histograms, changes and the signal of a layer.

Everything stays on the device the tensors live on until `fetch`, which copies it to the host at
once. Values in the CPU's memory are read by a compiled kernel, or by numpy when they are few and
the kernel, whose import would cost far more, is not loaded; all others by torch operations that
never wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.record import BINS, COUNT, MOMENTS, SIGNALS, ZEROS
from trainer.statistics import kinds, operations
from trainer.statistics.kinds import by_kind, dense, dense_one, is_compiled, use_compiled
from trainer.statistics.snapshot import Snapshot

_ON_CPU, _SHAPE = attrgetter("is_cpu"), attrgetter("shape")

__all__ = [
    "Snapshot", "fetch", "is_compiled", "signal", "signals", "size", "summarize", "use_compiled",
]  # fmt: skip


def summarize(tensors: Sequence[Tensor], histograms: bool) -> tuple[Tensor, Tensor | None]:
    """Moments (N, 7) float64 of the tensors and, if asked for, log histograms (N, 1024) int64.

    Columns, of which those from the norm to the maximum are over finite values, and bins are those
    of `trainer.record`; zeros and values that are not finite have no bin. Any shape, stride, layout
    and dtype, on any device: a complex number counts as two values, and what a sparse tensor leaves
    out as zeros. Values never raise. The results are on the device of the first tensor, in float32
    where it has no float64.
    """
    if not tensors:
        none = torch.zeros(0, BINS, dtype=torch.int64)
        return torch.zeros(0, MOMENTS, dtype=torch.float64), none if histograms else None
    readable = dense(tensors)
    moments, counts = by_kind(readable, lambda kind, group: kind.summarize(group, histograms))
    if readable.values is tensors:
        return moments, counts
    for row, (tensor, values) in enumerate(zip(tensors, readable.values, strict=True)):
        if tensor.layout != torch.strided:
            left_out = size(tensor) - values.numel()
            moments[row, COUNT] += left_out
            moments[row, ZEROS] += left_out
    return moments, counts


def signal(output: Tensor) -> Tensor:
    """RMS, fraction of zeros, signal fraction and dead fraction of a layer's output (batch first):
    (4,) float64.

    The RMS is finite exactly if all values are. The signal fraction is the median over units of
    std / RMS; a unit is an entry of the last dimension, with all others as its samples, or, from 4
    dimensions on, of the second (a channel). A channel's std is over the batch at each position,
    since padding makes positions differ whatever the samples are; of a single sample it is over the
    positions. The mean is subtracted before squaring, so that it is exact for a signal far below
    the mean. Units that are always zero are left out, and of an even number the lower median is
    taken; the dead fraction is their share of all units. NaN for what is undefined: no values, a
    signal from a single sample of each unit.
    """
    values = dense_one(output)
    if values.numel() == 0:
        return torch.full((SIGNALS,), torch.nan, dtype=torch.float64, device=values.device)
    result: Tensor = kinds.kind_of([values]).signal(values.detach(), _units(values.shape))
    return result


def signals(outputs: Sequence[Tensor]) -> Tensor:
    """What `signal` says of each output: (N, 4). Many small ones take a fraction of a call each."""
    if len(outputs) == 1:
        return signal(outputs[0]).unsqueeze(0)
    values, alike = dense(outputs)
    kind = kinds.kind_of(values) if alike and all(map(Tensor.numel, values)) else None
    if kind is None or not hasattr(kind, "signals"):
        return torch.stack([signal(each) for each in values])
    result: Tensor = kind.signals(values, [*map(_units, map(_SHAPE, values))])
    return result


@lru_cache(maxsize=1024)
def _units(shape: torch.Size) -> tuple[int, int, int]:
    """An output of that shape seen as (samples, units, positions)."""
    if len(shape) >= 4:
        return shape[0], shape[1], shape[2:].numel()
    units = shape[-1] if len(shape) > 1 else 1
    return shape.numel() // units if units else 0, units, 1


def size(tensor: Tensor) -> int:
    """How many values a tensor has for the functions above: a complex number is two."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def fetch(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """The tensors as numpy arrays, with one copy from each device, whatever their number.

    Those in the CPU's memory are not copied: the arrays share it.
    """
    if all(map(_ON_CPU, tensors)):
        return [tensor.detach().numpy() for tensor in tensors]
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
