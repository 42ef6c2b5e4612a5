"""Do the units of a layer still answer? Dead ones give zero to all, saturated ones their limit."""

from __future__ import annotations

import math

from trainer.diagnosis import dead, recovery, standstill, target
from trainer.diagnosis.exploding import JUDGED_FROM_STEP
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.order import RECTIFIERS, SATURATING
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View
from trainer.record import COUNT

BATCHES = 10  # in a row, for all of which a layer gives zero, where others may not
SHARP_SLOPE = 0.04  # of an activation's largest slope, which one look is enough for
SHUT = 1e-4  # of an activation's largest slope, which lets nothing back
RARE_LOSS = 0.05  # of the loss at the start: where targets are rare a batch may have none of them
SILENT, ANSWERED = 0.98, 0.7  # zeros among what a rectifier gives
HALF_LOSS, WORSE = 0.5, 3.0  # of the first losses; times the lowest
FALLEN_LOSS = 0.7  # of the first losses: something was learnt
MILD_TIMES = 5  # times less than an update that throws weights away
FEW_BATCH_VALUES = 256  # values in a batch, next to which others may not be zero
# Std over RMS of what a rectifier cuts off, of which another batch may have some that it does not:
# of less all is far from zero, and what varies more and has one sign all the same keeps it.
NEAR_FROM, NEAR_TO = 0.05, 0.3


def dead_units(history: History, thresholds: Thresholds) -> Symptom | None:
    """A layer gives zero for every sample and nothing before it gets a gradient any more."""
    view = history.view
    if view is None:
        return None
    row = view.dead_row
    if row is None:
        return _mostly_dead(history, view)
    if view.kinds[row] not in RECTIFIERS and _may_be_fed_yet(history, view):
        return None
    # Who is given nothing tells that as surely as a rectifier.
    unfed = any(dead.is_unfed(view, each) for each in range(row, len(view.names))[:2])
    explained = view.kinds[row] in RECTIFIERS or unfed
    first = history.first_view
    born = first is not None and first.kinds == view.kinds and first.dead_row is not None
    # What small updates kill within a few steps, and on a short way, was close to it at the start.
    thrown = history.largest_update >= thresholds.thrown_update or history.rates.raised_for
    moved = history.steps >= 2 * PATIENCE_STEPS or history.path >= thresholds.moved_path
    sick = bool(history.raised & {"vanishing", "signal_collapse"})  # which is why
    faint = first is not None and 0 < first.forward_ratio <= thresholds.collapsed_forward
    sick |= faint or first is not None and recovery.lost(first, thresholds)
    killed = not born and (thrown or moved and not sick)
    category = "learning rate" if killed else "initialisation"
    if killed and not thrown and _was_well(history, thresholds):
        category = "relapse"
    if row == len(view.names) - 1 and born:
        category = "blocked"
    after = "since the weights moved" if killed else f"after {history.steps} steps of small updates"
    how = "from the start" if born else after
    # The only sample of its batch, few of them, or such that are nearly let through.
    others_may_pass = view.has_input and math.isnan(view.input_signal)
    others_may_pass |= bool(view.moments[row, COUNT] < FEW_BATCH_VALUES)
    others_may_pass |= born and row > 0 and bool(NEAR_FROM <= view.signal[row - 1] <= NEAR_TO)
    return Symptom(
        "dead_units",
        "critical",
        view.names[row],
        category,
        f"{_what_is_dead(view, row)} for every sample {how}; no gradient passes",
        {
            "dead_fraction": float(view.dead[row]),
            "largest_update_ratio": history.largest_update,
        },
        sightings=BATCHES if others_may_pass else 2 if explained else 3,
        confidence=0.99 if explained else 0.9,
    )


def _was_well(history: History, thresholds: Thresholds) -> bool:
    """Whether some had been learnt, by updates that are too small to kill what answers."""
    small = history.largest_update <= thresholds.thrown_update / MILD_TIMES
    return small and history.lowest_loss <= FALLEN_LOSS * history.first_loss


def _mostly_dead(history: History, view: View) -> Symptom | None:
    """A rectifier before others that let much through at first, and hardly anything any more since
    the loss was a third of what it is, half of the first: as of a few updates that were too much.
    """
    first, lowest = history.first_view, history.lowest_loss
    if first is None or first.names != view.names or history.steps < PATIENCE_STEPS:
        return None
    if history.loss < WORSE * lowest:
        return None
    began = history.first_loss
    back = min(history.loss, history.recent_loss) >= max(HALF_LOSS * began, WORSE * lowest)
    if not (0 < lowest <= HALF_LOSS * began and back):
        return None
    zeros, before = (each.table.zero_fraction[each.order.rows] for each in (view, first))
    for row in view.order.rectifiers.tolist():
        last = row == len(zeros) - 1
        if zeros[row] >= SILENT and before[row] <= ANSWERED and not last:
            return Symptom(
                "dead_units", "warning", view.names[row], "learning rate",
                f"{zeros[row]:.1%} of what {view.names[row]} gives is zero, {before[row]:.0%} at "
                f"first, and the loss is {history.loss / lowest:.2g} times the lowest",
                {"zero_fraction": float(zeros[row]), "lowest_loss": lowest}, sightings=2,
            )  # fmt: skip
    return None


def _what_is_dead(view: View, row: int) -> str:
    """Zeros that a layer puts out, or that a function after it makes of that."""
    if view.dead[row] == 1.0:
        return f"all units of {view.names[row]} are zero"
    if row == 0 and dead.is_unfed(view, row):
        return f"nothing gets to {view.names[row]} (a rectifier or a factor of zero?)"
    after = view.names[row + 1] if row + 1 < len(view.names) else "the loss"
    return f"nothing gets from {view.names[row]} to {after} (a rectifier or a factor of zero?)"


def _may_be_fed_yet(history: History, view: View) -> bool:
    """Whether an output that differs from sample to sample, be it by a dropout, may still learn
    what a layer that is given nothing is not asked for."""
    differs = view.output_signal != 0 and not view.is_idle
    return differs and (history.steps < PATIENCE_STEPS or standstill.has_learnt(history))


def saturated(history: History, thresholds: Thresholds) -> Symptom | None:
    """Most activations that flatten out work where they are flat, and the loss does not fall.

    No alarm in the first steps of an adaptive optimizer, in which many leave it again.
    """
    view = history.view
    if view is None or history.steps < JUDGED_FROM_STEP:
        return None
    last = _last_is_shut(history, view)
    if last is not None:
        return last
    if not (history.stuck or standstill.in_vain(history)) or history.trail.signal_grows:
        return None
    if not (view.flow_ratio >= thresholds.flat_flow or standstill.in_vain(history)):
        return None
    slopes = {
        row: float(view.gains[row]) / SATURATING[kind]
        for row, kind in enumerate(view.kinds)
        if row > 0 and kind in SATURATING and row < len(view.kinds) - 1
    }
    flat = {row: slope for row, slope in slopes.items() if slope <= thresholds.saturated_slope}
    if not flat or 2 * len(flat) < len(slopes):
        return None
    if view.output_signal <= thresholds.lost_signal:  # constant at the limit is another verdict
        return None
    row = min(flat, key=lambda row: flat[row])
    start = history.largest_update < thresholds.thrown_update
    if start and flat[row] > SHARP_SLOPE and _was_steep(history, view, row, thresholds):
        return None
    return Symptom(
        "saturated",
        "info" if history.adaptive and history.steps <= PATIENCE_STEPS else "warning",
        view.names[row],
        "initialisation" if start else "learning rate",
        f"{len(flat)} of {len(slopes)} activations work where they are flat",
        {"slope_over_largest": flat[row], "saturated_layers": len(flat)},
        sightings=1 if flat[row] <= SHARP_SLOPE and standstill.in_vain(history) else 2,
    )


def _was_steep(history: History, view: View, row: int, thresholds: Thresholds) -> bool:
    """Whether an activation that is flat now was not at first: what has been learnt may want it."""
    first = history.first_view
    if first is None or first.names != view.names:
        return False
    slope = float(first.gains[row]) / SATURATING[view.kinds[row]]
    return slope > thresholds.saturated_slope


def _last_is_shut(history: History, view: View) -> Symptom | None:
    """Whether the last activation is at its limit for all samples, so that it lets nothing of a
    squared error back, and nothing has been learnt."""
    row = len(view.kinds) - 1
    follows = row > 0 and view.order.last_with_parameters == row - 1
    if not follows or view.kinds[row] not in SATURATING or history.steps < 2 * PATIENCE_STEPS:
        return None
    slope = float(view.gains[row]) / SATURATING[view.kinds[row]]
    if not slope <= SHUT or history.recent_loss < RARE_LOSS * history.loss_at_start:
        return None
    if not target.is_squared(history) or standstill.has_learnt(history):
        return None
    return Symptom(
        "saturated", "warning", view.names[row], "last activation",
        f"the last {view.kinds[row]} is at its limit for all samples and lets {slope:.1g} of the "
        "gradient back",
        {"slope_over_largest": slope},
    )  # fmt: skip
