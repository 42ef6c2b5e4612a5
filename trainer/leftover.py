"""What a step leaves in `.grad`, to tell at the next one whether it was added to."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from trainer.shards import here


class Passes:
    """How many backward passes have reached a parameter, until `end`."""

    def __init__(self, parameter: Tensor) -> None:
        self.count = 0
        self.found: Tensor | None = None  # so many values were not zero that the first one met
        self._parameter = parameter
        self._node = get_gradient_edge(parameter).node  # which adds to `.grad`; kept alive
        self._hook = self._node.register_prehook(self._add)

    def _add(self, _: object) -> None:
        left = self._parameter.grad
        if self.count == 0 and left is not None and left.layout is torch.strided:
            self.found = torch.count_nonzero(here([left])[0])
        self.count += 1

    def end(self) -> None:
        """Counts no more, and leaves no hook."""
        self._hook.remove()


class Leftover(NamedTuple):
    """The gradients of an observed step as its update met them; none of them is kept alive."""

    step: int
    gradients: list[tuple[weakref.ref[Tensor], int] | None]  # of each parameter, with its version
    probe: int = 0  # the parameter whose passes are counted
    passes: Passes | None = None

    def carried(self, gradients: Sequence[Tensor | None]) -> int:
        """How many of the next step's gradients were added to these.

        A backward pass raises the version of a gradient that is there by one, as clearing in place
        does; cleared to None, or not accumulated at all, a gradient is a new tensor. Of several
        passes only those are known that reached the probe. `.data` has no version: whether somebody
        cleared through that, `found` tells.
        """
        self.end()
        times = 1 if self.passes is None else max(1, self.passes.count)
        added = [
            left is not None and now is not None and left[0]() is now
            and now._version == left[1] + times
            for left, now in zip(self.gradients, gradients, strict=True)
        ]  # fmt: skip
        return sum(added) if times == 1 or added[self.probe] else 0

    @property
    def found(self) -> Tensor | None:
        """How many values of the probe's gradient were not zero when the next backward pass came;
        None where nobody saw."""
        return None if self.passes is None else self.passes.found

    def end(self) -> None:
        """Looks at it no more."""
        if self.passes is not None:
            self.passes.end()


def leftover(
    step: int, gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]
) -> Leftover:
    """What the gradients of the parameters are now; to be called when the optimizer begins."""
    left = [None if each is None else (weakref.ref(each), each._version) for each in gradients]
    # The last one is near the loss: it hardly has a gradient that is zero throughout.
    rows = range(len(left) - 1, -1, -1)
    trained = (row for row in rows if left[row] is not None and parameters[row].requires_grad)
    probe = next(trained, None)
    if probe is None:
        return Leftover(step, left)
    return Leftover(step, left, probe, Passes(parameters[probe]))
