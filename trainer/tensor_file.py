"""A safetensors file as one piece of memory: what tensors are copied to, and written from at once.

The format is that of https://github.com/huggingface/safetensors#format. The library's own writer
takes tensors as they are, one by one; a copy of them is needed here anyway, and written as a whole
it holds up the threads that train for a third of the time.
"""

from __future__ import annotations

import itertools
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import google_crc32c
import numpy as np
import torch
from torch import Tensor

CHUNK_BYTES = 1 << 20
ALIGNED_BYTES = 16  # so that every tensor starts at a multiple of its element's size
BFLOAT16_EXPONENT = 0x7F80
KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.bool: "BOOL", torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}  # fmt: skip

Form = tuple[str, torch.dtype, torch.Size]


class TensorFile:
    """A copy on the host of named tensors; TypeError for one that a file cannot hold."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.layout is not torch.strided:
                raise TypeError(f"{name}: no checkpoint can hold a tensor of {tensor.layout}")
            if tensor.dtype not in KINDS:
                raise TypeError(f"{name}: no checkpoint can hold values of {tensor.dtype}")
        ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
        head, ends = _layout(tuple((name, t.dtype, t.shape) for name, t in ordered))
        content = torch.empty(ends[-1], dtype=torch.uint8)
        content[: len(head)] = torch.frombuffer(head, dtype=torch.uint8)
        self._places = [
            content[start:end].view(tensor.dtype).view(tensor.shape)
            for (start, end), (_, tensor) in zip(itertools.pairwise(ends), ordered, strict=True)
        ]
        if self._places:
            torch._foreach_copy_(self._places, [tensor.detach() for _, tensor in ordered])
        self._bytes = content.numpy()

    def is_finite(self) -> bool:
        """Whether all numbers of two bytes or more are; by numpy, which starts no threads."""
        return all(map(_is_finite, self._places))

    def write(self, path: Path, durable: bool = True) -> dict[str, int]:
        """Writes the file; its size and CRC-32C. What was there is written over.

        A `durable` one is on the disk afterwards, any other one with the operating system. OSError
        where it cannot be written.
        """
        checksum = 0
        with overwriting(path, durable) as write:
            for start in range(0, len(self._bytes), CHUNK_BYTES):
                chunk = self._bytes[start : start + CHUNK_BYTES]
                checksum = google_crc32c.extend(checksum, chunk)
                write(chunk.data)
        return {"bytes": len(self._bytes), "crc32c": checksum}


@contextmanager
def overwriting(path: Path, durable: bool) -> Iterator[Callable[[bytes | memoryview], None]]:
    """What writes a file, over what was there, and cuts the rest off; `durable` as above.

    Nothing is cut off before: a disk is faster with blocks that it has than with new ones.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    size = 0

    def write(content: bytes | memoryview) -> None:
        nonlocal size
        rest = memoryview(content)
        while rest:
            written = os.write(descriptor, rest)
            rest, size = rest[written:], size + written

    try:
        yield write
        os.ftruncate(descriptor, size)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> int:
    """The CRC-32C of a file."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found = google_crc32c.extend(found, chunk)
    return found


def _is_finite(tensor: Tensor) -> bool:
    if tensor.dtype is torch.bfloat16:
        bits = tensor.view(torch.int16).numpy()
        return not ((bits & BFLOAT16_EXPONENT) == BFLOAT16_EXPONENT).any()
    if tensor.dtype.itemsize == 1 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    values = tensor.numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        # A sum is quicker, but that of finite numbers may overflow.
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


@lru_cache(maxsize=4)
def _layout(forms: tuple[Form, ...]) -> tuple[bytearray, list[int]]:
    """The start of the file, and where each tensor ends, the first being its start."""
    sizes = [dtype.itemsize * shape.numel() for _, dtype, shape in forms]
    ends = list(itertools.accumulate(sizes, initial=0))
    described = {
        name: {"dtype": KINDS[dtype], "shape": list(shape), "data_offsets": [start, end]}
        for (name, dtype, shape), (start, end) in zip(forms, itertools.pairwise(ends), strict=True)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **described}).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED_BYTES)
    head = bytearray(struct.pack("<Q", len(text)) + text)
    return head, [len(head) + end for end in ends]
