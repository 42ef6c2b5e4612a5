"""Has a run ended without having learnt?"""

from __future__ import annotations

from dataclasses import replace

from trainer.diagnosis import began_large, behind, conclusion, overconfidence, standstill, target
from trainer.diagnosis.behind import ROUNDING_SIGNAL, SCALE
from trainer.diagnosis.conclusion import End
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.order import SATURATING
from trainer.diagnosis.symptom import FLOW, IN_TIME, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.through_time import UNGATED, forgets, never_began
from trainer.diagnosis.view import View
from trainer.finding import END
from trainer.record import owner

STANDS_AS_GUESS = 0.95  # of the loss of a guess, where it is seen why; else the next:
STANDS_STILL = 0.98  # more than that some data do not allow
BEGAN = 0.9  # of the first losses: a sum in which another one falls is no guess
EVER = 0.85  # of it: a network that was better may be a critic, whose opponent has learnt since
LOST_SIGNAL = 0.2  # of a signal
LASTS = 0.85  # of the loss at the newest look at the layers: what was seen there still holds
LITTLE = 0.75  # of the first losses
SOME_LOSS = 0.3  # of the first losses
FAINT_SIGNAL = 0.1  # of the output
SILENT_SIGNAL = 0.01  # of the errors of a squared loss
MINUTE_SIGNAL = 0.05  # of the errors of a squared loss
MOSTLY = 0.8  # of the looks
NO_FLOW = 1e-8  # of the gradient gets to the first layers: what moves those is noise
EARLY = 0.4  # of the steps, after which the loss
STOOD_SINCE = 0.92  # of what it was then is left
WEAK_SIGNAL = 0.15  # of the output, at all looks
SAME_LOSS = 1e-3  # of a loss
STEADY = 1.5  # times, of an output
GROWN = 3.0  # times, of what of an output depends on the sample
MOST_LOOKS = 3  # of the latest five


def in_vain(history: History, end: End, thresholds: Thresholds) -> Symptom | None:
    """After 150 steps a classifier that guesses as it did at the start, a network whose output
    never answered, one that has learnt little from inputs or for targets on another scale or since
    it began far too large, and one whose loss and output stand still; after 100 those where signal
    or gradient were lost, one that was sure and wrong at first and is worse than a guess, and a
    classifier that guesses again. None of any other.

    What is still waited for while a run goes on has not come then: a signal or a gradient that was
    faint half way through, whether or not it is on its way back, or weights that have not come far.
    """
    first = history.first_view
    if first is None or history.rate_is_rising or end.steps < 2 * PATIENCE_STEPS:
        return None
    nats = overconfidence.nats_worse_than_a_guess(history, end.loss)
    stands = end.loss >= LASTS * history.first_loss > 0
    if nats is not None:
        found = conclusion.blown_up(history, first, end, nats)
    elif _is_mute(history, first, end, thresholds):
        found = conclusion.faint(history, first, end, history.trail.now)
    elif _guesses(history, end):
        found = conclusion.why(history, first, end, thresholds)
        early = end.steps < 3 * PATIENCE_STEPS or end.loss < STANDS_STILL * _of_a_guess(history)
        in_time, flow = (found.evidence.get(key, 1.0) for key in (IN_TIME, FLOW))
        certain = in_time <= thresholds.lost_in_time * UNGATED or flow <= NO_FLOW
        unsure = found.verdict in ("stalled", "starved_update") or IN_TIME in found.evidence
        if early and unsure and not certain:
            return None
        if standstill.tells_some(history) and not certain:
            return None
        if found.verdict == "stalled" and history.opponents > 0:
            return None  # to guess is what an opponent makes a critic do
    elif _guesses_again(history, end):
        found = conclusion.lost(history, first)
    elif end.steps < 3 * PATIENCE_STEPS:
        if not (stands and never_began(history)):
            return None
        found = conclusion.forgetful(history, first, end)
    elif (scales := behind.scales(history, first)) is not None:
        found = conclusion.badly_scaled(history, end, scales)
    elif _was_never_heard(history, end):
        found = conclusion.unheard(history, first, end)
    elif _never_varied(history, thresholds):
        found = conclusion.faint(history, first, end, history.trail.now)
    elif _was_never_reached(history, first, end, thresholds):
        found = conclusion.cut_off(history, first, end, thrown=False)
    elif _was_thrown(history, first, end, thresholds):
        found = conclusion.cut_off(history, first, end, thrown=True)
    elif _was_shut_out(history, first, end):
        found = conclusion.shut_out(history, first, end)
    elif _still_grows(history, first, thresholds):
        found = conclusion.grown(history, first, end)
    elif forgets(history, first, stands, thresholds):
        found = conclusion.forgetful(history, first, end)
    elif (large := began_large.why(history, first, end)) is not None:
        found = large
    elif _stands_still(history, end):
        found = conclusion.unmoved(history, first, end, thresholds)
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
    first, began = history.first_view, history.first_loss
    blew_up = first is not None and first.forward_ratio >= SCALE
    least = BEGAN * of_a_guess if blew_up else max(STANDS_AS_GUESS * of_a_guess, BEGAN * began)
    stands = end.loss >= least
    return stands and history.lowest_loss >= EVER * of_a_guess


def _guesses_again(history: History, end: End) -> bool:
    """Whether a classifier that was better does so now, with a fifth of the signal that it had."""
    began, most = history.first_loss, max(mark.signal for mark in history.trail.marks)
    if not history.guesses[-1].is_a_guess or target.is_squared(history):
        return False
    was_better = 0 < history.lowest_loss <= EVER * began
    stands = end.last >= STANDS_AS_GUESS * began
    return was_better and stands and history.trail.now.signal <= LOST_SIGNAL * most


def _of_a_guess(history: History) -> float:
    """The loss of one, for the gradient at the newest look."""
    return history.trail.now.batch_loss / history.guesses[-1].surprise


def _is_mute(history: History, first: View, end: End, thresholds: Thresholds) -> bool:
    """Whether output and gradient are, at the newest look at the layers, and nothing is learnt."""
    mark, least = history.trail.now, thresholds.lost_signal * overconfidence.varying(first)
    if "vanishing" in history.raised:  # so far as information: it was lost, and waited for
        least *= 10
    faint = mark.signal <= least
    lost = mark.flow_ratio <= 10 * thresholds.lost_gradient and not standstill.answers(history)
    faint = faint and lost
    arrived = end.loss <= standstill.ARRIVED * history.loss_at_start
    if not faint or arrived:
        return False
    return end.loss >= LASTS * min(mark.loss, mark.batch_loss)


def _was_never_heard(history: History, end: End) -> bool:
    """Whether hardly any of the output has depended on the sample at any look, and the loss is
    about the first, or that is next to nothing beside the errors of a squared loss, whatever it has
    learnt of the targets' mean; or it is minute beside them, as it was at first, and the loss is
    about the first. Not where that is what there is to learn, and is learnt."""
    began, mark = history.first_loss, history.trail.now
    if any(
        has(history) for has in (standstill.fits_some, standstill.answers, standstill.tells_more)
    ):
        return False
    faint = [each.signal <= FAINT_SIGNAL for each in history.trail.marks]
    if mark.signal <= FAINT_SIGNAL and sum(faint) >= MOSTLY * len(faint):
        heard = mark.output * mark.signal > SILENT_SIGNAL * target.distance(mark)
        return end.loss >= LASTS * began > 0 or target.is_squared(history) and not heard
    minute = (
        each.output * each.signal <= MINUTE_SIGNAL * target.distance(each)
        for each in (history.trail.first, mark)
    )
    if not (end.loss >= LASTS * began > 0 and all(minute) and target.is_squared(history)):
        return False
    # Beside noise little is all there is; of what has grown more may come.
    first = history.trail.first
    return mark.output * mark.signal <= GROWN * first.output * first.signal


def _was_never_reached(history: History, first: View, end: End, thresholds: Thresholds) -> bool:
    """Whether the first layers got next to no gradient at any look, and what the last ones have
    learnt alone is little, or was learnt early and is next to nothing of the sample's; not of
    branches, of which others may learn."""
    marks = history.trail.marks
    lost = all(mark.flow_ratio <= thresholds.lost_gradient for mark in marks)
    if first.order.leads_to or not lost or standstill.answers(history):
        return False
    none = all(mark.flow_ratio <= NO_FLOW for mark in marks)
    if standstill.learns_some(history) and not none:
        return False
    early = history.trail.until(history.first_step + end.steps * EARLY)
    faint = all(mark.signal <= WEAK_SIGNAL for mark in marks)
    stood = faint and end.loss >= STOOD_SINCE * early.loss > 0
    return stood or end.loss >= LITTLE * history.first_loss > 0


def _never_varied(history: History, thresholds: Thresholds) -> bool:
    """Whether all that differed in the output from sample to sample was rounding, at every look
    after the first, and the first layers got next to no gradient: whatever the loss is, as one that
    is a difference and stays at zero."""
    marks = history.trail.marks[1:]
    return bool(marks) and all(
        mark.signal <= ROUNDING_SIGNAL and mark.flow_ratio <= thresholds.lost_gradient
        for mark in marks
    )


def _was_thrown(history: History, first: View, end: End, thresholds: Thresholds) -> bool:
    """Whether they got none at all in the second half, and updates have thrown weights away."""
    if first.order.leads_to or standstill.learns_some(history):
        return False
    middle = history.first_step + end.steps / 2
    later = [mark.flow_ratio for mark in history.trail.marks if mark.step >= middle]
    none = max(later, default=history.trail.now.flow_ratio) == 0
    thrown = history.largest_update >= thresholds.thrown_update
    return thrown and none and end.loss >= LITTLE * history.loss_at_start > 0


def _was_shut_out(history: History, first: View, end: End) -> bool:
    """Whether the layers before an activation that flattens out got a gradient of exactly zero at
    first and at last and have not moved at all, while 30 % of the first losses are left: others
    have learnt alone."""
    view, barrier = history.view or first, first.barrier
    if first.order.leads_to or not barrier or view.barrier != barrier or view.order.looping:
        return False
    if first.kinds[barrier] not in SATURATING:
        return False  # another branch may begin there
    before, paths = {*first.names[:barrier]}, history.way.paths.tolist()
    own = zip(history.record.parameters, history.record.shapes, paths, strict=True)
    moved = [path for name, shape, path in own if len(shape) > 1 and owner(name) in before]
    return max(moved, default=1.0) == 0 and end.loss >= SOME_LOSS * history.first_loss > 0


def _still_grows(history: History, first: View, thresholds: Thresholds) -> bool:
    """Whether the gradient grew to the first layers or the first steps of a sequence at first and
    at last, and of squared errors hardly any is explained."""
    if not target.is_squared(history) or standstill.fits_some(history):
        return False
    looks = first, history.view or first
    over_time = all(each.largest_time_ratio >= thresholds.grown_gradient for each in looks)
    return over_time or all(each.flow_ratio >= thresholds.grown_gradient for each in looks)


def _stands_still(history: History, end: End) -> bool:
    """Whether all losses are the same to a thousandth, above zero, and so is the output, or what it
    could change about the loss as far as the gradient tells: beside a loss that is made to be
    constant it learns."""
    first, now = history.trail.first.output, history.trail.now.output
    # Beside a part of the loss that is always there, its gradient falls with what is learnt.
    mark, pull = history.trail.now, history.trail.first.pull
    unheard = pull / 2 <= mark.pull <= SAME_LOSS * mark.batch_loss / max(1.0, now)
    if not (max(first, now) <= STEADY * min(first, now) or unheard):
        return False
    losses = [end.last, history.lowest_loss, *history.first_losses, *history.losses]
    return max(losses) <= (1 + SAME_LOSS) * min(losses) and min(losses) > 0
