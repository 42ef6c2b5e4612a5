"""Opens the file of a configuration: whatever it is, it is read to an end or refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from trainer.config.problem import ConfigError, Place, did_you_mean
from trainer.config.source import Document

MAX_BYTES = 1_000_000
MAX_OVERRIDES = 1000


def read(path: Path, overrides: Sequence[str]) -> Document:
    """The document of a file with the overrides applied; raises ConfigError."""
    try:
        with open(path, "rb", opener=_not_waiting) as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError([f"{path}: no such file{did_you_mean(path.name, siblings)}"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{path}: is a folder; name a file in it"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    except ValueError as error:  # a null byte in the name
        raise ConfigError([f"{str(path)!r}: not a file name: {error}"]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([f"{path}: larger than {MAX_BYTES:,} bytes; is it a configuration?"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        message = f"not a text file in UTF-8 (byte 0x{data[error.start]:02x})"
        raise ConfigError([Place(str(path), row, column).show((), message)]) from None
    if len(overrides) > MAX_OVERRIDES:
        raise ConfigError([f"command line: more than {MAX_OVERRIDES:,} values; write a file"])
    document = Document(str(path), text)
    for override in overrides:
        document.override(override)
    return document


def _not_waiting(path: str, flags: int) -> int:
    """The open file; a pipe that no one writes to is empty, and not waited for."""
    if not hasattr(os, "O_NONBLOCK"):
        return os.open(path, flags)
    number = os.open(path, flags | os.O_NONBLOCK)
    os.set_blocking(number, True)
    return number
