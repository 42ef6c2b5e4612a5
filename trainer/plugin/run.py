"""What the tab knows of a run: its statistics at all observed steps, and what is wrong."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import ConfigError
from trainer.config.file import read
from trainer.diagnosis import Diagnosis
from trainer.plugin.blocks import Block, Follower
from trainer.plugin.grid import Grid
from trainer.plugin.measures import MEASURES, gradient
from trainer.record import MAGNITUDES, SIGN, StepRecord, TensorStatistics
from trainer.summary import Summary, overrides


class Grids:
    """The grids of all statistics."""

    def __init__(self) -> None:
        self.of = {measure: Grid() for measure in MEASURES}
        self.with_histograms: list[int] = []  # the steps

    def add(self, record: StepRecord) -> None:
        """Takes the next record."""
        tables = [record.gradients, *([record.layers.gradients] if record.layers else [])]
        if any(table.histograms is not None for table in tables):
            self.with_histograms.append(record.step)
        for measure, values in MEASURES.items():
            if (found := values(record)) is not None:
                self.of[measure].add(record.step, *found)


class Judged:
    """The findings of a run and the state of its layers, derived from its records anew."""

    def __init__(self, configuration: dict[str, Any] | None) -> None:
        self._diagnosis, self._summary = Diagnosis(configuration), Summary()

    def add(self, record: StepRecord) -> None:
        """Takes the next record."""
        self._diagnosis.add(record)
        self._summary.add(record)

    def tree(self) -> dict[str, Any]:
        """The findings and the layers as values of JSON, the change of each as it is typed."""
        findings = self._diagnosis.findings
        tree = self._summary.tree(findings)
        for finding, told in zip(findings, tree["findings"], strict=True):
            told |= {"headline": finding.headline, "overrides": overrides(finding)}
        return tree


class Run:
    """The numbers of a run, each read once; `folder` is where its `config.yaml` may be."""

    def __init__(self, folder: Path | None) -> None:
        self._grids = Follower(Grids)
        self._configuration, self.note = _configuration(folder)
        self._judged = Follower(lambda: Judged(self._configuration))

    def grids(self, blocks: Sequence[Block]) -> AbstractContextManager[tuple[Grids, list[str]]]:
        """The statistics, with notes on blocks that could not be read."""
        return self._grids.following(blocks)

    def judged(self, blocks: Sequence[Block]) -> AbstractContextManager[tuple[Judged, list[str]]]:
        """The findings, with the same notes."""
        return self._judged.following(blocks)


def _configuration(folder: Path | None) -> tuple[dict[str, Any] | None, str | None]:
    """The run's own configuration, if it has one; a note where it cannot be read."""
    try:
        if folder is None or not (folder / "config.yaml").is_file():
            return None, None
        return read(folder / "config.yaml", []).tree, None
    except (ConfigError, OSError, ValueError) as error:
        return None, f"changes are proposed without the run's config.yaml: {error}"


def histogram(
    blocks: Sequence[Block], measure: str, row: str, step: int
) -> tuple[int, TensorStatistics] | None:
    """The newest histogram of a row's gradient up to `step`, else the first after it."""
    after: tuple[int, TensorStatistics] | None = None
    for block in reversed(blocks):
        try:
            records = block.records()
        except ValueError:
            continue
        for record in reversed(records):
            if (found := gradient(record, measure, row)) is not None:
                after = record.step, found
                if record.step <= step:
                    return after
    return after


def histograms(
    blocks: Sequence[Block], measure: str, row: str, steps: Sequence[int]
) -> list[tuple[int, TensorStatistics]]:
    """The histograms of a row's gradient at those of these steps that have one; only blocks that
    hold one of the steps are read."""
    wanted, found = set(steps), []
    starts = [block.step for block in blocks]
    for place in sorted({bisect_right(starts, step) - 1 for step in steps}):
        for record in blocks[place].records():
            if record.step in wanted and (one := gradient(record, measure, row)) is not None:
                found.append((record.step, one))
    return found


def magnitudes(statistics: TensorStatistics) -> tuple[list[int], list[int]]:
    """The bins of |value| that hold something, both signs together, and their counts."""
    assert statistics.histogram is not None
    counts = statistics.histogram[:MAGNITUDES] + statistics.histogram[SIGN : SIGN + MAGNITUDES]
    used = np.flatnonzero(counts)
    return used.tolist(), counts[used].tolist()
