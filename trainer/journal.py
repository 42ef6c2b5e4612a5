"""Where the findings of a run stay: its file `findings.jsonl` and TensorBoard's text."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainer import summary
from trainer.events import Events
from trainer.finding import Finding

FILE = "findings.jsonl"
logger = logging.getLogger("trainer")


class Journal:
    """Writes what is found in a run, when it is found.

    `findings.jsonl` gets a line each time that something is raised, gets worse or ends, and is
    not there before; the text `findings` shows how each of them stands.
    """

    def __init__(self, run_dir: Path, events: Events) -> None:
        self._path, self._events = run_dir / FILE, events
        self._warned = False
        self._latest: dict[tuple[str, str | None], Finding] = {}
        self._step = 0

    def remember(self, finding: Finding) -> None:
        """Takes a finding that is written already, where a run goes on."""
        self._latest[finding.verdict, finding.where] = finding
        self._step = max(self._step, finding.steps[1])

    def mark(self, durable: bool) -> Callable[[], int]:
        """What tells how many bytes the file had when marked; has them on the disk if `durable`."""
        size = self._path.stat().st_size if self._path.exists() else 0

        def written() -> int:
            if size and durable:
                with self._path.open("rb+") as file:
                    os.fsync(file.fileno())
            return size

        return written

    def rewind(self, size: int) -> None:
        """Cuts the file to the size that it was marked with."""
        if self._path.exists():
            os.truncate(self._path, min(size, self._path.stat().st_size))
            if not size:
                self._path.unlink()

    def write(self, finding: Finding) -> None:
        """Adds a finding; where the file cannot be written, training goes on after one warning."""
        self.remember(finding)
        self._events.text("findings", summary.markdown(self._latest.values()), self._step)
        try:
            self._append(finding.to_json().encode() + b"\n")
        except OSError as error:
            if not self._warned:
                logger.warning("%s: cannot be written: %s", self._path, error.strerror)
            self._warned = True

    def _append(self, line: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            start, rest = file.tell(), memoryview(line)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                with suppress(OSError):  # half a line is none
                    file.truncate(start)
                raise


def log(finding: Finding) -> None:
    """Tells an alarm through Python's logging: `trainer` warns of it, once, and notes its end."""
    if finding.alarm:
        logger.log(logging.INFO if finding.resolved else logging.WARNING, "%s", finding)
