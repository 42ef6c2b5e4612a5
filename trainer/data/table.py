"""Rows held in memory: inputs, targets, sample weights, and the scale they were brought to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scale:
    """What was subtracted (`mean`) and divided by (`deviation`), one value per column."""

    mean: Tensor  # (columns,)
    deviation: Tensor  # (columns,)

    @classmethod
    def of(cls, values: Tensor) -> Scale:
        """The mean and (population) standard deviation of each column of `values` (rows, columns).

        A constant column has deviation 1: it becomes zero instead of a division by zero.
        """
        deviation = values.std(dim=0, correction=0)
        return cls(values.mean(dim=0), torch.where(deviation > 0, deviation, 1.0))

    def apply(self, values: Tensor) -> Tensor:
        """The values shifted and scaled to mean 0 and deviation 1."""
        return (values - self.mean) / self.deviation

    def undo(self, values: Tensor) -> Tensor:
        """The values in their own units again."""
        return values * self.deviation + self.mean


@dataclass(frozen=True)
class Table:
    """N rows of inputs and targets; `weights` is None where every row counts the same."""

    x: Tensor  # (N, inputs)
    y: Tensor  # (N, outputs)
    weights: Tensor | None = None  # (N,)
    x_scale: Scale | None = None
    y_scale: Scale | None = None
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()

    def standardized(self) -> Table:
        """The same rows with x and y at mean 0 and standard deviation 1."""
        x_scale, y_scale = Scale.of(self.x), Scale.of(self.y)
        x, y = x_scale.apply(self.x), y_scale.apply(self.y)
        return replace(self, x=x, y=y, x_scale=x_scale, y_scale=y_scale)

    def to(self, device: torch.device, dtype: torch.dtype) -> Table:
        """The same rows on a device, floating-point values in `dtype`."""

        def move(values: Tensor) -> Tensor:
            return values.to(device, dtype if values.is_floating_point() else None)

        weights = None if self.weights is None else move(self.weights)
        scales = [
            s and Scale(move(s.mean), move(s.deviation)) for s in (self.x_scale, self.y_scale)
        ]
        moved = replace(self, x=move(self.x), y=move(self.y), weights=weights)
        return replace(moved, x_scale=scales[0], y_scale=scales[1])


@dataclass(frozen=True)
class Batch:
    """The rows of one step, and what weighs their losses: the derivative's `grad_ys`."""

    x: Tensor  # (B, inputs)
    y: Tensor  # (B, outputs)
    grad_losses: Callable[[Tensor], Tensor | None]  # loss values → their weights; None for ones


class Batches:
    """An endless iterator of batches; the order of each pass is drawn from its own generator."""

    def __init__(
        self, table: Table, batch_size: int | None, shuffle: bool, reduction: str, seed: int
    ) -> None:
        self.table = table
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.reduction = reduction
        self.generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[Batch]:
        table, rows = self.table, len(self.table.x)
        if self.batch_size is None or self.batch_size >= rows:
            whole = self._batch(table)
            while True:
                yield whole
        while True:
            order = self._order(rows)
            for start in range(0, rows, self.batch_size):
                chosen = order[start : start + self.batch_size]
                weights = None if table.weights is None else table.weights[chosen]
                yield self._batch(Table(table.x[chosen], table.y[chosen], weights))

    def _order(self, rows: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(rows, device=self.table.x.device)
        return torch.randperm(rows, generator=self.generator).to(self.table.x.device)

    def _batch(self, table: Table) -> Batch:
        return Batch(table.x, table.y, weighting(table.weights, self.reduction))


def weighting(weights: Tensor | None, reduction: str) -> Callable[[Tensor], Tensor | None]:
    """What weighs each loss value, for losses of shape (B,) or (B, outputs); made once per shape.

    `sum`: the sample weights, or None (ones) without them; `mean`: the same divided by their sum
    over all loss values, so that the cost is their weighted mean.
    """
    made: dict[torch.Size, Tensor] = {}

    def of(losses: Tensor) -> Tensor | None:
        if weights is None and reduction == "sum":
            return None
        if losses.shape not in made:
            values = torch.ones_like(losses)
            if weights is not None:
                values *= weights.reshape(-1, *[1] * (losses.dim() - 1))
            if reduction == "mean":
                # A batch whose rows all have weight 0 counts nothing, instead of 0/0.
                values /= values.sum().clamp_min(torch.finfo(values.dtype).tiny)
            made[losses.shape] = values
        return made[losses.shape]

    return of
