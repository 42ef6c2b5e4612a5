"""The loss of a step, as a loop tells it."""

from __future__ import annotations

import math

from torch import Tensor


def told(loss: Tensor | float | None) -> Tensor | float | None:
    """A loss, as a number where that is in the host's memory: for others somebody has to wait."""
    if isinstance(loss, Tensor) and loss.is_cpu and loss.numel() == 1:
        return loss.item()
    return loss


def number(loss: Tensor | float | None) -> float | None:
    """A loss that is told as a number; nobody waits for one that is elsewhere."""
    return None if isinstance(loss, Tensor) else loss


def is_bad(loss: Tensor | float | None) -> bool:
    """Whether a number is not finite; nobody waits for one that is elsewhere."""
    return loss is not None and not isinstance(loss, Tensor) and not math.isfinite(loss)


def check(loss: Tensor | float | None) -> None:
    """ValueError for what is not one number."""
    if isinstance(loss, Tensor) and loss.numel() != 1:
        shape = tuple(loss.shape)
        raise ValueError(f"step: loss is the cost, one number; got a tensor of shape {shape}")
