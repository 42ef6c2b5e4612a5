"""The losses of the steps, one after the other, as a loop tells them."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from statistics import median

import numpy as np
from torch import Tensor, nn

from trainer.monitor import others
from trainer.monitor.others import UNKNOWN, Others

LATEST = 5  # one batch may be easy


class Losses:
    """What is known of the latest ones."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._latest = deque[Tensor | float | None](maxlen=LATEST)
        self._newest: Tensor | float | None = None
        self.before: float | None = None  # that of the step before, if it was a number
        self._newest_is_bad = False  # whether the newest number is not finite
        self.breaks = False  # whether it is, and the one before was not such a number
        self.is_first = True
        self._others = UNKNOWN  # as the first one tells

    def take(self, loss: Tensor | float | None) -> Tensor | float | None:
        """The next loss, as it was `told`."""
        if self.is_first and isinstance(loss, Tensor) and loss.numel() == 1:
            self.is_first = False
            with suppress(Exception):  # of what it is told there is all kinds
                self._others = others.count(self._model, loss)
        loss, before = told(loss), self._newest
        self._newest = _copy(loss) if isinstance(loss, Tensor) else loss
        self._latest.append(self._newest)
        self.before = None if isinstance(before, Tensor) else before
        was_bad, self._newest_is_bad = self._newest_is_bad, _is_bad(self._newest)
        self.breaks = self._newest_is_bad and not was_bad
        return loss

    @property
    def recent(self) -> float | None:
        """The median of the latest; waits for those that are not in the host's memory."""
        with suppress(Exception):  # of what it was told there is all kinds
            return median(float(loss) for loss in self._latest if loss is not None)
        return None

    def others(self) -> Others:
        """The parameters that the first one hangs on; told once, NaN from then on."""
        count, self._others = self._others, UNKNOWN
        return count


def told(loss: Tensor | float | None) -> Tensor | float | None:
    """A loss, as a number where that is in the host's memory: for others somebody has to wait."""
    if isinstance(loss, Tensor):
        return loss.item() if loss.is_cpu and loss.numel() == 1 else loss
    return loss.item() if isinstance(loss, np.ndarray) and loss.size == 1 else loss


def check(loss: Tensor | float | None) -> None:
    """ValueError for what is not one real number."""
    if isinstance(loss, Tensor) and (loss.numel() != 1 or loss.is_complex()):
        got = f"a tensor of shape {tuple(loss.shape)}, {loss.dtype}"
    elif loss is None or isinstance(loss, Tensor) or _is_real(loss):
        return
    else:
        got = f"{type(loss).__name__} {loss!r:.60}"
    raise ValueError(f"step: loss is the cost, one real number; got {got}")


def _copy(loss: Tensor) -> Tensor | None:
    """What is left when the loop goes on with its tensors; None of what is not one number."""
    with suppress(Exception):
        return loss.detach().clone() if loss.numel() == 1 else None
    return None


def _is_bad(loss: Tensor | float | None) -> bool:
    if type(loss) is float:
        return not math.isfinite(loss)
    if loss is None or isinstance(loss, Tensor):
        return False
    return _is_real(loss) and not math.isfinite(loss)


def _is_real(loss: object) -> bool:
    """Whether a number can be made of it."""
    with suppress(TypeError, ValueError, OverflowError):
        math.isfinite(loss)  # type: ignore[arg-type]
        return True
    return False
