"""The blocks of records that TensorBoard holds of a run, and following them as they get more."""

from __future__ import annotations

import math
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, Protocol, TypeVar

from trainer.record import StepRecord
from trainer.wire import Sheet, decode, sheets


class Logged(NamedTuple):
    """A block as TensorBoard hands it out."""

    step: int  # of its first record
    wall_time: float
    content: bytes


class Store:
    """A copy of blocks on the disk: TensorBoard has them in memory, which is once too often to
    have them there again."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()

    def put(self, content: bytes) -> int:
        """Where it is kept."""
        with self._lock:
            place = self._file.seek(0, 2)
            self._file.write(content)
            return place

    def get(self, place: int, length: int) -> bytes:
        """What was put there."""
        with self._lock:
            self._file.seek(place)
            return self._file.read(length)


class Block(NamedTuple):
    """A block in a store, and the step from which a later one replaces its records."""

    step: int
    wall_time: float
    length: int
    store: Store
    place: int
    end: float = math.inf

    @property
    def key(self) -> tuple[int, float, int]:
        """What is different of another block of the run."""
        return self.step, self.wall_time, self.length

    def records(self) -> list[StepRecord]:
        """Those that still hold; ValueError where the block cannot be read."""
        return [record for record in decode(self._content()) if record.step < self.end]

    def sheets(self) -> list[Sheet]:
        """The same as columns, with the records that no longer hold."""
        return sheets(self._content())

    def _content(self) -> bytes:
        return self.store.get(self.place, self.length)


class Blocks:
    """Those of a run that still hold, in order of their steps."""

    def __init__(self) -> None:
        self._store = Store()
        self.held: list[Block] = []

    def renew(self, logged: Iterable[Logged]) -> None:
        """Takes all blocks of the run as they were logged: from where a later one begins, it
        replaces the earlier ones, as when a run is started again or goes on from a checkpoint."""
        kept: list[Logged] = []
        for block in logged:
            while kept and kept[-1].step >= block.step:
                kept.pop()
            kept.append(block)
        places = {block.key: block.place for block in self.held}
        ends = [*(float(block.step) for block in kept[1:]), math.inf]
        held = []
        for (step, wall_time, content), end in zip(kept, ends, strict=False):
            place = places.get((step, wall_time, len(content)))
            place = self._store.put(content) if place is None else place
            held.append(Block(step, wall_time, len(content), self._store, place, end))
        self.held = held  # at once, since others read it meanwhile


class Takes(Protocol):
    """What can be made of blocks one by one."""

    def add(self, block: Block, /) -> int:
        """Takes the next one, and says its last step; ValueError where it cannot be read."""


T = TypeVar("T", bound=Takes)


class Follower(Generic[T]):
    """Something made of all blocks of a run; only new ones are read to renew it."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self.made = self._make()
        self._read: list[tuple[int, float, int]] = []
        self._last_step: float = -math.inf
        self._notes: list[str] = []

    @contextmanager
    def following(self, blocks: Sequence[Block]) -> Iterator[tuple[T, list[str]]]:
        """What the blocks give, up to date, and notes on those that could not be read; nobody
        else changes it meanwhile."""
        with self._lock:
            keys = [block.key for block in blocks]
            known = len(self._read)
            replaced = known < len(blocks) and blocks[known].step <= self._last_step
            if keys[:known] != self._read or replaced:
                self._start()
                known = 0
            for block, key in zip(blocks[known:], keys[known:], strict=True):
                try:
                    self._last_step = self.made.add(block)
                except ValueError as error:
                    self._notes.append(f"left out what follows step {block.step}: {error}")
                self._read.append(key)
            yield self.made, self._notes
