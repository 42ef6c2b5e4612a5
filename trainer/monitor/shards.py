"""What of a tensor is in this process: all of it, or a shard where several processes share it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_WHOLE = {Tensor, nn.Parameter}


def here(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors, or the shards that this process has of them, in the same memory.

    Asking waits for no other process. What only stands for other values, and does not say which
    are here, is replaced by a tensor without values.
    """
    return tensors if {*map(type, tensors)} <= _WHOLE else [_here(tensor) for tensor in tensors]


def is_stand_in(tensor: Tensor) -> bool:
    """Whether it is of a kind of its own, such as a DTensor, whose memory is not what it says."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _here(tensor: Tensor) -> Tensor:
    if not is_stand_in(tensor):
        return tensor
    if not hasattr(tensor, "to_local"):
        return torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    shard: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return shard
