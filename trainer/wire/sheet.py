"""The records of a block as columns: what all of them say of one thing, without the rest."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.record import BINS, MOMENTS
from trainer.wire.layout import (
    LACK,
    MAGIC,
    MAX_BLOCK_BYTES,
    NUMBERS,
    PARTS,
    Layout,
    unplanes,
)

OF_PARAMETERS, OF_LAYERS = 0, 1  # the tables of gradients


NOT_A_NUMBER = np.array([np.nan], "<f8").view(np.uint8)


class Bins(NamedTuple):
    """The histograms of a table of all records of a sheet, without their empty bins."""

    used: NDArray[np.uint16]  # (R·N,) how many bins each row uses
    bins: NDArray[np.uint16]  # of all rows, one after the other
    counts: NDArray[Any]

    def dense(self) -> NDArray[np.int64]:
        """(R·N, BINS) with the empty ones; LookupError where a bin is none."""
        full = np.zeros((len(self.used), BINS), np.int64)
        full[np.repeat(np.arange(len(self.used)), self.used), self.bins] = self.counts
        return full


@dataclass(frozen=True)
class Sheet:
    """The R records of a block that have one layout, which fill R rows of each of its parts."""

    layout: Layout
    places: NDArray[np.intp]  # (R,) of the records among those of the block
    steps: NDArray[np.int64]  # (R,)
    octets: NDArray[np.uint8]  # (8, W, R) the bytes of the numbers
    histograms: tuple[Bins | None, Bins | None]  # OF_PARAMETERS and OF_LAYERS

    def histogram(self, table: int, row: int) -> NDArray[np.int64]:
        """(R, BINS) those of one row of a table; LookupError where it has none."""
        bins, (names, _) = self.histograms[table], self.layout.tables()[table]
        if bins is None:
            raise LookupError("the table has no histograms")
        ends = np.cumsum(bins.used, dtype=np.int64)
        full = np.zeros((len(self.steps), BINS), np.int64)
        for record, place in enumerate(range(row, len(bins.used), len(names))):
            used = slice(ends[place] - bins.used[place], ends[place])
            full[record, bins.bins[used]] = bins.counts[used]
        return full

    def part(self, name: str) -> NDArray[np.float64]:
        """(R, width) the numbers of one of the PARTS that the layout has."""
        return self._numbers(self._octets(name))

    def moment(self, name: str, which: int) -> NDArray[np.float64]:
        """(R, N) one of the MOMENTS of the tensors of a part."""
        return self._numbers(self._octets(name)[:, which::MOMENTS])

    def any(self, name: str, which: int) -> bool:
        """Whether `moment` would have a number that is not zero."""
        return bool(self._octets(name)[:, which::MOMENTS].any())

    def _octets(self, name: str) -> NDArray[np.uint8]:
        number, widths = PARTS.index(name), self.layout.widths()
        start = sum(widths[:number])
        return self.octets[:, start : start + widths[number]]

    @staticmethod
    def _numbers(octets: NDArray[np.uint8]) -> NDArray[np.float64]:
        ordered = np.ascontiguousarray(octets.transpose(2, 1, 0))
        return ordered.view("<f8")[..., 0]


def sheets(block: bytes) -> list[Sheet]:
    """Those of a block; ValueError when it is damaged or no such block."""
    with readable():
        return _sheets(block)


@contextmanager
def readable() -> Iterator[None]:
    """ValueError, whatever it is that a damaged block does to its reader."""
    try:
        yield
    except (zlib.error, LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no readable block of step records: {error}") from error


def _sheets(block: bytes) -> list[Sheet]:
    stream, lack = zlib.decompressobj(), LACK.get(block[: len(MAGIC)])
    body, at = stream.decompress(block[len(MAGIC) :], MAX_BLOCK_BYTES), 0
    if lack is None or not stream.eof or stream.unused_data:
        raise ValueError("it starts as something else, is cut off, too large or goes on too long")

    def take(dtype: str, count: int) -> NDArray[Any]:
        nonlocal at
        start, at = at, at + np.dtype(dtype).itemsize * count
        return np.frombuffer(body, dtype, count, start)

    def bins(rows: int) -> Bins:
        used = take("<u2", rows)
        places = np.cumsum(take("<u2", int(used.sum(dtype=np.int64))), dtype=np.uint16)
        (width,) = take("u1", 1).tolist()
        octets = take("u1", width * len(places))
        return Bins(used, places, unplanes(octets, (len(places), 1), f"<u{width}")[:, 0])

    header_bytes, number_of_records = take("<u4", 2).tolist()
    layouts = _layouts(take("u1", header_bytes).tobytes())
    which, steps = take("<u4", number_of_records), take("<i8", number_of_records)
    found = []
    for number, layout in enumerate(layouts):
        places = np.flatnonzero(which == number)
        shape = 8, sum(layout.widths()) - lack, len(places)
        octets = take("u1", shape[0] * shape[1] * shape[2]).reshape(shape)
        if lack:
            unknown = np.broadcast_to(NOT_A_NUMBER[:, None, None], (8, lack, len(places)))
            octets = np.insert(octets, [len(NUMBERS) - lack] * lack, unknown, axis=1)
        tables = [bins(len(places) * len(names)) if has else None for names, has in layout.tables()]
        found.append(Sheet(layout, places, steps[places], octets, (tables[0], tables[1])))
    if at != len(body) or sum(len(s.places) for s in found) != len(which):
        raise ValueError("its lengths disagree")
    return found


@lru_cache(maxsize=8)  # the blocks of a run say the same of its tensors
def _layouts(header: bytes) -> tuple[Layout, ...]:
    layouts = []
    for listed in json.loads(header):
        layout = Layout(*listed)
        layout.check()
        shapes = tuple(tuple(shape) for shape in layout.shapes)
        fields: list[Any] = list(layout._replace(shapes=shapes))
        made = (field if isinstance(field, str | bool | None) else tuple(field) for field in fields)
        layouts.append(Layout._make(made))
    return tuple(layouts)
