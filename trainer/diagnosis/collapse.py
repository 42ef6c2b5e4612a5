"""Does an output come out minute, from the start on or since the weights have shrunk?"""

from __future__ import annotations

import math

from trainer.diagnosis import blame, recovery, standstill
from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

TENTH = 0.1  # of an output


def signal_collapse(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output is minute beside the input from the start; and signal and gradient get lost and
    stay so once the weights have had their way, or no weight moves, or it stays as minute and the
    loss as it was. No alarm while they are awaited or on their way back."""
    first, view = history.first_view, history.view
    if first is None or view is None or view is first:
        return None
    if recovery.has_faded_away(history):
        return _faded_away(history)
    if recovery.shrinks(history, first, view):
        return _shrunk(history, first, view)
    ratio, signal = first.forward_ratio, view.output_signal
    if first.normalised or first.dead_row is not None:
        return None
    if not 0 < ratio <= thresholds.collapsed_forward:
        return None
    rounding = recovery.is_rounding(view) and view.flow_ratio <= thresholds.lost_gradient / 10
    judged = rounding or recovery.had_its_way(history, thresholds)
    lost = judged and recovery.lost(view, thresholds)
    small = standstill.in_vain(history) and view.forward_ratio <= thresholds.collapsed_forward
    if not (lost or small or recovery.largest_update(history) <= thresholds.starved_update):
        return None
    returns = recovery.doublings(history, thresholds) <= thresholds.recovery_doublings
    if lost and returns and "signal_collapse" not in history.raised:
        return None
    found = blame.attenuation(first, history.record, first)
    waits = recovery.is_awaited(history, view, thresholds)
    return Symptom(
        "signal_collapse",
        "info" if waits or lost and returns else "warning" if history.is_early else "critical",
        found.where,
        "initialisation",
        f"the output starts with {ratio:.1g} of the size of the input",
        {"forward_ratio": ratio, "output_signal_fraction": signal},
    )


def _faded_away(history: History) -> Symptom:
    left, lowest = history.size_over_lowest, history.lowest_loss
    return Symptom(
        "signal_collapse", "warning", None, "decay",
        f"what was learnt is gone: the weights have shrunk to {left:.1g} of what they were when "
        f"the loss was {lowest:.3g}: a weight decay or a penalty outweighs the loss",
        {"weights_over_lowest": left, "lowest_loss": lowest, "loss": history.loss}, sightings=1,
    )  # fmt: skip


def _shrunk(history: History, first: View, view: View) -> Symptom:
    left = view.forward_ratio / first.forward_ratio if first.forward_ratio > 0 else math.nan
    gone = (
        f"and the output to {left:.1g}"
        if left <= TENTH
        else "and the loss stays where it was half of the steps ago"
    )
    return Symptom(
        "signal_collapse", "warning", None, "decay",
        f"the weights have shrunk to {history.size_over_start:.1g} of what they began with, "
        f"{gone}: a weight decay or a penalty outweighs the loss",
        {"weights_over_start": history.size_over_start, "output_over_start": left},
        sightings=1,
    )  # fmt: skip
