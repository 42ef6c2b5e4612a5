"""Are the units of a layer copies of each other? Their gradients tell, without the weights."""

from __future__ import annotations

from itertools import compress

import numpy as np

from trainer.diagnosis import standstill
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.record import COUNT, ZEROS

UNITS = 4  # of which fewer may agree by chance
UNIT_LOSS = 0.5  # of the first losses: what a single unit can often do
SIGHTINGS = 5  # in a row, which chance does not bring


def symmetric_units(history: History, thresholds: Thresholds) -> Symptom | None:
    """All units of a layer began with the same weights, so that all get the same gradient and stay
    one, or layers that are factors of each other began as zeros, so that none gets any gradient.

    Units that are one: each bin of the histogram of a matrix's gradient holds a multiple of the
    number of its rows, which chance brings about rarely at one step and hardly ever at five. To
    break the symmetry is what start values are drawn for (Goodfellow et al. 2016, Deep Learning,
    8.4). An alarm where the loss does not fall, or does not get far in as many steps.
    """
    record = history.record
    table = record.gradients
    if table.histograms is None or history.alike is not None and not history.alike:
        return None  # units that were told apart once stay so
    shapes = dict(zip(record.parameters, record.shapes, strict=True))
    zero = {*compress(record.parameters, record.parameter_rms == 0)}
    alike = []
    for row, name in enumerate(table.names):
        shape = shapes.get(name, ())
        told = history.alike is not None and name not in history.alike
        if told or len(shape) < 2 or shape[0] < UNITS:
            continue
        counts, zeros = table.histograms[row], table.moments[row, ZEROS]
        same = not np.any(counts[counts > 0] % shape[0]) and zeros % shape[0] == 0
        if same and (counts.any() or name in zero and zeros == table.moments[row, COUNT]):
            alike.append(name)
    history.alike = alike
    if not alike:
        return None
    slow = history.steps >= 3 * PATIENCE_STEPS
    # What is zero may be meant to start later, by a factor that is zero until then.
    slow = slow and not zero.issuperset(alike)
    slow = slow and history.recent_loss >= UNIT_LOSS * history.first_loss > 0
    return Symptom(
        "symmetric_units",
        "warning" if slow or standstill.in_vain(history) else "info",
        alike[0],
        "initialisation",
        f"{alike[0]} is zero and gets no gradient"
        if zero.issuperset(alike)
        else f"all units of {len(alike)} layers get the same gradient: their weights began the "
        "same, or nothing that they are given or asked for tells them apart",
        {"symmetric_layers": len(alike)},
        sightings=SIGHTINGS,
    )
