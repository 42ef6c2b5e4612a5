"""What the diagnosis remembers: a few numbers of each record, and the way the weights took."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from trainer.diagnosis.chance import Look, doubled, look, softened
from trainer.diagnosis.rates import Rates
from trainer.diagnosis.trail import Mark, Trail
from trainer.diagnosis.view import Array, View, view
from trainer.diagnosis.way import MOVES, Way
from trainer.record import StepRecord, is_told

EARLY_LOSSES = 3  # the lowest of which is the loss at the start: it may rise at once
FIRST_LOSSES = 12  # that tell how losses differ from batch to batch before they fall
RECENT_LOSSES = 5  # whose median is the loss of now
PATIENCE_STEPS = 50  # that updates are given which follow what is left of a signal
SURVIVED_STEPS = 20  # of large updates that adaptive optimizers begin with
OPPOSED_RISE = 30.0  # times the loss at the start: -log D becomes no more than ten or twenty
OPPOSED_UPDATE = 0.1  # of the weights: a difference begins at zero, and rises by any times that
KEPT_RECORDS = 64  # records whose norms and losses are compared with the next


@dataclass
class History:
    """The records so far. `add` first, then ask."""

    record: StepRecord = field(init=False)  # the newest
    way: Way = field(default_factory=Way)
    path: float = 0.0  # of the way
    known: list[float] = field(default_factory=list)  # the newest update ratios of the matrices
    update: float = math.nan  # the median of those
    first_step: int = 0  # of the records
    before: StepRecord | None = None  # the one before it
    view: View | None = None  # of the newest, if its layers were observed
    first_view: View | None = None
    trail: Trail = field(default_factory=Trail)  # of the looks at the layers
    guesses: list[Look] = field(default_factory=list)  # the latest, beside a guess
    was_softened: bool = False  # at the first look, by a softmax after the model
    was_doubled: bool = False  # at the first look, a softmax by its loss
    losses: list[float] = field(default_factory=list)
    lowest_loss: float = math.inf  # of all
    highest_loss: float = -math.inf
    sizes_at_lowest: Array = field(default_factory=lambda: np.zeros(0))  # of the parameters, then
    recent_loss: float = math.nan  # the median of the latest: one batch may be easy
    norms: list[float] = field(default_factory=list)
    first_norm: float = math.nan  # of the record with the first loss
    loss_at_start: float = math.nan
    first_losses: list[float] = field(default_factory=list)
    first_loss: float = math.nan  # the median of those
    flat: bool = False  # whether the latest losses are among those of the first batches
    largest_update: float = 0.0  # of the median over the matrices, so far
    first_update: float = math.nan  # the same, of the first update that did something
    rates: Rates = field(default_factory=Rates)
    strangers: float = math.nan  # of the first record
    opponents: float = math.nan  # likewise
    moved_at: int = 0  # steps after the first record, of the latest update that did something
    raised: set[str] = field(default_factory=set)  # rules whose findings have not ended
    alike: list[str] | None = None  # matrices whose units were copies of each other all the time
    first_sizes: Array = field(default_factory=lambda: np.zeros(0))  # RMS of the parameters
    first_parameters: tuple[str, ...] = ()

    def add(self, record: StepRecord) -> None:
        """Takes the next record."""
        self.before = getattr(self, "record", None)
        if self.before is None:
            self.first_step, self.first_sizes = record.step, record.parameter_rms
            self.first_parameters = record.parameters
            self.strangers, self.opponents = record.strangers, record.opponents
        self.record = record
        self.way.add(record, self.before)
        self.known = [ratio for ratio in self.updates.tolist() if ratio == ratio]
        self.update = median(self.known) if self.known else math.nan
        self.path = self.way.path
        if max(self.known, default=0.0) > MOVES:
            self.moved_at = self.steps
        self.view = view(record)
        if self.first_view is None and self.view is not None:
            self.first_view, self.was_softened = self.view, softened(self.view, record)
            self.was_doubled = doubled(self.view, record) is not None
        if math.isfinite(record.loss):
            if not self.losses:
                self.first_norm = record.gradient_norm
            self.losses = [*self.losses[-KEPT_RECORDS:], record.loss]
            self.highest_loss = max(self.highest_loss, record.loss)
            self.recent_loss = median(self.losses[-RECENT_LOSSES:])
            if record.loss < self.lowest_loss:
                self.lowest_loss, self.sizes_at_lowest = record.loss, record.parameter_rms
            if len(self.losses) <= EARLY_LOSSES:
                self.loss_at_start = min(self.losses)
            if len(self.first_losses) < FIRST_LOSSES:
                self.first_losses.append(record.loss)
                self.first_loss = median(self.first_losses)
            self.flat = self._is_flat()
        if self.view is not None:
            seen = self.view
            self.trail.add(
                Mark(
                    path=self.path,
                    signal=seen.output_signal,
                    flow_ratio=seen.flow_ratio,
                    loss=self.recent_loss,
                    size=seen.forward_ratio,
                    batch_loss=record.loss,
                    step=record.step,
                    steepest=seen.steepest,
                    pull=seen.pull[0],
                    values=seen.pull[1],
                    output=seen.output_rms,
                    time_ratio=seen.time_ratio,
                )
            )
            self.guesses = [*self.guesses[1 - RECENT_LOSSES :], look(seen, record)]
        if math.isfinite(record.gradient_norm):
            self.norms = [*self.norms[-KEPT_RECORDS:], record.gradient_norm]
        self.rates.add(record.learning_rate, self.steps, record.loss, self.recent_loss)
        if math.isfinite(self.update):
            if not self.first_update > 0:
                self.first_update, self.rates.first = self.update, record.learning_rate
            self.largest_update = max(self.largest_update, self.update)

    @property
    def updates(self) -> Array:
        """The newest update ratios of the matrices; NaN for other parameters."""
        return self.way.updates

    @property
    def size_over_start(self) -> float:
        """The size of the matrices over that at first, the median; NaN where they have changed."""
        return self._sizes_over(self.first_sizes)

    @property
    def size_over_lowest(self) -> float:
        """The size of the matrices over that when the loss was lowest, the median."""
        return self._sizes_over(self.sizes_at_lowest)

    def _sizes_over(self, before: Array) -> float:
        known = ~np.isnan(self.updates)
        same = self.record.parameters == self.first_parameters and len(before) == len(known)
        if not (same and known.any()):
            return math.nan
        return float(np.median(self.record.parameter_rms[known] / before[known]))

    @property
    def steps(self) -> int:
        """How many steps have been made since the first record."""
        return self.record.step - self.first_step

    @property
    def budget(self) -> float:
        """How far the weights would have come if all updates were as large as the first: steps of
        an adaptive optimizer whose gradient is mere noise lead nowhere, however many they are."""
        rate, now = self.rates.first, self.record.learning_rate
        changed = now / rate if math.isfinite(now) and rate > 0 else 1.0
        return self.steps * min(self.first_update, 1.0) * changed

    @property
    def is_finite(self) -> bool:
        """Whether the gradients of the newest record are numbers, and the loss if it was told."""
        bad_loss = is_told(self.loss) and not math.isfinite(self.loss)
        return not bad_loss and math.isfinite(self.record.gradient_norm)

    @property
    def loss(self) -> float:
        """Of the newest record."""
        return self.record.loss

    @property
    def loss_rise(self) -> float:
        """The loss over that at the start; NaN where it is or was negative, or may have risen for
        what another network learns, through which it goes, as that of a generator does."""
        start = self.loss_at_start
        rise = self.loss / start if start > 0 and self.loss > 0 else math.nan
        own = rise >= OPPOSED_RISE and self.largest_update >= OPPOSED_UPDATE
        return rise if own or not self.opponents > 0 else math.nan

    def _is_flat(self) -> bool:
        first, now = self.first_losses, self.recent_loss
        known = len(first) == FIRST_LOSSES and self.loss_at_start > 0
        return known and now >= 0.995 * min(first) and now >= 0.95 * self.first_loss

    @property
    def stays(self) -> bool:
        """Whether the loss is flat after so many steps that it is not for want of them."""
        return self.flat and self.steps >= 3 * PATIENCE_STEPS

    @property
    def adaptive(self) -> bool:
        """Whether the optimizer's updates do not shrink with the gradient."""
        return self.record.optimizer not in ("", "SGD")

    @property
    def begins(self) -> bool:
        """Whether an adaptive optimizer makes its first updates, which many networks survive."""
        return self.adaptive and self.steps < SURVIVED_STEPS

    @property
    def is_early(self) -> bool:
        """Whether an adaptive optimizer may, against the odds, still bring a lost signal back."""
        return self.adaptive and self.steps < 4 * PATIENCE_STEPS

    @property
    def returns(self) -> bool:
        """Whether a loss that had risen is coming down."""
        now, then = self.trail.now, self.trail.half_way
        return now.loss > self.loss_at_start and now.loss < 0.85 * then.loss

    @property
    def stuck(self) -> bool:
        """Whether the latest losses are no lower than the first."""
        return not self.recent_loss < 0.7 * self.loss_at_start

    @property
    def rate_is_rising(self) -> bool:
        """Whether the learning rate warms up."""
        return self.rates.is_rising(self.steps)
