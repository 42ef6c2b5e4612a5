"""The records of a run, read back from its event files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from trainer.events.file import WRITER, serialized
from trainer.record import StepRecord
from trainer.wire import PLUGIN, RECORDS_TAG, decode


def event_files(run_dir: Path) -> list[Path]:
    """The event files of a folder, oldest first."""
    return sorted(path for path in run_dir.glob("*tfevents*") if path.is_file())


def is_ours(path: Path) -> bool:
    """Whether this program has written an event file, as its first event says."""
    try:
        first = next(serialized(path), b"")
    except OSError:
        return False
    return bool(Event.FromString(first).source_metadata.writer == WRITER)


def records(run_dir: Path, warn: Callable[[str], None]) -> Iterator[StepRecord]:
    """The records of all event files of a folder, in order of their steps.

    From where a later file begins, its records replace those of the earlier ones: the run was
    started again, or goes on from a checkpoint. A file that is still written, or was when its
    process was killed, is read up to its last whole event. `warn` is told of blocks that cannot be
    read; they are left out. OSError where a file cannot be read.
    """
    paths = event_files(run_dir)
    ends = [math.inf]
    for path in reversed(paths[1:]):
        ends.append(min(ends[-1], next((step for step, _ in blocks(path)), math.inf)))
    for path, end in zip(paths, reversed(ends), strict=False):
        for step, block in blocks(path):
            if step >= end:
                break
            try:
                found = decode(block)
            except ValueError as error:
                warn(f"{path}: left out what follows step {step}: {error}")
                continue
            yield from (record for record in found if record.step < end)


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The first step and the bytes of each block of records in an event file."""
    for each in serialized(path):
        event = Event.FromString(each)
        for value in event.summary.value:
            if value.tag == RECORDS_TAG and value.metadata.plugin_data.plugin_name == PLUGIN:
                yield event.step, value.tensor.string_val[0]
