"""What an observed step says: its numbers, their histogram bins and their TensorBoard tags."""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The bin of a value is the leading 10 bits of its float32 representation: sign, exponent (8 bits)
# and one mantissa bit, so there are two bins an octave and every bin is fixed for all time.
# A float64 outside float32's range counts in the outermost bin of its sign.
MAGNITUDES = 510  # finite bins of one sign; bin 0 holds (0, 2^-127)
SIGN = 512  # a negative value's bin is its magnitude's bin + SIGN
BINS = 1024  # both signs; the bins of zero and of non-finite values stay empty


def bin_edges() -> NDArray[np.float64]:
    """(MAGNITUDES + 1,) edges of the bins of |value|: bin k holds edges[k] <= |value| < edges[k+1].

    The first edge is 0 (zeros themselves are counted apart), the last is infinity.
    """
    bits = np.arange(MAGNITUDES, dtype=np.uint32) << np.uint32(22)
    return np.append(bits.view(np.float32).astype(np.float64), np.inf)


@dataclass(frozen=True)
class TensorStatistics:
    """Exact statistics of one tensor; norm, mean and maximum are over its finite values."""

    count: int
    norm: float  # L2
    sum_abs: float
    max_abs: float
    zeros: int
    nans: int
    infinities: int
    histogram: NDArray[np.int64] | None = None  # (BINS,): counts by `bin_edges`, + SIGN if negative

    @property
    def finite(self) -> int:
        """How many values are finite."""
        return self.count - self.nans - self.infinities

    @property
    def rms(self) -> float:
        """Root mean square of the finite values; NaN when there is none."""
        return self.norm / math.sqrt(self.finite) if self.finite else math.nan

    @property
    def mean_abs(self) -> float:
        """Mean of |value| over the finite values; NaN when there is none."""
        return self.sum_abs / self.finite if self.finite else math.nan


MOMENTS = 7  # the fields of TensorStatistics before `histogram`, in that order


@dataclass(frozen=True)
class TensorTable:
    """The statistics of several tensors, one row each."""

    names: tuple[str, ...]
    moments: NDArray[np.float64]  # (N, MOMENTS)
    histograms: NDArray[np.int64] | None = None  # (N, BINS)

    def __getitem__(self, name: str) -> TensorStatistics:
        """The statistics of the named tensor; KeyError when there is no such row."""
        if name not in self.names:
            raise KeyError(name)
        row = self.names.index(name)
        count, norm, sum_abs, max_abs, zeros, nans, infinities = self.moments[row].tolist()
        histogram = None if self.histograms is None else self.histograms[row]
        return TensorStatistics(
            int(count), norm, sum_abs, max_abs, int(zeros), int(nans), int(infinities), histogram
        )

    def norms(self) -> NDArray[np.float64]:
        """(N,) L2 norms that the optimizer meets: NaN with any NaN, else inf with any infinity."""
        _, norm, _, _, _, nans, infinities = self.moments.T
        return np.where(nans > 0, np.nan, np.where(infinities > 0, np.inf, norm))


@dataclass(frozen=True)
class LayerTable:
    """The outputs of leaf modules, one row each in order of execution, and d(loss)/d(output)."""

    names: tuple[str, ...]
    rms: NDArray[np.float64]  # (L,) of the output
    zero_fraction: NDArray[np.float64]  # (L,)
    signal_fraction: NDArray[np.float64]  # (L,) median over units of std over the batch / RMS
    gradients: TensorTable  # rows of the layers that a gradient reached


@dataclass(frozen=True)
class StepRecord:
    """The numbers of one observed step: what held before its update, and that update.

    A number that does not apply is NaN: `clip_coefficient` when the loop did not tell of any
    clipping, `step_ms` at the first record, `update_ratio` of a parameter that is all zeros.
    """

    step: int
    wall_time: float  # seconds since 1970
    loss: float
    learning_rate: float
    gradient_norm: float  # of all gradients together, before clipping
    clip_coefficient: float  # what the gradients were multiplied by
    step_ms: float  # mean duration of a step since the record before
    monitor_ms: float  # time that the monitor took of this step
    gradients: TensorTable  # one row per parameter that has a gradient
    parameters: tuple[str, ...]  # names of the rows of the two below
    parameter_rms: NDArray[np.float64]  # (P,) before the update
    update_ratio: NDArray[np.float64]  # (P,) RMS(after - before) / RMS(before)
    layers: LayerTable | None = None  # at the steps whose activations are observed


# Wire format: MAGIC and a zlib stream, little-endian, of the length of a JSON list and the number
# of records (uint32), the list (layouts that occur), each record's layout (uint32), step (int64),
# and per layout the records' float64 numbers and the used bins of their histograms. Numbers stand
# byte plane by byte plane, column by column, so that equal signs, exponents and zeros are together.
PLUGIN = "gradients"  # the TensorBoard plugin that the blocks belong to
RECORDS_TAG = "records"  # a block's event has its first record's step; of one step the last counts
MAGIC = b"GRAD\x01"
MAX_BLOCK_BYTES = 1 << 30  # uncompressed, and of all histograms with their empty bins
NUMBERS = [field.name for field in fields(StepRecord) if field.type == "float"]


def encode(records: Sequence[StepRecord]) -> bytes:
    """The records as one block of bytes, from which `decode` makes them again bit for bit.

    ValueError when a record's arrays and names differ in length or the block is too large.
    """
    layouts = [_layout(record) for record in records]
    index = {layout: number for number, layout in enumerate(dict.fromkeys(layouts))}
    header = json.dumps(list(index)).encode()
    parts = [np.array([len(header), len(records)], "<u4").tobytes(), header]
    parts.append(np.array([index[layout] for layout in layouts], "<u4").tobytes())
    parts.append(np.array([record.step for record in records], "<i8").tobytes())
    for kind in index:
        members = [r for r, layout in zip(records, layouts, strict=True) if layout == kind]
        parts.append(_planes(np.stack([_numbers(r, kind) for r in members]), "<f8"))
        for record in members:
            for table in (record.gradients, record.layers and record.layers.gradients):
                if table and table.histograms is not None:
                    where = np.flatnonzero(table.histograms != 0)
                    used = np.bincount(where // BINS, minlength=len(table.names))
                    parts.append(np.concatenate([used, where % BINS]).astype("<u2").tobytes())
                    parts.append(_planes(table.histograms.ravel()[where][:, None], "<i8"))
    plain = b"".join(parts)
    if len(plain) > MAX_BLOCK_BYTES:
        raise ValueError(f"a block of {len(plain)} bytes is over {MAX_BLOCK_BYTES}; split it")
    return MAGIC + zlib.compress(plain, 1)  # half the time of level 6 for a third more bytes


def decode(block: bytes) -> list[StepRecord]:
    """The records of a block, in their order; ValueError when it is damaged or no such block."""
    try:
        return _decode(block)
    except (zlib.error, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no readable block of step records: {error}") from error


def _decode(block: bytes) -> list[StepRecord]:
    stream, dense = zlib.decompressobj(), 0
    body = io.BytesIO(stream.decompress(block.removeprefix(MAGIC), MAX_BLOCK_BYTES))
    if not (block.startswith(MAGIC) and stream.eof and not stream.unused_data):
        raise ValueError("it starts as something else, is cut off, too large or goes on too long")

    def take(dtype: str, count: int) -> NDArray[Any]:
        return np.frombuffer(body.read(np.dtype(dtype).itemsize * count), dtype, count)

    def table(names: list[str], has_histograms: bool, moments: NDArray[Any]) -> TensorTable:
        histograms = None
        if has_histograms:
            used = take("<u2", len(names))
            bins = take("<u2", int(used.sum(dtype=np.int64)))
            counts = _unplanes(take("u1", 8 * len(bins)), (len(bins), 1), "<i8")
            histograms = np.zeros((len(names), BINS), np.int64)
            histograms[np.repeat(np.arange(len(names)), used), bins] = counts[:, 0]
        return TensorTable(tuple(names), moments.reshape(len(names), MOMENTS), histograms)

    header_bytes, number_of_records = take("<u4", 2).tolist()
    layouts = json.loads(body.read(header_bytes))
    which, steps = take("<u4", number_of_records), take("<i8", number_of_records).tolist()
    records: dict[int, StepRecord] = {}
    for number, layout in enumerate(layouts):
        names, has, parameters, layers, reached, reached_has = layout
        for texts in (names, parameters, layers or [], reached):
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError("its names are not lists of texts")
        places, widths = np.flatnonzero(which == number).tolist(), _widths(layout)
        dense += len(places) * (bool(has) * len(names) + bool(reached_has) * len(reached))
        if dense * BINS * 8 > MAX_BLOCK_BYTES:
            raise ValueError("its histograms are too large")
        shape = (len(places), sum(widths))
        matrix = _unplanes(take("u1", 8 * shape[0] * shape[1]), shape, "<f8")
        for place, row in zip(places, matrix, strict=True):
            head, moments, rms, ratio, *rest = np.split(row, np.cumsum(widths)[:-1])
            gradients, of_layers = table(names, has, moments), None
            if layers is not None:
                activations = table(reached, reached_has, rest.pop())
                of_layers = LayerTable(tuple(layers), rest[0], rest[1], rest[2], activations)
            own = steps[place], *head.tolist(), gradients, tuple(parameters), rms, ratio, of_layers
            records[place] = StepRecord(*own)
    if body.read(1) or len(records) != len(which):
        raise ValueError("its lengths disagree")
    return [records[place] for place in range(len(which))]


def _layout(record: StepRecord) -> tuple[Any, ...]:
    """All of a record that is no number: records with the same fill the rows of one matrix."""
    table, layers = record.gradients, record.layers
    own = (table.names, table.histograms is not None, record.parameters)
    reached = layers.gradients if layers else TensorTable((), np.empty((0, MOMENTS)))
    return *own, layers and layers.names, reached.names, reached.histograms is not None


def _widths(layout: Sequence[Any]) -> list[int]:
    names, _, parameters, layers, reached, _ = layout
    of_layers = [len(layers)] * 3 + [MOMENTS * len(reached)] if layers is not None else []
    return [len(NUMBERS), MOMENTS * len(names), len(parameters), len(parameters), *of_layers]


def _numbers(record: StepRecord, layout: Sequence[Any]) -> NDArray[np.float64]:
    parts = [np.array([getattr(record, name) for name in NUMBERS]), record.gradients.moments]
    parts += [record.parameter_rms, record.update_ratio]
    if (of := record.layers) is not None:
        parts += [of.rms, of.zero_fraction, of.signal_fraction, of.gradients.moments]
    if [part.size for part in parts] != _widths(layout):
        raise ValueError(f"step {record.step}: its arrays and names differ in length")
    return np.concatenate(parts, axis=None, dtype=np.float64)


def _planes(matrix: NDArray[Any], dtype: str) -> bytes:
    """The bytes of a matrix of 8-byte numbers: byte by byte of a number, column by column."""
    columns = np.ascontiguousarray(matrix.T, dtype)
    return columns[..., None].view(np.uint8).transpose(2, 0, 1).tobytes()


def _unplanes(octets: NDArray[Any], shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    planes = octets.reshape(8, shape[1], shape[0]).transpose(2, 1, 0)
    return np.ascontiguousarray(planes).view(dtype)[..., 0]
