"""Are gradients too small for the type that holds them?"""

from __future__ import annotations

import numpy as np

from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.record import COUNT, MAX_ABS, ZEROS

NARROW = {"float16": 2.0**-24, "bfloat16": 2.0**-133}  # the smallest numbers above zero
MOST_ZEROS = 0.5  # of a gradient; and of the gradients of which as much is zero
NEAR_ZERO = 2**11  # times the smallest number: float16's significand, so that all lose digits


def underflow(history: History, thresholds: Thresholds) -> Symptom | None:
    """Gradients of a narrow type that are zero because they are too small for it."""
    record = history.record
    if NARROW.keys().isdisjoint(record.dtypes) or history.loss == 0:
        return None
    given = zip(record.parameters, record.dtypes, record.shapes, strict=True)
    dtypes = {name: dtype for name, dtype, shape in given if len(shape) > 1 and dtype in NARROW}
    names, moments = record.gradients.names, record.gradients.moments
    smallest = np.array([NARROW.get(dtypes.get(name, ""), 0.0) for name in names])
    seen = (smallest > 0) & (moments[:, COUNT] > 0)
    zeros = moments[:, ZEROS] / np.maximum(moments[:, COUNT], 1)
    lost = seen & (zeros >= MOST_ZEROS) & (moments[:, MAX_ABS] < NEAR_ZERO * smallest)
    if not seen.any() or lost.sum() < MOST_ZEROS * seen.sum():
        return None
    worst = int(np.argmax(np.where(lost, zeros, 0)))
    return Symptom(
        "underflow",
        "critical",
        names[worst],
        "dtype",
        f"{zeros[worst]:.0%} of its gradient are zero: smaller than {dtypes[names[worst]]} holds",
        {"zero_fraction": float(zeros[worst]), "parameters": int(lost.sum())},
    )
