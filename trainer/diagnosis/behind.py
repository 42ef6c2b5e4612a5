"""What is behind a cause: a decay that makes weights small, dropouts, what a network is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from trainer.diagnosis import remedies, standstill, target
from trainer.diagnosis.gains import LARGE, weight_gains
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.order import DROPOUTS
from trainer.diagnosis.recovery import LITTLE_LEFT, lost
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View
from trainer.record import owner

NEVER = 1e-5  # flow at the first layers / at the last ones: those get no gradient
JUMP = 100.0  # times what a layer is given, or the network
TALL = 10.0  # times, by its weights, which start values for its size make one or two
ROUNDING_SIGNAL = 1e-6  # of a signal, which there is none of
CHANGED = 8.0  # times what the inputs were at first, where no update is to blame
SCALE = 30.0  # times more than 1, for which start values are made, or less
TOO_LARGE = {"exploding", "signal_blow_up", "learning_rate_too_high", "diverging", "non_finite",
             "dead_units", "saturated"}  # fmt: skip
TOO_SMALL = {"vanishing", "signal_collapse", "constant_output"}
DROPPED = 0.85  # of a layer's output, by a dropout that leaves too little
LEARNT_LOSS = 0.5  # of the first losses
RESIZED = 1.5  # times the weights with which the loss was low
WELL = 0.02  # of the output depends on the sample, and of the gradient gets to the first layers
HALF_DROPPED = 0.45  # nearly, since the share of some values is not that of all
MORE = 1.5  # times that share
EXPLAINS_LITTLE = 0.33  # of the errors, by what of the output depends on the sample
LEFT_BY_ALL = 1e-3  # of the signal, by dropouts that take nearly half and more
# Causes that may have another one behind.
REPLACEABLE = {"activation", "initialisation", "learning rate"}
OF_SEQUENCES = {"memory", "recurrence"}
SCALE_WORDS = "scale the {} to a mean of 0 and an RMS of 1"


class Behind(NamedTuple):
    """What is behind a cause."""

    category: str
    words: str
    remedy: str
    is_scale: bool = True  # whether what helps against the cause itself may help as well
    where: str | None = None  # the layer, where it is one


def behind(
    history: History,
    verdict: str,
    category: str,
    configuration: Mapping[str, Any] | None,
    thresholds: Thresholds,
) -> Behind | None:
    """What is behind a cause of that category: weights that a decay has made small, dropouts, what
    the network is given and asked for, or a rate's start values; None where it is the cause."""
    first = history.first_view
    if first is None:
        return None
    if category in OF_SEQUENCES:
        # Gates and states are at their limits then.
        takes_them = verdict in TOO_SMALL and [*first.names[:1]] == [first.recurrent]
        flooded = too_large(first) if takes_them else None
        return Behind("data", flooded, SCALE_WORDS.format("inputs")) if flooded else None
    if category not in REPLACEABLE:
        return None
    decay = configuration is None or configuration.get("optimizer", {}).get("weight_decay")
    # Nobody knows that of another's loop: there is less to be left.
    left = LITTLE_LEFT**2 if configuration is None else LITTLE_LEFT
    # What gets no gradient at all from the start shrinks because of that, or had none to lose.
    follows = verdict == "vanishing" and first.flow_ratio <= NEVER
    follows = follows or lost(first, thresholds)
    small = verdict in TOO_SMALL | {"dead_units"} and not follows
    if decay and small and history.size_over_start <= left:
        words = f"the weights have shrunk to {history.size_over_start:.1g} of what they began with"
        return Behind("decay", words, remedies.REMEDIES["decay"])
    taken = too_much_dropped(first)
    if taken is not None and verdict in TOO_SMALL | TOO_LARGE:
        return Behind("dropout", taken, remedies.REMEDIES["dropout"])
    ends = *first.signal[:1], first.output_signal  # in between, places are told apart
    # A layer that is called first may be given zeros beside the data.
    zeros = first.input_rms == 0 and not (first.signal > 0).any()
    same = first.input_signal == 0 and max(ends) <= ROUNDING_SIGNAL
    if verdict in TOO_SMALL and (zeros or same):
        words = f"the inputs are {'zero' if zeros else 'the same'} for every sample"
        return Behind("data", words, "give the network what tells one sample from another", False)
    thrown = history.largest_update >= thresholds.thrown_update
    changed = _of_changed_inputs(first, history.view, verdict, SCALE if thrown else CHANGED)
    # What grows once an update has replaced the weights is made of what they make, as a state.
    learnt = history.lowest_loss <= LEARNT_LOSS * history.loss_at_start
    replaced = history.first_update >= 1 and verdict in TOO_LARGE and not learnt
    if changed is not None and not replaced:
        return Behind("data", changed, "look at what the network is given since", False)
    if _was_well(history, first) and verdict in TOO_SMALL | {"dead_units", "saturated"}:
        if category == "learning rate":
            return None
        words = f"the loss had come down to {history.lowest_loss:.3g} before"
        size = history.size_over_lowest
        if thrown or history.rates.raised_for or not 1 / RESIZED <= size <= RESIZED:
            return Behind("learning rate", words, remedies.remedy(verdict, "learning rate"), False)
        return Behind("relapse", words, remedies.REMEDIES["relapse"], False)
    inputs = of_inputs(first, verdict, history.view)
    mark = history.trail.first if verdict in TOO_LARGE else history.trail.now
    # An absolute error's gradient does not grow with it.
    targets = target.beyond(history, mark) if target.is_squared(history) else None
    what = {"inputs": inputs, "targets": targets}
    if not any(what.values()):
        named = verdict in TOO_LARGE and category != "initialisation"
        return _of_weights(history, first) if named else None
    scaled = " and ".join(name for name, words in what.items() if words)
    words = "; ".join(filter(None, what.values()))
    return Behind("data", words, SCALE_WORDS.format(scaled))


def _was_well(history: History, first: View) -> bool:
    """Whether a network was drawn so that signal and gradient kept their size, and learnt much."""
    began = history.first_loss
    learnt = 0 < history.lowest_loss <= LEARNT_LOSS * began and history.steps >= PATIENCE_STEPS
    kept = first.output_signal, first.flow_ratio, 10 * first.forward_ratio
    return learnt and min(kept) >= WELL and max(kept[1:]) <= SCALE


def _of_changed_inputs(first: View, now: View | None, verdict: str, most: float) -> str | None:
    """What it is about inputs that are others now than at the start, such as `most` times as large;
    None if they are not, or not to blame."""
    if now is None:
        return None
    # Of zeros throughout no share depends on anything.
    same = not now.input_signal > 0 and (now.input_signal == 0 or now.input_rms == 0)
    if verdict in TOO_SMALL | {"dead_units"} and same and first.input_signal > 0:
        return f"the inputs are the same for every sample now (RMS {now.input_rms:.3g})"
    times = now.input_rms / first.input_rms if first.input_rms > 0 else math.nan
    if verdict in TOO_LARGE | TOO_SMALL and (times >= most or 0 < times <= CHANGED**-3):
        return f"the inputs are {times:.1g} times as large as at the start"
    return None


def _of_weights(history: History, view: View) -> Behind | None:
    """A layer whose weights make far more of what it is given than those of any that is drawn for
    its size, or all layers together."""
    if history.first_parameters != history.record.parameters:
        return None
    gain_of = weight_gains(history.first_parameters, history.record.shapes, history.first_sizes)
    rms = [view.input_rms, *view.rms.tolist()]
    for name, (before, after) in zip(view.names, pairwise(rms), strict=True):
        gain = gain_of.get(f"{name}.weight", 0.0)
        if gain >= TALL and after >= JUMP * before > 0:
            words = f"{name} makes {after / before:.1g} times as much of what it is given at first"
            return Behind("initialisation", words, remedies.REMEDIES["initialisation"], True, name)
    large = median(gain_of.values() or [0.0]) >= LARGE or view.forward_ratio >= JUMP
    if view.forward_ratio >= SCALE and large:
        words = f"the output starts {view.forward_ratio:.1g} times as large as the input"
        return Behind("initialisation", words, remedies.REMEDIES["initialisation"])
    return None


def of_inputs(view: View, verdict: str, now: View | None = None) -> str | None:
    """What it is about the network's inputs that leads to such a verdict, by the first view of it
    and that of now; None where they are not to blame. With the targets the only place where a size
    itself counts, besides underflow: start values and rates are made for inputs of about 1 (LeCun
    et al. 1998, Efficient BackProp).
    """
    size, given = view.input_rms, view.input_signal
    least = next((s for s in view.signal.tolist() if not math.isnan(s)), math.nan)
    if now is not None and verdict != "dead_units":  # which leave no signal of any input
        least = min(least, now.output_signal)  # biases may have started at zero
    if verdict in TOO_LARGE | TOO_SMALL and size >= SCALE:
        return too_large(view)
    if verdict in TOO_SMALL | TOO_LARGE and 0 < given <= 1 / SCALE**2:
        return f"only {given:.1g} of the inputs depends on the sample: their mean is all there is"
    tiny = 0 < size <= 1 / SCALE and least <= 1 / SCALE < given
    if verdict in TOO_SMALL | {"dead_units"} and tiny:
        return f"the inputs have an RMS of {size:.1g}; beside that the biases are all there is"
    return None


def dropped(view: View) -> list[float]:
    """The shares of values that the dropouts take."""
    if not view.order.drops:
        return []
    own = view.order.rows.tolist()
    rows = [0, *own] if view.has_input else own
    zeros, sizes = view.table.zero_fraction[rows].tolist(), view.table.rms[rows].tolist()
    kinds = [view.table.kinds[row] for row in rows]
    shares = []
    for at, kind in enumerate(kinds[1:], 1):
        if kind in DROPOUTS and zeros[at - 1] < 1 and sizes[at] > 0:
            # It may be given something else than what the layer before put out; what it leaves of
            # that it multiplies by 1 / (1 - share).
            of_zeros = 1 - (1 - zeros[at]) / (1 - zeros[at - 1])
            of_size = sizes[at - 1] / sizes[at]
            shares.append(min(of_zeros, 1 - of_size * of_size))
    return shares


def too_much_dropped(view: View) -> str | None:
    """What dropouts take, if one leaves too little or all that take nearly half and more do."""
    shares = dropped(view)
    if max(shares, default=0.0) >= DROPPED:
        return f"dropout takes {max(shares):.0%} of what a layer puts out"
    left = [1 - share for share in shares if share >= HALF_DROPPED]
    if math.prod(left) > LEFT_BY_ALL:
        return None
    return f"{len(left)} dropouts take {1 - sum(left) / len(left):.0%} each"


def too_large(view: View) -> str | None:
    """How large the inputs are, if they are too large for start values and rates, and a module
    without weights that takes them first does not make less of them."""
    if not view.input_rms >= SCALE:
        return None
    has_weights = {*view.names[:1]} <= {*map(owner, view.parameters)}
    return _of_size(view, 1) if has_weights or view.rms[0] >= SCALE else None


def too_small(view: View) -> str | None:
    """The same of inputs that are far too small: of others networks learn, slowly."""
    return _of_size(view, 2) if 0 < view.input_rms <= 1 / SCALE**2 else None


def scales(history: History, first: View) -> str | None:
    """What of a squared loss' targets, or of the inputs, is on a scale that nothing is made for,
    where hardly a tenth of what there is to explain was, half way and at last."""
    looks = history.trail.until(history.first_step + history.steps / 2), history.trail.now
    varies = [mark.output * mark.signal for mark in looks]
    half, now = (target.distance(mark) for mark in looks)
    little = varies[0] <= EXPLAINS_LITTLE * half and varies[1] <= EXPLAINS_LITTLE * now
    # What does not become more and is a part of the errors may be all that there is beside noise.
    less = standstill.fits_some(history) and varies[1] * half < MORE * varies[0] * now
    if not (little and target.is_squared(history)) or less:
        return None
    away = min(half, now)
    far = f"the targets are {away:.2g} away from the output" if away >= target.FAR_TARGET else None
    return far or too_large(first) or too_small(first)


def _of_size(view: View, first: int) -> str | None:
    if "Norm" in "".join(view.kinds[:first]):
        return None  # what normalises first is made for any size
    return f"the inputs have an RMS of {view.input_rms:.3g}; start values and rates are made for 1"
