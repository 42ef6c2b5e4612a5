"""Is a classifier sure and wrong? Its gradient tells, whatever its loss is multiplied by."""

from __future__ import annotations

import math

from trainer.diagnosis import chance
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.view import View
from trainer.record import StepRecord

LARGE_OUTPUT = 10  # times what varies of the input, of an output whose classes are sure and wrong
SHARP_GRADIENT = 0.8  # share of the largest in a gradient's values: they are all or nothing
WRONG = (0.25, 1.01)  # share of the samples that are, with all confidence
PAIR = 0.9  # the most of them of two classes, where the slopes of absolute errors are all 1
SAME_SLOPE = 1.1  # at most so many times another one, the largest derivative is what it was
LEAST_INPUT = 1e-3  # of the input, as little as which may be all that depends on the sample
SOON = 6  # times half of the steps
MOSTLY_MEAN = 10  # times what of an output depends on the sample
GUESSES = 3  # times the loss of a guess


def varying(view: View) -> float:
    """The share of the input that depends on the sample; 1 where nobody knows."""
    return max(view.input_signal, LEAST_INPUT) if 0 < view.input_signal < 1 else 1.0


def _output_size(view: View) -> float:
    """The output beside what of the input depends on the sample; beside 1 where larger numbers are
    looked up for tokens."""
    if view.table.has_input:
        return view.forward_ratio / varying(view)
    return view.forward_ratio * max(1.0, float(view.rms[:1].sum()))


def nats_of_the_sure_and_wrong(history: History) -> float | None:
    """The loss of each sample of a classifier that is sure and wrong after twice the steps that an
    adaptive optimizer is given, was when half of the steps were done, and at that pace will not be
    at the loss of a guess after three times as many more; None of any other network.

    The cross-entropy's gradient by the output is (p - y) / N for N samples: where the outputs are
    so large that p is 0 or 1, two values of each sample that is wrong are 1 / N in size (the only
    one, where it is that of two classes) and all others nothing. The loss is then
    loss / (N · largest) nats a sample, whatever it is multiplied by, and that of a guess among C
    classes ln C. With other losses the largest changes as they fall, or is that of all values at
    once.
    """
    first, view, record = history.first_view, history.view, history.record
    if first is None or view is None or history.steps < 2 * PATIENCE_STEPS:
        return None
    middle = history.first_step + history.steps / 2
    before = history.trail.until(middle)
    if history.rate_is_rising or before.step > middle or not _output_size(first) >= LARGE_OUTPUT:
        return None
    found = _sure_and_wrong(view, record, LARGE_OUTPUT / 3)
    if found is None or not before.steepest > 0:
        return None
    if not 1 / SAME_SLOPE <= view.steepest / before.steepest <= SAME_SLOPE:
        return None
    nats, of_a_guess = found
    then, now = nats * before.batch_loss, nats * record.loss
    if not (then >= GUESSES * of_a_guess and now >= GUESSES * of_a_guess):
        return None
    return now if now * (now / then) ** SOON >= of_a_guess else None


def nats_worse_than_a_guess(history: History, loss: float, share: float = 1.0) -> float | None:
    """What a loss is for each sample of a classifier that was sure and wrong at first, if that is
    no better than a guess, or than this share of its loss; None otherwise."""
    first = history.first_view
    found = first and _sure_and_wrong(first, history.record, LARGE_OUTPUT)
    return found[0] * loss if found and found[0] * loss >= share * found[1] else None


def _sure_and_wrong(view: View, record: StepRecord, large: float) -> tuple[float, float] | None:
    """Of a classifier that is, by as large an output: how many nats a sample a loss of 1 is, and
    how many are those of a guess."""
    row, classes = view.order.last_with_parameters, chance.classes(view, record)
    if row is None or not classes or not _output_size(view) >= large:
        return None
    if not _output_size(view) * view.output_signal >= large / MOSTLY_MEAN:
        return None  # a bias, as that of a regression which begins at its targets' mean
    values = min(classes, 2)  # of each sample that is wrong
    count, norm, absolute, largest = view.moments[row, :4].tolist()
    if not (absolute > 0 and largest > 0):
        return None
    sharp, wrong = (
        norm / absolute * (norm / largest),
        absolute / largest * classes / (values * count),
    )
    if not (sharp >= SHARP_GRADIENT and WRONG[0] <= wrong <= (WRONG[1] if classes > 2 else PAIR)):
        return None
    return classes / view.steepest, math.log(max(classes, 2))
