"""Have the weights moved at all, and if not, why?"""

from __future__ import annotations

import math
from statistics import median
from typing import NamedTuple

import numpy as np

from trainer.diagnosis import blame, recovery, standstill
from trainer.diagnosis.gains import MINUTE, at_first
from trainer.diagnosis.history import History
from trainer.diagnosis.rates import FALLEN_RATE
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.underflow import NARROW
from trainer.diagnosis.view import View
from trainer.diagnosis.way import matrices
from trainer.record import StepRecord

JUDGED_AFTER_STEPS = 50  # whether anything has moved
CLIPPED_TO = 0.01  # of the gradient: what clipping leaves
GONE_RATE = 1e-3  # of the first: at its end a schedule may be there, not half of the time
HALF_LEARNT = 0.5  # of the loss at the start
SLOW = 30  # times less of a way than a recovery takes
SWALLOWED = 0.9  # of the values that an update should have changed
MOST_SWALLOWED = 0.5  # from which on the type is why nothing has moved
EPSILON = 0.1  # of a learning rate, that a first step of an adaptive optimizer is not below
FLAT_TIMES = 1e6  # times less of a gradient than that of a guess with this loss
STANDS = 0.98  # of the loss of the first batches
NO_LOWER = 0.95  # of the loss of the first batches


class _Reason(NamedTuple):
    """Why nothing moves: the category of cause, a whole sentence, and what is told of it."""

    category: str
    words: str
    where: str | None = None
    verdict: str = "starved_update"


def starved_update(history: History, thresholds: Thresholds) -> Symptom | None:
    """The weights have not moved although they have a gradient, or so little that the loss has not,
    or have stopped before anything was learnt, or are put back after each update."""
    record, largest = history.record, recovery.largest_update(history)
    if history.steps < JUDGED_AFTER_STEPS or history.rate_is_rising or history.loss_at_start == 0:
        return None
    if history.raised & {"dead_units", "vanishing", "no_gradient", "signal_collapse"}:
        return None  # which is why
    if history.path == 0 and record.optimizer and "accumulating_gradients" in history.raised:
        return None  # it moves others
    # Weights of one size may change their signs and learn.
    if history.way.undone >= JUDGED_AFTER_STEPS and standstill.in_vain(history):
        return _put_back(history)
    unmoved = history.path <= thresholds.unmoved_path
    slow = (
        history.steps >= 3 * JUDGED_AFTER_STEPS
        and history.recent_loss >= NO_LOWER * history.first_loss
        and history.loss >= NO_LOWER**2 * history.first_loss  # the median lags
        and _is_slow(history, thresholds.moved_path / SLOW)
        and not standstill.learns(history)
    )
    stopped = (
        largest <= thresholds.starved_update / 10
        and history.path <= thresholds.moved_path / 10
        and history.flat
        and history.steps >= 2 * JUDGED_AFTER_STEPS
    )
    stopped |= _is_left_standing(history)
    swallowed = _is_narrow(record) and history.stays and _unchanged(record) >= SWALLOWED
    if not ((unmoved or slow or stopped or swallowed) and record.gradient_norm > 0):
        return None
    reason = _of_the_loop(history, unmoved, slow)
    if reason is None and (unmoved or slow):
        reason = _of_the_start(history, thresholds, unmoved)
    if reason is None:
        reason = _Reason(
            "learning rate" if unmoved or slow else "stalled", _stand(history, unmoved or slow)
        )
    return Symptom(
        reason.verdict,
        "warning",
        reason.where,
        reason.category,
        reason.words,
        {
            "path": _path(history),
            "unchanged_fraction": _unchanged(record),
            "update_ratio": history.update,
        },
        sightings=1 if unmoved or slow else 2,
    )


def _of_the_loop(history: History, unmoved: bool, slow: bool) -> _Reason | None:
    """What is done to each gradient or update, whatever the network."""
    record = history.record
    if history.path == 0 and not record.optimizer:
        same = record.parameters == history.first_parameters
        if same and not np.array_equal(record.parameter_rms, history.first_sizes):
            words = "the weights move, but not while they are watched: the update is elsewhere"
            return _Reason("outside", words)
        words = "no weight has moved: no optimizer made a step while it was watched"
        return _Reason("loop", words)
    if _is_narrow(record) and _unchanged(record) >= MOST_SWALLOWED:
        share = f"{_unchanged(record):.0%} of the updates are smaller than the type resolves"
        return _Reason("dtype", f"{_stand(history, True)}: {share}")
    stand = _stand(history, unmoved or slow)
    if not history.adaptive and record.clip_coefficient <= CLIPPED_TO:
        left = f"of the gradient clipping leaves {record.clip_coefficient:.1g}"
        return _Reason("clipping", f"{stand}: {left}")
    if not unmoved and record.learning_rate <= FALLEN_RATE * history.rates.first:
        rate = f"the learning rate has fallen to {record.learning_rate:.1g}"
        return _Reason("schedule", f"{stand}: {rate}")
    return None


def _of_the_start(history: History, thresholds: Thresholds, unmoved: bool) -> _Reason | None:
    """What kept the gradient of the network as it began from being of any size."""
    first, record, stand = history.first_view, history.record, _stand(history, True)
    minute = first is not None and _is_minute(first, history, thresholds)
    if unmoved and first is not None and recovery.lost(first, thresholds):
        found = blame.attenuation(first, record, first)
        # Of steps that would grow with the gradient it is told as vanishing by what moves.
        verdict = "vanishing" if _is_below_epsilon(history) else "starved_update"
        if minute and found.category == "initialisation":
            verdict = "signal_collapse"
        return _Reason(
            found.category,
            f"{stand}: at first {first.output_signal:.1g} of the output depended on the sample, and"
            f" gradient times output at the first layers was {first.flow_ratio:.1g} of that at the"
            " last",
            found.where,
            verdict,
        )
    if minute and first is not None:
        return _Reason(
            "initialisation",
            f"{stand}: the output starts with {first.forward_ratio:.1g} of the size of the input, "
            "and what comes back is as small",
            blame.attenuation(first, record, first).where,
            "signal_collapse",
        )
    if unmoved and (size := _size_of_weights(history)) <= MINUTE:
        words = f"{stand}: the weights make {size:.1g} of what they are given at first"
        return _Reason("initialisation", words)
    if unmoved and history.guesses and (surprise := history.guesses[-1].surprise) >= FLAT_TIMES:
        words = (
            f"{stand}: what comes after the last layer is flat there, and lets {1 / surprise:.1g} "
            "of the gradient pass"
        )
        return _Reason("last activation", words, verdict="saturated")
    return None


def _is_below_epsilon(history: History) -> bool:
    """Whether an adaptive optimizer, whose first step is its rate for each value, made a tenth of
    that and less: gradients are so small that its epsilon is what it divides by."""
    matrix = matrices(history.record.shapes)
    if not history.adaptive or history.first_parameters != history.record.parameters:
        return False
    step = history.first_update * median(history.first_sizes[matrix].tolist())
    return bool(step < EPSILON * history.rates.first)


def _stand(history: History, from_the_start: bool) -> str:
    """That the weights stand, in words."""
    if from_the_start:
        path = _path(history)
        others = " that did not begin at zero" if path < history.path else ""
        moved = f"has moved by more than {path:.1g} of its size"
        return f"in {history.steps} steps no weight matrix{others} {moved}"
    since = history.first_step + history.moved_at
    return f"little was learnt, and no weight matrix has moved since step {since}"


def _is_slow(history: History, most: float) -> bool:
    """Whether no matrix has come further; where those that began at zero have, they may have learnt
    alone, and the loss has to stand."""
    stands = history.recent_loss >= STANDS * history.first_loss
    return history.path <= most or stands and _path(history) <= most


def _path(history: History) -> float:
    """The path of the matrix that has come farthest; of those that began at zero, of which any step
    is more than there was, only where no other is."""
    if history.record.parameters != history.first_parameters:
        return history.path
    begun = matrices(history.record.shapes) & (history.first_sizes > 0)
    return float(history.way.paths[begun].max()) if begun.any() else history.path


def _is_narrow(record: StepRecord) -> bool:
    return any(dtype in NARROW for dtype in record.dtypes)


def _unchanged(record: StepRecord) -> float:
    """The share of its values that an update left as they were, of the median parameter."""
    known = [share for share in record.unchanged_fraction.tolist() if share == share]
    return median(known) if known else math.nan


def _size_of_weights(history: History) -> float:
    """How much of what it is given a matrix makes at first, the median; NaN where updates do not go
    by that: those of adaptive optimizers, and where layers normalise."""
    first = history.first_view
    if first is None or history.adaptive or first.normalised:
        return math.nan
    return at_first(history)


def _is_minute(first: View, history: History, thresholds: Thresholds) -> bool:
    """Whether the output began so small that no update, which shrinks with it, does anything."""
    minute = 0 < first.forward_ratio <= 10 * thresholds.collapsed_forward
    return minute and not (history.adaptive or first.normalised)


def _put_back(history: History) -> Symptom:
    undone, update = history.way.undone, history.update
    return Symptom(
        "starved_update", "warning", None, "undone",
        f"updates change the weights by {update:.1g} of their size, yet for {undone} steps each "
        "look has found them as they were: something puts them back",
        {"undone_steps": undone, "update_ratio": update}, sightings=1, confidence=0.99,
    )  # fmt: skip


def _is_left_standing(history: History) -> bool:
    """Whether a learning rate that has fallen leaves the weights where they are for twice as long
    as it moved them, with half of the loss and more still to be learnt."""
    stood = history.steps - history.moved_at
    waited = stood >= 2 * max(JUDGED_AFTER_STEPS, history.moved_at)
    fallen = history.record.learning_rate <= GONE_RATE * history.rates.first
    high = min(history.recent_loss, history.loss) >= HALF_LEARNT * history.loss_at_start > 0
    return waited and fallen and high
