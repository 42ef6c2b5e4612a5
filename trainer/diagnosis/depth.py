"""Does the signal reach the output, and the gradient the first layer, or do they die?"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import compress
from typing import NamedTuple

from trainer.diagnosis import blame, recovery, returned, standstill
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.order import FEW_LAYERS, RECURRENT, SATURATING
from trainer.diagnosis.recovery import SETTLED_STEPS
from trainer.diagnosis.symptom import FLOW, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.underflow import NARROW
from trainer.diagnosis.view import View
from trainer.diagnosis.way import matrices
from trainer.finding import Level
from trainer.record import StepRecord

ONE_SIGN = 0.2  # of an output depends on the sample: a fifth of its size, mostly
LARGE_BIAS = 2.0  # RMS of an output, which start values make smaller
MOSTLY_BIAS = 0.9  # of the output's size


def vanishing(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output no longer depends on the sample and the first layers get no gradient.

    Both together: a small flow alone is how many healthy networks start. Certain where what is left
    of the signal is rounding; otherwise said when the weights have moved and neither will be back
    soon, when the first layers stand still while the last ones move, or when no matrix moves. Where
    the loss stays, less has to be lost, a third of the way will do if neither comes back, and
    no signal where the first layers stood still all the way or the flow was there at first; of an
    output that is mute, the loss is not asked. No alarm while it is awaited or on its way back, nor
    of an output that is nearly all mean and answers.
    """
    first, view = history.first_view, history.view
    if first is None or view is None or view.dead_row is not None:
        return None
    back = returned.in_vain(history, first, thresholds)
    if back is not None:
        return back
    if not view.flow_ratio <= 10 * thresholds.lost_gradient or standstill.answers(history):
        return None
    signs = _signs(history, first, view, thresholds)
    if signs is None:
        return None
    level = _level(history, first, view, signs, thresholds)
    if level is None:
        return None
    found, consequence = _told(history, first, view, signs, thresholds)
    at_once = signs.mute and history.stays or signs.strong and history.steps >= SETTLED_STEPS
    return Symptom(
        "vanishing",
        level,
        found.where,
        found.category,
        f"gradient times output at the first layers is {view.flow_ratio:.1g} of that at the last"
        f" ones and {consequence}",
        {
            FLOW: view.flow_ratio,
            "output_signal_fraction": view.output_signal,
            "doublings_of_the_way_until_recovery": signs.doublings,
            "path": history.path,
            "first_layers_update_ratio": recovery.first_layers_update(history),
            "activation_gain": found.activation_gain,
            "weight_gain": found.weight_gain,
        },
        sightings=1 if at_once else 2,
        confidence=0.99 if signs.certain else 0.95,
    )


class _Signs(NamedTuple):
    """How signal and flow are lost, of which one way is enough."""

    strong: bool  # hardly any flow is left
    lost: bool  # nor any signal
    alone: bool  # the signal of a single sample, which nobody knows; the loss has to do
    faded: bool  # they were there, or nothing moves them
    given_up: bool
    left_behind: bool  # the first layers
    mute: bool  # the output
    judged: bool  # long enough in any of these ways
    certain: bool  # what is left is rounding
    doublings: float  # of the way until they are back


def _signs(history: History, first: View, view: View, thresholds: Thresholds) -> _Signs | None:
    """None where neither is lost, or not both."""
    steps, ratio = history.steps, view.flow_ratio
    strong = ratio <= thresholds.lost_gradient / 10
    alone = math.isnan(view.output_signal) and steps >= SETTLED_STEPS and history.stuck
    moved = recovery.had_its_way(history, thresholds) or recovery.nothing_moves(history, thresholds)
    lost = recovery.lost(view, thresholds)
    weak = recovery.is_faint(view, thresholds)
    faded = recovery.has_faded(history, first, view, thresholds)
    given_up = recovery.is_given_up(history, thresholds)
    faded = faded or given_up and ratio <= thresholds.lost_gradient
    faded = faded or recovery.is_idle(history, view, thresholds)
    left_behind = ratio <= thresholds.lost_gradient and recovery.left_behind(history, thresholds)
    left_behind = left_behind and (history.stays or weak and moved)
    left_behind = left_behind or recovery.is_cut_off(history, thresholds)
    mute = recovery.is_mute(history, view, thresholds)
    for_good = faded or left_behind or mute  # whatever is to come
    stands_still = for_good or recovery.stands_still(history, thresholds)
    faint = for_good or history.stays and weak and (moved or stands_still)
    if not (lost or faint or alone and strong):
        return None
    # Rounding grows and shrinks without a meaning.
    certain = strong and recovery.is_rounding(view, 10 if "vanishing" in history.raised else 1)
    doublings = recovery.doublings(history, thresholds, of_signal=not stands_still)
    # Nor is the way waited for where it is not leading there.
    nowhere = history.stays and doublings > thresholds.recovery_doublings
    nowhere &= history.path >= thresholds.moved_path / 3 and not history.rate_is_rising
    judged = certain or steps >= 5 and (moved or stands_still or nowhere)
    return _Signs(
        strong, lost, alone, faded, given_up, left_behind, mute, judged, certain, doublings
    )


def _level(
    history: History, first: View, view: View, signs: _Signs, thresholds: Thresholds
) -> Level | None:
    """None while signal and flow may come back and nobody has been told that they are lost."""
    returns = signs.doublings <= thresholds.recovery_doublings and (signs.lost or signs.alone)
    recovers = not signs.judged
    recovers |= not (signs.certain or signs.given_up) and (returns or history.trail.rebounds)
    if recovers and "vanishing" not in history.raised:
        return None
    waits = recovery.is_awaited(history, view, thresholds) or standstill.has_arrived(history)
    waits = waits or _is_outweighed(history, first, thresholds)
    if recovers or waits or history.returns and not (signs.certain or signs.mute):
        return "info"  # a mechanism without its consequence
    hopeless = signs.certain or view.output_signal <= 1e-3
    # Some adaptive optimizers still bring it back.
    return "critical" if hopeless and not history.is_early else "warning"


def _told(
    history: History, first: View, view: View, signs: _Signs, thresholds: Thresholds
) -> tuple[blame.Blame, str]:
    """Where the flow is lost and to what, and what follows in words."""
    consequence = f"{view.output_signal:.1g} of the output depends on the sample"
    if not signs.lost and signs.left_behind:  # what looks like a signal is none
        consequence = "the first ones stand still"
    elif not signs.lost and (signs.alone or signs.faded):
        consequence = "the loss stays"
    found = blame.attenuation(view, history.record, first)
    thrown = history.largest_update >= thresholds.thrown_update
    if signs.left_behind and view.flow_ratio == 0 and view.is_cut and found.category != "memory":
        found = replace(found, category="blocked")
    elif thrown and not recovery.is_faint(first, thresholds):
        found = replace(found, category="learning rate")
    if found.category == "memory":
        count = sum(kind in RECURRENT for kind in view.kinds)
        many = f"{count} gated layers leave little, one after the other"
        shut = f"the gates of {found.where} are shut"
        consequence += f": {shut if count <= FEW_LAYERS else many}"
    return found, consequence


def _is_outweighed(history: History, first: View, thresholds: Thresholds) -> bool:
    """Whether a gated network has just learnt how often each class comes, beside which the rest of
    its output is small for a while: a language model begins with that."""
    early = history.steps < 3 * PATIENCE_STEPS
    answered = first.output_signal >= 10 * thresholds.lost_signal
    return early and answered and first.order.gated


def no_gradient(history: History, thresholds: Thresholds) -> Symptom | None:
    """Every gradient of every weight matrix is exactly zero, and the loss is neither zero nor lower
    than at the start, where that would be the end of training."""
    record, view = history.record, history.view
    if view is None or view.dead_row is not None or "vanishing" in history.raised:
        return None  # of that more is known
    if not record.gradients.is_zero.any() or any(dtype in NARROW for dtype in record.dtypes):
        return None  # in a narrow type they may be too small for it
    is_zero = dict(zip(record.gradients.names, record.gradients.is_zero.tolist(), strict=True))
    sized = zip(record.parameters, record.parameter_rms.tolist(), strict=True)
    known = compress(sized, matrices(record.shapes).tolist())
    sizes = {name: rms for name, rms in known if name in is_zero}
    if not sizes or not all(is_zero[name] for name in sizes):
        return None
    start, row = history.loss_at_start, view.barrier
    fell = history.recent_loss < start - 0.03 * abs(start)
    if fell or not math.isfinite(history.loss) or history.loss == 0:
        return None
    zeros = [name for name, rms in sizes.items() if rms == 0]
    verdict, where, blamed, thrown = "vanishing", None, "blocked", history.largest_update
    if len(zeros) > 1:  # one would get a gradient
        where, blamed = zeros[0], "initialisation"
        cause = f"{len(zeros)} of {len(sizes)} matrices are zero themselves"
    elif thrown >= thresholds.thrown_update and max(history.norms, default=0.0) > 0:
        blamed, cause = "learning rate", f"an update has changed the weights by {thrown:.1g}"
        cause += " of their size, and there was one before"
    elif row is None and _is_its_bias(view, record):
        verdict, where, blamed = "dead_units", view.names[-1], "initialisation"
        cause = f"{where} gives its bias for all samples, of which what follows leaves nothing: "
        cause += "a rectifier?"
    elif row is None:
        cause = "the loss has no derivative by the output that is not zero"
    elif row and not view.rms[row - 1] > 0:
        return None  # nothing comes in
    elif view.kinds[row] in SATURATING:
        verdict, where, blamed = "saturated", view.names[row], "initialisation"
        cause = f"what {view.kinds[row]} is given is at its limit for all samples"
    else:
        where = view.names[row]
        cause = f"{view.kinds[row]}, or what is done before it, lets no gradient pass"
    return Symptom(
        verdict,
        "critical",
        where,
        blamed,
        f"the gradient of every weight matrix is exactly zero: {cause}",
        {"gradient_norm": record.gradient_norm, "loss_over_start": history.loss_rise},
        sightings=3,
        confidence=0.99,
    )


def _is_its_bias(view: View, record: StepRecord) -> bool:
    """Whether all that the last layer gives is about its bias, beside which what differs from
    sample to sample changes no sign."""
    sizes = dict(zip(record.parameters, record.parameter_rms.tolist(), strict=True))
    bias = sizes.get(f"{view.names[-1]}.bias", 0.0)
    large = view.output_rms >= LARGE_BIAS
    return large and view.output_signal <= ONE_SIGN and bias >= MOSTLY_BIAS * view.output_rms
