"""How far is the output from its targets? Squared and absolute errors tell, on any scale."""

from __future__ import annotations

import math

from trainer.diagnosis.history import History
from trainer.diagnosis.order import SATURATING
from trainer.diagnosis.trail import Mark

SAME_FACTOR = 1e-4  # of a squared error's factor, from batch to batch
OTHER = 0.003  # by which losses have to differ, to tell it from one that stays
FAR_TARGET = 30.0  # times more than 1, for which start values and rates are made
OUT_OF_REACH = 2.0  # from one end of the last activation's range to the other
BEYOND_OUTPUT = 10.0  # times the output, from where it has to grow before it can fit anything


def is_squared(history: History) -> bool:
    """Whether the loss is s times the mean or the sum of the squares of what the last layer's
    output lacks.

    Of errors e the loss is L = s · mean e² and its gradient by N values of the output
    g = 2 · s · e / N, so that N · Σ g² / (4 · L) = s is the same for all batches, which it is of
    no other loss; of a sum it is Σ g² / (4 · L).
    """
    told = _told(history)
    losses = [math.log(mark.batch_loss) for mark in told]
    if not told:
        return False
    means = [2 * math.log(mark.pull) - loss for mark, loss in zip(told, losses, strict=True)]
    sums = [each - math.log(mark.values) for mark, each in zip(told, means, strict=True)]
    return any(max(factors) - min(factors) <= SAME_FACTOR for factors in (means, sums))


def is_absolute(history: History) -> bool:
    """Whether the loss is s times the mean or the sum of the absolute errors, all of one sign or
    weighed alike, as a far Huber's or quantile's are: its gradient is the same for all batches."""
    pulls = [math.log(mark.pull) for mark in _told(history)]
    return bool(pulls) and max(pulls) - min(pulls) <= SAME_FACTOR


def distance(mark: Mark) -> float:
    """The RMS of the errors of a squared loss: 2 · L / (‖g‖ · √N) in the words above, in the
    units of the output."""
    return 2 * mark.batch_loss / mark.pull if mark.pull > 0 else math.nan


def beyond(history: History, mark: Mark) -> str | None:
    """Where the targets are, if they are far beyond the output and start values and rates are not
    made for them, or the kind of the last layer gives no more; None of losses that do not tell."""
    view = history.first_view
    last = view.kinds[-1] if view is not None and view.kinds else ""
    away, bounded = distance(mark), last in SATURATING
    if is_absolute(history):  # s is the pull, not its square over four times the loss
        away /= 2
    elif not is_squared(history):
        return None
    if not away >= max(OUT_OF_REACH if bounded else FAR_TARGET, BEYOND_OUTPUT * mark.output):
        return None
    words = f"the targets are {away:.2g} away from an output of {mark.output:.2g} (RMS)"
    return f"{words}, and {last} gives no more than 1" if bounded else words


def _told(history: History) -> list[Mark]:
    """The marks that tell a loss from others, if theirs differ."""
    marks = history.trail.marks
    told = [mark for mark in marks if mark.pull > 0 and 0 < mark.batch_loss < math.inf]
    losses = [mark.batch_loss for mark in told]
    differ = len(told) > 1 and math.log(max(losses) / min(losses)) >= OTHER
    return told if differ else []
