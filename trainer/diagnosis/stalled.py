"""Why does nothing come of training, although the weights move?"""

from __future__ import annotations

import math
from statistics import median

from trainer.diagnosis import behind, chance, standstill, target
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

RELAPSED = 0.3  # of the loss at the start: much was learnt
LEFT = 0.3  # of what a loss can lose
PASSING = {"stalled", "loss_spike", "oscillating"}  # which explain nothing


def stalled(history: History, thresholds: Thresholds) -> Symptom | None:
    """The loss has not fallen although the weights have moved far; an alarm if it is known why."""
    raised = "stalled" in history.raised
    if history.raised - PASSING or not raised and history.loss_rise > thresholds.risen_loss:
        return None  # more than that is known
    reason = _reason(history, thresholds) or _relapse(history)
    if reason is not None:
        return reason
    if history.steps < 200 or history.path < 3 * thresholds.moved_path:
        return None
    if len(history.losses) < 12 or not history.loss_at_start > 0:
        return None
    recent = median(history.losses[-6:])
    if recent < (0.9 if raised else 0.97) * history.loss_at_start:
        return None
    words = f"after {history.steps} steps the loss is {recent / history.loss_at_start:.2f} of"
    words, category = f"{words} that at the start", "stalled"
    if history.strangers > 0:  # others may train them
        words += f"; it hangs on {history.strangers:.0f} parameters that the model has not"
        category = "unregistered"
    return Symptom(
        "stalled", "info", None, category, words,
        {"loss": recent, "loss_at_start": history.loss_at_start, "path": history.path},
    )  # fmt: skip


def _relapse(history: History) -> Symptom | None:
    """A classifier that had learnt and only guesses since."""
    first, lowest = history.loss_at_start, history.lowest_loss
    if not (0 < lowest < RELAPSED * first and history.loss >= standstill.STANDING * first):
        return None
    if not standstill.guesses(history):
        return None
    return Symptom(
        "stalled", "warning", None, "relapse",
        f"what was learnt is gone: the loss was {lowest:.3g} and is now that of a guess",
        {"loss": history.loss, "lowest_loss": lowest, "loss_at_start": first}, sightings=1,
    )  # fmt: skip


def _reason(history: History, thresholds: Thresholds) -> Symptom | None:
    """A last layer that does what the loss does once more, targets that are far beyond the output,
    inputs that are too large for a classifier that only guesses, inputs that are too small, or
    dropouts that leave too little, once the weights have come some way."""
    first, view, steps = history.first_view, history.view, history.steps
    if first is None or view is None or steps < 3 * PATIENCE_STEPS or history.rate_is_rising:
        return None
    # Where batches differ the newest losses need not be those of the first, but are no tenth lower.
    stands = history.recent_loss >= standstill.STANDING * history.first_loss
    doubled = _doubled(history, view, stands)
    if history.path < thresholds.moved_path / (30 if doubled else 3):
        return None
    beyond = target.beyond(history, history.trail.now) if stands else None
    large, small, dropped = (
        behind.too_large(first),
        behind.too_small(first),
        behind.too_much_dropped(view),
    )
    sized = large is not None or small is not None
    vain = sized and standstill.in_vain(history) and not standstill.falls(history)
    if doubled is not None and not standstill.falls(history):
        category = "last activation"
        words = "nothing is learnt but to guess" if stands else "little is learnt"
        words += f": a {doubled} comes before a loss that has its own"
        if doubled == "softmax":  # that nobody has seen
            words += ", or the gradient is as small as if one did"
    elif beyond is not None:
        category, words = "data", f"{beyond}, and the loss is still that at the start"
    elif large is not None and vain and standstill.guesses(history):
        category, words = "data", f"nothing is learnt but to guess; {large}"
    elif small is not None and vain:
        category, words = "data", f"nothing is learnt; {small}"
    # Losses that differ so much from batch to batch are compared with the lowest at the start.
    elif dropped is not None and (
        history.recent_loss >= standstill.STANDING * history.loss_at_start > 0
        or standstill.learns_little(history)
    ):
        category, words = "dropout", f"{dropped}, and little is learnt"
    else:
        return None
    evidence = {
        "distance_to_targets": target.distance(history.trail.now),
        "output_rms": history.trail.now.output,
        "input_rms": first.input_rms,
        "dropped_fraction": max(behind.dropped(view), default=0.0),
    }
    return Symptom(
        "stalled", "warning", None, category, f"after {steps} steps {words}", evidence, sightings=1
    )


def _doubled(history: History, view: View, stands: bool) -> str | None:
    """The kind of the last layer, if the loss does the same once more, and stands; or did so at
    first, and most of what such a loss can lose at all is left."""
    record, found = history.record, None
    lowest = chance.lowest_of_doubled(chance.classes(view, record) or 2)
    most = (lowest + LEFT * (1 - lowest)) * max(history.first_losses[:1], default=math.inf)
    if history.was_doubled and min(history.loss, history.recent_loss) >= most > 0:
        found = chance.doubled(view, record, chance.LEAST_SOFTER_LOSS)
    if stands:
        softened = "softmax" if history.stays and history.was_softened else None
        found = found or chance.doubled(view, record) or softened
    return found
