"""How step records become a block of bytes that an event file can hold."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.record import StepRecord, UsedBins
from trainer.wire.layout import MAGIC, MAX_BLOCK_BYTES, NUMBERS, Layout, layout_of, planes


class Block:
    """Records on their way into a block; their arrays are not kept, empty bins least of all."""

    def __init__(self) -> None:
        self._layouts: dict[Layout, int] = {}
        self._which: list[int] = []
        self._steps: list[int] = []
        self._numbers: list[list[NDArray[np.float64]]] = []  # of each layout its records'
        self._bins: list[tuple[list[UsedBins], list[UsedBins]]] = []  # of gradients, of layers'

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, record: StepRecord) -> None:
        """Takes a record; ValueError when its arrays and names differ in length."""
        layout = layout_of(record)
        which = self._layouts.get(layout)
        if which is None:
            layout.check()
            which = self._layouts[layout] = len(self._layouts)
            self._numbers.append([])
            self._bins.append(([], []))
        self._numbers[which].append(_numbers(record, layout))
        gradients, of_layers = self._bins[which]
        gradients.append(record.gradients.used_bins)
        if record.layers is not None:
            of_layers.append(record.layers.gradients.used_bins)
        self._which.append(which)
        self._steps.append(record.step)

    def encoded(self) -> bytes:
        """The bytes from which `decode` makes the records again bit for bit; ValueError when they
        are too many."""
        header = json.dumps(list(self._layouts)).encode()
        parts = [np.array([len(header), len(self)], "<u4").tobytes(), header]
        parts += [np.array(self._which, "<u4").tobytes(), np.array(self._steps, "<i8").tobytes()]
        for layout, which in self._layouts.items():
            parts.append(planes(np.stack(self._numbers[which]), "<f8"))
            for bins, (names, has) in zip(self._bins[which], layout.tables(), strict=True):
                if has:
                    parts += _histograms(bins, len(names))
        plain = b"".join(parts)
        if len(plain) > MAX_BLOCK_BYTES:
            raise ValueError(f"a block of {len(plain)} bytes is over {MAX_BLOCK_BYTES}; split it")
        return MAGIC + zlib.compress(plain, 1)  # half the time of level 6 for a third more bytes


def encode(records: Sequence[StepRecord]) -> bytes:
    """The bytes of a `Block` of the records."""
    block = Block()
    for record in records:
        block.add(record)
    return block.encoded()


def _numbers(record: StepRecord, layout: Layout) -> NDArray[np.float64]:
    parts = [np.array([getattr(record, name) for name in NUMBERS]), record.gradients.moments]
    parts += [record.parameter_rms, record.update_ratio, record.unchanged_fraction]
    if (of := record.layers) is not None:
        parts += [of.rms, of.zero_fraction, of.signal_fraction, of.dead_fraction]
        parts.append(of.gradients.moments)
    if [part.size for part in parts] != layout.widths():
        raise ValueError(f"step {record.step}: its arrays and names differ in length")
    return np.concatenate(parts, axis=None, dtype=np.float64)


def _histograms(tables: list[UsedBins], rows: int) -> list[bytes]:
    """The parts of a block that say the histograms of tables with so many rows each."""
    places = [row + number * rows for number, (row, _, _) in enumerate(tables)]
    used = np.bincount(np.concatenate(places), minlength=rows * len(tables)).astype("<u2")
    distances = np.diff(np.concatenate([bins for _, bins, _ in tables]), prepend=0).astype("<u2")
    counts = np.concatenate([count for _, _, count in tables])
    width = next(w for w in (1, 2, 4, 8) if int(counts.max(initial=0)) >> 8 * w == 0)
    octets = planes(counts[:, None], f"<u{width}")
    return [used.tobytes(), distances.tobytes(), bytes([width]), octets]
