"""How a block of bytes becomes step records again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from trainer.record import BINS, MOMENTS, LayerTable, StepRecord, TensorTable
from trainer.wire.layout import MAX_BLOCK_BYTES, NUMBERS, PARTS
from trainer.wire.sheet import Sheet, readable, sheets


def decode(block: bytes) -> list[StepRecord]:
    """The records of a block, in their order; ValueError when it is damaged or no such block."""
    with readable():
        found = sheets(block)
        rows = sum(len(b.used) for sheet in found for b in sheet.histograms if b is not None)
        if rows * BINS * 8 > MAX_BLOCK_BYTES:
            raise ValueError("its histograms are too large")
        records: dict[int, StepRecord] = {}
        for sheet in found:
            records |= dict(zip(sheet.places.tolist(), _records(sheet), strict=True))
        return [records[place] for place in range(len(records))]


def _records(sheet: Sheet) -> Iterator[StepRecord]:
    layout = sheet.layout
    own, of_layers = (
        repeat(None)
        if bins is None
        else iter(bins.dense().reshape(len(sheet.steps), len(names), BINS))
        for bins, (names, _) in zip(sheet.histograms, layout.tables(), strict=True)
    )
    parts = [sheet.part(name) for name in PARTS[: len(layout.widths())]]
    for step, head, moments, rms, ratio, unchanged, *rest in zip(
        sheet.steps.tolist(), *parts, strict=True
    ):
        layers = None
        if layout.layers is not None:
            output_rms, zero, signal, dead, reached = rest
            layers = LayerTable(
                layout.layers, layout.kinds, layout.layer_dtypes, output_rms, zero, signal, dead,
                _table(layout.reached, reached, next(of_layers)), layout.leads_to,
            )  # fmt: skip
        yield StepRecord(
            step=step,
            **dict(zip(NUMBERS, head.tolist(), strict=True)),
            optimizer=layout.optimizer,
            gradients=_table(layout.gradients, moments, next(own)),
            parameters=layout.parameters,
            shapes=layout.shapes,
            dtypes=layout.dtypes,
            parameter_rms=rms,
            update_ratio=ratio,
            unchanged_fraction=unchanged,
            layers=layers,
        )


def _table(
    names: tuple[str, ...], moments: NDArray[np.float64], bins: NDArray[np.int64] | None
) -> TensorTable:
    return TensorTable(names, moments.reshape(len(names), MOMENTS), bins)
