"""How large the values of one row's gradient are: exact counts, those of a module added up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.plugin.blocks import Block
from trainer.record import MAGNITUDES, MAX_ABS, MOMENTS, NORM, SIGN, TensorStatistics
from trainer.wire import OF_LAYERS, Sheet

Found = tuple[int, TensorStatistics, int]  # step, the values, of how many tensors


def newest(
    blocks: Sequence[Block], table: int, row: str, step: int, steps: Sequence[int]
) -> Found | None:
    """That of the newest step up to `step` that has one, else of the first after it; only blocks
    that hold one of the `steps` are read."""
    after: Found | None = None
    for block in reversed(_holding(blocks, steps)):
        for found in reversed(list(_of_block(block, table, row))):
            after = found
            if found[0] <= step:
                return after
    return after


def over_time(blocks: Sequence[Block], table: int, row: str, steps: Sequence[int]) -> list[Found]:
    """Those at these steps that have one; only blocks that hold one of the steps are read."""
    wanted = set(steps)
    found = (one for block in _holding(blocks, steps) for one in _of_block(block, table, row))
    return [one for one in found if one[0] in wanted]


def _holding(blocks: Sequence[Block], steps: Sequence[int]) -> list[Block]:
    starts = [block.step for block in blocks]
    return [blocks[place] for place in sorted({bisect_right(starts, step) - 1 for step in steps})]


def magnitudes(statistics: TensorStatistics) -> tuple[list[int], list[int]]:
    """The bins of |value| that hold something, both signs together, and their counts."""
    assert statistics.histogram is not None
    counts = statistics.histogram[:MAGNITUDES] + statistics.histogram[SIGN : SIGN + MAGNITUDES]
    used = np.flatnonzero(counts)
    return used.tolist(), counts[used].tolist()


def _of_block(block: Block, table: int, row: str) -> Iterator[Found]:
    """In order of their steps; none where the block cannot be read."""
    try:
        found = [one for sheet in block.sheets() for one in _of_sheet(sheet, table, row)]
    except ValueError:
        return
    yield from (one for one in sorted(found, key=lambda one: one[0]) if one[0] < block.end)


def _of_sheet(sheet: Sheet, table: int, row: str) -> list[Found]:
    names, has_histograms = sheet.layout.tables()[table]
    rows = [place for place, name in enumerate(names) if name == row] or [
        place for place, name in enumerate(names) if name.startswith(f"{row}.")
    ]
    if not has_histograms or not rows:
        return []
    part = sheet.part("layer_moments" if table == OF_LAYERS else "moments")
    moments = part.reshape(len(sheet.steps), len(names), MOMENTS)
    histograms = np.sum([sheet.histogram(table, place) for place in rows], axis=0)
    return [
        (step, replace(_added(moments[place, rows]), histogram=histograms[place]), len(rows))
        for place, step in enumerate(sheet.steps.tolist())
    ]


def _added(moments: NDArray[np.float64]) -> TensorStatistics:
    """The statistics of all values of some tensors, given the (N, MOMENTS) of each."""
    count, norm, sum_abs, _, zeros, nans, infinities = (math.fsum(column) for column in moments.T)
    norm = math.hypot(*moments[:, NORM]) if len(moments) > 1 else norm
    return TensorStatistics(
        int(count),
        norm,
        sum_abs,
        float(moments[:, MAX_ABS].max()),
        int(zeros),
        int(nans),
        int(infinities),
    )
