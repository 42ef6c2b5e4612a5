"""The user's own rows, from a function or class that the configuration names."""

from __future__ import annotations

import torch

from trainer import callables
from trainer.config.schema import CustomData
from trainer.data.table import Table


def read(section: CustomData) -> Table:
    """The rows that the named thing gives; ValueError or TypeError where they are no such rows."""
    made = callables.load(section.name)(**section.arguments)
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        raise TypeError(f"it gives a {type(made).__name__}, expected (x, y) or (x, y, weights)")
    tensors = [torch.as_tensor(part) for part in made]
    for name, tensor in zip(("x", "y", "weights"), tensors, strict=False):
        if tensor.dim() == 0 or len(tensor) != len(tensors[0]) or len(tensor) == 0:
            shapes = " and ".join(str(tuple(t.shape)) for t in tensors)
            raise ValueError(f"it gives shapes {shapes}; expected the same number of rows, not 0")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    weights = tensors[2] if len(tensors) == 3 else None
    if weights is not None and weights.dim() != 1:
        raise ValueError(f"weights have shape {tuple(weights.shape)}; expected one per row")
    return Table(tensors[0], tensors[1], weights)
