"""The characters of a file, cut into rows, each character with its next as the target."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.config.data_sections import TextFile
from trainer.config.problem import Problem
from trainer.data.table import DataError, Table


def read(section: TextFile) -> Table:
    """x (N, context) and y (N, context): characters by their index in the sorted set of them, and
    those that follow; raises DataError.

    The rows share the memory of one copy of the text, however much they overlap.
    """
    text, context = _text(section.file), section.context
    stride = section.stride or context
    if len(text) <= context:
        message = f"{section.file} has {len(text)} characters; a row needs {context} and the next"
        raise DataError(Problem(("data", "context"), message))
    characters = tuple(sorted(set(text)))
    if len(characters) == 1:
        message = f"{section.file} holds one character only, {characters[0]!r}"
        raise DataError(Problem(("data", "file"), message))
    index = {character: i for i, character in enumerate(characters)}
    tokens = torch.tensor([index[character] for character in text])
    rows = tokens.unfold(0, context + 1, stride)
    count = len(characters)
    return Table(
        rows[:, :-1],
        rows[:, 1:],
        y_names=characters,
        classes=count,
        vocabulary=count,
        overlap=-(-context // stride) - 1,
    )


def _text(file: str) -> str:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _fault(f"no such file: {file}") from None
    except OSError as error:
        raise _fault(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or a null byte in the name
        raise _fault(f"{file!r} is not a text in UTF-8: {error}") from None
    if not text:
        raise _fault(f"{file} is empty")
    return text


def _fault(message: str) -> DataError:
    return DataError(Problem(("data", "file"), message))
