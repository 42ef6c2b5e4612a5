"""The losses of the steps, one after the other, as a loop tells them."""

from __future__ import annotations

import math
from contextlib import suppress

from torch import Tensor, nn

from trainer import strangers


class Losses:
    """What is known of the newest one."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._newest: float | None = None
        self.before: float | None = None  # that of the step before, if it was a number
        self.is_first = True
        self._strangers = math.nan  # as the first one tells

    def take(self, loss: Tensor | float | None) -> Tensor | float | None:
        """The next loss, as it was `told`."""
        if self.is_first and isinstance(loss, Tensor) and loss.numel() == 1:
            self.is_first = False
            with suppress(Exception):  # of what it is told there is all kinds
                self._strangers = strangers.count(self._model, loss)
        loss = told(loss)
        self.before, self._newest = self._newest, None if isinstance(loss, Tensor) else loss
        return loss

    def strangers(self) -> float:
        """How many the first one hangs on; told once, NaN from then on."""
        count, self._strangers = self._strangers, math.nan
        return count

    @property
    def breaks(self) -> bool:
        """Whether the newest number is not finite, and the one before was not such a number."""
        return _is_bad(self._newest) and not _is_bad(self.before)


def told(loss: Tensor | float | None) -> Tensor | float | None:
    """A loss, as a number where that is in the host's memory: for others somebody has to wait."""
    if isinstance(loss, Tensor) and loss.is_cpu and loss.numel() == 1:
        return loss.item()
    return loss


def check(loss: Tensor | float | None) -> None:
    """ValueError for what is not one number."""
    if isinstance(loss, Tensor) and loss.numel() != 1:
        shape = tuple(loss.shape)
        raise ValueError(f"step: loss is the cost, one number; got a tensor of shape {shape}")


def _is_bad(loss: float | None) -> bool:
    return loss is not None and not math.isfinite(loss)
