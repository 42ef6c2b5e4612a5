"""Which layer, and what in it, makes signal and gradient die or grow: gains, taken apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from trainer.diagnosis.gains import MINUTE, weight_gains
from trainer.diagnosis.order import (
    ACTIVATIONS,
    EXPONENTIALS,
    FEW_LAYERS,
    GATED,
    RECTIFIERS,
    RECURRENT,
    SATURATING,
)
from trainer.diagnosis.view import View
from trainer.record import StepRecord, owner

DOMINANT = 0.4  # share of the whole from which one layer is named alone
# By how much a rectifier that passes half of the values lowers the gradient's RMS; He's start
# values (He et al. 2015, arXiv:1502.01852) make up for exactly that.
RECTIFIER_LOG_GAIN = math.log(math.sqrt(0.5))
FLAT_LOG_GAIN = math.log(0.6)  # of a function that no module tells of: above, it may be a rectifier
STEEP = ("Tanh", "Hardtanh")
FLOODED = 4.0  # RMS of what a tanh is given, whose slope is a thousandth there
LIMIT_LOG_GAIN = 700.0  # any log gain: of what lets nothing through
FAINT_GATES = 0.2  # of what they are given, by the weights of gates, which make half at first
FAINT_LOG_GAIN = math.log(0.01)  # of weights that no module has: nothing comes through them


@dataclass(frozen=True)
class Blame:
    """A layer, a category of cause and the typical gains that say so."""

    where: str
    category: str  # activation, initialisation, normalisation, recurrence or memory (its gates)
    activation_gain: float  # per activation, geometric mean; NaN without
    weight_gain: float  # per layer with weights


def attenuation(view: View, record: StepRecord, first_view: View) -> Blame:
    """Who lowers the gradient most on its way back."""
    gains = first_view.gains
    if view.kinds != first_view.kinds or not (gains > 0).any():
        gains = view.gains
    logs = np.log(np.where(gains > 0, gains, np.nan))
    found = _blame(view, record, logs, -1, cut=gains == 0)
    if found.category == "activation" and _is_flooded(first_view):
        found = replace(found, category="initialisation")
    return found


def amplification(view: View, record: StepRecord) -> Blame:
    """Who raises signal or gradient most."""
    rms = np.where(view.rms > 0, view.rms, np.nan)
    forward = np.concatenate([[np.nan], np.diff(np.log(rms))])
    with np.errstate(divide="ignore"):
        backward = np.log(np.where(view.gains > 0, view.gains, np.nan))
    with np.errstate(invalid="ignore"):
        grows = np.where(np.isnan(backward), forward, np.fmax(forward, backward))
    return _blame(view, record, grows, 1, cut=np.zeros(len(rms), bool))


def _blame(view: View, record: StepRecord, logs: np.ndarray, sign: int, cut: np.ndarray) -> Blame:
    """`logs`: the log gain of each row's module; `sign`: -1 for who lowers, 1 for who raises;
    `cut`: who lets nothing through."""
    known = ~np.isnan(logs)
    is_activation = np.array([kind in ACTIVATIONS for kind in view.kinds])
    rectifies = np.array([kind in RECTIFIERS for kind in view.kinds])
    # What rectifiers take, weights are meant to give back.
    of_activations = np.where(rectifies, logs - RECTIFIER_LOG_GAIN, logs)[known & is_activation]
    of_weights = logs[known & ~is_activation]
    share = len(of_activations) / max(len(of_weights), 1)
    if rectifies.any():
        of_weights = of_weights + RECTIFIER_LOG_GAIN * min(share, 1.0)
    if not len(of_activations):
        activations, weights = _from_parameters(view, record, of_weights)
    else:
        activations, weights = float(np.sum(of_activations)), float(np.sum(of_weights))
    sizes = np.where(known, sign * logs, 0.0)
    sizes[cut] = LIMIT_LOG_GAIN
    row = _place(view, record, sizes)
    recurrent = [i for i, kind in enumerate(view.kinds) if kind in RECURRENT]
    gated = sign < 0 and bool(recurrent) and view.kinds[recurrent[0]] in GATED
    # Of gates what comes after them may be at fault, unless they are most of the network.
    theirs = not gated or len(recurrent) > FEW_LAYERS
    if recurrent and (row in recurrent or not is_activation.any() and theirs):
        category, row = "recurrence", recurrent[0]
        if gated:
            category = "initialisation" if _is_minute(record, view.names[row]) else "memory"
    elif view.normalised and SATURATING.keys().isdisjoint(view.kinds):
        category = "normalisation"
    elif (
        gated
        and not is_activation.any()
        and _is_minute(record, view.names[recurrent[0]], FAINT_GATES)
    ):
        category = "initialisation"
    else:
        # What keeps its size is what would be proposed in its place.
        flattens = not (is_activation.any() and SATURATING.keys().isdisjoint(view.kinds))
        at_fault = flattens if sign < 0 else not EXPONENTIALS.isdisjoint(view.kinds)
        category = "initialisation"
        if sign * activations > sign * weights and at_fault:
            category = "activation"
        elif sign * activations > sign * weights and sign > 0 and view.order.looping is not None:
            category = "recurrence"
    count = max(int((known & is_activation).sum()), 1)
    return Blame(
        view.names[row],
        category,
        float(np.exp(activations / count)) if is_activation.any() else math.nan,
        float(np.exp(np.mean(of_weights))) if len(of_weights) else math.nan,
    )


def _is_minute(record: StepRecord, name: str, most: float = MINUTE) -> bool:
    """Whether the weights of a layer make far less of what they are given than is usual."""
    made = weight_gains(record.parameters, record.shapes, record.parameter_rms)
    own = [gain for parameter, gain in made.items() if owner(parameter) == name]
    return bool(own) and median(own) <= most


def _is_flooded(view: View) -> bool:
    """Whether half of the tanh are given far more than they can tell apart: the weights before them
    are too large."""
    before = [view.input_rms, *view.rms[:-1].tolist()]
    pairs = zip(view.kinds, before, strict=True)
    given = [size for kind, size in pairs if kind in STEEP and not math.isnan(size)]
    return bool(given) and median(given) >= FLOODED


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
    gains = {
        name: math.log(rms * math.sqrt(shape[0] * math.prod(shape[2:])))
        for name, rms, shape in zip(
            record.parameters, record.parameter_rms.tolist(), record.shapes, strict=True
        )
        if len(shape) > 1 and rms > 0
    }
    weights = sum(gains.get(f"{name}.weight", 0.0) for name in view.names[1:])
    weights += sum(
        gain
        for name, gain in gains.items()
        if gain < FAINT_LOG_GAIN and owner(name) not in view.names
    )
    functions, count = float(np.sum(of_layers)) - weights, len(of_layers)
    if count and FLAT_LOG_GAIN <= functions / count <= 0:  # as of rectifiers
        taken = RECTIFIER_LOG_GAIN * count
        functions, weights = functions - taken, weights + taken
    return functions, weights
