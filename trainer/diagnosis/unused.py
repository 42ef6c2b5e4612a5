"""Is there a parameter that is trained and gets no gradient, or zeros only?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import compress

import numpy as np

from trainer.diagnosis import standstill
from trainer.diagnosis.history import History
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import Array
from trainer.diagnosis.way import SAME, matrices
from trainer.record import StepRecord, owner


def unused_parameter(history: History, thresholds: Thresholds) -> Symptom | None:
    """A parameter that is trained gets no gradient; an alarm where the layers that the data pass
    first are cut off from the loss, or all are, or half of the matrices where nothing is learnt."""
    record = history.record
    given = {*record.gradients.names}
    if given.issuperset(record.parameters):
        return None
    before = history.before or record
    # Between looks that are farther apart it may have had its turn, which is seen now and then.
    goes_on = "unused_parameter" in history.raised and not history.first_update > 0
    sure = record.step == before.step + 1 or goes_on
    if not given and sure and _is_moved_outside(record, before):
        return Symptom(
            "unused_parameter", "warning", None, "outside",
            "no parameter has a gradient where the step begins and none is updated in it, yet they "
            "move: the update comes before it, and zero_grad",
            {"parameters": len(record.parameters)}, sightings=3, confidence=0.9,
        )  # fmt: skip
    moved = _moved(record, before.parameters, before.parameter_rms)  # since the look before
    unused = [name for name in record.parameters if name not in given | moved]
    if not unused:
        return None
    if not given:
        still = np.array_equal(record.parameter_rms, history.first_sizes)
        if not (still and math.isfinite(record.loss) and record.loss):
            return None  # somebody moves them all the same, or there is nothing yet to learn
        return Symptom(
            "unused_parameter", "critical", None, "detached",
            f"none of {len(unused)} parameters gets a gradient: there was no backward pass, the "
            "loss does not hang on them, or zero_grad came between it and the step",
            {"parameters": len(unused)}, sightings=3, confidence=0.99,
        )  # fmt: skip
    cut = _cut_off(history, {*unused})
    known = compress(record.parameters, matrices(record.shapes).tolist())
    ever = given | _moved(record, history.first_parameters, history.first_sizes)
    got = [name in ever for name in known]
    missed = standstill.in_vain(history) and 2 * sum(got) <= len(got)
    words = f"{len(unused)} of {len(record.parameters)} parameters get no gradient"
    return Symptom(
        "unused_parameter",
        "warning" if cut or missed else "info",
        cut or unused[0],
        "detached" if cut or missed else "unused",
        f"{words}, and nothing is learnt" if missed and not cut else words,
        {"parameters": len(unused)},
        sightings=3,
    )


def _is_moved_outside(record: StepRecord, before: StepRecord) -> bool:
    """Whether the weights are others than a look before, which left them as they were, as this."""
    if record.parameters != before.parameters or record.step == before.step:
        return False
    looks = (before.unchanged_fraction, record.unchanged_fraction)
    stands = all(bool((unchanged == 1).all()) for unchanged in looks)
    return stands and not np.array_equal(record.parameter_rms, before.parameter_rms)


def lost_gradients(history: History) -> bool:
    """Whether all gradients are zero throughout, or that of a matrix that has been moved."""
    record, is_zero = history.record, history.record.gradients.is_zero
    if is_zero.all() or not is_zero.any():
        return bool(is_zero.size and is_zero[0])
    lost = {*compress(record.gradients.names, is_zero.tolist())}
    matrix = {*compress(record.parameters, matrices(record.shapes).tolist())}
    return bool(lost & matrix & _moved(record, history.first_parameters, history.first_sizes))


def _moved(record: StepRecord, names: Sequence[str], sizes: Array) -> set[str]:
    """The parameters that are not as they were then, as those of heads and experts that are used in
    turns are not."""
    if record.parameters != names:
        return set()
    return {*compress(names, abs(record.parameter_rms - sizes) > SAME * sizes)}


def _cut_off(history: History, unused: set[str]) -> str | None:
    """The last of the first layers if the data pass all of them and no gradient comes back."""
    view = history.view or history.first_view
    if view is None:
        return None
    last = None
    for name in view.names:
        own = {p for p in history.record.parameters if owner(p) == name}
        if own and own <= unused:
            last = name
        elif own:
            break
    return last
