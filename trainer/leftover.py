"""What a step leaves in `.grad`, to tell at the next one whether it was added to."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Leftover(NamedTuple):
    """The gradients of an observed step as its update met them; none of them is kept alive."""

    step: int
    gradients: list[tuple[weakref.ref[Tensor], int] | None]  # of each parameter, with its version

    def carried(self, gradients: Sequence[Tensor | None]) -> int:
        """How many of the next step's gradients were added to these.

        A backward pass raises the version of a gradient that is there by one, as clearing in place
        does; cleared to None, or not accumulated at all, a gradient is a new tensor.
        """
        return sum(
            left is not None and left[0]() is now and now._version == left[1] + 1
            for left, now in zip(self.gradients, gradients, strict=True)
            if now is not None
        )


def leftover(step: int, gradients: Sequence[Tensor | None]) -> Leftover:
    """What the gradients of the parameters are now; to be called when the optimizer begins."""
    return Leftover(
        step, [None if each is None else (weakref.ref(each), each._version) for each in gradients]
    )
