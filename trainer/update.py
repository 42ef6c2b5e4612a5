"""Who updates the parameters in a step, at what rate, and what did clipping leave?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainer.leftover import Leftover, leftover
from trainer.shards import here
from trainer.watched import Watched

_VERSION = attrgetter("_version")


class Update:
    """The first optimizer that steps between `begin` and `end` and has a watched parameter; else
    the one that the loop tells of, or the very first of others.

    What goes wrong where an optimizer steps is told to `failed`.
    """

    def __init__(self, step: int, watched: Watched, failed: Callable[[], None]) -> None:
        self.optimizer: Optimizer | None = None
        self.learning_rate = math.nan
        self.leftover: Leftover | None = None  # of the gradients, for the step after
        self._step, self._watched, self._failed = step, watched, failed
        self._told: Optimizer | None = None  # by the loop
        self._gradients: Sequence[Tensor] = ()
        self._versions: list[int] = []
        self._norm: Tensor | None = None  # of the gradients that the first one was given
        self._ours = set[int]()  # those that have a watched parameter
        self._thread = 0  # in which it has begun

    def begin(self, gradients: Sequence[Tensor], optimizer: Optimizer | None) -> None:
        """The gradients are complete; the loop may tell of its optimizer."""
        self._gradients, self._versions = gradients, [*map(_VERSION, gradients)]
        self._thread = get_ident()
        self._told = optimizer
        if optimizer is not None:  # which need not run hooks
            self._take(optimizer)
        _OPEN.append(self)

    def end(self) -> None:
        """The update is over, and no optimizer seen any more."""
        with suppress(ValueError):  # where it had not begun
            _OPEN.remove(self)
        if self.leftover is None:
            self._leave()

    @property
    def name(self) -> str:
        """Of the optimizer's class; empty without one."""
        return "" if self.optimizer is None else type(self.optimizer).__name__

    def norm(self) -> Tensor | None:
        """The norm of the gradients that the optimizer was given, if something had changed them in
        place since `begin`: a clipping that the loop did not tell of. Of several optimizers, and of
        one that nobody saw, that of now."""
        return self._norm if len(self._ours) == 1 else self._norm_now()

    def forget(self) -> None:
        """Lets go of the gradients."""
        self._gradients = ()

    def sees(self, optimizer: Optimizer) -> None:
        """An optimizer is about to step."""
        try:
            if optimizer is self._told or self._watched.has_any(optimizer):
                if not self._ours:
                    self._take(optimizer)
                    # Now, since the user may clear the gradients before the context ends.
                    self._leave()
                    self._norm = self._norm_now()
                self._ours.add(id(optimizer))
            elif self.optimizer is None and get_ident() == self._thread:
                self._take(optimizer)  # those of other threads are none of this loop's
        except Exception:  # which is no reason to stop training
            self._failed()

    def _take(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.learning_rate = float(optimizer.param_groups[0].get("lr", math.nan))

    def _leave(self) -> None:
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


_OPEN: list[Update] = []  # between `begin` and `end`


def _steps(optimizer: Optimizer, *_: Any) -> None:
    for update in tuple(_OPEN):
        update.sees(optimizer)


# For good: another thread's optimizer may be going through torch's hooks at any time.
register_optimizer_step_pre_hook(_steps)
