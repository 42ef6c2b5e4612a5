"""One statistic of a run: its rows (layers or parameters) at all observed steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# All statistics are sizes or fractions, so a negative number is free to say: nothing was observed.
ABSENT = -1.0
AXES = ("even", "linear", "log")  # steps one by one, by their number, by its logarithm


class Columns(NamedTuple):
    """What a picture shows: C columns of one or more observed steps each.

    `low` and `high` are the smallest and the largest value of a column; NaN or infinity when any
    of its values is, and ABSENT when all are.
    """

    rows: tuple[str, ...]
    first: NDArray[np.int64]  # (C,) the first step of each column
    last: NDArray[np.int64]  # (C,) the last
    low: NDArray[np.float64]  # (C, R)
    high: NDArray[np.float64]  # (C, R); the same object as `low` where no steps share a column


class Grid:
    """Grows by a step at a time; rows keep the order in which a step named them."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._names: tuple[str, ...] = ()  # of the newest step
        self._places: NDArray[np.intp] | slice = np.zeros(0, np.intp)
        self._steps = np.zeros(0, np.int64)
        self._values = np.zeros((0, 0))
        self._length = 0

    @property
    def steps(self) -> NDArray[np.int64]:
        """(S,) the observed steps."""
        return self._steps[: self._length]

    def add(self, step: int, names: tuple[str, ...], values: NDArray[np.float64]) -> None:
        """Appends a step; one value for each name, ABSENT where there is none."""
        if names != self._names or not self._length:
            for name in names:
                self._rows.setdefault(name, len(self._rows))
            self._names = names
            self._places = np.array([self._rows[name] for name in names], np.intp)
        if self._length == len(self._steps) or len(self._rows) > self._values.shape[1]:
            self._grow()
        self._steps[self._length] = step
        self._values[self._length, self._places] = values
        self._length += 1

    def _grow(self) -> None:
        capacity = max(64, self._length * 3 // 2)
        steps, values = np.zeros(capacity, np.int64), np.full((capacity, len(self._rows)), ABSENT)
        steps[: self._length] = self.steps
        values[: self._length, : self._values.shape[1]] = self._values[: self._length]
        self._steps, self._values = steps, values

    def columns(
        self,
        width: int,
        axis: str = "even",
        first: int | None = None,
        last: int | None = None,
        relative: bool = False,
    ) -> Columns:
        """The steps from `first` to `last` in at most `width` columns that are equally wide on the
        axis; with `relative`, every value over that of the last row at the same step."""
        steps = self.steps
        start = 0 if first is None else int(np.searchsorted(steps, first))
        end = len(steps) if last is None else int(np.searchsorted(steps, last, side="right"))
        steps, values = steps[start:end], self._values[start:end]
        observed = (values != ABSENT).any(axis=0)
        names = [name for name, row in self._rows.items() if observed[row]]
        values = values[:, observed]
        if relative and names:
            values = _relative(values)
        if len(steps) <= width:
            return Columns(tuple(names), steps, steps, values, values)
        starts = _starts(steps, width, axis)
        low, high = _extremes(values, starts)
        return Columns(tuple(names), steps[starts], steps[np.append(starts[1:], 0) - 1], low, high)

    def at(self, step: int, relative: bool = False) -> Columns | None:
        """The newest observed step up to `step`, else the first; None when there is none."""
        if not self._length:
            return None
        index = max(0, int(np.searchsorted(self.steps, step, side="right")) - 1)
        found = int(self.steps[index])
        return self.columns(1, first=found, last=found, relative=relative)


def _relative(values: NDArray[np.float64]) -> NDArray[np.float64]:
    reference = values[:, -1:]
    with np.errstate(all="ignore"):
        ratio = np.where(values > 0, values / reference, values)
    unknown = (values > 0) & np.isfinite(values) & ~((reference > 0) & np.isfinite(reference))
    ratio[unknown] = ABSENT
    ratio[~np.isfinite(values)] = values[~np.isfinite(values)]
    return ratio


def _starts(steps: NDArray[np.int64], width: int, axis: str) -> NDArray[np.intp]:
    """The place of the first step of each column."""
    place = {"even": np.arange(len(steps)), "linear": steps, "log": np.log1p(steps - steps[0])}[
        axis
    ]
    span = place[-1] - place[0]
    column = np.minimum((place - place[0]) / span * width, width - 1).astype(np.int64)
    return np.unique(column, return_index=True)[1]


def _extremes(
    values: NDArray[np.float64], starts: Sequence[int] | NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(C, R) smallest and largest of each column; NaN and infinity go before everything."""
    there = values != ABSENT
    # NaN and infinity pass through maximum; what is absent is below all else.
    high = np.maximum.reduceat(values, starts, axis=0)
    low = np.minimum.reduceat(np.where(there, values, np.inf), starts, axis=0)
    low = np.where(np.isfinite(high), low, high)
    return np.where(high == ABSENT, ABSENT, low), high
