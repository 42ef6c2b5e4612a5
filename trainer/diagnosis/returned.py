"""Is a signal that was lost at first there again, and in vain?"""

from __future__ import annotations

from statistics import median

from trainer.diagnosis import blame, standstill
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.recovery import ROUNDING, SETTLED_STEPS
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

STANDS_AT_START = 0.98  # of the first losses
BACK = 1e3  # times the signal that was lost


def in_vain(history: History, first: View, thresholds: Thresholds) -> Symptom | None:
    """A signal that was lost at first has been there again for fifty steps, a thousand times as
    large, and the loss of a classifier is still the first, that of a guess: the weights came where
    it leads nowhere. Where it leads somewhere the loss falls as soon as it is there; by how much,
    nobody knows of other losses.
    """
    then, now, losses = first.output_signal, history.trail.now, history.first_losses
    if not (then <= thresholds.lost_signal and history.path >= thresholds.moved_path and losses):
        return None
    enough, stands = BACK * max(then, ROUNDING["float32"]), STANDS_AT_START * median(losses)
    if not (now.signal >= enough and history.stays and history.loss >= stands):
        return None
    if not standstill.guesses(history):
        return None
    since, latest = history.first_step + SETTLED_STEPS, now.step - PATIENCE_STEPS
    looks = [mark for mark in history.trail.marks if since <= mark.step <= latest]
    if not any(mark.signal >= enough and mark.loss >= stands for mark in looks):
        return None
    found = blame.attenuation(first, history.record, first)
    return Symptom(
        "vanishing", "warning", found.where, found.category,
        f"{then:.1g} of the output depended on the sample at first; now {now.signal:.1g} does, and "
        "the loss is still the same",
        {"output_signal_fraction": now.signal, "first_output_signal_fraction": then,
         "path": history.path},
        sightings=1,
    )  # fmt: skip
