"""How has the learning rate gone: does it rise, was it raised, and what did the loss do since?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

RAISED = 10  # times the first learning rate
FALLEN_RATE = 0.1  # times the first: hardly anything moves, and nothing comes back
KEPT_RATES = 64  # of the latest
STANDS_STEPS = 50  # that a rate is given which has risen


@dataclass
class Rates:
    """The learning rates of the records so far, and the losses at those that were raised."""

    first: float = math.nan  # that of the first update that did something
    raised_for: int = 0  # so many records in a row had one that was raised
    least_since: float = math.inf  # the lowest loss at those, but for the first
    loss_before: float = math.nan  # the recent loss when it was last not raised
    lowest_before: float = math.inf  # the lowest until then, if it was raised all at once
    _latest: list[float] = field(default_factory=list)
    _rose_at: int = 0  # steps after the first record

    def add(self, rate: float, steps: int, loss: float, recent_loss: float) -> None:
        """Takes that of the next record, made so many steps after the first, and its loss."""
        before = self._latest[-1] if self._latest else math.nan
        if rate > before:
            self._rose_at = steps
        self._latest = [*self._latest[-KEPT_RATES:], rate]
        if self.first > 0 and rate >= RAISED * self.first:
            self.raised_for += 1
            if self.raised_for == 1 and not rate >= RAISED * before:
                self.lowest_before = math.inf  # what a rate that rises slowly leads to is its own
            if math.isfinite(loss) and self.raised_for > 1:  # the first is from before
                self.least_since = min(self.least_since, loss)
        else:
            self.raised_for, self.least_since, self.loss_before = 0, math.inf, recent_loss
            if math.isfinite(loss):
                self.lowest_before = min(self.lowest_before, loss)

    def is_rising(self, steps: int) -> bool:
        """Whether it warms up: it rose, and stands no longer than that took."""
        rates, stood = self._latest, steps - self._rose_at
        wait = max(STANDS_STEPS, self._rose_at)
        # While it rises the very first one counts, which may be more records ago than are kept.
        least = rates[0] if stood else min(rates[0], self.first)
        return rates[-1] > 1.2 * least and stood < wait
