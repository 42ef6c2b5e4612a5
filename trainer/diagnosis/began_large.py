"""Did a run begin with values that were far too large, and learn little since?"""

from __future__ import annotations

import numpy as np

from trainer.diagnosis import behind, blame, conclusion, overconfidence, standstill, target
from trainer.diagnosis.behind import SCALE, TALL
from trainer.diagnosis.conclusion import End
from trainer.diagnosis.gains import weight_gains
from trainer.diagnosis.history import History
from trainer.diagnosis.overconfidence import LARGE_OUTPUT, MOSTLY_MEAN
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.view import View

LITTLE_BETTER = 0.6  # of the loss of a guess
OWN_ERROR = (0.9, 1.2)  # times what of an output depends on the sample
LARGE_TABLE = 10.0  # RMS of what is looked up, which begins with 1 and less
HARDLY_LEFT = 0.02  # of the first losses
SHRINKS = 0.7  # of what it was half of the steps ago
LARGE_INSIDE = 1e3  # times what a network is given, and times 1
LEFT_SINCE = 0.3  # of the first losses


def why(history: History, first: View, end: End) -> Symptom | None:
    """What was too large: the output, a table of tokens or a layer inside; None without one."""
    if _is_its_own_error(history):
        return _shrinking(history, first, end)
    row = _large_table(history, first, end.loss)
    if row is not None:
        return _table(first, end, row)
    if _is_output(history, first, end):
        return conclusion.too_large(history, first, end)
    row = _inside(history, first, end)
    return None if row is None else _layer(history, first, end, row)


def _is_its_own_error(history: History) -> bool:
    """Whether the errors of a squared loss are what of the output depends on the sample, which
    began ten times as large as it is, still shrinks and is on a scale that nothing is made for.

    Beside noise that much may be all there is to learn; that does not shrink.
    """
    half = history.trail.until(history.first_step + history.steps / 2)
    looks = history.trail.first, history.trail.now, half
    varies = [mark.output * mark.signal for mark in looks]
    shrinks = varies[0] >= LARGE_OUTPUT * varies[1] and varies[1] <= SHRINKS * varies[2]
    if not (target.is_squared(history) and shrinks and varies[1] >= SCALE):
        return False
    return OWN_ERROR[0] <= target.distance(history.trail.now) / varies[1] <= OWN_ERROR[1]


def _large_table(history: History, first: View, loss: float) -> int | None:
    """The layer whose values for tokens began ten times as large as tables do and still are, if it
    is trained, nothing normalises and this loss is a fiftieth of the first ones and more: products
    of such values are a hundred times too large."""
    view = history.view or first
    if first.normalised or first.names != view.names:
        return None
    if target.is_squared(history) and standstill.has_learnt(history):
        return None
    smaller, trained = np.fmin(first.rms, view.rms).tolist(), set(history.record.parameters)
    rows = (row for row, kind in enumerate(first.kinds)
            if kind == "Embedding" and f"{first.names[row]}.weight" in trained)  # fmt: skip
    row = max(rows, key=smaller.__getitem__, default=None)
    large = row is not None and smaller[row] >= LARGE_TABLE
    return row if large and loss >= HARDLY_LEFT * history.first_loss > 0 else None


def _is_output(history: History, first: View, end: End) -> bool:
    """Whether the output began ten times as large as the input, and as 1, which no start values for
    a layer's size lead to, and what was learnt since is little, as far as the loss tells."""
    if not first.forward_ratio >= LARGE_OUTPUT or first.normalised:
        return False
    if not first.rms[first.order.last_with_parameters] >= LARGE_OUTPUT:
        return False  # biases beside small inputs
    if not first.forward_ratio * first.output_signal >= LARGE_OUTPUT / MOSTLY_MEAN:
        return False  # biases at the targets' mean
    if target.is_squared(history):
        return not standstill.has_learnt(history)
    nats = overconfidence.nats_worse_than_a_guess(history, end.loss, LITTLE_BETTER)
    return nats is not None


def _inside(history: History, first: View, end: End) -> int | None:
    """The largest layer, if it began a thousand times as large as the input, and as 1, by weights
    that are ten times as large as any start values for its size, and most of the loss is left; not
    beside normalisation."""
    if first.normalised or target.is_squared(history) and standstill.has_learnt(history):
        return None
    if history.first_parameters != history.record.parameters:
        return None
    gain_of = weight_gains(history.first_parameters, history.record.shapes, history.first_sizes)
    tall = [row for row, name in enumerate(first.names) if gain_of.get(f"{name}.weight", 0) >= TALL]
    row = max(tall, key=lambda each: np.nan_to_num(first.rms[each]), default=None)
    large = row is not None and first.rms[row] >= LARGE_INSIDE * np.fmax(1.0, first.input_rms)
    return row if large and end.loss >= LEFT_SINCE * history.first_loss > 0 else None


def _shrinking(history: History, first: View, end: End) -> Symptom:
    """Of an output that began far too large and is still no more than its own error."""
    inputs, then, mark = behind.too_large(first), history.trail.first, history.trail.now
    found = blame.amplification(first, history.record)
    return Symptom(
        "signal_blow_up", "warning", None if inputs else found.where,
        "data" if inputs else found.category,
        f"the run ended after {end.steps} steps without having learnt; the output started at "
        f"{then.output:.2g} (RMS), and its errors are still as large as itself, {mark.output:.2g}"
        + (f"; {inputs}" if inputs else ""),
        {"output_rms": mark.output, "first_output_rms": then.output, "path": history.path},
    )  # fmt: skip


def _table(first: View, end: End, row: int) -> Symptom:
    """Of a table whose values began too large."""
    return Symptom(
        "signal_blow_up", "warning", first.names[row], "initialisation",
        f"{first.names[row]} gave values with an RMS of {first.rms[row]:.2g} for tokens at first, "
        f"of which tables begin with 1 and less, and the run ended after {end.steps} steps with a "
        f"loss of {end.loss:.3g}",
        {"first_layer_output_rms": float(first.rms[row])},
    )  # fmt: skip


def _layer(history: History, first: View, end: End, row: int) -> Symptom:
    found = blame.amplification(first, history.record)
    return Symptom(
        "signal_blow_up", "warning", first.names[row], found.category,
        f"{first.names[row]} started at {first.rms[row]:.2g} (RMS), and the run ended after "
        f"{end.steps} steps with a loss of {end.loss:.3g}, {history.first_loss:.3g} at first",
        {"first_layer_output_rms": float(first.rms[row]), "path": history.path},
    )  # fmt: skip
