"""How two runs differ: their configurations, their results and what they ran on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import columns
from trainer.config import ConfigError, dump, load, resolved
from trainer.config.file import read
from trainer.config.problem import Path as Keys
from trainer.config.problem import dotted, shown

ABSENT = "–"
MAX_LIST = 60  # characters of a list that is shown whole
PLACES = ("python", "platform", "host", "cpus", "git", "packages")  # of environment.json
_MISSING = object()


@dataclass(frozen=True)
class Side:
    """What is known of a run; of a configuration that was not run only the first."""

    config: dict[str, Any]
    result: dict[str, Any]
    environment: dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Prints how the two runs of the command line differ; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer diff",
        description="How two configurations and their results differ.",
        allow_abbrev=False,
    )
    for name in ("first", "second"):
        parser.add_argument(name, metavar="RUN", type=Path, help="a run's folder, or a YAML file")
    given = parser.parse_args(arguments)
    try:
        rows = table(side(given.first), side(given.second))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    if rows:
        columns.show(("", str(given.first), str(given.second)), rows)
    else:
        print("no difference")
    return 0


def side(path: Path) -> Side:
    """A run's folder or a configuration, read; raises ConfigError where it is neither."""
    if not path.is_dir():
        return Side(resolved(load(path)[0]), {}, {})
    config = path / "config.yaml"
    if not config.is_file():
        raise ConfigError([f"{path}: holds no config.yaml; name a run's folder or a YAML file"])
    # It has every key already, and may be older than the keys that are known today.
    tree = read(config, []).tree
    environment = _json(path / "environment.json")
    place = {key: value for key, value in environment.items() if key in PLACES}
    result = _json(path / "result.json")
    if "findings" in result:
        result["findings"] = "; ".join(map(_said, result["findings"])) or "none"
    return Side(tree, result, place)


def _said(finding: dict[str, Any]) -> str:
    return f"{finding['verdict']} ({'resolved' if finding['resolved'] else finding['level']})"


def table(first: Side, second: Side) -> list[tuple[str, str, str]]:
    """One row per key that differs, under a row for each part with such keys.

    Of results also those that are equal, since they are what was asked for, unless all are.
    """
    rows: list[tuple[str, str, str]] = []
    for title, a, b, equal_too in (
        ("configuration", first.config, second.config, False),
        ("result", first.result, second.result, True),
        ("environment", first.environment, second.environment, False),
    ):
        if title == "environment" and not (a and b):
            continue
        found = list(differences(a, b))
        if found and equal_too:
            found = list(differences(a, b, equal_too=True))
        if found:
            rows.append((title, "", ""))
            rows += [(f"  {dotted(path)}", _text(x), _text(y)) for path, x, y in found]
    return rows


def differences(
    a: Any, b: Any, path: Keys = (), equal_too: bool = False
) -> Iterator[tuple[Keys, Any, Any]]:
    """(path, value in a, value in b) where two trees differ; long lists are compared by item."""
    if a and isinstance(a, dict) and b is _MISSING:
        b = {}
    elif b and isinstance(b, dict) and a is _MISSING:
        a = {}
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from differences(
                a.get(key, _MISSING), b.get(key, _MISSING), (*path, key), equal_too
            )
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and _long(a, b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, (*path, index))
    elif equal_too or _whole(a) != _whole(b):
        yield path, a, b


def _long(*lists: list[Any]) -> bool:
    return any(len(_whole(values)) > MAX_LIST for values in lists)


def _whole(value: Any) -> str:
    """The value as YAML on one line: 1 and true are not the same there, and nan is nan."""
    if value is _MISSING:
        return ABSENT
    if isinstance(value, list):
        return f"[{', '.join(map(_whole, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_whole(below)}' for key, below in value.items())}}}"
    return " ".join(dump({"v": [value]}).removeprefix("v: [").rstrip().removesuffix("]").split())


def _text(value: Any) -> str:
    whole = _whole(value)
    return whole if not isinstance(value, list) or len(whole) <= MAX_LIST else shown(value)


def _json(path: Path) -> dict[str, Any]:
    """What a file of a run's folder holds; empty when there is none."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from None
    return tree if isinstance(tree, dict) else {}
