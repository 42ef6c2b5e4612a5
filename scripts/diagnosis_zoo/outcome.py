"""How a run ended: did it learn?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from diagnosis_zoo.program import Program, Trace
from diagnosis_zoo.tasks import TASKS

Label = Literal["healthy", "sick", "between"]

LEARNT, NOT_LEARNT = 0.2, 0.05  # shares of the way from the constant prediction to the best loss
MIDDLE_LEARNT = 0.05  # of the same way, in the middle of a healthy run
UNITS = {"guard/loss-large": 1e6, "guard/loss-small": 1e-4}  # what its loss is multiplied by


def task_of(name: str) -> str:
    """The task that a program is named after; its own name when it has a task of its own."""
    if name.startswith("circle/"):
        return "circle"
    named = [task for task in TASKS if f"-{task}-" in name]
    return max(named, key=len, default=name)


def middle(trace: Trace) -> float:
    """The median loss around the middle of a run, in the units of its end; NaN if not seen."""
    scale = next((s for name, s in UNITS.items() if trace.program.startswith(name)), 1.0)
    low, high = 0.4 * trace.steps, 0.6 * trace.steps
    losses = [record.loss / scale for record in trace.records if low <= record.step <= high]
    return float(np.median(losses)) if losses else math.nan


def best_losses(ends: Iterable[tuple[str, float, float]]) -> dict[str, float]:
    """The best final loss on each task, of (program's name, final, constant).

    At most half of the constant prediction's: a task on which nobody gets anywhere is no success.
    """
    best: dict[str, float] = {}
    for name, final, constant in ends:
        reached = [loss for loss in (final, constant / 2) if math.isfinite(loss)]
        best[task_of(name)] = min(best.get(task_of(name), math.inf), *reached, math.inf)
    return best


def progress(name: str, loss: float, constant: float, best: Mapping[str, float]) -> float:
    """How far the loss came from the constant prediction (0) to the best (1); NaN without one."""
    return (constant - loss) / (constant - best[task_of(name)])


def label(program: Program, final: float, made: float, half_way: float) -> Label:
    """Healthy if it trains, sick if it does not, by the progress made at the end and half way."""
    if not math.isfinite(final):
        return "sick"
    if math.isnan(made):  # no constant prediction to compare with
        return "healthy" if program.reaches is not None and final <= program.reaches else "between"
    if made <= NOT_LEARNT:
        return "sick"
    early = math.isnan(half_way) or half_way >= MIDDLE_LEARNT
    return "healthy" if made >= LEARNT and early else "between"
