"""Who updates the parameters in a step, at what rate, and what had clipping left by then?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from trainer.leftover import Leftover, leftover
from trainer.shards import here
from trainer.watched import Watched

_VERSION = attrgetter("_version")


class Update:
    """The first optimizer that steps between `begin` and `end` and has a watched parameter; the
    very first, where none has. A given one is taken at once.

    What goes wrong where an optimizer steps is told to `failed`.
    """

    def __init__(self, step: int, watched: Watched, failed: Callable[[], None]) -> None:
        self.optimizer: Optimizer | None = None
        self.learning_rate = math.nan
        self.leftover: Leftover | None = None  # of the gradients, for the step after
        self._step, self._watched, self._failed = step, watched, failed
        self._gradients: Sequence[Tensor] = ()
        self._versions: list[int] = []
        self._norm: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._is_ours = self._several = False

    def begin(self, gradients: Sequence[Tensor], optimizer: Optimizer | None) -> None:
        """The gradients are complete."""
        self._gradients, self._versions = gradients, [*map(_VERSION, gradients)]
        if optimizer is None:
            self._hook = register_optimizer_step_pre_hook(self._steps)
        else:
            self._take(optimizer, is_ours=True)

    def end(self) -> None:
        """The update is over, and no optimizer seen any more."""
        if self._hook is not None:
            self._hook.remove()
        if self.optimizer is None:
            self._leave()
            self._norm = self._norm_now()

    @property
    def name(self) -> str:
        """Of the optimizer's class; empty without one."""
        return "" if self.optimizer is None else type(self.optimizer).__name__

    def norm(self) -> Tensor | None:
        """The norm of the gradients that the optimizer was given, if something had changed them in
        place since `begin`: a clipping that the loop did not tell of. Of an optimizer that was
        given itself, and of several, that of now."""
        return self._norm_now() if self._hook is None or self._several else self._norm

    def forget(self) -> None:
        """Lets go of the gradients."""
        self._gradients = ()

    def _steps(self, optimizer: Optimizer, *_: Any) -> None:
        try:
            self._take(optimizer, self._watched.has_any(optimizer))
        except Exception:  # which is no reason to stop training
            self._failed()

    def _take(self, optimizer: Optimizer, is_ours: bool) -> None:
        self._several |= self._is_ours and is_ours and optimizer is not self.optimizer
        if self._is_ours or self.optimizer is not None and not is_ours:
            return
        self.optimizer, self._is_ours = optimizer, is_ours
        self.learning_rate = float(optimizer.param_groups[0].get("lr", math.nan))
        # Now, since the user may clear the gradients before the context ends.
        self._leave()
        self._norm = self._norm_now()

    def _leave(self) -> None:
        if self.leftover is not None:
            self.leftover.end()
        watched = self._watched
        given = watched.gradients(), watched.parameters, watched.names
        self.leftover = leftover(self._step, *given)

    def _norm_now(self) -> Tensor | None:
        values = here(self._gradients)
        if values is self._gradients and [*map(_VERSION, values)] == self._versions:
            return None  # shards have no versions
        dense = [each for each in values if each.layout is torch.strided]
        if len(dense) < len(self._gradients) or len({g.device for g in dense}) > 1:
            return None
        norms = [norm.float() for norm in torch._foreach_norm(dense)]
        after: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return after
