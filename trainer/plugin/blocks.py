"""The blocks of records that TensorBoard holds of a run, and following them as they get more."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, NamedTuple, Protocol, TypeVar

from trainer.record import StepRecord
from trainer.wire import decode


class Block(NamedTuple):
    """A block as it was logged, and the step from which a later one replaces its records."""

    step: int  # of its first record
    wall_time: float
    content: bytes
    end: float = math.inf

    def records(self) -> list[StepRecord]:
        """Those that still hold; ValueError where the block cannot be read."""
        return [record for record in decode(self.content) if record.step < self.end]


def in_order(logged: Sequence[Block]) -> list[Block]:
    """The blocks that still hold, in order of their steps, given those of a run as they were
    logged: from where a later one begins, it replaces the earlier ones, as when a run is started
    again or goes on from a checkpoint."""
    kept: list[Block] = []
    for block in logged:
        while kept and kept[-1].step >= block.step:
            kept.pop()
        if kept:
            kept[-1] = kept[-1]._replace(end=float(block.step))
        kept.append(block)
    return kept


class Takes(Protocol):
    """What can be made of records one by one."""

    def add(self, record: StepRecord, /) -> object: ...


T = TypeVar("T", bound=Takes)


class Follower(Generic[T]):
    """Something made of all records of a run; only those of new blocks are read to renew it."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._made = self._make()
        self._read: list[tuple[int, float, int]] = []
        self._last_step = -math.inf
        self._notes: list[str] = []

    @contextmanager
    def following(self, blocks: Sequence[Block]) -> Iterator[tuple[T, list[str]]]:
        """What the blocks give, up to date, and notes on those that could not be read; nobody
        else changes it meanwhile."""
        with self._lock:
            keys = [(block.step, block.wall_time, len(block.content)) for block in blocks]
            known = len(self._read)
            replaced = known < len(blocks) and blocks[known].step <= self._last_step
            if keys[:known] != self._read or replaced:
                self._start()
                known = 0
            for block, key in zip(blocks[known:], keys[known:], strict=True):
                self._take(block)
                self._read.append(key)
            yield self._made, self._notes

    def _take(self, block: Block) -> None:
        try:
            for record in block.records():
                self._made.add(record)
                self._last_step = record.step
        except ValueError as error:
            self._notes.append(f"left out what follows step {block.step}: {error}")
