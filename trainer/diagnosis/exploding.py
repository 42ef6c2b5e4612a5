"""Does the gradient grow, over layers, over a sequence or over steps, until that hurts?"""

from __future__ import annotations

import math
from statistics import median

import numpy as np

from trainer.diagnosis import blame, standstill
from trainer.diagnosis.behind import SCALE
from trainer.diagnosis.gains import weight_gains
from trainer.diagnosis.history import PATIENCE_STEPS, RECENT_LOSSES, History
from trainer.diagnosis.symptom import FLOW, IN_TIME, UNCONFIRMED, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.record import StepRecord

JUDGED_FROM_STEP = 10  # whether the loss falls in spite of a large gradient or output
FEW_VALUES = 10  # values of a matrix that began near zero by chance
THROWN = 3  # times their size: nothing is left of what the weights were
AT_ONCE = 100  # times their size: no second update is waited for, if the loss has risen since
OUTGROWN_UPDATE = 0.1  # of the weights of now
LEFT_RATE = 0.3  # of the first rate
LEFT_LOSS = 0.3  # of the first loss: little has been learnt
ABOUT = 1.05  # times a loss: batches differ
GROWS = 10  # times, from the last steps of a sequence or layers to the first: it does something


def exploding(history: History, thresholds: Thresholds) -> Symptom | None:
    """The gradient grows towards the first layers or the first steps of a sequence, or its size
    throws the weights away, or it has grown a hundredfold while the loss rose."""
    return (
        _on_its_way(history, thresholds)
        or _in_one_update(history, thresholds)
        or _between_records(history, thresholds)
        or _thrown_and_left(history, thresholds)
        or _over_steps(history, thresholds)
    )


def _on_its_way(history: History, thresholds: Thresholds) -> Symptom | None:
    view, record = history.view, history.record
    if view is None or history.steps < JUDGED_FROM_STEP:
        return None
    over_time = view.largest_time_ratio >= thresholds.grown_gradient
    if not (over_time or view.flow_ratio >= thresholds.grown_gradient and _reaches_weights(record)):
        return None
    thrown = history.update >= thresholds.thrown_update
    if not (history.stuck or thrown or record.clip_coefficient < 0.1):
        return None
    assert history.first_view is not None
    ratio, started = (
        (each.largest_time_ratio if over_time else each.flow_ratio)
        for each in (view, history.first_view)
    )
    first = "the gradient at the first steps of the sequence"
    first = first if over_time else "gradient times output at the first layers"
    found = blame.amplification(view, record)
    category = "recurrence" if over_time else found.category
    if history.largest_update >= thresholds.thrown_update and started < thresholds.grown_gradient:
        category = "learning rate"  # it was not so before
    return Symptom(
        "exploding", "critical", view.recurrent if over_time else found.where, category,
        f"{first} is {ratio:.1g} times that at the last",
        {IN_TIME if over_time else FLOW: ratio, "update_ratio": history.update},
        sightings=3,
    )  # fmt: skip


def _reaches_weights(record: StepRecord) -> bool:
    """Whether the gradient of the first weights is larger as well: what grows may be that of values
    that lead to none, as of the padding of a batch."""
    flows = [flow for flow in record.own_flows() if math.isfinite(flow)]
    if len(flows) < 2:
        return True
    last = median(flows[-max(1, len(flows) // 4) :])
    return bool(max(flows[: len(flows) // 2]) >= GROWS * last)


def _in_one_update(history: History, thresholds: Thresholds) -> Symptom | None:
    """Of an optimizer that takes the gradient as it is; others begin with such updates, as do a few
    weights while the loss falls. From step 10 on one of those before counts, if the loss has not
    fallen since, nor that of any batch, and the weights are not far larger by now than it was."""
    if history.adaptive:
        return None
    view, first, record = history.view, history.first_view, history.record
    late = history.steps >= JUDGED_FROM_STEP
    if late and (not history.stuck or _fits_some(history) or standstill.falls(history)):
        return None
    few = max(map(math.prod, record.shapes), default=0) < FEW_VALUES
    fallen = (0.1 if late else 1.0) * history.first_losses[0] if history.first_losses else math.nan
    if few and history.loss < fallen:
        return None
    normalised = view is None or view.normalised
    at_once = history.largest_update >= AT_ONCE and not normalised and _has_risen(history)
    update = history.largest_update if late or at_once else history.update
    if not 1 <= update < np.inf or history.first_losses and _were_small(history, late):
        return None
    if late and history.way.farthest_share <= OUTGROWN_UPDATE:
        return None
    where, category = None, "learning rate"
    if view is not None and view.recurrent is not None and not view.largest_time_ratio < GROWS:
        where, category = view.recurrent, "recurrence"
    elif view and first and first.forward_ratio >= thresholds.blown_up_forward:
        found = blame.amplification(view, record)
        where, category = found.where, found.category
    return Symptom(
        "exploding", "critical", where, category,
        f"one update changes the weights by {update:.1g} times their size",
        {"update_ratio": update, "gradient_norm": record.gradient_norm},
        sightings=1 if at_once else 2,
    )  # fmt: skip


def _has_risen(history: History) -> bool:
    """Whether no loss has been below the very first."""
    losses = history.losses
    return len(losses) > 1 and history.loss > losses[0] >= history.lowest_loss


def _were_small(history: History, late: bool) -> bool:
    """Whether the weights were, after such an update, no larger than start values are drawn, for a
    loss about the first or below, as where a head begins at zero; and have settled since."""
    record, largest = history.record, history.way.largest
    same = history.first_parameters == record.parameters and history.update < 1
    if not history.loss < ABOUT * history.first_losses[0] or late and not same:
        return False
    before, update = (
        (history.first_sizes, largest) if late else (record.parameter_rms, record.update_ratio)
    )
    after = np.where(before > 0, before * (1 + update), 0.0)
    usual, now = (
        median(weight_gains(record.parameters, record.shapes, sizes).values() or sizes.tolist())
        for sizes in (after, record.parameter_rms)
    )
    return bool(usual <= 1 and now <= GROWS)


def _between_records(history: History, thresholds: Thresholds) -> Symptom | None:
    """Updates that nobody looked at have made the weights a hundred times as large, and the loss
    larger as well; not those of the first steps, in which weights near zero grow as much."""
    before, record, losses = history.before, history.record, history.losses
    if before is None or before.parameters != record.parameters or len(losses) < 2:
        return None
    if record.step - before.step == 1 or before.step - history.first_step < JUDGED_FROM_STEP:
        return None
    known = ~np.isnan(history.updates)
    growth = record.parameter_rms[known] / before.parameter_rms[known]
    times = float(np.median(growth)) if len(growth) else math.nan
    rise = record.loss / losses[-2] if losses[-2] > 0 else math.nan
    if not (thresholds.grown_norm <= times < math.inf and rise >= thresholds.risen_loss):
        return None
    return Symptom(
        "exploding", "critical", None, "learning rate",
        f"since step {before.step} the weights have become {times:.1g} times as large and the loss "
        f"{rise:.1g} times",
        {"weights_over_before": times, "loss_over_before": rise},
        sightings=1,
    )  # fmt: skip


def _thrown_and_left(history: History, thresholds: Thresholds) -> Symptom | None:
    """A gradient that grew towards the first layers has thrown them away, and since then they stand
    still, whatever little the last ones learn of what is left, or the loss has not fallen."""
    first, losses = history.first_view, history.first_losses
    if history.adaptive or history.steps < 2 * PATIENCE_STEPS or first is None or not losses:
        return None
    fallen = history.record.learning_rate <= LEFT_RATE * history.rates.first  # which would be why
    if fallen or not first.flow_ratio >= thresholds.grown_gradient:
        return None
    half = max(1, len(history.known) // 2)
    thrown = history.way.largest[~np.isnan(history.updates)][:half].tolist() or [math.inf]
    stands = min(history.recent_loss, history.loss)
    still = max(history.known[:half], default=math.inf) <= 10 * thresholds.starved_update
    still = still and stands >= LEFT_LOSS * losses[0] > 0
    idle = stands >= standstill.STANDING * losses[0] > 0
    largest = min(thrown) if still else median(thrown) if idle else math.inf
    if not THROWN <= largest < math.inf:
        return None
    found = blame.amplification(first, history.record)
    return Symptom(
        "exploding", "critical", found.where, found.category,
        f"an update has changed the weights of the first layers by {largest:.1g} times their size, "
        f"and since then {'they stand still' if still else 'the loss has not fallen'}",
        {"largest_update_ratio": largest, FLOW: first.flow_ratio},
        sightings=2 if still else 1,
    )  # fmt: skip


def _fits_some(history: History) -> bool:
    """Whether the loss is well below the very first, and one of the latest below all of those."""
    if not history.losses:
        return False
    falls = history.recent_loss < 0.7 * history.first_losses[0]
    return falls and min(history.losses[-RECENT_LOSSES:]) < 0.7 * history.loss_at_start


def _over_steps(history: History, thresholds: Thresholds) -> Symptom | None:
    """Not while the loss falls, as where a plateau ends, but where it does below zero to no end."""
    norm = history.record.gradient_norm
    if len(history.norms) < 4 or not np.isfinite(norm):
        return None
    before = median(history.norms[:-1][:20])
    if not before > 0:
        return None  # beside nothing anything has grown
    falls = norm >= 10 * before and _falls_without_end(history, thresholds)
    rises = norm >= thresholds.grown_norm * before and history.loss_rise >= thresholds.risen_loss
    if not (rises or falls):
        return None
    way, category = ("rises", "learning rate") if rises else ("falls without end", "objective")
    return Symptom(
        "exploding", "critical", _largest_growth(history), category,
        f"the gradient's norm is {norm / before:.1g} times what it was while the loss {way}",
        {"gradient_norm": norm, "gradient_norm_before": before,
         "loss_over_start": history.loss_rise},
        sightings=UNCONFIRMED if history.begins else 2 if rises else 1,
    )  # fmt: skip


def _falls_without_end(history: History, thresholds: Thresholds) -> bool:
    """Whether a loss far below zero goes on falling because the output grows and grows."""
    first, view = history.first_view, history.view
    if first is None or view is None or not history.loss < 0:
        return False
    least = max(thresholds.grown_norm * first.forward_ratio, SCALE)  # small start values grow
    grown = view.forward_ratio >= least
    size = max(map(abs, history.first_losses))
    return grown and -history.loss >= thresholds.grown_norm * size


def _largest_growth(history: History) -> str | None:
    """The parameter whose gradient has grown most since the record before."""
    if history.before is None:
        return None
    now, then = history.record.gradients, history.before.gradients
    if now.names != then.names or not now.names:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = now.norms() / then.norms()
    return now.names[int(np.argmax(np.nan_to_num(growth, nan=0.0)))]
