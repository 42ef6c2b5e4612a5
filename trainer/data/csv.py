"""Columns of a file of comma-separated values, by name: numbers, or classes as indices."""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from trainer import memory
from trainer.config.data_sections import Csv
from trainer.config.problem import Problem, did_you_mean, shown
from trainer.config.scalars import FLOAT
from trainer.data.file import Lines, fault, opened
from trainer.data.table import DataError, Table

Row = tuple[int, list[str]]  # its line and its cells
AT_ONCE = 1000  # rows
MAX_TOLD = 20  # columns that are missing
CLASSES = "; if the column holds classes, set data.classes: true"
# What float() reads and no one means: 1_000, infinity, digits of other scripts.
_ODD = re.compile(r"[^0-9eE+.\s-]")


def read(section: Csv) -> Table:
    """The named columns as a float64 table, classes as int64 indices; raises DataError."""
    targets = [] if section.classes else section.y
    names = [*section.x, *targets, *([section.weights] if section.weights is not None else [])]
    values, classes = array("d"), _Classes(section) if section.classes else None
    with opened(section.file) as file:
        rows = _rows(section.file, Lines(section.file, file))
        line, cells = next(rows, (0, []))
        if not cells:
            raise fault(f"{section.file} is empty")
        header = _header(section, line, cells)
        columns = [header[name] for name in names]
        room = memory.available() // 32  # each value is copied, and brought to its type
        while batch := list(islice(rows, AT_ONCE)):
            _read(section, header, batch, columns, values)
            if classes is not None:
                classes.add(header[section.y[0]], batch)
            different = 0 if classes is None else len(classes)
            if len(values) + 8 * different > room:
                raise fault(f"{section.file}:{batch[-1][0]}: the rows so far fill the memory")
    if not values:
        raise fault(f"{section.file} has no rows below its header")
    table = torch.frombuffer(values, dtype=torch.float64).view(-1, len(names))
    inputs, outputs = len(section.x), len(targets)
    y, y_names = table[:, inputs : inputs + outputs], tuple(targets)
    if classes is not None:
        y, y_names = classes.indices()
    return Table(
        table[:, :inputs],
        y,
        table[:, -1] if section.weights is not None else None,
        x_names=tuple(section.x),
        y_names=y_names,
        classes=None if classes is None else len(y_names),
        standardize=section.standardize,
    )


def _rows(file: str, lines: Lines) -> Iterator[Row]:
    """The rows that are not blank."""
    reader = csv.reader(lines, skipinitialspace=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise fault(f"{file}:{reader.line_num}: not CSV: {error}") from None
        if row is None:
            return
        if len(row) > 1 or (row and row[0].strip()):
            lines.done()
            yield reader.line_num, row


def _header(section: Csv, line: int, cells: list[str]) -> dict[str, int]:
    """The number of each column by its name; raises DataError where one is missing or twice."""
    names = [cell.strip() for cell in cells]
    header = {name: number for number, name in enumerate(names)}
    if len(header) < len(names):
        twice = min(name for name, times in Counter(names).items() if times > 1)
        raise fault(f"{section.file}:{line}: column {shown(twice)} stands twice in the header")
    wanted: list[tuple[tuple[str | int, ...], str]] = []
    wanted += [(("data", "x", i), name) for i, name in enumerate(section.x)]
    wanted += [(("data", "y", i), name) for i, name in enumerate(section.y)]
    if section.weights is not None:
        wanted.append((("data", "weights"), section.weights))
    missing = [(path, name) for path, name in wanted if name not in header]
    if missing:
        where = f" in {section.file}"
        told = [
            Problem(path, f"no column {shown(name)}{where}{did_you_mean(name, header)}")
            for path, name in missing[:MAX_TOLD]
        ]
        raise DataError(*told)
    return header


def _read(
    section: Csv, header: dict[str, int], rows: list[Row], columns: list[int], values: array[float]
) -> None:
    """Adds the values of the columns; raises DataError at the first that is no finite number."""
    cells = [row[column] for _, row in rows if len(row) == len(header) for column in columns]
    if len(cells) == len(rows) * len(columns) and not _ODD.search("".join(cells)):
        try:
            found = list(map(float, cells))
        except ValueError:
            found = [math.nan]
        if all(map(math.isfinite, found)):
            values.extend(found)
            return
    file = section.file
    for line, row in rows:
        if len(row) != len(header):
            got = f"{len(row)} cell{'s' if len(row) > 1 else ''}"
            raise fault(f"{file}:{line}: {got}, but the header has {len(header)}")
        for column in columns:
            cell = row[column].strip()
            value = float(cell) if FLOAT.match(cell) and not cell[-1].isalpha() else math.nan
            if not math.isfinite(value):
                name = next(name for name, number in header.items() if number == column)
                expected = f"column {shown(name)}: expected a finite number"
                word = cell[:1].isalpha() and cell.lower() != "nan"  # that is a missing number
                hint = CLASSES if word and section.y == [name] else ""
                raise fault(f"{file}:{line}: {expected}, got {shown(row[column])}{hint}")
            values.append(value)


class _Classes:
    """The classes of the target column: numbers by value, words by letter."""

    def __init__(self, section: Csv) -> None:
        self._file, self._name = section.file, section.y[0]
        self._numbers: dict[str, int] = {}  # of the cells, as they came
        self._found = array("q")

    def add(self, column: int, rows: list[Row]) -> None:
        """Takes the cells of further rows; raises DataError where one is empty."""
        for line, row in rows:
            cell = row[column].strip()
            if not cell:
                expected = f"column {shown(self._name)}: expected a class"
                raise fault(f"{self._file}:{line}: {expected}, got ''")
            self._found.append(self._numbers.setdefault(cell, len(self._numbers)))

    def __len__(self) -> int:
        return len(self._numbers)

    def indices(self) -> tuple[Tensor, tuple[str, ...]]:
        """The index (N,) of each row's class, and the classes; DataError where there is one."""
        cells = list(self._numbers)
        numeric = all(FLOAT.match(cell) and not cell[-1].isalpha() for cell in cells)
        keys: list[Any] = [float(cell) if numeric else cell for cell in cells]
        labels: dict[Any, str] = {}
        for key, cell in zip(keys, cells, strict=True):
            labels.setdefault(key, cell)
        if len(labels) == 1:
            only = f"column {shown(self._name)} of {self._file} holds one class only"
            message = f"{only}, {shown(cells[0])}; a classifier needs at least two"
            raise DataError(Problem(("data", "y", 0), message))
        index = {key: number for number, key in enumerate(sorted(labels))}
        of_cell = torch.tensor([index[key] for key in keys])
        found = torch.frombuffer(self._found, dtype=torch.int64)
        return of_cell[found], tuple(labels[key] for key in index)
