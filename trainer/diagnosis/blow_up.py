"""Does the signal grow over the layers until that hurts?"""

from __future__ import annotations

import math

import numpy as np

from trainer.diagnosis import behind, blame, overconfidence, standstill
from trainer.diagnosis.behind import SCALE
from trainer.diagnosis.exploding import JUDGED_FROM_STEP
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.symptom import UNCONFIRMED, Symptom
from trainer.diagnosis.thresholds import Thresholds

SQUARE = (1.75, 2.25)  # powers of the output's size that count as its square
LESS_IF_ALL = 30  # times less of a blow-up is enough where it is all of the loss
FAR_BLOWN_UP = 10  # times the blow-up that a loss which falls a little is no comfort for


def signal_blow_up(history: History, thresholds: Thresholds) -> Symptom | None:
    """The output is a thousand times the input from the start, still is, and that hurts: updates
    throw the weights away, or the loss does not fall. After the steps that an adaptive optimizer is
    given a hundred times are enough where the loss does not fall; where it started ten thousand
    times as large, is still a hundred times, and the loss has not fallen by the root of that; and
    thirty times where the loss has gone all the way with the square of the output: beside that the
    targets are still nothing. Ten times are after twice as many steps, of a classifier that is
    worse than a guess."""
    first, view = history.first_view, history.view
    if first is None or view is None:
        return None
    nats = overconfidence.nats_of_the_sure_and_wrong(history)
    if first.normalised and nats is None:
        return None
    ratio, now = first.forward_ratio, view.forward_ratio
    if first.output_signal <= thresholds.lost_signal * overconfidence.varying(first):
        return None  # biases beside tiny inputs
    if behind.too_small(first) is not None and np.fmax.reduce(first.rms, initial=0.0) <= SCALE:
        return None  # likewise
    late = history.steps >= PATIENCE_STEPS and not history.rate_is_rising
    late = late and history.loss_at_start > 0  # of others nobody knows what it is to stand still
    large = late and min(ratio, now) >= thresholds.blown_up_forward / FAR_BLOWN_UP
    idle = large and history.recent_loss >= standstill.STANDING * history.loss_at_start
    # The loss of a batch may be zero: of outputs in the millions one class is all that there is.
    stays = (
        large
        and ratio >= FAR_BLOWN_UP * thresholds.blown_up_forward
        and history.recent_loss > history.loss_at_start / math.sqrt(ratio)
    )
    sized = (
        late
        and ratio >= thresholds.blown_up_forward / LESS_IF_ALL
        and all(SQUARE[0] <= power <= SQUARE[1] for power in history.trail.powers)
    )
    blown = not first.normalised and (min(ratio, now) >= thresholds.blown_up_forward or idle)
    if not (blown or stays or sized or nats):
        return None
    found = blame.amplification(first, history.record)
    hurts = (
        not history.adaptive
        and history.update >= thresholds.thrown_update
        or history.steps >= JUDGED_FROM_STEP
        and history.stuck
    )
    return Symptom(
        "signal_blow_up",
        "warning" if history.adaptive else "critical",
        found.where,
        found.category,
        f"the output starts {ratio:.1g} times as large as the input"
        + (f" and is sure and wrong: a loss of {nats:.1g} nats a sample" if nats else ""),
        {"forward_ratio": ratio, "activation_gain": found.activation_gain,
         "weight_gain": found.weight_gain},
        sightings=1 if stays or sized or nats else 2 if hurts else UNCONFIRMED,
    )  # fmt: skip
