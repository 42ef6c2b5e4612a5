"""May a signal that is lost still come back, and for how long is that waited for?"""

from __future__ import annotations

import numpy as np

from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
FLOOR = 4  # roundings above which a signal can be told from them
SETTLED = 2 * PATIENCE_STEPS  # steps after which one look is enough


def lost(view: View, thresholds: Thresholds) -> bool:
    """Whether hardly anything of the output depends on the sample, and hardly any gradient reaches
    the first layers."""
    return bool(
        view.output_signal <= thresholds.lost_signal and view.flow_ratio <= thresholds.lost_gradient
    )


def is_faint(view: View, thresholds: Thresholds) -> bool:
    """Whether signal and flow are together as weak as where both are lost, each within a tenth."""
    signal, flow = view.output_signal, view.flow_ratio
    product = thresholds.lost_signal * thresholds.lost_gradient
    each = signal <= 10 * thresholds.lost_signal and flow <= 10 * thresholds.lost_gradient
    return bool(each and signal * flow <= product)


def is_rounding(view: View, times: float = 1.0) -> bool:
    """Whether what is left of the signal is no more than rounding, or so many times that."""
    rounding = ROUNDING.get(view.table.dtypes[-1], ROUNDING["float32"])
    return view.output_signal <= times * FLOOR * rounding


def first_layers_update(history: History) -> float:
    """The median update ratio of the first half of the matrices; NaN without."""
    known = history.updates[~np.isnan(history.updates)]
    return float(np.median(known[: max(1, len(known) // 2)])) if len(known) else np.nan


def largest_update(history: History) -> float:
    """The update ratio of the matrix that the newest step moved most; NaN without."""
    return float(np.fmax.reduce(history.updates, initial=np.nan))


def had_its_way(history: History, thresholds: Thresholds) -> bool:
    """Whether the weights have come far enough for a recovery, or had the steps for it in vain."""
    enough = history.budget >= 0.8 * thresholds.moved_path
    return history.path >= thresholds.moved_path or history.record.step >= SETTLED and enough


def doublings(history: History, thresholds: Thresholds, of_signal: bool = True) -> float:
    """How often the way has to double until signal or flow are no longer lost.

    `of_signal` is false where the first layers stand still: the last ones can make more of a signal
    that those are not told of.
    """
    flow = history.doublings_of_flow(thresholds.lost_gradient)
    signal = history.doublings_of_signal(thresholds.lost_signal)
    return min(flow, signal) if of_signal else flow


def is_awaited(history: History, view: View, thresholds: Thresholds) -> bool:
    """Whether weights still follow what is left of the signal, however little that is.

    As long as it is more than rounding it has a direction; and it seems to where it grows. Adaptive
    optimizers take steps of one size in it, others steps of its size: enough where the first layers
    do not stand still.
    """
    followed = not is_rounding(view, 10)
    if history.adaptive:
        followed |= doublings(history, thresholds) <= 2 * thresholds.recovery_doublings
        return history.steps < (2 if followed else 1) * PATIENCE_STEPS
    moving = first_layers_update(history) > thresholds.starved_update
    return followed and moving and history.steps < PATIENCE_STEPS
