"""Are gradients added to those of the step before?"""

from __future__ import annotations

from itertools import compress

from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds


def accumulating_gradients(history: History, thresholds: Thresholds) -> Symptom | None:
    """Gradients are added to those of the step before: nobody sets them to zero."""
    carried = history.record.carried_gradients
    if not carried > 0:
        return None
    record = history.record
    # Of weights that are zero no update is a share.
    stands = (record.update_ratio == 0) | (record.unchanged_fraction == 1)
    unmoved = {*compress(record.parameters, stands)}
    still = [name for name in record.gradients.names if name in unmoved]
    some = carried < len(record.gradients.names)
    left = len(still) == carried and (some or bool(record.optimizer))
    words = "the gradient of a parameter still holds that of the step before"
    if carried != 1:
        words = f"the gradients of {carried:.0f} parameters still hold those of the step before"
    return Symptom(
        "accumulating_gradients", "critical",
        still[0] if left and some else None, "optimizer" if left else "loop",
        f"{words}, and no optimizer moves {'it' if carried == 1 else 'them'}" if left else words,
        {"carried_gradients": carried, "gradient_norm": history.record.gradient_norm},
        sightings=3,
        confidence=0.99,
    )  # fmt: skip
