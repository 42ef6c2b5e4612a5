"""Where the findings of a run stay: its file `findings.jsonl` and TensorBoard's text."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trainer import summary
from trainer.events import Events
from trainer.events.reader import event_files, is_ours
from trainer.finding import FILE, Finding

logger = logging.getLogger("trainer")


class Journal:
    """Writes what is found in a run, when it is found.

    `findings.jsonl` gets a line each time that something is raised, gets worse or ends, and is not
    there before in a new folder; the text `findings` shows how each of them stands.
    """

    def __init__(self, run_dir: Path, events: Events, resumed: int | None = None) -> None:
        """`resumed`: where a run goes on, the size that the file was marked with and is cut to.

        Otherwise a UserWarning tells of what another run has left in the folder, and it stays.
        """
        self._path, self._events = run_dir / FILE, events
        self._warned = False
        self._latest: dict[tuple[str, str | None], Finding] = {}
        self._step = 0
        if resumed is not None:
            self._rewind(resumed)
        elif self._path.is_file() or sum(map(is_ours, event_files(run_dir))) > 1:
            # One is that of `events`.
            message = (
                f"{run_dir} holds what another run has written, which stays there: TensorBoard "
                f"shows both as one, {FILE} has the findings of both; give each run a new folder"
            )
            warnings.warn(message, stacklevel=3)  # where the monitor is made

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

    def _rewind(self, size: int) -> None:
        if self._path.exists():
            lines = self._path.read_bytes()[:size].splitlines(keepends=True)
            while lines and _is_of_the_end(lines[-1]):  # it has not ended after all
                lines.pop()
            os.truncate(self._path, sum(map(len, lines)))
            if not lines:
                self._path.unlink()

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


def _is_of_the_end(line: bytes) -> bool:
    try:
        return Finding.from_json(line.decode()).of_the_end
    except ValueError:
        return False


def log(finding: Finding) -> None:
    """Tells an alarm through Python's logging: `trainer` warns of it, once, and notes its end."""
    if finding.alarm:
        logger.log(logging.INFO if finding.resolved else logging.WARNING, "%s", finding)
