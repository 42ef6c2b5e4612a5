"""What the training loop is handed at each step: some rows, and what weighs their losses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.stream import Stream
from trainer.data.table import Part, Table

Weighting = Callable[[Tensor], Tensor | None]
Counts = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class Batch:
    """The rows of one step, and what weighs their losses: the derivative's `grad_ys`."""

    x: Tensor  # (B, *inputs)
    y: Tensor  # (B, outputs), or class indices (B,) or (B, time)
    grad_losses: Weighting  # loss values → their weights; None for ones
    weights: Tensor | None  # (B,) of the samples; None where all weigh the same
    counts: Tensor | None = None  # of the targets, in the shape of their losses; None for ones

    @property
    def weight(self) -> Tensor | int:
        """What a mean over it is divided by; the number of its samples where all are alike."""
        if self.counts is not None:
            return _above_zero(counted(self.weights, self.counts).sum())
        return len(self.x) if self.weights is None else _above_zero(self.weights.sum())


class Batches:
    """An endless iterator of batches; the order of each pass is drawn from the seed.

    The last batch of a pass holds the rows that are left. Batch number n depends on the rows, the
    seed and n alone, so that the position of a run is one number. `counts` says what targets count
    in a mean; None for the same.
    """

    def __init__(
        self,
        rows: Table | Stream,
        batch_size: int | None,
        shuffle: bool,
        reduction: str,
        seed: int,
        counts: Counts | None = None,
    ) -> None:
        self.rows = rows
        self.batch_size = min(batch_size or len(rows), len(rows))
        self.reduction = reduction
        self.seed = seed if shuffle else None
        self.drawn = 0
        self._counts = counts
        self._unweighted = weighting(None, reduction)
        self._whole: Batch | None = None
        if isinstance(rows, Table) and self.batch_size == len(rows):
            self._whole = self._batch((rows.x, rows.y, rows.weights))
        self._parts: Iterator[Part] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.drawn += 1
        if self._whole is not None:
            return self._whole
        if self._parts is None:
            device = self.rows.x.device if isinstance(self.rows, Table) else torch.device("cpu")
            first = self.drawn - 1
            order = row_numbers(len(self.rows), self.batch_size, self.seed, first, device)
            self._parts = self.rows.parts(order)
        return self._batch(next(self._parts))

    def state_dict(self) -> dict[str, Any]:
        """The position: how many batches have been handed out."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with the batch that would have come next when the state was taken."""
        self.drawn, self._parts = int(state["drawn"]), None

    def _batch(self, part: Part) -> Batch:
        x, y, weights = part
        counts = None if self._counts is None else self._counts(y)
        if weights is None and counts is None:
            return Batch(x, y, self._unweighted, None)
        return Batch(x, y, weighting(weights, self.reduction, counts), weights, counts)


def row_numbers(
    rows: int, batch_size: int, seed: int | None, first: int, device: torch.device
) -> Iterator[Tensor]:
    """The row numbers (B,) of batch `first` and all that follow, pass after pass.

    Each pass is a permutation drawn from the seed and its number, or ascending without a seed.
    """
    per_pass = -(-rows // batch_size)
    skipped = first % per_pass
    for number in itertools.count(first // per_pass):
        if seed is None:
            order = torch.arange(rows)
        else:
            mixed = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(mixed[0] >> np.uint64(1)))
            order = torch.randperm(rows, generator=generator)
        yield from torch.split(order.to(device), batch_size)[skipped:]
        skipped = 0


def counted(weights: Tensor | None, values: Tensor) -> Tensor:
    """Values (B, …), each times the weight of its sample."""
    return values if weights is None else values * weights.reshape(-1, *[1] * (values.dim() - 1))


def weighting(weights: Tensor | None, reduction: str, counts: Tensor | None = None) -> Weighting:
    """What weighs each loss value, for losses of shape (B,) or (B, outputs); made once per shape.

    `sum`: the sample weights, or None (ones) without them; `mean`: the same divided by their sum
    over all loss values, so that the cost is their weighted mean. There a value counts as much as
    `counts`, of the losses' shape, says.
    """
    made: dict[torch.Size, Tensor] = {}

    def of(losses: Tensor) -> Tensor | None:
        if weights is None and reduction == "sum":
            return None
        if losses.shape not in made:
            values = counted(weights, torch.ones_like(losses))
            if reduction == "mean":
                values = values / _above_zero((values if counts is None else values * counts).sum())
            made[losses.shape] = values
        return made[losses.shape]

    return of


def _above_zero(total: Tensor) -> Tensor:
    """A sum of weights to divide by: where all are 0 they count nothing, instead of 0/0."""
    dtype = total.dtype if total.is_floating_point() else torch.float32
    return total.clamp_min(torch.finfo(dtype).tiny)
