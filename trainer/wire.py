"""How step records become a block of bytes that an event file can hold, and records again."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.record import BINS, MOMENTS, SIGNALS, LayerTable, StepRecord, TensorTable

# A block is MAGIC and a zlib stream, little-endian, of the length of a JSON list and the number of
# records (uint32), the list (layouts that occur), each record's layout (uint32), step (int64), and
# per layout the records' float64 numbers and the used bins of their histograms. Numbers stand byte
# plane by byte plane, column by column, so that equal signs, exponents and zeros are together.
PLUGIN = "gradients"  # the TensorBoard plugin that the blocks belong to
RECORDS_TAG = "records"  # a block's event has its first record's step; of one step the last counts
MAGIC = b"GRAD\x02"
MAX_BLOCK_BYTES = 1 << 30  # uncompressed, and of all histograms with their empty bins
NUMBERS = [field.name for field in fields(StepRecord) if field.type == "float"]


class Layout(NamedTuple):
    """All of a record that is no number: records with the same fill the rows of one matrix."""

    optimizer: str
    gradients: Sequence[str]
    has_histograms: bool
    parameters: Sequence[str]
    shapes: Sequence[Sequence[int]]
    dtypes: Sequence[str]
    layers: Sequence[str] | None  # None: their outputs were not observed
    kinds: Sequence[str]
    layer_dtypes: Sequence[str]
    reached: Sequence[str]  # the layers that have gradients
    reached_has_histograms: bool

    def widths(self) -> list[int]:
        """How many numbers a record has in each of its parts."""
        parameters = [len(self.parameters)] * 3
        of_layers = []
        if self.layers is not None:
            of_layers = [len(self.layers)] * SIGNALS + [MOMENTS * len(self.reached)]
        return [len(NUMBERS), MOMENTS * len(self.gradients), *parameters, *of_layers]

    def check(self) -> None:
        """ValueError when it is not made of what it should be, or lengths disagree."""
        layers = self.layers or []
        for texts in (self.gradients, self.parameters, self.dtypes, layers, self.kinds,
                      self.layer_dtypes, self.reached):  # fmt: skip
            if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
                raise ValueError("its names are not lists of texts")
        if not isinstance(self.optimizer, str):
            raise ValueError("its optimizer is no text")
        if not all(isinstance(size, int) for shape in self.shapes for size in shape):
            raise ValueError("its shapes are not whole numbers")
        lengths = len(self.shapes), len(self.dtypes), len(self.kinds), len(self.layer_dtypes)
        if lengths != (len(self.parameters),) * 2 + (len(layers),) * 2:
            raise ValueError("its names and their descriptions differ in length")


def encode(records: Sequence[StepRecord]) -> bytes:
    """The records as one block of bytes, from which `decode` makes them again bit for bit.

    ValueError when a record's arrays and names differ in length or the block is too large.
    """
    layouts = [_layout(record) for record in records]
    index = {layout: number for number, layout in enumerate(dict.fromkeys(layouts))}
    for layout in index:
        layout.check()
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

    def table(names: Sequence[str], has: bool, moments: NDArray[Any]) -> TensorTable:
        histograms = None
        if has:
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
    for number, listed in enumerate(layouts):
        layout = Layout(*listed)
        layout.check()
        has, reached_has = bool(layout.has_histograms), bool(layout.reached_has_histograms)
        places, widths = np.flatnonzero(which == number).tolist(), layout.widths()
        dense += len(places) * (has * len(layout.gradients) + reached_has * len(layout.reached))
        if dense * BINS * 8 > MAX_BLOCK_BYTES:
            raise ValueError("its histograms are too large")
        shape = (len(places), sum(widths))
        matrix = _unplanes(take("u1", 8 * shape[0] * shape[1]), shape, "<f8")
        shapes = tuple(tuple(shape) for shape in layout.shapes)
        parameters, dtypes = tuple(layout.parameters), tuple(layout.dtypes)
        for place, row in zip(places, matrix, strict=True):
            head, moments, rms, ratio, unchanged, *rest = np.split(row, np.cumsum(widths)[:-1])
            gradients, of_layers = table(layout.gradients, has, moments), None
            if layout.layers is not None:
                of_layers = LayerTable(
                    tuple(layout.layers), tuple(layout.kinds), tuple(layout.layer_dtypes),
                    rest[0], rest[1], rest[2], rest[3],
                    table(layout.reached, reached_has, rest[4]),
                )  # fmt: skip
            records[place] = StepRecord(
                step=steps[place],
                **dict(zip(NUMBERS, head.tolist(), strict=True)),
                optimizer=layout.optimizer,
                gradients=gradients,
                parameters=parameters,
                shapes=shapes,
                dtypes=dtypes,
                parameter_rms=rms,
                update_ratio=ratio,
                unchanged_fraction=unchanged,
                layers=of_layers,
            )
    if body.read(1) or len(records) != len(which):
        raise ValueError("its lengths disagree")
    return [records[place] for place in range(len(which))]


def _layout(record: StepRecord) -> Layout:
    table, of = record.gradients, record.layers
    reached = of.gradients if of else TensorTable((), np.empty((0, MOMENTS)))
    return Layout(
        record.optimizer,
        table.names,
        table.histograms is not None,
        record.parameters,
        record.shapes,
        record.dtypes,
        of.names if of else None,
        of.kinds if of else (),
        of.dtypes if of else (),
        reached.names,
        reached.histograms is not None,
    )


def _numbers(record: StepRecord, layout: Layout) -> NDArray[np.float64]:
    parts = [np.array([getattr(record, name) for name in NUMBERS]), record.gradients.moments]
    parts += [record.parameter_rms, record.update_ratio, record.unchanged_fraction]
    if (of := record.layers) is not None:
        parts += [of.rms, of.zero_fraction, of.signal_fraction, of.dead_fraction]
        parts.append(of.gradients.moments)
    if [part.size for part in parts] != layout.widths():
        raise ValueError(f"step {record.step}: its arrays and names differ in length")
    return np.concatenate(parts, axis=None, dtype=np.float64)


def _planes(matrix: NDArray[Any], dtype: str) -> bytes:
    """The bytes of a matrix of 8-byte numbers: byte by byte of a number, column by column."""
    columns = np.ascontiguousarray(matrix.T, dtype)
    return columns[..., None].view(np.uint8).transpose(2, 0, 1).tobytes()


def _unplanes(octets: NDArray[Any], shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    planes = octets.reshape(8, shape[1], shape[0]).transpose(2, 1, 0)
    return np.ascontiguousarray(planes).view(dtype)[..., 0]
