"""How a block of bytes becomes step records again, and what is wrong with one that does not."""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.record import BINS, MOMENTS, LayerTable, StepRecord, TensorTable
from trainer.wire.layout import MAGIC, MAX_BLOCK_BYTES, NUMBERS, Layout, unplanes


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

    def histograms(number: int, rows_each: int) -> NDArray[np.int64]:
        rows = number * rows_each
        used = take("<u2", rows)
        bins = np.cumsum(take("<u2", int(used.sum(dtype=np.int64))), dtype=np.uint16)
        (width,) = take("u1", 1).tolist()
        octets = take("u1", width * len(bins))
        counts = unplanes(octets, (len(bins), 1), f"<u{width}")[:, 0]
        full = np.zeros((rows, BINS), np.int64)
        full[np.repeat(np.arange(rows), used), bins] = counts
        return full.reshape(number, rows_each, BINS)

    def table(names: Sequence[str], bins: Iterator[Any], moments: NDArray[Any]) -> TensorTable:
        return TensorTable(tuple(names), moments.reshape(len(names), MOMENTS), next(bins))

    header_bytes, number_of_records = take("<u4", 2).tolist()
    layouts = json.loads(body.read(header_bytes))
    which, steps = take("<u4", number_of_records), take("<i8", number_of_records).tolist()
    records: dict[int, StepRecord] = {}
    for number, listed in enumerate(layouts):
        layout = Layout(*listed)
        layout.check()
        places, widths = np.flatnonzero(which == number).tolist(), layout.widths()
        dense += len(places) * sum(len(names) for names, has in layout.tables() if has)
        if dense * BINS * 8 > MAX_BLOCK_BYTES:
            raise ValueError("its histograms are too large")
        shape = (len(places), sum(widths))
        matrix = unplanes(take("u1", 8 * shape[0] * shape[1]), shape, "<f8")
        bins, of_layers_bins = (
            iter(histograms(len(places), len(names))) if has else repeat(None)
            for names, has in layout.tables()
        )
        shapes = tuple(tuple(shape) for shape in layout.shapes)
        parameters, dtypes = tuple(layout.parameters), tuple(layout.dtypes)
        for place, row in zip(places, matrix, strict=True):
            head, moments, rms, ratio, unchanged, *rest = np.split(row, np.cumsum(widths)[:-1])
            gradients, of_layers = table(layout.gradients, bins, moments), None
            if layout.layers is not None:
                of_layers = LayerTable(
                    tuple(layout.layers), tuple(layout.kinds), tuple(layout.layer_dtypes),
                    rest[0], rest[1], rest[2], rest[3],
                    table(layout.reached, of_layers_bins, rest[4]),
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
