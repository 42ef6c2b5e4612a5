"""What a step leaves in `.grad`, to tell at the next one whether it was added to."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.monitor.shards import here

Hook = Callable[[Tensor], None]


class Passes:
    """How many backward passes have reached a parameter, until `end`."""

    def __init__(self, parameter: Tensor) -> None:
        self.count = 0
        self.found: Tensor | None = None  # so many values were not zero that the first one met
        self.was_zero = False  # whether all values were at the step itself
        self._parameter = weakref.ref(parameter)
        after: Any = parameter.register_post_accumulate_grad_hook  # which has no types
        before: Any = parameter.register_hook
        hooks = after(_weakly(self._add)), before(_weakly(self._begins))
        self._remove = weakref.finalize(self, lambda: [hook.remove() for hook in hooks])
        self._remove.atexit = False

    def _begins(self, _: Tensor) -> None:
        parameter = self._parameter()
        left = None if parameter is None else parameter.grad
        if self.found is None and left is not None and left.layout is torch.strided:
            self.found = torch.count_nonzero(here([left])[0])

    def _add(self, _: Tensor) -> None:
        self.count += 1

    def end(self) -> None:
        """Counts no more, and leaves no hook; nor does what nobody holds any more."""
        self._remove()


def _weakly(method: Hook) -> Hook:
    """Calls a method as long as there is its object."""
    held = weakref.WeakMethod(method)

    def call(tensor: Tensor) -> None:
        found = held()
        if found is not None:
            found(tensor)

    return call


class Leftover(NamedTuple):
    """The gradients of an observed step as its update met them; none of them is kept alive."""

    step: int
    gradients: list[tuple[weakref.ref[Tensor], int] | None]  # of each parameter, with its version
    probe: int = 0  # the parameter whose passes are counted
    name: str = ""  # of it
    passes: Passes | None = None

    def carried(self, gradients: Sequence[Tensor | None]) -> float:
        """How many of the next step's gradients were added to these.

        A backward pass raises the version of a gradient that is there by one, as clearing in place
        does; cleared to None, or not accumulated at all, a gradient is a new tensor. Of several
        passes only those are known that reached the probe. `.data` has no version: whether somebody
        cleared through that, `found` tells.
        """
        self.end()
        if len(self.gradients) != len(gradients):
            return math.nan  # of others than these
        times = 1 if self.passes is None else max(1, self.passes.count)
        added = [
            left is not None and now is not None and left[0]() is now
            and now._version == left[1] + times
            for left, now in zip(self.gradients, gradients, strict=True)
        ]  # fmt: skip
        return sum(added) if times == 1 or added[self.probe] else 0

    def note_zeros(self, zeros: Container[str]) -> None:
        """Takes the names of the parameters whose gradient was zero throughout at the step."""
        if self.passes is not None:
            self.passes.was_zero = self.name in zeros

    @property
    def found(self) -> Tensor | None:
        """How many values of the probe's gradient were not zero when the next backward pass came;
        None where nobody saw, or none was at the step."""
        if self.passes is None or self.passes.was_zero:
            return None
        return self.passes.found

    def end(self) -> None:
        """Looks at it no more."""
        if self.passes is not None:
            self.passes.end()


def leftover(
    step: int,
    gradients: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    names: Sequence[str],
) -> Leftover:
    """What the gradients of the parameters are now; to be called when the optimizer begins."""
    left = [None if each is None else (weakref.ref(each), each._version) for each in gradients]
    trained = (
        row for row, each in enumerate(left) if each is not None and parameters[row].requires_grad
    )
    probe = next(trained, None)
    if probe is None:
        return Leftover(step, left)
    return Leftover(step, left, probe, names[probe], Passes(parameters[probe]))
