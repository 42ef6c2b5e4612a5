"""Bounds the gradients of a step, and says what that made of their norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def clip(
    parameters: list[torch.nn.Parameter], max_norm: float | None, max_value: float | None
) -> Tensor | float:
    """Cuts single values of the gradients, then scales all so that their L2 norm is bounded.

    The result is what the norm was multiplied by, NaN where nothing is bounded. Computed as
    torch.nn.utils.clip_grad_norm_ does, which reads nothing back to the host.
    """
    present = [p.grad for p in parameters if p.grad is not None]
    if not present or max_norm is None and max_value is None:
        return math.nan
    norm = before = torch.nn.utils.get_total_norm(present)
    if max_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, max_value)
        norm = torch.nn.utils.get_total_norm(present)
    coefficient = torch.ones_like(norm)
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        coefficient = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    if max_value is not None:  # gradients of zero are left as they are
        coefficient = coefficient * torch.where(before > 0, norm / before, 1.0)
    return coefficient
