"""Has a run ended without having learnt?"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import NamedTuple

from trainer.diagnosis import blame, overconfidence, recovery, standstill, target
from trainer.diagnosis.depth import UNGATED
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.mark import Mark
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View
from trainer.finding import END

STANDS = 0.95  # of the loss of a guess, where it is seen why; else:
STANDS_STILL = 0.98  # more than that some data do not allow
BEGAN = 0.9  # of the first losses: a sum in which another one falls is no guess
EVER = 0.85  # of it: a network that was better may be a critic, whose opponent has learnt since
LASTS = 0.85  # of the loss at the newest look at the layers: what was seen there still holds
MOST_LOOKS = 3  # of the latest five


class End(NamedTuple):
    """What is known of a run's end."""

    steps: int  # in all
    loss: float  # the lowest of that of the last ones and those of the newest records


def in_vain(history: History, end: End, thresholds: Thresholds) -> Symptom | None:
    """After 150 steps a classifier that guesses as it did at the start, after 100 where signal or
    gradient were lost; also one that was sure and wrong at first and is worse than a guess, and any
    network whose output hardly depends on the sample, with a faint gradient at the first layers.

    What is still waited for while a run goes on has not come then: a signal or a gradient that was
    faint half way through, whether or not it is on its way back, or weights that have not come far.
    """
    first = history.first_view
    if first is None or history.rate_is_rising or end.steps < 2 * PATIENCE_STEPS:
        return None
    nats = overconfidence.nats_worse_than_a_guess(history, end.loss)
    if nats is not None:
        found = _blown_up(history, first, end, nats)
    elif _is_mute(history, first, end, thresholds):
        found = _faint(history, first, end, history.mark)
    elif _guesses(history, end):
        found = _why(history, first, end, thresholds)
        early = end.steps < 3 * PATIENCE_STEPS or end.loss < STANDS_STILL * _of_a_guess(history)
        if early and found.verdict != "vanishing":
            return None
    else:
        return None
    evidence = {END: float(end.steps), "loss": history.loss, **found.evidence}
    return replace(found, level="warning", evidence=evidence)


def _guesses(history: History, end: End) -> bool:
    looks = history.guesses
    guess = looks[-1].is_a_guess and sum(look.is_a_guess for look in looks) >= MOST_LOOKS
    if not guess or target.is_squared(history):
        return False
    of_a_guess = _of_a_guess(history)
    stands = end.loss >= max(STANDS * of_a_guess, BEGAN * median(history.first_losses))
    return stands and history.lowest_loss >= EVER * of_a_guess


def _of_a_guess(history: History) -> float:
    """The loss of one, for the gradient at the newest look."""
    return history.mark.batch_loss / history.guesses[-1].surprise


def _is_mute(history: History, first: View, end: End, thresholds: Thresholds) -> bool:
    """Whether output and gradient are, at the newest look at the layers, and nothing is learnt."""
    mark, least = history.mark, thresholds.lost_signal * overconfidence.varying(first)
    if "vanishing" in history.raised:  # so far as information: it was lost, and waited for
        least *= 10
    faint = mark.signal <= least
    faint = faint and mark.flow_ratio <= 10 * thresholds.lost_gradient
    if not faint or standstill.has_arrived(history):
        return False
    return end.loss >= LASTS * mark.loss


def _blown_up(history: History, first: View, end: End, nats: float) -> Symptom:
    found = blame.amplification(first, history.record)
    return Symptom(
        "signal_blow_up", "warning", found.where, found.category,
        f"the output started {first.forward_ratio:.1g} times as large as the input and was sure "
        f"and wrong; the run ended after {end.steps} steps with a loss of {nats:.2g} nats a "
        "sample, worse than that of a guess",
        {"forward_ratio": first.forward_ratio, "nats_a_sample": nats},
    )  # fmt: skip


def _faint(history: History, first: View, end: End, mark: Mark) -> Symptom:
    found = blame.attenuation(first, history.record, first)
    return Symptom(
        "vanishing", "warning", found.where, found.category,
        f"the run ended after {end.steps} steps without having learnt; at step {mark.step} "
        f"{mark.signal:.1g} of the output depended on the sample, and the gradient at the first "
        f"layers was {mark.flow_ratio:.1g} of that at the last ones",
        {"output_signal_fraction": mark.signal, "flow_first_over_last": mark.flow_ratio,
         "path": history.path},
    )  # fmt: skip


def _why(history: History, first: View, end: End, thresholds: Thresholds) -> Symptom:
    middle = history.first_step + end.steps / 2
    before = [mark for mark in history.marks if mark.step <= middle]
    half = before[-1] if before else history.marks[0]
    lost = half.signal / thresholds.lost_signal, half.flow_ratio / thresholds.lost_gradient
    # One of them is, or most of both; NaN is neither.
    if any(times <= 1 for times in lost) or all(times <= 20 for times in lost):
        return _faint(history, first, end, half)
    if recovery.lost(first, thresholds):
        return _faint(history, first, end, history.marks[0])
    words = f"the run ended after {end.steps} steps with the loss of a guess"
    evidence = {"path": history.path}
    verdict, where, category = "stalled", None, "stalled"
    if first.time_ratio <= thresholds.lost_in_time * UNGATED:
        verdict, where = "vanishing", first.recurrent
        category = "memory" if first.order.gated else "recurrence"
        words += "; the gradient at the first steps of the sequence was "
        words += f"{first.time_ratio:.1g} of that at the last ones"
        evidence["gradient_first_over_last_steps"] = first.time_ratio
    elif history.path < thresholds.moved_path:
        verdict, category = "starved_update", "learning rate"
        words += f", and no weight matrix has moved by more than {history.path:.1g} of its size, "
        words += "which is too little to learn much"
    elif history.largest_update >= thresholds.thrown_update:
        category = "learning rate"
    return Symptom(verdict, "warning", where, category, words, evidence)
