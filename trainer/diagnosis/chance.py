"""Is a classifier no better than a guess? Its gradient tells, on whatever scale its loss is."""

from __future__ import annotations

import math
from typing import NamedTuple

from trainer.diagnosis.view import View
from trainer.record import StepRecord

LOSS = (0.98, 1.1)  # times that of a guess, for the gradient that is there
EVEN = (0.8, 1.05)  # times the evenness of a guess's gradient: all samples are as wrong


class Look(NamedTuple):
    """What a loss and its gradient by the output are beside those of a guess; NaN where nobody
    knows."""

    surprise: float  # the loss over the gradient's size
    evenness: float  # of the gradient

    @property
    def is_a_guess(self) -> bool:
        """Whether all classes are given the same share."""
        return LOSS[0] <= self.surprise <= LOSS[1] and EVEN[0] <= self.evenness <= EVEN[1]


UNKNOWN = Look(math.nan, math.nan)


def classes(view: View, record: StepRecord) -> int | None:
    """How many values the last layer with weights gives for a sample; None where nobody knows."""
    row = view.order.last_with_parameters
    if row is None or "Transpose" in view.kinds[row]:
        return None
    try:
        shape = record.shapes[record.parameters.index(f"{view.names[row]}.weight")]
    except ValueError:
        return None
    return shape[0] if len(shape) > 1 else None


def look(view: View, record: StepRecord) -> Look:
    """A record beside a guess, if its loss is a cross-entropy.

    The gradient of that by the output is (p - y) / N for N samples, and of a guess among C classes
    p is 1 / C: so the loss over √(N · Σ g²) is ln C / √(1 - 1 / C), and (Σ |g|)² / (N · Σ g²) is
    4 · (1 - 1 / C); for one output (two classes) 2 · ln 2 and 1. A network that has learnt more
    than that has a lower loss for its gradient, and one that is wrong about some samples alone has
    a less even gradient.
    """
    count = classes(view, record)
    if not count or not record.loss > 0:
        return UNKNOWN
    row = view.order.last_with_parameters
    values, norm, absolute = view.moments[row, :3].tolist()
    samples = values / count
    if not (norm > 0 and samples >= 2):
        return UNKNOWN
    size, other = norm * math.sqrt(samples), 1 - 1 / count
    loss, even = (
        (math.log(count) / math.sqrt(other), 4 * other) if count > 1 else (2 * math.log(2), 1)
    )
    return Look(record.loss / size / loss, (absolute / size) ** 2 / even)
