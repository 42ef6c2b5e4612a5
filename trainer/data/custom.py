"""The user's own rows, from a function or class that the configuration names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer import callables, memory
from trainer.config.data_sections import CustomData
from trainer.data.stream import Stream, arranged, collated, count, is_tokens
from trainer.data.table import Table


def read(section: CustomData, seed: int) -> Table | Stream:
    """The rows that the named thing gives, with numbers of the seed where workers draw them.

    ValueError or TypeError where they are no such rows.
    """
    made = callables.load(section.name)(**section.arguments)
    if isinstance(made, tuple | list):
        if len(made) not in (2, 3):
            raise TypeError(f"it gives {len(made)} parts, expected (x, y) or (x, y, weights)")
        if section.workers is not None:
            raise ValueError("workers: for a Dataset only; these rows are in memory already")
        return _table([torch.as_tensor(part) for part in made])
    indexed = hasattr(type(made), "__len__") and hasattr(type(made), "__getitem__")
    if not indexed or isinstance(made, Tensor | str | dict):
        expected = "(x, y), (x, y, weights) or a Dataset with __len__ and __getitem__"
        raise TypeError(f"it gives a {type(made).__name__}, expected {expected}")
    if len(made) == 0:
        raise ValueError(f"its Dataset {type(made).__name__} is empty")
    if section.workers is not None:
        return Stream.of(made, len(made), section.workers, seed)
    _check_memory(made)
    return _table([p for p in collated([made[i] for i in range(len(made))]) if p is not None])


def _table(tensors: list[Tensor]) -> Table:
    for name, tensor in zip(("x", "y", "weights"), tensors, strict=False):
        if tensor.dim() == 0 or len(tensor) != len(tensors[0]) or len(tensor) == 0:
            shapes = " and ".join(str(tuple(t.shape)) for t in tensors)
            raise ValueError(f"it gives shapes {shapes}; expected the same number of rows, not 0")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds values that are not finite")
    weights = tensors[2] if len(tensors) == 3 else None
    if weights is not None and weights.dim() != 1:
        raise ValueError(f"weights have shape {tuple(weights.shape)}; expected one per row")
    x, y, weights = arranged(tensors[0], tensors[1], weights)
    classes = None if y.is_floating_point() else count("y", y)
    if classes == 1:
        raise ValueError("y holds class 0 only; a classifier needs at least two classes")
    return Table(x, y, weights, classes=classes, vocabulary=count("x", x) if is_tokens(x) else None)


def _check_memory(dataset: Any) -> None:
    """Raises when the samples, as large as the first, and a copy of them take too much memory."""
    parts = [part for part in collated([dataset[0]]) if isinstance(part, Tensor)]
    needed = len(dataset) * sum(part.numel() * part.element_size() for part in parts)
    try:
        memory.need(2 * needed, f"its {len(dataset)} samples")
    except ValueError as error:
        raise ValueError(f"{error}; set `workers` to read them batch by batch") from None
