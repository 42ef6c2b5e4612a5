"""Columns of a file of comma-separated values, by name: numbers, or classes as indices."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.config.data_sections import Csv
from trainer.config.problem import Problem, did_you_mean, shown
from trainer.config.scalars import FLOAT
from trainer.data.table import DataError, Table


def read(section: Csv) -> Table:
    """The named columns as a float64 table, classes as int64 indices; raises DataError."""
    header, rows = _lines(Path(section.file))
    wanted: list[tuple[tuple[str | int, ...], str]] = []
    wanted += [(("data", "x", i), name) for i, name in enumerate(section.x)]
    wanted += [(("data", "y", i), name) for i, name in enumerate(section.y)]
    if section.weights is not None:
        wanted.append((("data", "weights"), section.weights))
    problems = [
        Problem(path, f"no column {shown(name)} in {section.file}{did_you_mean(name, header)}")
        for path, name in wanted
        if name not in header
    ]
    if problems:
        raise DataError(*problems)
    targets = [] if section.classes else section.y
    names = [*section.x, *targets, *([section.weights] if section.weights is not None else [])]
    values = torch.tensor(list(_numbers(section.file, header, rows, names)), dtype=torch.float64)
    inputs, outputs = len(section.x), len(targets)
    table = Table(
        values[:, :inputs],
        values[:, inputs : inputs + outputs],
        values[:, -1] if section.weights is not None else None,
        x_names=tuple(section.x),
        y_names=tuple(targets),
        standardize=section.standardize,
    )
    if not section.classes:
        return table
    indices, labels = _classes(section, header, rows)
    return replace(table, y=indices, y_names=labels, classes=len(labels))


def _classes(
    section: Csv, header: list[str], rows: list[tuple[int, list[str]]]
) -> tuple[Tensor, tuple[str, ...]]:
    """The index (N,) of each row's class, and the classes: numbers by value, words by letter."""
    column = header.index(section.y[0])
    cells = [(line, row[column].strip()) for line, row in rows]
    for line, cell in cells:
        if not cell:
            expected = f"column {shown(section.y[0])}: expected a class"
            raise _fault(f"{section.file}:{line}: {expected}, got ''")
    numeric = all(FLOAT.match(cell) and not cell[-1].isalpha() for _, cell in cells)
    keys: list[Any] = [float(cell) if numeric else cell for _, cell in cells]
    labels: dict[Any, str] = {
        key: cell for key, (_, cell) in reversed(list(zip(keys, cells, strict=True)))
    }
    if len(labels) == 1:
        only = f"column {shown(section.y[0])} of {section.file} holds one class only"
        message = f"{only}, {shown(cells[0][1])}; a classifier needs at least two"
        raise DataError(Problem(("data", "y", 0), message))
    index = {key: number for number, key in enumerate(sorted(labels))}
    return torch.tensor([index[key] for key in keys]), tuple(labels[key] for key in index)


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the (line number, cells) of each row that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            lines = [
                (reader.line_num, row) for row in reader if len(row) > 1 or "".join(row).strip()
            ]
    except FileNotFoundError:
        raise _fault(f"no such file: {path}") from None
    except OSError as error:
        raise _fault(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, csv.Error) as error:  # not UTF-8, or a null byte in the file or its name
        raise _fault(f"{str(path)!r} is not a CSV file in UTF-8: {error}") from None
    if len(lines) < 2:
        raise _fault(f"{path} has no rows below its header" if lines else f"{path} is empty")
    number, header = lines[0][0], [name.strip() for name in lines[0][1]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _fault(f"{path}:{number}: column {shown(twice[0])} stands twice in the header")
    return header, lines[1:]


def _numbers(
    file: str, header: list[str], rows: list[tuple[int, list[str]]], names: list[str]
) -> Iterator[list[float]]:
    """The values of the named columns, row by row; raises DataError at the first that is none."""
    columns = [header.index(name) for name in names]
    for line, row in rows:
        if len(row) != len(header):
            cells = f"{len(row)} cell{'s' if len(row) > 1 else ''}"
            raise _fault(f"{file}:{line}: {cells}, but the header has {len(header)}")
        values = []
        for column in columns:
            cell = row[column].strip()
            # float() alone would also read 1_000, infinity and digits of other scripts.
            value = float(cell) if FLOAT.match(cell) and not cell[-1].isalpha() else math.nan
            if not math.isfinite(value):
                expected = f"column {shown(header[column])}: expected a finite number"
                raise _fault(f"{file}:{line}: {expected}, got {shown(row[column])}")
            values.append(value)
        yield values


def _fault(message: str) -> DataError:
    return DataError(Problem(("data", "file"), message))
