"""Where a run stood at a look at its layers, and what two such points say of the way between."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """Signal and flow at a point of the way."""

    path: float
    signal: float
    flow_ratio: float
    loss: float  # the median of the latest
    size: float  # of the output over that of the input
    batch_loss: float  # the newest
    step: int
    steepest: float  # see View
    pull: float  # likewise
    values: float  # of the last output
    output: float  # RMS
    time_ratio: float  # see View


def power(then: Mark, now: Mark) -> float:
    """With which power of the output's size the loss changed; NaN where either did not, or is not
    above zero."""
    if not min(then.size, now.size, then.batch_loss, now.batch_loss) > 0:
        return math.nan
    # The quotient of two may be no number that a float holds, the logarithm of each is one.
    losses = math.log(now.batch_loss) - math.log(then.batch_loss)
    sizes = math.log(now.size) - math.log(then.size)
    return losses / sizes if sizes else math.nan


def doublings(now: float, then: float, enough: float) -> float:
    """How often the way has to double until there is enough, if it goes on to gain what it gained
    from then, half of the way ago, to now; infinite where it gained nothing."""
    if now >= enough or now > 0 and then == 0:
        return 0.0
    return math.log(enough / now) / math.log(now / then) if now > then else math.inf
