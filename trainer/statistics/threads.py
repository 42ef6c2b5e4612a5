"""The same statistics by one call of the kernel for all tensors, on the threads that torch uses."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache, lru_cache, reduce
from itertools import accumulate, chain
from pathlib import Path
from typing import Any
from zlib import crc32

import numba
import torch
from torch import Tensor

from trainer import record
from trainer.record import BINS, MOMENTS, SIGNALS
from trainer.statistics import addresses, bits, histogram, kernel, units

cfunc: Any = numba.cfunc  # numba's own types are incomplete, or missing
types: Any = numba.types

_BITS = {
    torch.float32: types.uint32,
    torch.float64: types.uint64,
    torch.bfloat16: types.uint16,
    torch.float16: types.int16,
}
# Below this many values the second thread costs more than it saves.
_THREADS_PAY_FROM = 65536


@cache
def _compiled(loop: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """The loop over a job's blocks as a C function, from numba's cache on disk where it can."""
    signature = types.void(types.CPointer(_BITS[dtype]))
    # numba looks only at the age of the file that the loop itself is in; the name must tell the
    # rest, or code compiled from an older `bits` would be taken from the cache.
    loop.__qualname__ = f"{loop.__name__}_{_version():08x}"
    try:
        function = cfunc(signature, cache=True)(loop)
    except (RuntimeError, OSError):  # no folder where numba may write, or no room in it
        function = cfunc(signature)(loop)
    return function, ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function.address)


@cache
def _version() -> int:
    """A checksum of all source that the loops are compiled from."""
    sources = [
        Path(str(each.__file__)) for each in (record, addresses, bits, histogram, kernel, units)
    ]
    return reduce(lambda crc, source: crc32(source.read_bytes(), crc), sources, 0)


@cache
def _parallel() -> Any:
    """OpenMP's entry as torch was linked to it, or None.

    Threads of our own would compete for the cores with torch's, which keep waiting for their next
    work in a loop for a while; those are awake at once.
    """
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        parallel = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


def _run(loop: Any, dtype: torch.dtype, values: int, header: Sequence[int], *rows: Any) -> None:
    """Do a job (see `kernel`), on all of torch's threads when it has many values."""
    job = array("q", chain(header, *rows))
    address = job.buffer_info()[0]
    compiled, call = _compiled(loop, dtype)
    parallel = _parallel() if values >= _THREADS_PAY_FROM and torch.get_num_threads() > 1 else None
    if parallel is None:
        call(address)
    else:  # 0: as many threads as torch uses, since libgomp would end those that are left out
        parallel(compiled.address, address, 0, 0)


class _Scratch:
    """The tables that threads count in, all zeros before and after: clearing them takes longer
    than what many a gradient needs."""

    free: list[Tensor] = []  # by those that call at the same time each takes its own

    @classmethod
    def taken(cls, workers: int) -> Tensor:
        """Tables for so many threads."""
        size = workers * histogram.SCRATCH_BYTES
        try:
            scratch = cls.free.pop()
        except IndexError:
            scratch = None
        if scratch is None or len(scratch) < size:
            scratch = torch.zeros(size, dtype=torch.uint8, device="cpu")
        return scratch


def summarize(tensors: Sequence[Tensor], histograms: bool) -> tuple[Tensor, Tensor | None]:
    """Moments (N, 7) and, if asked for, counts (N, 1024) of tensors of one dtype."""
    n, lengths = len(tensors), [*map(Tensor.numel, tensors)]
    first, values = _first_blocks(tuple(lengths)), sum(lengths)
    rows = torch.empty(first[-1], MOMENTS, dtype=torch.float64, device="cpu")
    moments = torch.empty(n, MOMENTS, dtype=torch.float64, device="cpu")
    counts = scratch = None
    workers = torch.get_num_threads() if values >= _THREADS_PAY_FROM else 1
    if histograms:
        # The bins of one block alone are stored, those of several added.
        made = torch.empty if first[-1] == n else torch.zeros
        counts = made(n, BINS, dtype=torch.int64, device="cpu")
        scratch = _Scratch.taken(workers)
    pointers = [0 if each is None else each.data_ptr() for each in (rows, moments, counts, scratch)]
    addresses = [*map(Tensor.data_ptr, tensors)]
    header = (0, 0, 0, workers, n, *pointers)
    loop, dtype = kernel.summarize_blocks, tensors[0].dtype
    _run(loop, dtype, values, header, addresses, lengths, first)
    if scratch is not None:
        _Scratch.free.append(scratch)
    return moments, counts


def copy(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> Tensor:
    """The sums of squares (N,) of the tensors, which are copied into `copies`."""
    return _sums(kernel.copy_blocks, tensors, copies, ())


def compare(tensors: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """The sums of squared differences, and how many values are the same (N, 2)."""
    return _sums(kernel.compare_blocks, tensors, before, (2,))


def _sums(
    loop: Any, tensors: Sequence[Tensor], others: Sequence[Tensor], columns: tuple[int, ...]
) -> Tensor:
    n, lengths = len(tensors), [*map(Tensor.numel, tensors)]
    first = _first_blocks(tuple(lengths))
    rows = torch.empty(first[-1], *columns, dtype=torch.float64, device="cpu")
    sums = torch.empty(n, *columns, dtype=torch.float64, device="cpu")
    addresses = [*map(Tensor.data_ptr, tensors)]
    seconds = [*map(Tensor.data_ptr, others)]
    header = (0, 0, 0, 0, n, rows.data_ptr(), sums.data_ptr(), 0, 0)
    _run(loop, tensors[0].dtype, sum(lengths), header, addresses, lengths, first, seconds)
    return sums


@lru_cache(maxsize=64)
def _first_blocks(lengths: tuple[int, ...]) -> list[int]:
    """The number of each tensor's first block, and of all blocks; an empty tensor has one."""
    return list(accumulate((max(1, -(-n // kernel.BLOCK)) for n in lengths), initial=0))


def signal(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """RMS and fractions (4,) of values seen as (samples, units, positions)."""
    results = torch.empty(SIGNALS + 3 * shape[1], dtype=torch.float64, device="cpu")
    _, of_units, positions = shape
    columns = of_units * positions // torch.get_num_threads()
    # In pieces long enough for what the processor reads ahead of them.
    columns = min(max(columns, units.AT_ONCE // 8), units.AT_ONCE)
    step = max(1, columns // positions)
    header = (0, 0, *shape, results.data_ptr(), values.data_ptr(), step)
    _run(units.measure_units, values.dtype, values.numel(), header)
    return results[:SIGNALS]


def signals(outputs: Sequence[Tensor], shapes: Sequence[tuple[int, int, int]]) -> Tensor:
    """The same (N, 4) of several outputs of one dtype."""
    n, columns = len(outputs), [*zip(*shapes, strict=True)]
    before = [*accumulate(columns[1], initial=0)]
    results = torch.empty(SIGNALS * n + 3 * before[-1], dtype=torch.float64, device="cpu")
    at = results.data_ptr()
    header = (0, n, at, at + 8 * SIGNALS * n)
    addresses, values = [*map(Tensor.data_ptr, outputs)], sum(map(Tensor.numel, outputs))
    _run(units.measure_outputs, outputs[0].dtype, values, header, addresses, *columns, before[:-1])
    return results[: SIGNALS * n].view(n, SIGNALS)
