"""Are gradients too small for the type that holds them?"""

from __future__ import annotations

from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds

NARROW = {"float16": 2.0**-24, "bfloat16": 2.0**-133}  # the smallest numbers above zero


def underflow(history: History, thresholds: Thresholds) -> Symptom | None:
    """Gradients of a narrow type that are zero because they are too small for it."""
    record = history.record
    if NARROW.keys().isdisjoint(record.dtypes):
        return None
    dtypes = dict(zip(record.parameters, record.dtypes, strict=True))
    shapes = dict(zip(record.parameters, record.shapes, strict=True))
    lost, seen, worst = 0, 0, ("", 0.0)
    for name in record.gradients.names:
        smallest = NARROW.get(dtypes.get(name, ""))
        if smallest is None or len(shapes.get(name, ())) < 2:
            continue
        gradient = record.gradients[name]
        if not gradient.count:
            continue
        seen += 1
        zeros = gradient.zeros / gradient.count
        if zeros >= 0.5 and gradient.max_abs < 2**11 * smallest:
            lost += 1
            worst = max(worst, (name, zeros), key=lambda pair: pair[1])
    if not seen or 2 * lost < seen or history.loss == 0:
        return None
    return Symptom(
        "underflow",
        "critical",
        worst[0],
        "dtype",
        f"{worst[1]:.0%} of its gradient are zero: smaller than {dtypes[worst[0]]} can hold",
        {"zero_fraction": worst[1], "parameters": lost},
    )
