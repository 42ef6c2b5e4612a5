"""What the tab knows of a run: its statistics at all observed steps, and what is wrong."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from trainer.config.file import read
from trainer.config.problem import ConfigError
from trainer.diagnosis import Diagnosis
from trainer.finding import LEVELS, Finding
from trainer.last_words import with_last_words
from trainer.plugin.blocks import Block, Blocks, Follower
from trainer.plugin.grid import Grid, Part
from trainer.plugin.measures import MEASURES, Measure
from trainer.record import StepRecord
from trainer.summary import Summary, overrides

MOST_ENDED = 30  # findings of a run that are told


class Measured:
    """A statistic at all steps, and the steps at which its gradients have histograms."""

    def __init__(self, measure: Measure) -> None:
        self.grid = Grid()
        self.with_histograms: list[int] = []
        self._measure = measure

    def add(self, block: Block) -> int:
        """Takes the next block."""
        step, parts, with_histograms = block.step, [], []
        for sheet in block.sheets():
            holds = sheet.steps < block.end
            steps = sheet.steps[holds]
            step = max(step, *steps.tolist())
            if len(steps) and (found := self._measure.values(sheet)) is not None:
                names, values = found
                parts.append(Part(steps, names, values[holds]))
            if sheet.histograms[self._measure.table] is not None:
                with_histograms += steps.tolist()
        if parts:
            self.grid.add(parts)
        self.with_histograms += sorted(with_histograms)
        return step


class Judged:
    """The findings of a run, derived from its records anew."""

    def __init__(self, configuration: dict[str, Any] | None, folder: Path | None) -> None:
        self._diagnosis, self._summary = Diagnosis(configuration), Summary()
        self._folder = folder
        self._newest: StepRecord | None = None
        self._ended = {level: deque[Finding](maxlen=MOST_ENDED) for level in reversed(LEVELS)}
        self._number_ended = 0

    def add(self, block: Block) -> int:
        """Takes the next block."""
        step = block.step
        for record in block.records():
            self._diagnosis.add(record)
            self._summary.add(record)
            step, self._newest = record.step, record
            for finding in self._diagnosis.forget():
                self._ended[finding.level].append(finding)
                self._number_ended += 1
        return step

    def tree(self) -> dict[str, Any]:
        """The findings as values of JSON, the change of each as it is typed, and how many more
        there are: of those that have ended only the gravest are told, the latest among them."""
        ended = [one for of_level in self._ended.values() for one in reversed(of_level)]
        told = sorted(ended[:MOST_ENDED], key=lambda finding: finding.steps)
        findings = [*told, *self._diagnosis.findings]
        if self._folder is not None:
            findings = with_last_words(findings, self._folder, self._newest)
        return {
            "records": self._summary.records,
            "has_fallen": self._summary.has_fallen,
            "findings": [
                json.loads(finding.to_json())
                | {"headline": finding.headline, "overrides": overrides(finding)}
                for finding in findings
            ],
            "more": self._number_ended - len(told),
        }


class Run:
    """The numbers of a run; `folder` is where its `config.yaml` may be."""

    def __init__(self, folder: Path | None) -> None:
        self.blocks = Blocks()
        self._measured: OrderedDict[str, Follower[Measured]] = OrderedDict()
        self._lock = threading.Lock()
        configuration, self.note = _configuration(folder)
        self._judged = Follower(lambda: Judged(configuration, folder))

    @contextmanager
    def measured(self, name: str) -> Iterator[tuple[Measured, list[str]]]:
        """One of the MEASURES, with notes on blocks that could not be read. It stays in memory,
        and those that were asked for before as long as all take half the bytes of the blocks."""
        with self._lock:
            follower = self._measured.pop(name, None) or Follower(lambda: Measured(MEASURES[name]))
            self._measured[name] = follower
        with follower.following(self.blocks.held) as found:
            with self._lock:
                room = sum(block.length for block in self.blocks.held) // 2
                while len(self._measured) > 1 and self._size_bytes() > room:
                    self._measured.popitem(last=False)
            yield found

    def _size_bytes(self) -> int:
        return sum(follower.made.grid.size_bytes for follower in self._measured.values())

    def judged(self) -> AbstractContextManager[tuple[Judged, list[str]]]:
        """The findings, with the same notes."""
        return self._judged.following(self.blocks.held)


def _configuration(folder: Path | None) -> tuple[dict[str, Any] | None, str | None]:
    """The run's own configuration, if it has one; a note where it cannot be read."""
    try:
        if folder is None or not (folder / "config.yaml").is_file():
            return None, None
        return read(folder / "config.yaml", []).tree, None
    except (ConfigError, OSError, ValueError) as error:
        return None, f"changes are proposed without the run's config.yaml: {error}"
