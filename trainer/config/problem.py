"""What is wrong with a configuration, and where: the one way in which a user's mistake is told."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

Path = tuple[str | int, ...]
MAX_SHOWN = 80  # characters of a value
MAX_FOUND = 1000  # mistakes in a section, which take time to find words for
MAX_KNOWN = 1000  # words among which the one that was meant is looked for


@dataclass(frozen=True)
class Problem:
    """One mistake at `path` (a key or index per level); `at_key` marks the key, not its value."""

    path: Path
    message: str
    at_key: bool = False
    meant: str | None = None  # the key that an unknown one stands for: no need to say it is missing


@dataclass(frozen=True)
class Place:
    """Where a key or value stands: in a file at a row and column from 1, or on the command line."""

    source: str
    row: int = 0  # 0: the source as a whole
    column: int = 0
    line: str = ""

    def show(self, path: Path, message: str) -> str:
        """`file:row:column: path: message`, with the line and a caret below when there is one."""
        position = f":{self.row}:{self.column}" if self.row else ""
        shown_path = f"{dotted(path)}: " if path else ""
        text = f"{self.source}{position}: {shown_path}{printable(message)}"
        if not self.line.strip():
            return text
        # A window of the line, so that a line of a megabyte does not flood the terminal.
        start = max(0, min(self.column - 60, len(self.line) - 120))
        window = self.line[start : start + 120].replace("\t", " ")
        window = "".join(c if c.isprintable() else "?" for c in window)
        return f"{text}\n    {window}\n    {' ' * (self.column - 1 - start)}^"


class ConfigError(ValueError):
    """The user's mistakes in a configuration, one line (and source line) each; exit status 2."""

    def __init__(self, messages: list[str]):
        super().__init__("\n".join(messages))
        self.messages = messages


def dotted(path: Path) -> str:
    """`("data", "x", 0)` as `data.x[0]`; a key that is no plain word is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            word = part if re.fullmatch(r"[\w-]{1,80}", part) else shown(part)
            text += f".{word}" if text else word
    return text


def unknown_key(path: Path, message: str, known: Iterable[str]) -> Problem:
    """The mistake that the last key of the path is none of those known."""
    words, key = list(known), str(path[-1])
    return Problem(path, f"{message}{did_you_mean(key, words)}", True, nearest(key, words))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    by_lower = {w.lower(): w for w in islice(known, MAX_KNOWN)}
    near = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'lr'?` for the nearest of the known words, else the sorted list of them."""
    words = sorted(known)
    near = nearest(word, words)
    if near is not None:
        return f"; did you mean {shown(near)}?"
    listed = ", ".join(w if len(w) <= MAX_SHOWN else shown(w) for w in words[:30])
    listed += ", ..." if len(words) > 30 else ""
    return f"; known: {listed}" if words else ""


def printable(text: str) -> str:
    """The text with what a terminal would obey, or turn around, as an escape like `\\x1b`."""
    plain = text.replace("\n", "").isprintable()
    kept = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return text if plain else "".join(kept)


def shown(value: object) -> str:
    """The value about as it would be written in YAML, cut at 80 characters."""
    match value:
        case None:
            text = "null"
        case bool():
            text = str(value).lower()
        case dict():
            text = "a section" if value else "an empty section"
        case list():
            text = f"a list of {len(value)}" if value else "an empty list"
        case str():
            text = repr(value[: MAX_SHOWN + 1])
        case float() if value != value or abs(value) == float("inf"):
            text = str(value).replace("inf", ".inf").replace("nan", ".nan")
        case _:
            text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
