"""Is a classifier no better than a guess? Its gradient tells, on whatever scale its loss is."""

from __future__ import annotations

import math
from typing import NamedTuple

from trainer.diagnosis.view import View
from trainer.record import StepRecord

GUESS_LOSS = (0.98, 1.1)  # times that of a guess, for the gradient that is there
SOFTER_LOSS = (0.9, 1.2)  # times that of a guess that has been made less sharp
LEAST_SOFTER_LOSS = 0.7  # likewise of an answer that is right
GUESS_EVENNESS = (0.8, 1.05)  # times the evenness of a guess's gradient: all samples are as wrong
SOFTENED_SURPRISE = (0.85, 1.05)  # times the classes, of a guess that a softmax makes softer
SHARES = {"Softmax", "Sigmoid"}


class Look(NamedTuple):
    """What a loss and its gradient by the output are beside those of a guess; NaN where nobody
    knows."""

    surprise: float  # the loss over the gradient's size
    evenness: float  # of the gradient

    @property
    def is_a_guess(self) -> bool:
        """Whether all classes are given the same share."""
        return (
            GUESS_LOSS[0] <= self.surprise <= GUESS_LOSS[1]
            and GUESS_EVENNESS[0] <= self.evenness <= GUESS_EVENNESS[1]
        )


UNKNOWN = Look(math.nan, math.nan)


def classes(view: View, record: StepRecord) -> int | None:
    """How many values the last layer with weights gives for a sample; None where nobody knows. One
    that is tied to a table of tokens gives one for each of those."""
    row = view.order.last_with_parameters
    if row is None or "Transpose" in view.kinds[row]:
        return None
    tables = (at for at, kind in enumerate(view.kinds) if kind == "Embedding")
    owns = f"{view.names[row]}.weight" in record.parameters
    source = row if owns else next(tables, None)
    name = None if source is None else f"{view.names[source]}.weight"
    if name not in record.parameters:
        return None
    shape = record.shapes[record.parameters.index(name)]
    return shape[0] if len(shape) > 1 else None


def doubled(view: View, record: StepRecord, least: float = SOFTER_LOSS[0]) -> str | None:
    """The kind of the last layer, if it makes shares of what it is given, the loss is a
    cross-entropy that does so once more, and all classes are given about the same; None else.
    Where that was so, it is enough to be as large as `least`, times that of a guess.

    As far as the gradient by the layer's output tells: that of a loss which takes shares, such as
    their negative logarithm or a squared error, has another size.
    """
    kind = view.kinds[-1] if view.kinds else ""
    if kind not in SHARES:
        return None
    surprise = look(view, record, len(view.kinds) - 1).surprise
    return kind if least <= surprise <= SOFTER_LOSS[1] else None


def lowest_of_doubled(count: int) -> float:
    """How low such a loss can fall for so many classes, over that of a guess: the largest share is
    1 and the others 0, which the loss makes shares of e / (e + C - 1)."""
    if count < 2:  # sigmoids of 1 and of 0
        return (math.log1p(1 / math.e) + math.log(2)) / (
            math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5))
        )
    return math.log1p((count - 1) / math.e) / math.log(count)


def softened(view: View, record: StepRecord) -> bool:
    """Whether a record is that of a guess among C classes but for a gradient that is 1 / C of its
    size: what a softmax makes of it that stands between the model and such a loss."""
    count, found = classes(view, record) or 0, look(view, record)
    even = GUESS_EVENNESS[0] <= found.evenness <= GUESS_EVENNESS[1]
    return (
        count > 2
        and even
        and SOFTENED_SURPRISE[0] <= found.surprise / count <= SOFTENED_SURPRISE[1]
    )


def look(view: View, record: StepRecord, row: int | None = None) -> Look:
    """A record beside a guess, if its loss is a cross-entropy of what this layer puts out, or the
    last one with weights.

    The gradient of that by the output is (p - y) / N for N samples, and of a guess among C classes
    p is 1 / C: so the loss over √(N · Σ g²) is ln C / √(1 - 1 / C), and (Σ |g|)² / (N · Σ g²) is
    4 · (1 - 1 / C); for one output (two classes) 2 · ln 2 and 1. A network that has learnt more
    than that has a lower loss for its gradient, and one that is wrong about some samples alone has
    a less even gradient. Where nobody knows C, as of a model that multiplies with weights itself,
    it is the one that makes a guess as even as this.
    """
    count = classes(view, record)
    if not len(view.kinds) or not record.loss > 0:
        return UNKNOWN
    if count:
        row = view.order.last_with_parameters if row is None else row
        return _beside(record.loss, view.moments[row, :3].tolist(), count)
    moments = view.moments[len(view.kinds) - 1, :3].tolist()
    likely = _likely_classes(*moments)
    found = UNKNOWN if likely is None else _beside(record.loss, moments, likely)
    return found if found.is_a_guess else UNKNOWN  # of others they are as likely as not


def _beside(loss: float, moments: list[float], count: int) -> Look:
    values, norm, absolute = moments
    samples = values / count
    if not (norm > 0 and samples >= 2):
        return UNKNOWN
    size, other = norm * math.sqrt(samples), 1 - 1 / count
    of_a_guess, even = (
        (math.log(count) / math.sqrt(other), 4 * other) if count > 1 else (2 * math.log(2), 1)
    )
    share = absolute / size
    return Look(loss / size / of_a_guess, share * share / even)


def _likely_classes(values: float, norm: float, absolute: float) -> int | None:
    """The C for which (Σ |g|)² / (C · N · Σ g²) is 4 · (1 - 1 / C) / C; None without one."""
    share = absolute / norm if norm > 0 else math.nan  # the squares may leave float64's range
    if not (share >= 0.99 and values > 0):  # it is 1 and more, but for rounding
        return None
    even = share * share / values
    return round(2 * (1 + math.sqrt(1 - even)) / even) if 0 < even < 1 else None
