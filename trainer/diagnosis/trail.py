"""Where a run stood when its layers were looked at, and what that says of the way it took."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

MOST_MARKS = 64
REBOUND = 3  # times the lowest signal and flow of late


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


@dataclass
class Trail:
    """The marks that a run has left. `add` first, then ask."""

    now: Mark = field(init=False)  # the newest
    marks: list[Mark] = field(default_factory=list)  # evenly spaced, from the first on
    _half_way: Mark | None = None  # once it is asked for
    _looks: int = 0
    _stride: int = 1  # looks from one of the marks to the next

    def add(self, mark: Mark) -> None:
        """Takes the next one."""
        self.now, self._half_way = mark, None
        if self._looks % self._stride == 0:
            self.marks.append(mark)
        self._looks += 1
        if len(self.marks) == MOST_MARKS:
            del self.marks[1::2]
            self._stride *= 2

    @property
    def first(self) -> Mark:
        """The one at the first look."""
        return self.marks[0]

    def until(self, step: float) -> Mark:
        """The last one until this step; the first where none is as early."""
        return next((mark for mark in reversed(self.marks) if mark.step <= step), self.first)

    @property
    def half_way(self) -> Mark:
        """The last mark of the first half of the way."""
        if self._half_way is None:
            behind = (mark for mark in self.marks if mark.path <= self.now.path / 2)
            self._half_way = max(behind, key=lambda mark: mark.path, default=self.first)
        return self._half_way

    @property
    def rebounds(self) -> bool:
        """Whether signal and flow have both risen well above where they were over the second half
        of the way when the flow was lowest."""
        now, way = self.now, self.half_way.path
        low = min((m for m in self.marks if m.path >= way), key=lambda mark: mark.flow_ratio)
        flows = not self._fades and now.flow_ratio >= REBOUND * low.flow_ratio > 0
        return flows and now.signal >= REBOUND * low.signal > 0

    @property
    def signal_grows(self) -> bool:
        """Whether more of the output depends on the sample than half of the way ago."""
        return self.now.signal >= REBOUND * self.half_way.signal

    @property
    def powers(self) -> tuple[float, float]:
        """With which powers of the output's size the loss changed over the first and the second
        half of the way; NaN where either did not, or is not above zero."""
        start, middle = self.first, self.half_way
        return _power(start, middle), _power(middle, self.now)

    def doublings_of_signal(self, enough: float) -> float:
        """How often the way has to double until the signal is enough, if it goes on to gain what
        it gained over the second half; infinite where it gained nothing."""
        now, then = self.now.signal, self.half_way.signal
        return math.inf if self._fades else _doublings(now, then, enough)

    def doublings_of_flow(self, enough: float) -> float:
        """The same of the flow."""
        now, then = self.now.flow_ratio, self.half_way.flow_ratio
        return math.inf if self._fades else _doublings(now, then, enough)

    @property
    def _fades(self) -> bool:
        """Whether the output has shrunk to a tenth over the second half of the way: signal and flow
        may then seem to grow, beside less."""
        return self.now.size <= self.half_way.size / 10


def _power(then: Mark, now: Mark) -> float:
    """With which power of the output's size the loss changed; NaN where either did not, or is not
    above zero."""
    if not min(then.size, now.size, then.batch_loss, now.batch_loss) > 0:
        return math.nan
    # The quotient of two may be no number that a float holds, the logarithm of each is one.
    losses = math.log(now.batch_loss) - math.log(then.batch_loss)
    sizes = math.log(now.size) - math.log(then.size)
    return losses / sizes if sizes else math.nan


def _doublings(now: float, then: float, enough: float) -> float:
    """How often the way has to double until there is enough, if it goes on to gain what it gained
    from then, half of the way ago, to now; infinite where it gained nothing."""
    if now >= enough or now > 0 and then == 0:
        return 0.0
    return math.log(enough / now) / math.log(now / then) if now > then else math.inf
