"""A file of data as text, each row of it no longer than a row may be."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TextIO

from trainer.config.problem import Problem
from trainer.data.table import DataError

MAX_ROW = 4_000_000  # characters
CHUNK = 1_000_000  # characters read at once
_NO_TEXT = re.compile("[\udc80-\udcff]")  # what stands for a byte that is not UTF-8


def opened(name: str) -> TextIO:
    """The file, its ends of lines as they are; DataError where it is none that ends."""
    path = Path(name)
    try:
        ends = stat.S_ISREG(path.stat().st_mode)  # no pipe, and not /dev/zero
        if ends or path.is_dir():
            return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise fault(f"no such file: {path}") from None
    except OSError as error:
        raise fault(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # a null byte
        raise fault(f"{name!r} is no name of a file: {error}") from None
    raise fault(f"{path} is no file that has an end")


def whole(name: str, file: TextIO) -> str:
    """All of the text, each end of a line as "\n"; DataError where it is none."""
    text = _read(name, file, -1)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    _check(name, [text], 1)
    return text


class Lines:
    """The lines of a file, with their ends; whoever reads them says when a row is `done`."""

    def __init__(self, name: str, file: TextIO) -> None:
        self._name, self._file = name, file
        self._characters = 0  # read since the last row

    def done(self) -> None:
        """What was read so far were whole rows."""
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        number, rest = 1, ""
        while text := _read(self._name, self._file, CHUNK):
            self._characters += len(text)
            if self._characters > MAX_ROW:
                raise fault(f"{self._name}:{number}: a row of more than {MAX_ROW:,} characters")
            # The last line may go on, and "\r" may be the half of an end.
            *lines, rest = StringIO(rest + text, newline="")
            _check(self._name, lines, number)
            number += len(lines)
            yield from lines
        _check(self._name, [rest], number)
        yield rest


def fault(message: str) -> DataError:
    """The mistake that a file is not what the configuration says."""
    return DataError(Problem(("data", "file"), message))


def _read(name: str, file: TextIO, characters: int) -> str:
    try:
        return file.read(characters)
    except OSError as error:
        raise fault(f"cannot read {name}: {error.strerror}") from None


def _check(name: str, lines: list[str], number: int) -> None:
    """Raises where the lines, the first of this number, hold bytes that are no text."""
    for line in lines:
        found = None if line.isascii() else _NO_TEXT.search(line)
        if found:
            number += line.count("\n", 0, found.start())
            raise fault(f"{name}:{number}: not UTF-8 (byte 0x{ord(found[0]) - 0xDC00:02x})")
        number += 1
