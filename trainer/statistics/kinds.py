"""Which module reads which tensors, and how tensors are made readable for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.statistics import operations, small

_PLAIN = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_KERNEL = "trainer.statistics.threads"
_TRAITS = attrgetter("layout", "dtype", "device")


class Dense(NamedTuple):
    """Tensors whose values the kinds can read."""

    values: Sequence[Tensor]
    alike: bool  # whether all share dtype and device


def dense(tensors: Sequence[Tensor]) -> Dense:
    """The values that are there, contiguous, real and of a dtype that the kinds can read.

    The same sequence where no tensor needs a change. Some twenty tensors come at each observed
    step: loops that stay in C take a third of the time.
    """
    traits = {*map(_TRAITS, tensors)}
    if (
        all(layout is torch.strided and dtype in _PLAIN for layout, dtype, _ in traits)
        and all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
    ):
        return Dense(tensors, len(traits) == 1)
    values = [dense_one(tensor) for tensor in tensors]
    return Dense(values, len({*map(_TRAITS, values)}) == 1)


def dense_one(tensor: Tensor) -> Tensor:
    """The same of one tensor."""
    is_strided = tensor.layout is torch.strided
    if is_strided and tensor.dtype in _PLAIN and tensor.is_contiguous() and not tensor.is_neg():
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


def kind_of(tensors: Sequence[Tensor]) -> Any:
    """The module that reads these tensors, which share device and dtype: see the top."""
    if not tensors[0].is_cpu:
        return operations
    if _KERNEL not in sys.modules and small.fits(tensors):
        return small
    return _kernel()


def is_compiled() -> bool:
    """Whether the compiled kernel is in use, whose sums differ from numpy's in the last bit."""
    return _KERNEL in sys.modules


def use_compiled() -> None:
    """Uses the kernel from now on, also for a few values."""
    _kernel()


@cache
def _kernel() -> Any:
    try:
        return import_module(_KERNEL)
    except ImportError:  # no numba, or one that does not fit this numpy
        return operations


def by_kind(
    tensors: Dense,
    read: Callable[..., tuple[Any, ...]],
    others: Sequence[Tensor] | None = None,
) -> list[Any]:
    """What `read(kind, tensors[, others])` gives (a tuple) for each group that shares device and
    dtype, put together in the order of the tensors."""
    values = tensors.values
    both = (values,) if others is None else (values, others)
    if tensors.alike:
        return [_tensor(part) for part in read(kind_of(values), *both)]
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for row, tensor in enumerate(values):
        groups.setdefault((tensor.device, tensor.dtype), []).append(row)
    parts = []
    for rows in groups.values():
        inputs = [[each[row] for row in rows] for each in both]
        parts.append([_tensor(part) for part in read(kind_of(inputs[0]), *inputs)])
    device = values[0].device
    order = torch.tensor([row for rows in groups.values() for row in rows]).argsort()
    return [
        None if columns[0] is None else torch.cat([c.to(device) for c in columns])[order.to(device)]
        for columns in zip(*parts, strict=True)
    ]


def _tensor(result: Any) -> Tensor | None:
    return torch.from_numpy(result) if isinstance(result, np.ndarray) else result
