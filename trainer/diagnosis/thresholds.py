"""Where the diagnosis draws its lines: ratios without a unit, none on the size of a gradient."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Calibrated by scripts/benchmark_diagnosis.py, which also shows what a third and a threefold
    of each would do."""

    lost_gradient: float = 1e-2  # flow at the first layers / at the last ones
    lost_signal: float = 1e-2  # signal fraction of the output
    lost_in_time: float = 1e-9  # gradient at the first steps of a sequence / at the last ones
    moved_path: float = 0.3  # relative way of a weight matrix after which recovery is judged
    recovery_doublings: float = 4.0  # of the way, in which signal or flow are to be back
    starved_update: float = 1e-5  # update ratio below which the first layers stand still
    collapsed_forward: float = 1e-4  # RMS of the output / of the input, at the start
    blown_up_forward: float = 1e3  # the same, the other way
    grown_gradient: float = 1e3  # flow at the first layers / at the last ones
    thrown_update: float = 0.1  # median update ratio that throws weights away
    risen_loss: float = 2.0  # loss / loss at the start
    grown_norm: float = 100.0  # gradient norm / median of those before
    saturated_slope: float = 0.25  # of the largest slope of the activation
    flat_flow: float = 30.0  # flow as above, with saturated layers in between
    unmoved_path: float = 1e-4  # way of the weights up to which they have not moved
