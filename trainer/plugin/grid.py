"""One statistic of a run: its rows (layers or parameters) at all observed steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# All statistics are sizes or fractions, so a negative number is free to say: nothing was observed.
ABSENT = -1.0
MOST_CELLS = 200_000  # of a picture: what is sent and painted within a second
LEAST_COLUMNS = 100
AT_ONCE = 100_000  # cells
AXES = ("even", "linear", "log")  # steps one by one, by their number, by its logarithm


class Fold(NamedTuple):
    """Which modules are one row: those at a depth of the path; for the modules in `turned` the
    other way round."""

    depth: int = 0  # 0: none
    turned: frozenset[str] = frozenset()

    def row(self, name: str) -> str:
        """The outermost folded module around a layer or parameter, or else its own name."""
        if not self.depth and not self.turned:
            return name
        parts = name.split(".")
        for depth in range(1, len(parts)):
            module = ".".join(parts[:depth])
            if (depth == self.depth) != (module in self.turned):
                return module
        return name


UNFOLDED = Fold()


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
    modules: tuple[str, ...] = ()  # those of the rows that are folded modules


class Part(NamedTuple):
    """Steps that name the same rows."""

    steps: NDArray[np.int64]  # (R,)
    names: Sequence[str]
    values: NDArray[np.float64]  # (R, N); ABSENT where there is none


class Grid:
    """Grows by some steps at a time; rows keep the order in which a step named them."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._steps = np.empty(0, np.int64)
        self._values = np.empty((0, 0))
        self._length = 0

    @property
    def steps(self) -> NDArray[np.int64]:
        """(S,) the observed steps."""
        return self._steps[: self._length]

    @property
    def wide(self) -> bool:
        """Whether there is more than one row: one has none to be compared with."""
        return len(self._rows) > 1

    @property
    def size_bytes(self) -> int:
        """What it takes of memory."""
        return self._length * 8 * (1 + len(self._rows))

    def add(self, parts: Sequence[Part]) -> None:
        """Appends the steps of all parts, which come after those that are here."""
        order = np.argsort(np.concatenate([part.steps for part in parts]), kind="stable")
        places = np.empty(len(order), np.intp)
        places[order] = np.arange(self._length, self._length + len(order))
        for name in (name for part in parts for name in part.names):
            self._rows.setdefault(name, len(self._rows))
        self._make_room(self._length + len(order))
        self._values[self._length : self._length + len(order)] = ABSENT
        start = 0
        for steps, names, values in parts:
            where = places[start : start + len(steps)]
            start += len(steps)
            self._steps[where] = steps
            self._values[where[:, None], [self._rows[name] for name in names]] = values
        self._length += len(order)

    def _make_room(self, length: int) -> None:
        rows = len(self._rows)
        if length <= len(self._steps) and rows == self._values.shape[1]:
            return
        capacity = max(length, len(self._steps) * 3 // 2)
        steps, values = np.empty(capacity, np.int64), np.empty((capacity, rows))
        steps[: self._length] = self.steps
        values[: self._length] = ABSENT
        values[: self._length, : self._values.shape[1]] = self._values[: self._length]
        self._steps, self._values = steps, values

    def columns(
        self,
        width: int,
        axis: str = "even",
        first: int | None = None,
        last: int | None = None,
        relative: bool = False,
        fold: Fold = UNFOLDED,
    ) -> Columns:
        """The steps from `first` to `last` in at most `width` columns that are equally wide on the
        axis; with `relative`, every value over that of the last row at the same step, unless it is
        the only one; what `fold` folds in one row, with the extremes of its layers."""
        steps = self.steps
        start = 0 if first is None else int(np.searchsorted(steps, first))
        end = len(steps) if last is None else int(np.searchsorted(steps, last, side="right"))
        steps, values = steps[start:end], self._values[start:end]
        width = min(width, max(LEAST_COLUMNS, MOST_CELLS // max(1, len(self._rows))))
        alone = len(steps) <= width
        starts = np.arange(len(steps)) if alone else _starts(steps, width, axis)
        ends = np.append(starts, len(steps))[1:]
        whole, observed = _merged(values, starts, ends, relative and self.wide)
        low, high = (side if observed.all() else side[:, observed] for side in whole)
        names = tuple(name for name, row in self._rows.items() if observed[row])
        high = low if alone else high
        return _folded(Columns(names, steps[starts], steps[ends - 1], low, high), fold)

    def at(self, step: int, relative: bool = False, fold: Fold = UNFOLDED) -> Columns | None:
        """The newest observed step up to `step`, else the first; None when there is none."""
        if not self._length:
            return None
        index = max(0, int(np.searchsorted(self.steps, step, side="right")) - 1)
        found = int(self.steps[index])
        return self.columns(1, first=found, last=found, relative=relative, fold=fold)


def _merged(
    values: NDArray[np.float64], starts: NDArray[np.intp], ends: NDArray[np.intp], relative: bool
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]:
    """(C, R) the extremes of the columns from start to end, and (R,) which rows were observed; as
    many steps at a time as stay in the processor's cache."""
    low, high = np.empty((2, len(starts), values.shape[1]))
    observed = np.zeros(values.shape[1], bool)
    reference = _last_observed(values) if relative else None
    columns = max(1, AT_ONCE * len(starts) // max(1, values.size))
    for at in range(0, len(starts), columns):
        some = slice(at, at + columns)
        part = values[starts[at] : ends[some][-1]]
        observed |= (part != ABSENT).any(axis=0)
        if reference is not None:
            part = _relative(part, part[:, reference, None])
        low[some], high[some] = _extremes(part, part, starts[some] - starts[at], 0)
    return (low, high), observed


def _last_observed(values: NDArray[np.float64]) -> int | None:
    rows = reversed(range(values.shape[1]))
    return next((row for row in rows if (values[:, row] != ABSENT).any()), None)


def _relative(values: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sizes over the reference of their step, ABSENT where that is none; what is no size stays."""
    known = (reference > 0) & (reference < np.inf)
    with np.errstate(all="ignore"):
        ratio = np.where(known, values / reference, ABSENT)
    return np.where((values > 0) & (values < np.inf), ratio, values)


def _starts(steps: NDArray[np.int64], width: int, axis: str) -> NDArray[np.intp]:
    """The place of the first step of each column."""
    place = {"even": np.arange(len(steps)), "linear": steps, "log": np.log1p(steps - steps[0])}[
        axis
    ]
    span = place[-1] - place[0]
    column = np.minimum((place - place[0]) / span * width, width - 1).astype(np.int64)
    return np.unique(column, return_index=True)[1]


def _folded(columns: Columns, fold: Fold) -> Columns:
    """The rows of a module in one, at the place of its first: smallest and largest of them all."""
    rows = [fold.row(name) for name in columns.rows]
    folded = dict.fromkeys(row for row, name in zip(rows, columns.rows, strict=True) if row != name)
    columns = columns._replace(modules=tuple(folded))
    places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    if len(places) == len(rows):
        return columns._replace(rows=tuple(rows))
    which = np.array([places[row] for row in rows])
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(len(places)))
    low, high = _extremes(columns.low[:, order], columns.high[:, order], starts, 1)
    return columns._replace(rows=tuple(places), low=low, high=high)


def _extremes(
    low: NDArray[np.float64], high: NDArray[np.float64], starts: NDArray[np.intp], axis: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest of the parts that begin there; NaN and infinity go before everything."""
    # NaN and infinity pass through maximum; what is absent is below all else.
    low = np.minimum.reduceat(np.where(low != ABSENT, low, np.inf), starts, axis=axis)
    high = np.maximum.reduceat(high, starts, axis=axis)
    low = np.where(np.isfinite(high), low, high)
    return np.where(high == ABSENT, ABSENT, low), high
