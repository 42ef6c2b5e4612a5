"""Which layer, and what in it, makes signal and gradient die or grow: gains, taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from trainer.diagnosis import remedies, target
from trainer.diagnosis.history import History
from trainer.diagnosis.order import ACTIVATIONS, DROPOUTS, RECTIFIERS, RECURRENT, SATURATING
from trainer.diagnosis.recovery import LEFT
from trainer.diagnosis.view import View
from trainer.record import StepRecord, owner

DOMINANT = 0.4  # share of the whole from which one layer is named alone
# By how much a rectifier that passes half of the values lowers the gradient's RMS; He's start
# values (He et al. 2015, arXiv:1502.01852) make up for exactly that.
HALF = math.log(math.sqrt(0.5))
SCALE = 30.0  # times more than 1, for which start values are made, or less
TOO_LARGE = {"exploding", "signal_blow_up", "learning_rate_too_high", "diverging", "non_finite",
             "dead_units", "saturated"}  # fmt: skip
TOO_SMALL = {"vanishing", "signal_collapse", "constant_output"}
DROPPED = 0.85  # of a layer's output, by a dropout that leaves too little
HALF_DROPPED = 0.45  # nearly, since the share of some values is not that of all
LEFT_BY_ALL = 1e-3  # of the signal, by dropouts that take nearly half and more
REPLACED = {"activation", "initialisation", "learning rate"}  # causes that may have another behind


@dataclass(frozen=True)
class Blame:
    """A layer, a category of cause and the typical gains that say so."""

    where: str
    category: str  # activation, initialisation, normalisation or recurrence
    activation_gain: float  # per activation, geometric mean; NaN without
    weight_gain: float  # per layer with weights


def attenuation(view: View, record: StepRecord, first_view: View) -> Blame:
    """Who lowers the gradient most on its way back."""
    gains = np.where(first_view.gains > 0, first_view.gains, np.nan)
    if view.kinds != first_view.kinds or np.isnan(gains).all():
        gains = np.where(view.gains > 0, view.gains, np.nan)
    return _blame(view, record, np.log(gains), -1)


def amplification(view: View, record: StepRecord) -> Blame:
    """Who raises signal or gradient most."""
    rms = np.where(view.rms > 0, view.rms, np.nan)
    forward = np.concatenate([[np.nan], np.diff(np.log(rms))])
    with np.errstate(divide="ignore"):
        backward = np.log(np.where(view.gains > 0, view.gains, np.nan))
    with np.errstate(invalid="ignore"):
        grows = np.where(np.isnan(backward), forward, np.fmax(forward, backward))
    return _blame(view, record, grows, 1)


def _blame(view: View, record: StepRecord, logs: np.ndarray, sign: int) -> Blame:
    """`logs`: the log gain of each row's module; `sign`: -1 for who lowers, 1 for who raises."""
    known = ~np.isnan(logs)
    is_activation = np.array([kind in ACTIVATIONS for kind in view.kinds])
    rectifies = np.array([kind in RECTIFIERS for kind in view.kinds])
    # What rectifiers take, weights are meant to give back.
    of_activations = np.where(rectifies, logs - HALF, logs)[known & is_activation]
    of_weights = logs[known & ~is_activation]
    share = len(of_activations) / max(len(of_weights), 1)
    if rectifies.any():
        of_weights = of_weights + HALF * min(share, 1.0)
    if not len(of_activations):
        activations, weights = _from_parameters(view, record, of_weights)
    else:
        activations, weights = float(np.sum(of_activations)), float(np.sum(of_weights))
    row = _place(view, record, np.where(known, sign * logs, 0.0))
    recurrent = [i for i, kind in enumerate(view.kinds) if kind in RECURRENT]
    if recurrent and (row in recurrent or not is_activation.any()):
        category, row = "recurrence", recurrent[0]
    elif view.normalised and SATURATING.keys().isdisjoint(view.kinds):
        category = "normalisation"
    else:
        category = "activation" if sign * activations > sign * weights else "initialisation"
    count = max(int((known & is_activation).sum()), 1)
    return Blame(
        view.names[row],
        category,
        math.exp(activations / count) if is_activation.any() else math.nan,
        math.exp(float(np.mean(of_weights))) if len(of_weights) else math.nan,
    )


class Behind(NamedTuple):
    """What is behind a cause."""

    category: str
    words: str
    remedy: str
    is_scale: bool = True  # whether what helps against the cause itself may help as well


def behind(
    history: History, verdict: str, category: str, configuration: Mapping[str, Any] | None
) -> Behind | None:
    """What is behind a cause of that category: weights that a decay has made small, or what the
    network is given; None where it is the cause itself."""
    first = history.first_view
    if category not in REPLACED or first is None:
        return None
    decay = configuration is None or configuration.get("optimizer", {}).get("weight_decay")
    # Nobody knows that of another's loop: there is less to be left.
    left = LEFT**2 if configuration is None else LEFT
    if decay and verdict in TOO_SMALL | {"dead_units"} and history.shrunk <= left:
        words = f"the weights have shrunk to {history.shrunk:.1g} of what they began with"
        return Behind("decay", words, remedies.REMEDIES["decay"])
    taken = too_much_dropped(first)
    if taken is not None and verdict in TOO_SMALL | {"dead_units"}:
        return Behind("dropout", taken, remedies.REMEDIES["dropout"])
    signals = [signal for signal in first.signal.tolist() if not math.isnan(signal)]
    if verdict in TOO_SMALL and first.input_signal == 0 and signals and not any(signals):
        words = "the inputs are the same for every sample"
        return Behind("data", words, "give the network what tells one sample from another", False)
    inputs = of_inputs(first, verdict, history.view)
    mark = history.marks[0] if verdict in TOO_LARGE else history.mark
    targets = target.beyond(history, mark)
    what = {"inputs": inputs, "targets": targets}
    if not any(what.values()):
        return None
    scaled = " and ".join(name for name, words in what.items() if words)
    words = "; ".join(filter(None, what.values()))
    return Behind("data", words, f"scale the {scaled} to a mean of 0 and an RMS of 1")


def of_inputs(view: View, verdict: str, now: View | None = None) -> str | None:
    """What it is about the network's inputs that leads to such a verdict, by the first view of it
    and that of now; None where they are not to blame. With the targets the only place where a size
    itself counts, besides underflow: start values and rates are made for inputs of about 1 (LeCun
    et al. 1998, Efficient BackProp).
    """
    size, given = view.input_rms, view.input_signal
    least = next((s for s in view.signal.tolist() if not math.isnan(s)), math.nan)
    if now is not None:
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
    zeros, rms = view.table.zero_fraction[view.order.rows].tolist(), view.rms.tolist()
    shares = []
    for row in (row for row, kind in enumerate(view.kinds) if row and kind in DROPOUTS):
        if zeros[row - 1] < 1 and rms[row] > 0:
            # It may be given something else than what the layer before put out; what it leaves of
            # that it multiplies by 1 / (1 - share).
            of_zeros = 1 - (1 - zeros[row]) / (1 - zeros[row - 1])
            shares.append(min(of_zeros, 1 - (rms[row - 1] / rms[row]) ** 2))
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
    """How large the inputs are, if they are too large for start values and rates."""
    return _of_size(view, 1) if view.input_rms >= SCALE else None


def too_small(view: View) -> str | None:
    """The same of inputs that are far too small: of others networks learn, slowly."""
    return _of_size(view, 2) if 0 < view.input_rms <= 1 / SCALE**2 else None


def _of_size(view: View, first: int) -> str | None:
    if "Norm" in "".join(view.kinds[:first]):
        return None  # what normalises first is made for any size
    return f"the inputs have an RMS of {view.input_rms:.3g}; start values and rates are made for 1"


def _place(view: View, record: StepRecord, sizes: np.ndarray) -> int:
    """The layer with most of the loss or growth; the first with weights where many share it."""
    total = float(np.maximum(sizes, 0).sum())
    row = int(np.argmax(sizes))
    if sizes[row] >= DOMINANT * total:
        return row
    owners = {*map(owner, record.parameters)}
    return next((row for row, name in enumerate(view.names) if name in owners), row)


def _from_parameters(view: View, record: StepRecord, of_layers: np.ndarray) -> tuple[float, float]:
    """Log gains of functions between layers that no module tells of, and of the weights: a matrix
    of RMS r with n outputs has the gain r·√n on the way back (Glorot and Bengio 2010)."""
    logs = []
    rms = dict(zip(record.parameters, record.parameter_rms.tolist(), strict=True))
    shapes = dict(zip(record.parameters, record.shapes, strict=True))
    for name in view.names[1:]:
        shape = shapes.get(f"{name}.weight", ())
        if len(shape) > 1 and rms[f"{name}.weight"] > 0:
            outputs = shape[0] * math.prod(shape[2:])
            logs.append(math.log(rms[f"{name}.weight"] * math.sqrt(outputs)))
    weights = sum(logs)
    return float(np.sum(of_layers)) - weights, weights
