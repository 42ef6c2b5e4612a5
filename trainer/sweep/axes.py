"""What a sweep varies: keys of a configuration, each with a list of values or a range."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from trainer.config import ConfigError
from trainer.config.problem import shown
from trainer.config.scalars import plain_scalar

RANGE = re.compile(r"\s*(log|uniform|int)\((.*)\)\s*\Z", re.DOTALL)
FORMS = "log(low,high), uniform(low,high) or int(low,high)"


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included."""

    kind: str  # "log" and "uniform" are real, "int" is whole
    low: float
    high: float

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends as they would be written."""
        return f"{self.low!r}", f"{self.high!r}"


@dataclass(frozen=True)
class Axis:
    """One key and what it is set to: texts of values as they would stand in the file."""

    key: str
    values: tuple[str, ...] | Range

    @property
    def tried(self) -> tuple[str, ...]:
        """All values of a list; the ends of a range."""
        return self.values.ends if isinstance(self.values, Range) else self.values


def parse(arguments: Sequence[str]) -> tuple[list[str], list[Axis]]:
    """The overrides with one value, which all trials share, and the axes.

    Raises ConfigError for ranges that are none and for a key that is set twice.
    """
    fixed: list[str] = []
    axes: list[Axis] = []
    problems: list[str] = []
    seen: set[str] = set()
    for text in arguments:
        key, _, value_text = text.partition("=")
        where = f"command line: {text if text.isprintable() else repr(text)}: {key}"
        if key in seen:
            problems.append(f"{where}: the key is set twice; write all its values in one list")
        seen.add(key)
        try:
            found = _range(value_text)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        values = found or split(value_text)
        if isinstance(values, Range) or len(values) > 1:
            axes.append(Axis(key, values))
        else:
            fixed.append(f"{key}={values[0]}")
    if problems:
        raise ConfigError(problems)
    return fixed, axes


def split(text: str) -> tuple[str, ...]:
    """The texts between the commas that stand outside brackets, braces and quotes, each once."""
    flow = f"[{text}]"
    try:
        node = yaml.compose(flow, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return (text,)  # whoever reads it as a value says what is wrong with it
    if not isinstance(node, yaml.SequenceNode) or len(node.value) < 2:
        return (text,)
    marks = [(item.start_mark.index, item.end_mark.index) for item in node.value]
    return tuple(dict.fromkeys(flow[start:end].strip() for start, end in marks))


def combinations(axes: Sequence[Axis]) -> Iterator[dict[str, str]]:
    """Every combination of the axes' values, the last axis fastest."""
    for values in itertools.product(*(axis.tried for axis in axes)):
        yield dict(zip((axis.key for axis in axes), values, strict=True))


def one_by_one(axes: Sequence[Axis]) -> Iterator[dict[str, str]]:
    """Each value of each axis, the other axes at their first."""
    first = {axis.key: axis.tried[0] for axis in axes}
    yield first
    for axis in axes:
        yield from ({**first, axis.key: value} for value in axis.tried[1:])


def written(values: dict[str, str]) -> list[str]:
    """The values as overrides of the command line."""
    return [f"{key}={value}" for key, value in values.items()]


def _range(text: str) -> Range | None:
    match = RANGE.match(text)
    if match is None:
        return None
    kind = match[1]
    try:
        low, high = (plain_scalar(part.strip()) for part in match[2].split(","))
    except ValueError:
        raise ValueError(f"expected {FORMS} with two numbers, got {shown(text)}") from None
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int if kind == "int" else int | float):
            wanted = "whole numbers" if kind == "int" else "numbers"
            raise ValueError(f"expected two {wanted} in {kind}(low,high), got {shown(end)}")
        if not math.isfinite(end):
            raise ValueError(f"expected finite numbers in {kind}(low,high), got {shown(end)}")
    assert isinstance(low, int | float) and isinstance(high, int | float)
    if not low < high:
        raise ValueError(f"expected low < high, got {shown(text)}")
    if kind == "log" and low <= 0:
        raise ValueError(f"expected low > 0 in log(low,high), got {shown(low)}")
    return Range(kind, low, high)
