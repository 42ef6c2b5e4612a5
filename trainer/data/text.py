"""The characters of a file, cut into rows, each character with its next as the target."""

from __future__ import annotations

import os

import numpy as np
import torch

from trainer import memory
from trainer.config.data_sections import TextFile
from trainer.config.problem import Problem
from trainer.data.file import fault, opened, whole
from trainer.data.table import DataError, Table

CODES = 0x110000  # of Unicode
BYTES = 20  # taken for a character at most: text, code and token


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
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    held = np.zeros(CODES, dtype=bool)
    held[codes] = True
    characters = tuple(map(chr, np.flatnonzero(held)))
    if len(characters) == 1:
        message = f"{section.file} holds one character only, {characters[0]!r}"
        raise DataError(Problem(("data", "file"), message))
    index = np.cumsum(held) - 1
    rows = torch.from_numpy(index[codes]).unfold(0, context + 1, stride)
    count = len(characters)
    return Table(
        rows[:, :-1],
        rows[:, 1:],
        y_names=characters,
        classes=count,
        vocabulary=count,
        overlap=-(-context // stride) - 1,
    )


def _text(name: str) -> str:
    with opened(name) as file:
        try:
            memory.need(BYTES * os.fstat(file.fileno()).st_size, f"the characters of {name}")
        except ValueError as error:
            raise fault(str(error)) from None
        text = whole(name, file)
    if not text:
        raise fault(f"{name} is empty")
    return text
