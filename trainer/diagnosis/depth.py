"""Does the signal reach the output and the gradient the first layer, or do they die, or grow?"""

from __future__ import annotations

from statistics import median

import numpy as np

from trainer.diagnosis import blame, recovery
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.recovery import SETTLED
from trainer.diagnosis.symptom import UNCONFIRMED, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.finding import Level

JUDGED_FROM_STEP = 10  # whether the loss falls in spite of a large gradient
FAR = 100  # times the blow-up that a loss which falls a little is no comfort for


def vanishing(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output no longer depends on the sample and the first layers get no gradient.

    Both together: a small flow alone is how many healthy networks start. Certain where what is left
    of the signal is rounding; otherwise said when the weights have moved and neither has grown, or
    when the first layers stand still while the last ones move. No alarm while it is awaited.
    """
    view = history.view
    if view is None or view.dead_row is not None:
        return None
    if not recovery.lost(view, thresholds):
        return None
    step, signal, ratio = history.record.step, view.output_signal, view.flow_ratio
    first, growth = recovery.first_layers_update(history), history.growth()
    strong = ratio <= thresholds.lost_gradient / 10
    # Rounding grows and shrinks without a meaning.
    certain = strong and recovery.is_rounding(view, 10 if "vanishing" in history.raised else 1)
    stands_still = (
        first <= thresholds.starved_update
        and recovery.largest_update(history) >= 10 * thresholds.starved_update
        and step >= 10
    )
    moved = recovery.had_its_way(history, thresholds)
    judged = certain or step >= 5 and (moved or stands_still)
    recovers = not judged or growth >= thresholds.recovery_growth and not certain
    if recovers and "vanishing" not in history.raised:
        return None
    hopeless = certain or signal <= 1e-3
    # Some adaptive optimizers still bring it back.
    level: Level = "critical" if hopeless and not history.is_early else "warning"
    waits = recovery.is_awaited(history, view, thresholds)
    if recovers or waits or history.returns and not certain:
        level = "info"  # a mechanism without its consequence
    assert history.first_view is not None
    found = blame.attenuation(view, history.record, history.first_view)
    evidence = {
        "flow_first_over_last": ratio,
        "output_signal_fraction": signal,
        "growth_over_half_the_way": growth,
        "path": history.path,
        "first_layers_update_ratio": first,
        "activation_gain": found.activation_gain,
        "weight_gain": found.weight_gain,
    }
    return Symptom(
        "vanishing",
        level,
        found.where,
        found.category,
        f"the gradient at the first layers is {ratio:.1g} of that at the last ones and"
        f" {signal:.1g} of the output depends on the sample",
        evidence,
        sightings=1 if strong and step >= SETTLED else 2,
        confidence=0.99 if certain else 0.95,
    )


def vanishing_over_time(history: History, thresholds: Thresholds) -> Symptom | None:
    """The first steps of a sequence get no gradient and the loss does not fall.

    Gated networks that learn begin with a millionth and less, and may take hundreds of steps.
    """
    view = history.view
    if view is None or view.recurrent is None or not view.time_ratio <= thresholds.lost_in_time:
        return None
    raised = "vanishing_over_time" in history.raised
    now, then = history.mark, history.half_way
    fell = now.loss < 0.85 * then.loss
    early = history.record.step < SETTLED or history.path < 2 * thresholds.moved_path
    if (fell or early) and not raised:
        return None
    return Symptom(
        "vanishing",
        "warning",
        view.recurrent,
        "recurrence",
        f"the gradient at the first steps of the sequence is {view.time_ratio:.1g} of that at the"
        " last ones and the loss does not fall",
        {"gradient_first_over_last_steps": view.time_ratio, "path": history.path},
        sightings=1,
        confidence=0.8,
    )


def signal_collapse(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output is minute beside the input from the start; and signal and gradient get lost and
    stay so, on the same clock as above, or no weight moves."""
    first, view = history.first_view, history.view
    if first is None or view is None or view is first:
        return None
    ratio, signal = first.forward_ratio, view.output_signal
    if first.normalised or first.dead_row is not None:
        return None
    if not 0 < ratio <= thresholds.collapsed_forward:
        return None
    rounding = recovery.is_rounding(view) and view.flow_ratio <= thresholds.lost_gradient / 10
    judged = rounding or recovery.had_its_way(history, thresholds)
    lost = judged and recovery.lost(view, thresholds)
    if not (lost or recovery.largest_update(history) <= thresholds.starved_update):
        return None
    if history.growth() >= thresholds.recovery_growth and "signal_collapse" not in history.raised:
        return None
    found = blame.attenuation(first, history.record, first)
    waits = recovery.is_awaited(history, view, thresholds)
    return Symptom(
        "signal_collapse",
        "info" if waits else "warning" if history.is_early else "critical",
        found.where,
        "initialisation",
        f"the output starts with {ratio:.1g} of the size of the input",
        {"forward_ratio": ratio, "output_signal_fraction": signal},
    )


def signal_blow_up(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output is a thousand times the input from the start, still is, and that hurts: updates
    throw the weights away, or the loss does not fall; or, from a hundred thousand times on, it has
    not come down by as much in the steps that an adaptive optimizer is given."""
    first, view = history.first_view, history.view
    if first is None or view is None or first.normalised:
        return None
    ratio, now = first.forward_ratio, view.forward_ratio
    if first.output_signal <= thresholds.lost_signal:
        return None  # biases beside tiny inputs
    if not ratio >= thresholds.blown_up_forward or now < thresholds.blown_up_forward:
        return None
    found = blame.amplification(first, history.record)
    step = history.record.step
    hurts = (
        history.update >= thresholds.thrown_update
        or step >= JUDGED_FROM_STEP
        and history.stuck
        or ratio >= FAR * thresholds.blown_up_forward
        and step >= PATIENCE_STEPS
        and history.loss_rise > 1 / ratio
    )
    return Symptom(
        "signal_blow_up",
        "warning" if history.adaptive else "critical",
        found.where,
        found.category,
        f"the output starts {ratio:.1g} times as large as the input",
        {"forward_ratio": ratio, "activation_gain": found.activation_gain,
         "weight_gain": found.weight_gain},
        sightings=2 if hurts else UNCONFIRMED,
    )  # fmt: skip


def exploding(history: History, thresholds: Thresholds) -> Symptom | None:
    """The gradient grows towards the first layers, or its size throws the weights away, or it has
    grown a hundredfold while the loss rose."""
    return (
        _over_depth(history, thresholds)
        or _in_one_update(history, thresholds)
        or _over_steps(history, thresholds)
    )


def _over_depth(history: History, thresholds: Thresholds) -> Symptom | None:
    view, record = history.view, history.record
    if view is None or record.step < JUDGED_FROM_STEP:
        return None
    if not view.flow_ratio >= thresholds.grown_gradient:
        return None
    thrown = history.update >= thresholds.thrown_update
    if not (history.stuck or thrown or record.clip_coefficient < 0.1):
        return None
    found = blame.amplification(view, record)
    return Symptom(
        "exploding", "critical", found.where, found.category,
        f"the gradient at the first layers is {view.flow_ratio:.1g} times that at the last",
        {"flow_first_over_last": view.flow_ratio, "update_ratio": history.update},
        sightings=3,
    )  # fmt: skip


def _in_one_update(history: History, thresholds: Thresholds) -> Symptom | None:
    """Of an optimizer that takes the gradient as it is; others begin with such updates."""
    view, first, record = history.view, history.first_view, history.record
    if history.adaptive or record.step > JUDGED_FROM_STEP:
        return None
    if not 1 <= history.update < np.inf:
        return None
    where, category = None, "learning rate"
    if view is not None and view.recurrent is not None:
        where, category = view.recurrent, "recurrence"
    elif view and first and first.forward_ratio >= thresholds.blown_up_forward:
        found = blame.amplification(view, record)
        where, category = found.where, found.category
    return Symptom(
        "exploding", "critical", where, category,
        f"one update changes the weights by {history.update:.1g} times their size",
        {"update_ratio": history.update, "gradient_norm": record.gradient_norm},
    )  # fmt: skip


def _over_steps(history: History, thresholds: Thresholds) -> Symptom | None:
    """Not while the loss falls, as where a plateau ends, nor of losses that may be negative."""
    norm = history.record.gradient_norm
    if len(history.norms) < 4 or not np.isfinite(norm):
        return None
    before = median(history.norms[:-1][:20])
    grown = norm >= thresholds.grown_norm * before
    if not (grown and history.loss_rise >= thresholds.risen_loss):
        return None
    return Symptom(
        "exploding", "critical", _largest_growth(history), "learning rate",
        f"the gradient's norm is {norm / before:.1g} times what it was while the loss rises",
        {"gradient_norm": norm, "before": before, "loss_over_start": history.loss_rise},
    )  # fmt: skip


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
