"""What a step leaves in `.grad`, to tell at the next one whether it was added to."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Leftover(NamedTuple):
    """The gradients of an observed step, none of which is kept alive, as its update met them."""

    step: int
    gradients: dict[int, tuple[weakref.ref[Tensor], int]]  # parameter's id → gradient, version

    def carried(self, parameters: Sequence[nn.Parameter]) -> int:
        """How many gradients were added to what is left: the next step's, before its update.

        A backward pass raises the version of a gradient that is there by one, as clearing in place
        does; cleared to None, or not accumulated at all, a gradient is a new tensor.
        """
        count = 0
        for parameter in parameters:
            left = self.gradients.get(id(parameter))
            gradient = parameter.grad
            if left is not None and gradient is not None and left[0]() is gradient:
                count += gradient._version == left[1] + 1
        return count


def leftover(step: int, parameters: Sequence[nn.Parameter]) -> Leftover:
    """What the gradients of the parameters are now; to be called when the optimizer begins."""
    return Leftover(
        step,
        {
            id(p): (weakref.ref(gradient), gradient._version)
            for p in parameters
            if (gradient := p.grad) is not None
        },
    )
