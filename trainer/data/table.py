"""Rows held in memory: inputs, targets, sample weights, and the scale they were brought to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.config.problem import Problem

Part = tuple[Tensor, Tensor, Tensor | None]  # some rows: x, y and sample weights


class DataError(ValueError):
    """Data that are not what the configuration says; `problems` names the keys."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Shape:
    """What a model has to know of the data that it is to fit."""

    inputs: tuple[int, ...]  # of one sample: (features,), (channels, height, width), (time, ...)
    outputs: int  # values per prediction: target columns, or classes
    classes: bool  # targets are class indices (int64)
    vocabulary: int | None  # number of tokens when inputs are token indices (int64)
    per_position: bool  # one prediction per time step instead of one per sample

    @classmethod
    def of(cls, x: Tensor, y: Tensor, classes: int | None, vocabulary: int | None) -> Shape:
        """The shape of rows x and y with so many classes and tokens; None where they are none."""
        outputs = math.prod(y.shape[1:]) if classes is None else classes
        per_position = classes is not None and y.dim() > 1
        return cls(tuple(x.shape[1:]), outputs, classes is not None, vocabulary, per_position)


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

    x: Tensor  # (N, *inputs)
    y: Tensor  # (N, outputs), or class indices (N,) or (N, time)
    weights: Tensor | None = None  # (N,)
    x_scale: Scale | None = None
    y_scale: Scale | None = None
    x_names: tuple[str, ...] = ()
    y_names: tuple[str, ...] = ()  # of the target columns, or of the classes
    classes: int | None = None  # how many, where y holds class indices
    vocabulary: int | None = None  # how many tokens, where x holds token indices
    standardize: bool = False  # whether `scaled` does anything
    overlap: int | None = (
        None  # rows are consecutive, each sharing content with so many that follow
    )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> Shape:
        """What a model has to know of these rows."""
        return Shape.of(self.x, self.y, self.classes, self.vocabulary)

    def select(self, rows: Tensor | slice) -> Table:
        """The rows of these numbers (n,), in their order; a slice of them shares their memory."""
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], weights=weights)

    def parts(self, order: Iterable[Tensor]) -> Iterator[Part]:
        """The rows of each list of row numbers (n,), which lie on the device of the rows."""
        x, y, weights = self.x, self.y, self.weights
        for rows in order:
            chosen = None if weights is None else weights.index_select(0, rows)
            yield x.index_select(0, rows), y.index_select(0, rows), chosen

    def split(self, fraction: float, seed: int) -> tuple[Table, Table]:
        """The rows for training and round(fraction·N) rows for validation, drawn from the seed.

        Each class has its share of the validation rows, to within one row. Of consecutive rows the
        last ones are taken, and training rows that overlap with them are left out. DataError when
        one side would be empty.
        """
        count = round(fraction * len(self))
        trained = len(self) - count - (self.overlap or 0)
        if count == 0 or trained <= 0:
            raise empty_split(fraction, len(self), "training" if count else "validation")
        if self.overlap is not None:
            return self.select(slice(trained)), self.select(slice(len(self) - count, None))
        per_class = self.y if self.classes is not None and self.y.dim() == 1 else None
        training, validation = split_rows(len(self), count, seed, per_class)
        return self.select(training), self.select(validation)

    def scaled(self, like: Table | None = None) -> Table:
        """The rows scaled as those of `like` (not yet scaled itself; by default: as their own) to
        mean 0 and standard deviation 1, if they are to be standardised; classes stay."""
        if not self.standardize:
            return self
        learnt = like or self
        x_scale = Scale.of(learnt.x)
        scaled = replace(self, x_scale=x_scale, x=x_scale.apply(self.x))
        if self.classes is not None:
            return scaled
        y_scale = Scale.of(learnt.y)
        return replace(scaled, y_scale=y_scale, y=y_scale.apply(self.y))

    def autoencoding(self) -> Table:
        """The same rows with the inputs, flattened, as targets (N, values of an input)."""
        return replace(self, y=self.x.flatten(1), y_names=self.x_names, classes=None)

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


def split_rows(
    rows: int, count: int, seed: int, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The numbers, ascending, of the other rows and of `count` rows drawn from the seed.

    The shuffled rows are brought into the order of their classes and taken at equal distances, so
    that each class of c rows gives count·c/rows of them to within one.
    """
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    if classes is not None:
        order = order[torch.argsort(classes[order], stable=True)]
    chosen = torch.zeros(rows, dtype=torch.bool)
    chosen[order[(2 * torch.arange(count) + 1) * rows // (2 * max(count, 1))]] = True
    return torch.nonzero(~chosen).flatten(), torch.nonzero(chosen).flatten()


def empty_split(fraction: float, rows: int, side: str) -> DataError:
    """The mistake of a fraction for validation that leaves one side without a row."""
    return DataError(
        Problem(("validation", "fraction"), f"{fraction:g} of {rows} rows leaves none for {side}")
    )
