"""How fast does a run go, and at what learning rate should it?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.diagnosis import target
from trainer.diagnosis.history import History

UPDATE = 5e-3  # of the weights in a step of SGD, which neither starves nor throws them
ADAPTIVE_UPDATE = 4e-2  # of Adam and its like, whose updates are all of one size
CALM = 0.9  # a momentum
RISEN_RATE = 3  # times the rate of the configuration, by a schedule
MOST, LEAST = 0.3, 1e-4  # of a rate that is too high, in its place


class Pace(NamedTuple):
    """The size of updates, and the learning rates."""

    update: float  # the update ratio of the first update
    first: float = math.nan  # its learning rate
    now: float = math.nan  # that of today
    overshoot: float = math.nan  # ‖gradient‖ over that of the step before, of a linear fit

    @classmethod
    def of(cls, history: History) -> Pace:
        """As the records have it so far."""
        record, before, overshoot = history.record, history.before, math.nan
        is_linear = sum(len(shape) > 1 for shape in record.shapes) < 2
        if is_linear and before is not None and before.step == record.step - 1:
            grew = before.gradient_norm > 0 and target.is_squared(history)
            overshoot = record.gradient_norm / before.gradient_norm if grew else math.nan
        return cls(history.first_update, history.rates.first, record.learning_rate, overshoot)


def say_rate(verdict: str, optimizer: str, pace: Pace) -> str:
    """A rate to try, in words, for a loop whose configuration nobody knows; none for SGD, whose
    momentum is not known either."""
    if optimizer in ("", "SGD") or not pace.first > 0:
        return ""
    own = {"name": optimizer, "lr": pace.first}
    rate = other_rate(verdict, own, pace).get("optimizer.lr")
    return f"; {rate:g}, say, in place of a rate of {pace.first:g}" if rate else ""


def other_rate(verdict: str, optimizer: Mapping[str, Any], pace: Pace) -> dict[str, Any]:
    """One with which updates are as large as they should be, and what may spoil that.

    A step of SGD at rate η multiplies the error along an eigenvector of a quadratic cost, as that
    of a linear fit by least squares is, by 1 - ηλ: where it makes it r times as large, λ is
    (1 + r) / η, and the rate that takes it away at once 1 / λ (LeCun et al. 1998, Efficient
    BackProp, section 5).
    """
    if optimizer.get("maximize"):
        return {"optimizer.maximize": False}
    if not pace.update > 0:
        return {} if verdict == "starved_update" else {"optimizer.lr": _round(optimizer["lr"] / 10)}
    momentum = optimizer.get("momentum")
    momentum = momentum if isinstance(momentum, float) and 0 < momentum < 1 else 0.0
    calm = {"optimizer.momentum": CALM} if momentum > 0.95 else {}
    # The first update is before momentum has gathered, which makes them 1 / (1 - m) times larger.
    plain = UPDATE * (1 - (CALM if calm else momentum))
    factor = (plain if is_plain(optimizer) else ADAPTIVE_UPDATE) / pace.update
    if verdict == "starved_update":
        return {"optimizer.lr": _round(optimizer["lr"] * max(factor, 10)), **calm}
    if pace.now >= RISEN_RATE * optimizer["lr"]:
        return {"schedule": {"name": None}}
    if pace.overshoot > 1 and is_plain(optimizer) and not momentum:
        factor = 1 / (1 + pace.overshoot)
    return {"optimizer.lr": _round(optimizer["lr"] * min(max(factor, LEAST), MOST)), **calm}


def is_plain(optimizer: Mapping[str, Any]) -> bool:
    """Whether updates are of the gradient's size."""
    return str(optimizer.get("name", "sgd")).lower() == "sgd"


def _round(value: float) -> float:
    return float(f"{value:.1g}")
