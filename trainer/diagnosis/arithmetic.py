"""Are the numbers still numbers? The first place that makes values which are not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from trainer.diagnosis import gains, standstill
from trainer.diagnosis.behind import SCALE
from trainer.diagnosis.history import History
from trainer.diagnosis.order import ACTIVATIONS, EXPONENTIALS, GATED, RECURRENT
from trainer.diagnosis.symptom import UNCONFIRMED, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.underflow import NARROW
from trainer.diagnosis.view import View
from trainer.record import is_told, owner

LARGE_OUTPUT_RMS = 1e4  # RMS of outputs before which an overflow was on its way
SQUARED = 1e18  # RMS of outputs whose squares are at the end of float32
REPLACED_PATH = 1.0  # way of the weights after which others have taken their place
ROOTS = ("model", "(model)")
RISEN_LOSS = 1.1  # times the loss at the start: it went up before it was none
USUAL_TIMES = 3  # times the losses and gradients before, at most
KNOWN = 5  # losses
SKIPPED_STEPS = 5  # in a row, of a gradient scaler
SCALING_STEPS = 20  # in which it finds its scale, which it halves at each


def non_finite(history: History, thresholds: Thresholds) -> Symptom | None:
    """A loss, output, weight or gradient that is not finite, and the first place that makes one."""
    record, view = history.record, history.view
    bad_gradients = not math.isfinite(record.gradient_norm)
    bad_weights = ~np.isfinite(record.parameter_rms)
    bad_outputs = view is not None and not np.isfinite(view.rms).all()
    bad_loss = is_told(record.loss) and not math.isfinite(record.loss)
    if not (bad_gradients or bad_weights.any() or bad_outputs or bad_loss):
        return None
    skipped = not (bad_weights.any() or bad_outputs or bad_loss) and bool(
        (record.unchanged_fraction == 1).all()
    )
    before, sightings = history.before, 1
    if skipped and before and not np.array_equal(before.parameter_rms, record.parameter_rms):
        return None  # some updates since the record before were made
    where, category, cause = _place(history, thresholds, bad_weights)
    if skipped:
        cause += "; all updates are left out, as by a GradScaler"
        sightings = UNCONFIRMED if history.steps < SCALING_STEPS else SKIPPED_STEPS
    return Symptom(
        "non_finite",
        "critical",
        where,
        category,
        cause,
        {"loss": record.loss, "gradient_norm": record.gradient_norm},
        sightings=sightings,
        confidence=0.99,
    )


def _place(
    history: History, thresholds: Thresholds, bad_weights: np.ndarray
) -> tuple[str | None, str, str]:
    """The place, the category of cause and the cause in words."""
    record, view = history.record, history.view
    if bad_weights.any():
        # What comes behind the fault gets a gradient that is finite, what comes before does not.
        name = record.parameters[int(np.flatnonzero(bad_weights)[-1])]
        words = "the weights themselves are not finite"
        where = None if bad_weights.all() and len(bad_weights) > 1 else name
        if _broke_backward(history, thresholds):
            words += f" since the step before: its loss was still {record.loss_before:.3g}, its "
            return where, "operation", words + "gradient not finite"
        if history.before is not None:
            words += f"; they were finite before the update of step {history.before.step}"
        return where, _why_large(history, thresholds), words
    if view is not None:
        bad = ~np.isfinite(view.rms)
        first = history.first_view
        of_data = view.has_input and not math.isfinite(view.input_rms)
        # What was no number from the start is a mask.
        of_data &= first is None or first is view or first.has_input or not first.table.has_input
        if of_data and not (len(bad) and bad[0] and _holds_others(view, 0)):
            words = (
                "the data that the network is given are not finite, or what is done to them before"
            )
            return "input", "data", f"{words} the first layer makes values that are not"
        if bad.any():
            row = int(np.argmax(bad))
            kind, size = view.kinds[row], float(view.rms[row - 1]) if row else view.input_rms
            # The states of gates have a bound.
            steps = kind in RECURRENT or _grew_in_a_loop(history, view, row)
            if steps and kind not in GATED:
                return (
                    view.names[row],
                    _why_large(history, thresholds, "recurrence"),
                    "the state has grown from step to step of the sequence until it overflowed",
                )
            unknown = math.isnan(size) and (of_data or history.before is None)
            if kind in ACTIVATIONS or size < LARGE_OUTPUT_RMS or unknown:
                category = "activation" if kind in ACTIVATIONS else "operation"
                if view.table.dtypes[-1] in NARROW and size > 100:
                    category = "dtype"
                # Before a layer with weights a function may come that no module tells of.
                who = _who(view, row, record.parameters)
                known = "" if math.isnan(size) else f" (RMS {size:.3g})"
                what = f"{who} makes values that are not finite of finite ones{known}"
                if view.names[row] == view.order.looping:
                    what += ", be it of its own state, which may have grown from step to step"
                before = view.names[: row + 1]
                return view.names[row], *_unless_thrown(history, before, category, what)
            return (
                view.names[row],
                _why_large(history, thresholds, "growth"),
                f"outputs have grown {'' if math.isnan(size) else f'to an RMS of {size:.3g} '}"
                "before it",
            )
        if is_told(record.loss) and not math.isfinite(record.loss):
            size = float(np.fmax.reduce(view.rms, initial=0.0))
            if size >= SQUARED:
                why = _why_large(history, thresholds, "growth")
                return None, why, f"outputs have grown to an RMS of {size:.3g}, the loss beyond all"
            what = "what is done after the layers, or the loss itself, makes a value that is not"
            words = f"the outputs of all layers are finite; {what}, or a target is none"
            return None, *_unless_thrown(history, view.names, "loss", words)
        bad = view.gradient_not_finite
        if bad.any():
            row, owners = int(np.flatnonzero(bad)[-1]), map(owner, record.parameters)
            after = view.names[row + 1] if row + 1 < len(bad) else "the loss"
            words = f"the derivative of {after} is not finite although its output is"
            if after in owners:  # which adds and multiplies: a function may be before it
                after, words = view.names[row], f"{words}, or that of what is done before it"
            where = after if row + 1 < len(bad) else view.names[row]
            return where, *_unless_thrown(history, view.names, "operation", words)
    if is_told(record.loss) and not math.isfinite(record.loss):
        words = "the loss is not finite; the layers of this step were not looked at"
        return None, _why_large(history, thresholds), words
    bad_rows = np.flatnonzero(~np.isfinite(record.gradients.norms()))
    where = record.gradients.names[int(bad_rows[-1])] if len(bad_rows) else None
    words = "the gradient is not finite from there to the first layers"
    if not is_told(record.loss):
        return where, _why_large(history, thresholds), words
    words = f"the loss is finite, and {words}"
    if view is not None and float(np.fmax.reduce(view.rms, initial=0.0)) < LARGE_OUTPUT_RMS:
        words += ", though no output is large: a derivative is not defined, such as a root's at 0"
        return where, "operation", words
    return where, _why_large(history, thresholds), words


def _unless_thrown(
    history: History, layers: Sequence[str], category: str, words: str
) -> tuple[str, str]:
    """The category and the words: the rate's, if an update put others in the place of the weights
    of these layers, far larger than any that are drawn."""
    record, thrown = history.record, history.largest_update
    if history.before is None or category == "dtype":
        return category, words
    rates, losses = history.rates, history.losses
    rose = bool(losses) and losses[-1] >= rates.loss_before
    if rates.raised_for and rose and category in ("loss", "operation"):
        times = record.learning_rate / history.rates.first
        return (
            "learning rate",
            f"{words}, since the rate was raised to {times:.1g} times what it was",
        )
    if thrown < REPLACED_PATH:
        return category, words
    made = gains.weight_gains(record.parameters, record.shapes, record.parameter_rms)
    before = [gain for name, gain in made.items() if owner(name) in layers]
    if not before or median(before) < gains.LARGE:
        return category, words
    return (
        "learning rate",
        f"{words}, since an update changed the weights by {thrown:.1g} of their size",
    )


def _broke_backward(history: History, thresholds: Thresholds) -> bool:
    """Whether weights were lost behind a loss like those before it, of which gradients and updates
    had not grown: nothing was too large, so a derivative was not defined."""
    record, before, first = history.record, history.before, history.first_view
    if before is None or before.step >= record.step - 1 or len(history.losses) < 2:
        return False
    if any(dtype in NARROW for dtype in record.dtypes):
        return False
    if first is not None and first.recurrent is not None:
        return False
    usual = record.loss_before <= USUAL_TIMES * median(history.losses[-KNOWN:])
    grown = bool(history.norms) and history.norms[-1] >= USUAL_TIMES * median(history.norms)
    known = before.update_ratio[~np.isnan(before.update_ratio)].tolist()
    thrown = history.rates.raised_for or median([0.0, *known]) >= thresholds.thrown_update
    return usual and not (grown or thrown)


def _who(view: View, row: int, parameters: tuple[str, ...]) -> str:
    """What a layer does, or a module around others between two of them."""
    name, kind = view.names[row], view.kinds[row]
    if _holds_others(view, row):
        after = [other for other in view.names[row + 1 :] if not name.startswith(f"{other}.")][:1]
        ends = f"between {view.names[row - 1]} and {after[0]}" if after else "at its end"
        return f"{kind} itself, {ends if row else 'at its start'},"
    return f"{kind}, or what is done before it," if name in map(owner, parameters) else kind


def _holds_others(view: View, row: int) -> bool:
    """Whether a row is that of a module around other layers, which is there if it is at fault."""
    name = view.names[row]
    return name in ROOTS or any(other.startswith(f"{name}.") for other in view.names)


def _blew_up(history: History, thresholds: Thresholds) -> bool:
    first = history.first_view
    return first is not None and bool(first.forward_ratio >= thresholds.blown_up_forward)


def _grew_in_a_loop(history: History, view: View, row: int) -> bool:
    """Whether a layer that is called step by step gave far more than the network was given at a
    look before."""
    first, name, before = history.first_view, view.names[row], history.trail.marks[-2:-1]
    if first is None or name not in (view.order.looping, first.order.looping) or not before:
        return False
    return bool(before[0].size >= SCALE)


def _why_large(history: History, thresholds: Thresholds, otherwise: str = "operation") -> str:
    """What made numbers grow until none was left."""
    first = history.first_view
    if "float16" in history.record.dtypes:
        return "dtype"
    if first is not None and not EXPONENTIALS.isdisjoint(first.kinds):
        return "activation"
    if first is not None and first.recurrent is not None and history.steps <= 20:
        return "recurrence"
    begins = history.before is None and history.record.step <= 1
    if _blew_up(history, thresholds) or begins:
        return "initialisation"
    norms = history.norms
    grown = bool(norms) and norms[-1] > thresholds.grown_norm * min(norms)
    thrown = history.rates.raised_for or history.largest_update >= thresholds.thrown_update
    rose = bool(history.losses) and history.losses[-1] >= RISEN_LOSS * history.loss_at_start > 0
    # On a way as long as the weights are large they were led to something better, or thrown.
    stands = not history.recent_loss < standstill.STANDING * history.loss_at_start
    replaced = history.path >= REPLACED_PATH and stands
    if thrown or rose or grown or replaced:
        return "learning rate"
    return otherwise
