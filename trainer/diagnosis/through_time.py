"""Does the gradient come back to the first steps of a sequence?"""

from __future__ import annotations

from trainer.diagnosis import standstill, target
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.symptom import IN_TIME, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

FALLEN_SOME = 0.95  # of the first losses
NONE_IN_TIME = 1e-15  # of the gradient at the last steps: rounding
UNGATED = 1e3  # times the gradient that is lost in time: gates begin with less and open
OPENED = 1e3  # times the gradient at the first steps of the sequence that there was at the start


def vanishing_over_time(history: History, thresholds: Thresholds) -> Symptom | None:
    """The first steps of a sequence get no gradient, and the loss does not fall, or does while the
    output stays much the same for all samples. No alarm of what a classifier learns all the same.

    Gated networks that learn begin with a millionth and less, and may take hundreds of steps; what
    has no gates is given up where the loss stays among the first ones or the output says nothing.
    """
    first, view = history.first_view, history.view
    if first is None or view is None or view.recurrent is None:
        return None
    raised = "vanishing_over_time" in history.raised
    opens = view.order.gated and view.time_ratio >= OPENED * first.time_ratio > 0
    now, then = history.trail.now, history.trail.half_way
    # A loss falls for a while whatever the sequences are: the output learns the targets' mean.
    idle = now.signal <= min(then.signal, 10 * thresholds.lost_signal)
    fell = (now.loss < 0.85 * then.loss or standstill.falls(history)) and not idle
    enough = thresholds.moved_path if history.stays else 2 * thresholds.moved_path
    early = history.steps < 3 * PATIENCE_STEPS or history.path < enough
    # What has no gates does not open them; some way is to show that it is not the rate.
    hopeless = (
        not view.order.gated
        and history.steps >= 4 * PATIENCE_STEPS
        and history.path >= thresholds.moved_path / 3
        and (history.flat and not fell or idle)
    )
    # Nor do those of steps that shrink with the gradient, where the loss has stayed for so long.
    shut = view.order.gated and not history.adaptive and history.stays
    hopeless |= shut and history.path >= thresholds.moved_path and not (opens or fell)
    if not view.time_ratio <= thresholds.lost_in_time * (UNGATED if hopeless else 1):
        return None
    if (fell or early or opens) and not (raised or hopeless):
        return None
    consequence = "output hardly depends on the sample" if idle else "loss does not fall"
    category = "memory" if view.order.gated else "recurrence"
    if view.order.gated and history.largest_update >= 1:  # updates that have shut them
        category = "learning rate"
    learnt = not history.stuck and standstill.has_learnt(history)
    learnt = learnt or learns_of_the_latest(history)
    return Symptom(
        "vanishing",
        "info" if learnt and not idle else "warning",
        view.recurrent,
        category,
        f"the gradient at the first steps of the sequence is {view.time_ratio:.1g} of that at the"
        f" last ones and the {consequence}",
        {IN_TIME: view.time_ratio, "path": history.path},
        sightings=1,
        confidence=0.8,
    )


def forgets(history: History, first: View, stands: bool, thresholds: Thresholds) -> bool:
    """Whether a recurrent network got no gradient at the first steps of its sequences at any look,
    and its loss `stands` where it began, or squared errors are those of the targets' mean; not
    where that is noise beside what it has learnt."""
    most = thresholds.lost_in_time * (1 if first.order.gated else UNGATED)
    lost = all(mark.time_ratio <= most for mark in history.trail.marks)
    return lost and (stands or target.is_squared(history)) and not learns_of_the_latest(history)


def never_began(history: History) -> bool:
    """Whether nothing at all came to the first steps of its sequences at any look, and its output
    depends on the sample no more than it did: which tells after fewer steps."""
    first, mark = history.trail.first, history.trail.now
    none = all(each.time_ratio <= NONE_IN_TIME for each in history.trail.marks)
    grown = mark.output * mark.signal > standstill.GROWN_SIGNAL * first.output * first.signal
    return none and not grown


def learns_of_the_latest(history: History) -> bool:
    """Whether something is learnt of the latest steps, which may be all that a target hangs on:
    then the first ones get no gradient, however long that is waited for."""
    fallen = history.recent_loss <= FALLEN_SOME * history.first_loss
    return standstill.learns_some(history) or fallen and standstill.tells_more(history)
