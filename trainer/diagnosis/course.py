"""Does training get anywhere? Losses that rise or stay, outputs that are the same for all."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median

from trainer.diagnosis import behind, recovery, standstill
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.symptom import IN_TIME, UNCONFIRMED, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

RECENT = 8  # losses in which a trend is seen
GROWN_TIMES = 10  # times, of the weights, or of a gradient on its way through a sequence
HAD_FALLEN = 0.7  # of the loss at the start: it had fallen
FAR_ABOVE_START = 100  # times the loss at the start, where few targets that move lead
CLEARLY_ABOVE_START = 10  # times the loss at the start, which small updates add up to
MILD = 5  # times less than an update that throws weights away: too little to raise a loss
ROUNDED_STEPS = 500  # in which a codebook may still come to use more than one of its entries
MOST_GONE = 0.1  # of the loss at the start
VARIES = 0.05  # of what a layer is given: more than rounding takes away beside a bias


def diverging(history: History, thresholds: Thresholds) -> Symptom | None:
    """The loss is above that at the start and goes on rising, and updates were large enough to do
    that; where targets move it rises whatever they are."""
    risen = history.loss_rise >= thresholds.risen_loss
    learnt = history.lowest_loss < HAD_FALLEN * history.loss_at_start
    if risen and learnt and GROWN_TIMES <= (grown := history.size_over_lowest) < math.inf:
        return Symptom(
            "diverging", "critical", None, "learning rate",
            f"the weights are {grown:.1g} times as large as when the loss was lowest, and it is "
            f"{history.loss_rise:.1g} times that at the start",
            {"weights_over_before": grown, "loss_over_start": history.loss_rise},
            sightings=1 if history.loss_rise >= CLEARLY_ABOVE_START else 2,
        )  # fmt: skip
    recent = history.losses[-RECENT:]
    if len(recent) < RECENT or not risen:
        return None
    least = thresholds.thrown_update / (MILD if history.loss_rise >= CLEARLY_ABOVE_START else 1)
    # Those of adaptive optimizers tell what they did.
    far = history.loss_rise >= FAR_ABOVE_START and not history.adaptive
    if not (history.largest_update >= least or far):
        return None
    grown = history.record.gradient_norm >= GROWN_TIMES * median(history.norms or [math.nan])
    if history.lowest_loss < 0 and not grown:
        return None  # what was negative has no size of its own
    rising = sum(after > before for before, after in pairwise(recent))
    if rising < RECENT - 2 or not recent[-1] > thresholds.risen_loss * recent[0]:
        return None
    return Symptom(
        "diverging",
        "critical",
        None,
        "learning rate",
        f"the loss is {history.loss_rise:.3g} times that at the start and rises",
        {"loss_over_start": history.loss_rise, "rises": rising, "comparisons": RECENT - 1},
        sightings=UNCONFIRMED if history.begins else 2,
    )


def constant_output(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output is the same for every sample although the weights have moved, or do not move any
    more. Much the same is enough where training was in vain or the output is mute, and less of a
    way where the inputs are to blame."""
    first, view = history.first_view, history.view
    if first is None or view is None:
        return None
    if history.loss == 0 or history.loss_at_start == 0:
        return None  # there is nothing to be answered, or was nothing
    late = history.steps >= 2 * PATIENCE_STEPS
    if view.input_signal == 0 and not (late and _is_wrong(history)):
        return None
    # What adaptive optimizers took from an output that was there they may bring back.
    lasts = first.output_signal <= thresholds.lost_signal or not history.adaptive
    stays = history.stays or standstill.in_vain(history) and lasts
    still = late and recovery.largest_update(history) <= thresholds.starved_update
    wanted = thresholds.moved_path / 3 if stays else thresholds.moved_path
    least = thresholds.lost_signal / 10 if stays else 1e-6
    inputs = late and behind.of_inputs(first, "constant_output", view) is not None
    if inputs:
        wanted = thresholds.moved_path / 30  # which is why
        # Of inputs that are much the same for all it is no wonder.
        lost = view.output_signal <= view.input_signal / 10
        stands = history.stays and not history.trail.signal_grows
        least = 3 * thresholds.lost_signal if stands and lost else least
    middle = history.first_step + history.steps / 2
    ever = all(mark.signal <= least for mark in history.trail.marks if mark.step >= middle)
    enough = history.path >= wanted
    if history.raised & {"vanishing", "no_gradient", "signal_collapse", "dead_units"}:
        return None  # which is why
    if _is_made_constant(first) and _is_made_constant(view):
        return None
    mute = recovery.is_mute(history, view, thresholds)
    constant = (enough or still) and view.output_signal <= least
    if not (constant or mute) or len(history.trail.marks) < 3:
        return None
    certain = stays and ever and not history.adaptive
    thrown = history.largest_update >= thresholds.thrown_update
    category = "learning rate" if thrown else "initialisation"
    if thrown and first.largest_time_ratio >= GROWN_TIMES:
        category = "recurrence"  # which is why updates were that large
    awaited = recovery.is_awaited(history, view, thresholds)
    awaited = awaited or view.is_rounded and history.steps < ROUNDED_STEPS
    found = Symptom(
        "constant_output",
        "info" if awaited and not inputs else "warning",
        view.names[-1],
        category,
        f"{view.output_signal:.1g} of the output depends on the sample",
        {"output_signal_fraction": view.output_signal, "path": history.path},
        sightings=1 if certain or mute and stays else 2 if stays or mute else 3,
    )
    forgets = max(first.time_ratio, view.time_ratio) <= thresholds.lost_in_time
    if view.recurrent is None or thrown or not forgets:
        return found
    return replace(  # what differs is at the beginning of the sequences
        found,
        verdict="vanishing",
        where=view.recurrent,
        category="memory" if view.order.gated else "recurrence",
        cause=f"the gradient at the first steps of the sequence is {view.time_ratio:.1g} of that at"
        f" the last ones and {found.cause}",
        evidence={**found.evidence, IN_TIME: view.time_ratio},
    )


def _is_wrong(history: History) -> bool:
    """Whether a loss tells that an answer that is the same for all is wrong: where all samples are
    one, as of a context that is asked again and again, it is right, and the loss goes to nothing;
    what a policy is told to do more or less often has losses of both signs."""
    return not (history.lowest_loss < 0 or history.recent_loss <= MOST_GONE * history.loss_at_start)


def _is_made_constant(view: View) -> bool:
    """Whether half of the last layer's units and more are the same for all samples to the bit while
    what the layer before puts out is not: those are masked, as of the first variable of an
    autoregressive network, and the median says nothing of the others."""
    row = view.order.last_with_parameters
    if not row or view.signal[row] != 0 or not view.rms[row] > 0:
        return False
    return bool(view.signal[row - 1] >= VARIES and view.gradient_rms[row - 1] > 0)


def loss_spike(history: History, thresholds: Thresholds) -> Symptom | None:
    """A loss far above those before it. Many pass by themselves."""
    before = history.losses[:-1][-32:]
    if len(before) < 12 or not math.isfinite(history.loss):
        return None
    middle = median(before)
    if not history.loss > 2 * abs(middle) > 0:  # beside nothing anything is one
        return None
    spread = 1.4826 * median(abs(loss - middle) for loss in before)
    if not history.loss - middle > 7 * spread:
        return None
    return Symptom(
        "loss_spike", "info", None, "spike",
        f"the loss jumped from about {middle:.3g} to {history.loss:.3g}",
        {"loss": history.loss, "median_loss": middle}, sightings=1,
    )  # fmt: skip


def oscillating(history: History, thresholds: Thresholds) -> Symptom | None:
    """The loss goes up and down from step to step without getting lower."""
    before = history.before
    losses = history.losses[-10:]
    if len(losses) < 10 or before is None or history.record.step - before.step != 1:
        return None
    turns = [now - then for then, now in pairwise(losses)]
    turned = all(then * now < 0 for then, now in pairwise(turns))
    if not (turned and sum(losses[-3:]) >= sum(losses[:3])):
        return None
    return Symptom(
        "oscillating", "info", None, "learning rate",
        "the loss goes up and down with every step",
        {"mean_loss_change": fmean(map(abs, turns))}, sightings=1,
    )  # fmt: skip
