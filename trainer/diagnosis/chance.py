"""Is a classifier no better than a guess? Its gradient tells, on whatever scale its loss is."""

from __future__ import annotations

import math
from typing import NamedTuple

from trainer.diagnosis.view import View
from trainer.record import StepRecord

LOSS = (0.98, 1.1)  # times that of a guess, for the gradient that is there
NEAR = (0.9, 1.2)  # the same, of one that has been made less sharp
EVEN = (0.8, 1.05)  # times the evenness of a guess's gradient: all samples are as wrong
SHARES = {"Softmax", "Sigmoid"}


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


def doubled(view: View, record: StepRecord) -> str | None:
    """The kind of the last layer, if it makes shares of what it is given, the loss is a
    cross-entropy that does so once more, and all classes are given about the same; None else.

    As far as the gradient by the layer's output tells: that of a loss which takes shares, such as
    their negative logarithm or a squared error, has another size.
    """
    kind = view.kinds[-1] if view.kinds else ""
    if kind not in SHARES:
        return None
    least, most = NEAR
    return kind if least <= look(view, record, len(view.kinds) - 1).surprise <= most else None


def look(view: View, record: StepRecord, row: int | None = None) -> Look:
    """A record beside a guess, if its loss is a cross-entropy of what this layer puts out, or the
    last one with weights.

    The gradient of that by the output is (p - y) / N for N samples, and of a guess among C classes
    p is 1 / C: so the loss over √(N · Σ g²) is ln C / √(1 - 1 / C), and (Σ |g|)² / (N · Σ g²) is
    4 · (1 - 1 / C); for one output (two classes) 2 · ln 2 and 1. A network that has learnt more
    than that has a lower loss for its gradient, and one that is wrong about some samples alone has
    a less even gradient.
    """
    count = classes(view, record)
    if not count or not record.loss > 0:
        return UNKNOWN
    row = view.order.last_with_parameters if row is None else row
    values, norm, absolute = view.moments[row, :3].tolist()
    samples = values / count
    if not (norm > 0 and samples >= 2):
        return UNKNOWN
    size, other = norm * math.sqrt(samples), 1 - 1 / count
    loss, even = (
        (math.log(count) / math.sqrt(other), 4 * other) if count > 1 else (2 * math.log(2), 1)
    )
    return Look(record.loss / size / loss, (absolute / size) ** 2 / even)
