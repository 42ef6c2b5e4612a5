"""A safetensors file: written from tensors as they are, or from a copy in one piece of memory.

The format is that of https://github.com/huggingface/safetensors#format. The library's own writer
makes the file anew each time and knows no checksum; written by a thread, it holds up those that
train for three times as long as a copy that is written as a whole.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PIECE_BYTES = 1 << 20
BUFFER_BYTES = 1 << 16  # tensors below are written together
OVERWRITING = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
ALIGNED_BYTES = 16  # so that every tensor starts at a multiple of its element's size
BFLOAT16_EXPONENT = 0x7F80
BITS = {torch.bfloat16: torch.int16} | dict.fromkeys(
    (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    torch.uint8,
)
KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.bool: "BOOL", torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}  # fmt: skip

Values = NDArray[Any]
Form = tuple[str, torch.dtype, torch.Size]


class NotFinite(Exception):
    """A number that is infinite or none."""


class TensorFile:
    """Named tensors, as a file holds them; TypeError for one that it cannot hold.

    They are those of the caller, and change with them, until `copy`.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.layout is not torch.strided:
                raise TypeError(f"{name}: no checkpoint can hold a tensor of {tensor.layout}")
            if tensor.dtype not in KINDS:
                raise TypeError(f"{name}: no checkpoint can hold values of {tensor.dtype}")
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
        self._tensors = [t.detach() if t.requires_grad else t for _, t in ordered]
        self._head, self._ends = _layout(tuple((name, t.dtype, t.shape) for name, t in ordered))

    @property
    def bytes(self) -> int:
        """The size of the file."""
        return self._ends[-1]

    @property
    def on_host(self) -> bool:
        """Whether all tensors are in the host's memory."""
        return all(tensor.device.type == "cpu" for tensor in self._tensors)

    def copy(self) -> None:
        """Takes a copy of the tensors, in one piece of the host's memory."""
        copy = torch.empty(self._ends[-1] - self._ends[0], dtype=torch.uint8)
        places = [
            copy[start - self._ends[0] : end - self._ends[0]].view(tensor.dtype).view(tensor.shape)
            for (start, end), tensor in zip(
                itertools.pairwise(self._ends), self._tensors, strict=True
            )
        ]
        if places:
            torch._foreach_copy_(places, self._tensors)
        self._tensors = places

    def write(self, path: str | Path, finite: bool = False) -> dict[str, int]:
        """Writes the file; its size and CRC-32C. What was there is written over.

        OSError where it cannot be written. With `finite` also NotFinite where a number of two bytes
        or more is not: the file is worth nothing then.
        """
        checksum = 0

        def pieces() -> Iterator[bytes | memoryview]:
            nonlocal checksum
            checksum = google_crc32c.value(self._head)
            yield self._head
            for tensor in self._tensors:
                for piece in _pieces(tensor):
                    # All that is done to a piece is done while a core's cache holds it.
                    if finite and not _is_finite(piece, tensor.dtype):
                        raise NotFinite
                    checksum = google_crc32c.extend(checksum, piece)
                    yield piece.data

        with np.errstate(over="ignore", invalid="ignore"):
            overwrite(path, pieces())
        return {"bytes": self.bytes, "crc32c": checksum}


def overwrite(path: str | Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Writes the pieces over what a file held, or into a new one; OSError where that fails.

    What is left of the old content is cut off at the end, nothing before: a disk is faster with
    blocks that it has than with new ones.
    """
    opened = os.open(path, OVERWRITING, 0o666)
    with io.BufferedWriter(io.FileIO(opened, "wb"), BUFFER_BYTES) as file:
        for piece in pieces:
            file.write(piece)
        if os.fstat(opened).st_size != file.tell():
            file.truncate()


def checksum(path: Path) -> int:
    """The CRC-32C of a file."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(PIECE_BYTES):
            found = google_crc32c.extend(found, chunk)
    return found


def _pieces(tensor: Tensor) -> Iterator[Values]:
    """A tensor's values, in pieces; of types that numpy does not know, their bits."""
    if tensor.is_conj() or tensor.is_neg() or not tensor.is_contiguous():
        tensor = tensor.resolve_conj().resolve_neg().contiguous()
    if tensor.dtype in BITS:
        tensor = tensor.view(BITS[tensor.dtype])
    values: Values = tensor.numpy()
    if values.nbytes <= PIECE_BYTES:
        yield values
        return
    values, count = values.reshape(-1), PIECE_BYTES // values.itemsize
    for start in range(0, values.size, count):
        yield values[start : start + count]


def _is_finite(values: Values, dtype: torch.dtype) -> bool:
    """Whether the numbers of a piece are; by numpy, which starts no threads."""
    if dtype is torch.bfloat16:
        return not ((values & BFLOAT16_EXPONENT) == BFLOAT16_EXPONENT).any()
    if dtype.itemsize == 1 or values.dtype.kind not in "fc":
        return True
    if values.itemsize > 2 and np.isfinite(np.einsum("i->", values.reshape(-1))):
        return True  # faster than one look at each: a sum of finite numbers may overflow, though
    return bool(np.isfinite(values).all())


@lru_cache(maxsize=4)
def _layout(forms: tuple[Form, ...]) -> tuple[bytes, list[int]]:
    """The start of the file, and where each tensor ends, the first being its start."""
    sizes = [dtype.itemsize * shape.numel() for _, dtype, shape in forms]
    ends = list(itertools.accumulate(sizes, initial=0))
    described = {
        name: {"dtype": KINDS[dtype], "shape": list(shape), "data_offsets": [start, end]}
        for (name, dtype, shape), (start, end) in zip(forms, itertools.pairwise(ends), strict=True)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **described}).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED_BYTES)
    head = struct.pack("<Q", len(text)) + text
    return head, [len(head) + end for end in ends]
