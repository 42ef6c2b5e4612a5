"""What runs now: a forward pass of a step, its backward pass, or something else?"""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether a model runs only because somebody asks for its code."""
    return torch.compiler.is_compiling() or bool(torch._C._is_tracing())


def is_training() -> bool:
    """Whether what runs belongs to a step: a validation pass does not."""
    return torch.is_grad_enabled() and not is_traced()


def in_backward() -> bool:
    """Whether a backward pass runs."""
    return bool(torch._C._current_graph_task_id() != -1)
