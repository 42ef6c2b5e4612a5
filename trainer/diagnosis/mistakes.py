"""Is the loop as it is meant to be? Gradients that pile up and updates of nothing."""

from __future__ import annotations

import math
from itertools import compress
from statistics import median

from trainer.diagnosis import blame, recovery, standstill
from trainer.diagnosis.gains import MINUTE, weight_gains
from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.underflow import NARROW
from trainer.diagnosis.view import View
from trainer.record import StepRecord, owner

JUDGED_AFTER_STEPS = 50  # whether anything has moved
CUT = 0.01  # of the gradient that clipping leaves
FALLEN_RATE = 0.1  # of the first
GONE_RATE = 1e-3  # of the first: at its end a schedule may be there, not half of the time
HALF = 0.5  # of the loss at the start
SLOW = 30  # times less of a way than a recovery takes
SWALLOWED = 0.9  # of the values that an update should have changed
FLAT = 1e6  # times less of a gradient than that of a guess with this loss
NO_LOWER = 0.95  # of the loss of the first batches


def accumulating_gradients(history: History, thresholds: Thresholds) -> Symptom | None:
    """Gradients are added to those of the step before: nobody sets them to zero."""
    carried = history.record.carried_gradients
    if not carried > 0:
        return None
    record = history.record
    # Of weights that are zero no update is a share.
    stands = (record.update_ratio == 0) | (record.unchanged_fraction == 1)
    unmoved = {*compress(record.parameters, stands)}
    still = [name for name in record.gradients.names if name in unmoved]
    some = carried < len(record.gradients.names)
    left = len(still) == carried and (some or bool(record.optimizer))
    words = "the gradient of a parameter still holds that of the step before"
    if carried != 1:
        words = f"the gradients of {carried:.0f} parameters still hold those of the step before"
    return Symptom(
        "accumulating_gradients", "critical",
        still[0] if left and some else None, "optimizer" if left else "loop",
        f"{words}, and no optimizer moves {'it' if carried == 1 else 'them'}" if left else words,
        {"carried_gradients": carried, "gradient_norm": history.record.gradient_norm},
        sightings=3,
        confidence=0.99,
    )  # fmt: skip


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
        and history.path <= thresholds.moved_path / SLOW
        and len(history.first_losses) > 0
        and not standstill.has_learnt(history)
        and history.recent_loss >= NO_LOWER * median(history.first_losses)
        and history.loss >= NO_LOWER**2 * median(history.first_losses)  # the median lags
    )
    stopped = (
        largest <= thresholds.starved_update / 10
        and history.path <= thresholds.moved_path / 10
        and history.flat
        and history.steps >= 2 * JUDGED_AFTER_STEPS
    )
    stopped |= _is_left_standing(history)
    is_narrow = any(dtype in NARROW for dtype in record.dtypes)
    swallowed = is_narrow and history.stays and _unchanged(record) >= SWALLOWED
    if not ((unmoved or slow or stopped or swallowed) and record.gradient_norm > 0):
        return None
    share = _unchanged(record)
    fallen = record.learning_rate <= FALLEN_RATE * history.rates.first
    category = "learning rate" if unmoved or slow else "stalled"
    words = f"in {history.steps} steps no weight matrix has moved by more than {history.path:.1g}"
    if not (unmoved or slow):
        since = history.first_step + history.moved_at
        words = f"little was learnt, and no weight matrix has moved since step {since}"
    first, look, where = history.first_view, history.guesses[-1:], None
    minute = (unmoved or slow) and first is not None and _is_minute(first, history, thresholds)
    if unmoved and first is not None and recovery.lost(first, thresholds):
        found = blame.attenuation(first, record, first)
        category, where = found.category, found.where
        words += (
            f" of its size: at first {first.output_signal:.1g} of the output depended on the sample"
            f", and the gradient at the first layers was {first.flow_ratio:.1g} of that at the last"
        )
    elif minute and first is not None:
        category = "initialisation"
        where = blame.attenuation(first, record, first).where
        words += f" of its size: the output starts with {first.forward_ratio:.1g} of the size of "
        words += "the input, and what comes back is as small"
    elif unmoved and (size := _size_of_weights(history)) <= MINUTE:
        category = "initialisation"
        words += f" of its size: the weights make {size:.1g} of what they are given at first"
    elif unmoved and look and look[0].surprise >= FLAT:
        category = "last activation"
        words += (
            " of its size: what comes after the last layer is flat there, and lets "
            f"{1 / look[0].surprise:.1g} of the gradient pass"
        )
    if history.path == 0 and not record.optimizer:
        words, category = (
            "no weight has moved: no optimizer made a step while it was watched",
            "loop",
        )
    if is_narrow and share >= 0.5:
        words = (
            f"in {history.steps} steps no weight matrix has moved by more than {history.path:.1g}"
        )
        words += f" of its size: {share:.0%} of the updates are smaller than the type resolves"
        category = "dtype"
    elif not history.adaptive and record.clip_coefficient <= CUT:
        words += f" of its size: of the gradient clipping leaves {record.clip_coefficient:.1g}"
        category = "clipping"
    elif not unmoved and fallen:
        words += f": the learning rate has fallen to {record.learning_rate:.1g}"
        category = "schedule"
    verdict = "signal_collapse" if minute and category == "initialisation" else "starved_update"
    return Symptom(
        "saturated" if category == "last activation" else verdict,
        "warning",
        where,
        category,
        words,
        {"path": history.path, "unchanged_fraction": share, "update_ratio": history.update},
        sightings=1 if unmoved or slow else 2,
    )


def _unchanged(record: StepRecord) -> float:
    """The share of its values that an update left as they were, of the median parameter."""
    known = [share for share in record.unchanged_fraction.tolist() if share == share]
    return median(known) if known else math.nan


def _size_of_weights(history: History) -> float:
    """How much of what it is given a matrix makes at first, the median; NaN where updates do not go
    by that: those of adaptive optimizers, and where layers normalise."""
    first, record = history.first_view, history.record
    if first is None or history.adaptive or first.normalised:
        return math.nan
    if history.first_parameters != record.parameters:
        return math.nan
    kinds = dict(zip(first.names, first.kinds, strict=True))
    made = weight_gains(record.parameters, record.shapes, history.first_sizes)
    known = [gain for name, gain in made.items() if kinds.get(owner(name)) != "Embedding"]
    return median(known) if known else math.nan


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
    high = min(history.recent_loss, history.loss) >= HALF * history.loss_at_start > 0
    return waited and fallen and high
