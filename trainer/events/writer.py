"""The thread that turns records into events and events into a file."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from pathlib import Path

from trainer.events import about
from trainer.events.curves import Curves
from trainer.events.file import EventFile
from trainer.events.reader import event_files
from trainer.record import BINS, StepRecord
from trainer.wire import Block

POLL_SECONDS = 0.25  # records are taken in batches: a thread woken at each step would slow it down
FLUSH_SECONDS = 2.0
BATCH = 256  # records made into events at once
BLOCK_RECORDS = 1000
WAITING_RECORDS = 8192
FREE_RECORDS = 4  # that wait whatever their size
HELD_BYTES = 64 << 20  # of histograms, waiting for the thread or in one block


class Mark:
    """A place in what is written: once it is reached, all before it is with the operating system.

    If it is `durable` it is on the disk. `sizes` are then those of the folder's event files, and
    `curves` the counts of the curves.
    """

    def __init__(self, durable: bool) -> None:
        self.durable = durable
        self.reached = threading.Event()
        self.sizes: dict[str, int] = {}
        self.curves: list[int] = []


class Writer:
    """Writes what is put into it; what was put POLL_SECONDS and FLUSH_SECONDS ago is with the
    operating system.

    `failure` is the error that ended the writing, after which everything put in is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._file, self._folder = EventFile(folder), folder
        self.failure: Exception | None = None
        self.is_session = False  # whether the HPARAMS tab waits for an end
        self.curves = Curves()
        self._waiting: deque[StepRecord | bytes | Mark] = deque()
        self._block = Block()
        self._block_bytes = 0  # of its histograms as they are read
        self._block_starts = 0, 0.0  # step and time of its first record
        self._flush_at: float | None = None  # when something waits for a flush
        self._process = os.getpid()
        self._closing, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainer-events", daemon=True)
        self._thread.start()

    def put(self, item: StepRecord | bytes) -> None:
        """Leaves a record or a serialized event to the thread; waits only when it is far behind."""
        if self.failure is None:
            if len(self._waiting) >= FREE_RECORDS:
                self._wait(_histogram_bytes(item))
            self._waiting.append(item)

    def mark(self, durable: bool) -> Mark:
        """A mark behind what was put until now."""
        mark = Mark(durable)
        self._waiting.append(mark)
        self._wake.set()
        return mark

    def wait(self, mark: Mark) -> None:
        """Waits until a mark is reached, or writing has ended before it."""
        while not mark.reached.wait(0.01):
            if not self._thread.is_alive() or self.failure is not None:
                self._reach(mark)

    def close(self, failed: bool, seconds: float | None = None) -> None:
        """Writes everything and ends the thread; `failed` is what the HPARAMS tab shows.

        Waits no longer than so many seconds, if there is a limit.
        """
        if self._process != os.getpid() or self._closing.is_set():
            return  # a fork has no thread, and the file is its parent's
        self._failed = failed
        self._closing.set()
        self._wake.set()
        self._thread.join(seconds)

    def _wait(self, histogram_bytes: int) -> None:
        limit = min(WAITING_RECORDS, max(FREE_RECORDS, HELD_BYTES // (histogram_bytes or 1)))
        while len(self._waiting) >= limit and self._thread.is_alive() and self.failure is None:
            time.sleep(0.001)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._wake.wait(POLL_SECONDS)
                self._wake.clear()
                self._take()
                self._flush_if_due()
            self._take()
            for event in self.curves.last():
                self._file.add(event)
            if self.is_session:
                self._file.add(about.session_end(self._failed))
            self._flush()
        except Exception as error:  # training goes on whatever happens here
            self.failure = error
            self._waiting.clear()
            self._block = Block()
        finally:
            self._file.close()

    def _take(self) -> None:
        """Adds all that waits to the file."""
        while self._waiting:
            records: list[StepRecord] = []
            mark: Mark | None = None
            while self._waiting and len(records) < BATCH and mark is None:
                item = self._waiting.popleft()
                if isinstance(item, Mark):
                    mark = item
                elif isinstance(item, bytes):
                    self._file.add(item)
                else:
                    records.append(item)
            for event in self.curves.events(records):
                self._file.add(event)
            for record in records:
                if not len(self._block):
                    self._block_starts = record.step, record.wall_time
                self._block.add(record)
                self._block_bytes += _histogram_bytes(record)
                if len(self._block) >= BLOCK_RECORDS or self._block_bytes >= HELD_BYTES:
                    self._end_block()
            if self._flush_at is None:
                self._flush_at = time.monotonic() + FLUSH_SECONDS
            self._flush_if_due()
            if mark is not None:
                self._flush()
                if mark.durable:
                    self._file.sync()
                self._reach(mark)

    def _reach(self, mark: Mark) -> None:
        mark.sizes = {path.name: path.stat().st_size for path in event_files(self._folder)}
        mark.curves = self.curves.counts()
        mark.reached.set()

    def _flush_if_due(self) -> None:
        due = self._flush_at is not None and time.monotonic() >= self._flush_at
        if due or self._file.waiting_bytes > HELD_BYTES:
            self._flush()

    def _end_block(self) -> None:
        if len(self._block):
            block = self._block.encoded()
            self._file.add(about.records_event(block, *self._block_starts))
            self._block, self._block_bytes = Block(), 0

    def _flush(self) -> None:
        self._end_block()
        self._file.flush()
        self._flush_at = None


def _histogram_bytes(item: StepRecord | bytes) -> int:
    """Of histograms, whose arrays are what makes a record large."""
    if isinstance(item, bytes) or item.gradients.histograms is None:
        return 0
    rows = len(item.gradients.names) + (len(item.layers.gradients.names) if item.layers else 0)
    return 8 * BINS * rows
