"""Who updates the parameters in a step, at what rate, and what did clipping leave?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from threading import get_ident
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainer.monitor.leftover import Leftover, leftover
from trainer.monitor.shards import here
from trainer.monitor.watched import Watched
from trainer.record import norm_of

UNCHANGED = -1.0  # in the place of a norm
ROUNDED_UP = 1.001  # times a norm, of the same norm in other arithmetic

_GRADIENT, _VERSION = attrgetter("grad"), attrgetter("_version")


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
        self._norms: Tensor | None = None  # of the gradients, as those that follow were given them
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

    def norms(self) -> Tensor | None:
        """(G,) norms of the gradients as each one's optimizer was given it, if something had
        changed them in place since `begin`: a clipping that the loop did not tell of. UNCHANGED
        where nothing had yet. Where nobody saw an optimizer, those of now."""
        return self._norms if self._ours else self._norms_now()

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
                    self._norms = self._norms_now()
                elif id(optimizer) not in self._ours:
                    self._norms = self._with_norms_of(optimizer)
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

    def _norms_now(self) -> Tensor | None:
        values = here(self._gradients)
        if values is self._gradients and [*map(_VERSION, values)] == self._versions:
            return None  # shards have no versions
        dense = [each for each in values if each.layout is torch.strided]
        if len(dense) < len(self._gradients) or len({g.device for g in dense}) > 1:
            return None
        return torch.stack([norm.float() for norm in torch._foreach_norm(dense)])

    def _with_norms_of(self, optimizer: Optimizer) -> Tensor | None:
        """Those that one more optimizer is given are of now: those before it may have cleared
        theirs since, and somebody may have clipped its own."""
        now, before = self._norms_now(), self._norms
        if now is None:
            return before
        params = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        given = {*map(id, map(_GRADIENT, params))}
        own = torch.tensor([id(each) in given for each in self._gradients], device=now.device)
        return torch.where(own, now, UNCHANGED if before is None else before)


def clipped_to(given: NDArray[np.float32], norms: NDArray[np.float64]) -> float | None:
    """What clipping has multiplied gradients of these norms by, given what `Update.norms` says of
    them; None if that was no clipping."""
    before = norm_of(norms)
    share = norm_of(np.where(given == UNCHANGED, norms, given)) / before if before > 0 else math.nan
    return share if 0 < share <= ROUNDED_UP else None


_OPEN: list[Update] = []  # between `begin` and `end`


def _steps(optimizer: Optimizer, *_: Any) -> None:
    for update in tuple(_OPEN):
        update.sees(optimizer)


# For good: another thread's optimizer may be going through torch's hooks at any time.
register_optimizer_step_pre_hook(_steps)
