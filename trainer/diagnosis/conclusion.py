"""What is to be said of a run that has ended without having learnt?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trainer.diagnosis import blame, overconfidence
from trainer.diagnosis.behind import SCALE
from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import FLOW, IN_TIME, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.through_time import UNGATED
from trainer.diagnosis.trail import Mark
from trainer.diagnosis.view import View

HALF_WEIGHTS = 0.5  # of the weights with which the loss was lowest
FORGETS = 3e-3  # of the gradient at the last steps of a sequence gets to the first ones
UNREACHED = 1e-4  # of the gradient of the last layer


class End(NamedTuple):
    """What is known of a run's end."""

    steps: int  # in all
    loss: float  # the lowest of that of the last ones and those of the newest records
    last: float  # of the last ones alone


def why(history: History, first: View, end: End, thresholds: Thresholds) -> Symptom:
    """Of a classifier that guesses: an output that was too large, signal or gradient lost half way
    through, a branch or the start of a sequence that gets none, else no way or none
    that led anywhere."""
    if first.forward_ratio >= SCALE:
        return too_large(history, first, end, "the loss of a guess")
    half = history.trail.until(history.first_step + end.steps / 2)
    least = thresholds.lost_signal * overconfidence.varying(first)
    lost = half.signal / least, half.flow_ratio / thresholds.lost_gradient
    # One of them is, or most of both; NaN is neither.
    if lost[0] <= 2 or lost[1] <= 1 or all(times <= 20 for times in lost):
        return faint(history, first, end, half)
    row = _unreached(history, first)
    if row is not None:
        return _out_of_reach(history, first, end, row)
    words = f"the run ended after {end.steps} steps with the loss of a guess"
    evidence = {"path": history.path}
    verdict, where, category = "stalled", None, "stalled"
    if _forgets(history, first, thresholds):
        verdict, where = "vanishing", first.recurrent
        category = "memory" if first.order.gated else "recurrence"
        words += "; the gradient at the first steps of the sequence was "
        words += f"{first.time_ratio:.1g} of that at the last ones"
        evidence[IN_TIME] = first.time_ratio
    elif history.path < thresholds.moved_path:
        verdict, category = "starved_update", "learning rate"
        words += f", and no weight matrix has moved by more than {history.path:.1g} of its size, "
        words += "which is too little to learn much"
    elif history.largest_update >= thresholds.thrown_update:
        category = "learning rate"
    return Symptom(verdict, "warning", where, category, words, evidence)


def blown_up(history: History, first: View, end: End, nats: float) -> Symptom:
    """Of a classifier that was sure and wrong, and is worse than a guess by so many nats."""
    found = blame.amplification(first, history.record)
    return Symptom(
        "signal_blow_up", "warning", found.where, found.category,
        f"the output started {first.forward_ratio:.1g} times as large as the input and was sure "
        f"and wrong; the run ended after {end.steps} steps with a loss of {nats:.2g} nats a "
        "sample, worse than that of a guess",
        {"forward_ratio": first.forward_ratio, "nats_a_sample": nats},
    )  # fmt: skip


def faint(history: History, first: View, end: End, mark: Mark) -> Symptom:
    """Of signal and gradient that were faint at that look."""
    found = blame.attenuation(first, history.record, first)
    return Symptom(
        "vanishing", "warning", found.where, found.category,
        f"the run ended after {end.steps} steps without having learnt; at step {mark.step} "
        f"{mark.signal:.1g} of the output depended on the sample, and gradient times output at "
        f"the first layers was {mark.flow_ratio:.1g} of that at the last ones",
        {"output_signal_fraction": mark.signal, FLOW: mark.flow_ratio,
         "path": history.path},
    )  # fmt: skip


def lost(history: History, first: View) -> Symptom:
    """Of a classifier that had learnt, and has lost its signal: by a decay, if weights have shrunk
    since."""
    mark, most = history.trail.now, max(history.trail.marks, key=lambda mark: mark.signal)
    where, left = blame.attenuation(first, history.record, first).where, history.size_over_lowest
    words = f"; since then the weights have shrunk to {left:.1g} of their size"
    shrunk = words if left <= HALF_WEIGHTS else ""
    return Symptom(
        "vanishing", "warning", where, "decay" if shrunk else "relapse",
        f"what was learnt is gone: {most.signal:.1g} of the output depended on the sample at step "
        f"{most.step} and {mark.signal:.1g} at step {mark.step}; the loss was "
        f"{history.lowest_loss:.3g} and is that of a guess{shrunk}",
        {"output_signal_fraction": mark.signal, "lowest_loss": history.lowest_loss},
    )  # fmt: skip


def badly_scaled(history: History, end: End, scales: str) -> Symptom:
    """Of targets or inputs on another scale than start values and rates are made for."""
    mark = history.trail.now
    return Symptom(
        "stalled", "warning", None, "data",
        f"the run ended after {end.steps} steps without having learnt; {scales}, and an RMS of "
        f"{mark.output * mark.signal:.2g} of the output depends on the sample",
        {"output_signal_fraction": mark.signal, "output_rms": mark.output, "path": history.path},
    )  # fmt: skip


def unheard(history: History, first: View, end: End) -> Symptom:
    """Of an output of which hardly any has depended on the sample."""
    then, mark = history.trail.first, history.trail.now
    return Symptom(
        "signal_collapse", "warning", blame.attenuation(first, history.record, first).where,
        "initialisation",
        f"the run ended after {end.steps} steps without having learnt; what of the output depends "
        f"on the sample had an RMS of {then.output * then.signal:.1g} at first and "
        f"{mark.output * mark.signal:.1g} at step {mark.step}",
        {"output_signal_fraction": mark.signal, "output_rms": mark.output, "path": history.path},
    )  # fmt: skip


def cut_off(history: History, first: View, end: End, thrown: bool) -> Symptom:
    """Of first layers that got next to no gradient, behind which the last ones learnt a little,
    where weights were `thrown` none since."""
    found, mark = blame.attenuation(first, history.record, first), history.trail.now
    return Symptom(
        "vanishing", "warning", found.where, "learning rate" if thrown else found.category,
        f"the run ended after {end.steps} steps with a loss of {end.loss:.3g}, "
        f"{history.first_loss:.3g} at first; gradient times output at the first layers "
        f"was {history.trail.first.flow_ratio:.1g} of that at the last ones at first and "
        f"{mark.flow_ratio:.1g} at step {mark.step}",
        {FLOW: mark.flow_ratio, "path": history.path},
    )  # fmt: skip


def shut_out(history: History, first: View, end: End) -> Symptom:
    """Of first layers that got a gradient of exactly zero, which ends at one place."""
    row = first.barrier or 0
    return Symptom(
        "vanishing", "warning", first.names[row], "activation",
        f"the run ended after {end.steps} steps with a loss of {end.loss:.3g}, "
        f"{history.first_loss:.3g} at first; {first.kinds[row]} lets no gradient pass, "
        f"and what comes before it has not moved at all",
        {"path": history.path, "unmoved_layers": row},
    )  # fmt: skip


def grown(history: History, first: View, end: End) -> Symptom:
    """Of a gradient that grows over a sequence or over depth, in a network that explains little."""
    view, found = history.view or first, blame.amplification(first, history.record)
    over_time = first.recurrent is not None
    ratio = view.largest_time_ratio if over_time else view.flow_ratio
    what = "the gradient at the first steps of the sequence"
    what = what if over_time else "gradient times output at the first layers"
    return Symptom(
        "exploding", "warning", first.recurrent if over_time else found.where,
        "recurrence" if over_time else found.category,
        f"the run ended after {end.steps} steps without having learnt; {what} is "
        f"{ratio:.1g} times that at the last",
        {IN_TIME if over_time else FLOW: ratio, "path": history.path},
    )  # fmt: skip


def forgetful(history: History, first: View, end: End) -> Symptom:
    """Of a recurrent network that got no gradient at the first steps of its sequences."""
    ratio = history.trail.now.time_ratio
    return Symptom(
        "vanishing", "warning", first.recurrent, "memory" if first.order.gated else "recurrence",
        f"the run ended after {end.steps} steps without having learnt; the gradient at the first "
        f"steps of the sequence was {first.time_ratio:.1g} of that at the last ones at first and "
        f"{ratio:.1g} at step {history.trail.now.step}",
        {IN_TIME: ratio, "path": history.path},
    )  # fmt: skip


def unmoved(history: History, first: View, end: End, thresholds: Thresholds) -> Symptom:
    """Of a loss that is what it was, because weights have not moved, or although they have."""
    words = (
        f"the run ended after {end.steps} steps with the loss that it began with to a thousandth"
    )
    if history.path < thresholds.moved_path / 3:
        words += f", and no weight matrix has moved by more than {history.path:.1g} of its size"
        return Symptom(
            "starved_update", "warning", None, "learning rate", words, {"path": history.path}
        )
    return Symptom(
        "signal_collapse", "warning", blame.attenuation(first, history.record, first).where,
        "initialisation",
        f"{words}, although weights have moved by {history.path:.1g} of their size: what they make "
        "hardly reaches it",
        {"path": history.path, "gradient_norm": history.record.gradient_norm},
    )  # fmt: skip


def too_large(history: History, first: View, end: End, left: str = "little learnt") -> Symptom:
    """Of an output that began too large, and what is `left` since."""
    found = blame.amplification(first, history.record)
    return Symptom(
        "signal_blow_up", "warning", found.where, found.category,
        f"the output started {first.forward_ratio:.1g} times as large as the input, and the run "
        f"ended after {end.steps} steps with {left}",
        {"forward_ratio": first.forward_ratio, "first_loss": history.first_loss},
    )  # fmt: skip


def _forgets(history: History, first: View, thresholds: Thresholds) -> bool:
    """Whether the first steps of a sequence got next to no gradient at first; or little, at first
    and at last, where the weights have come far by updates that threw none of them away."""
    came_far = history.path >= thresholds.moved_path
    well = came_far and history.largest_update < thresholds.thrown_update
    little = well and history.trail.now.time_ratio <= FORGETS
    return first.time_ratio <= (FORGETS if little else thresholds.lost_in_time * UNGATED)


def _unreached(history: History, first: View) -> int | None:
    """The first layer that got hardly any gradient, at first and at the newest look, while others
    of the first ones did: one of a branch; None without."""
    view = history.view if history.view is not None else first
    if view.names != first.names or not min(first.gradient_rms[-1], view.gradient_rms[-1]) > 0:
        return None
    shares = (each.gradient_rms / each.gradient_rms[-1] for each in (first, view))
    lost = np.fmax(*shares) <= UNREACHED
    return int(np.argmax(lost)) if lost.any() else None


def _out_of_reach(history: History, first: View, end: End, row: int) -> Symptom:
    share = float(first.gradient_rms[row] / first.gradient_rms[-1])
    return Symptom(
        "vanishing", "warning", first.names[row],
        blame.attenuation(first, history.record, first).category,
        f"the run ended after {end.steps} steps with the loss of a guess; {first.names[row]} got "
        f"{share:.1g} of the gradient of the last layer from the start",
        {"gradient_over_last": share, "path": history.path},
    )  # fmt: skip
