"""Is a classifier no better than a guess? Its gradient tells, on whatever scale its loss is."""

from __future__ import annotations

import math

from trainer.diagnosis.view import View
from trainer.record import StepRecord

LOSS = (0.98, 1.1)  # times that of a guess, for the gradient that is there
EVEN = 0.8  # of the evenness of a guess's gradient: the samples are all as wrong as each other


def classes(view: View, record: StepRecord) -> int | None:
    """How many values the last layer with weights gives for a sample; None where nobody knows."""
    row = view.order.last_with_parameters
    if row is None or "Transpose" in view.kinds[row]:
        return None
    try:
        shape = record.shapes[record.parameters.index(f"{view.names[row]}.weight")]
    except ValueError:
        return None
    return shape[0] if shape else None


def is_a_guess(view: View, record: StepRecord) -> bool:
    """Whether the loss is a cross-entropy that says all C classes are equally likely.

    Its gradient by the output is (p - y) / N for N samples, where p is 1 / C: so the loss over
    √(N · Σ g²) is ln C / √(1 - 1 / C), and (Σ |g|)² / (N · Σ g²) is 4 · (1 - 1 / C); for one
    output (two classes) 2 · ln 2 and 1. A network that has learnt more than that has a lower loss
    for its gradient, and one that is wrong about some samples alone has a less even gradient.
    """
    count = classes(view, record)
    if count is None or not record.loss > 0:
        return False
    row = view.order.last_with_parameters
    values, norm, absolute = view.moments[row, :3].tolist()
    samples = values / count
    if not (norm > 0 and samples >= 2):
        return False
    size = norm * math.sqrt(samples)
    other = 1 - 1 / count
    loss, even = (
        (math.log(count) / math.sqrt(other), 4 * other) if count > 1 else (2 * math.log(2), 1)
    )
    surprise, evenness = record.loss / size / loss, (absolute / size) ** 2 / even
    return bool(LOSS[0] <= surprise <= LOSS[1] and evenness >= EVEN)
