"""A TensorBoard event file: its name, its first event, and how events are framed and found."""

from __future__ import annotations

import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata

LENGTH = struct.Struct("<Q")
CRC_BYTES = 4
WRITER = "trainer"  # what our files say in their first event
_number = itertools.count()  # of this process, so that two files of a second differ in name


class EventFile:
    """A new event file in a folder, the last by name; what is added reaches it at `flush`.

    The file is unbuffered and `flush` writes all that waits at once, so that neither a killed nor
    a forked process leaves half of an event or an event twice.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        host, now = socket.gethostname(), time.time()
        # Files are read in the order of their names, whatever a clock says when a run goes on.
        second = max([int(now), *(1 + int(n) for p in folder.iterdir() if (n := _second(p)))])
        name = f"events.out.tfevents.{second:010d}.{host}.{os.getpid()}.{next(_number)}"
        self._file = open(folder / name, "xb", buffering=0)
        self._waiting: list[bytes] = []
        self.waiting_bytes = 0
        source = SourceMetadata(writer=WRITER)
        version = Event(wall_time=now, file_version="brain.Event:2", source_metadata=source)
        self.add(version.SerializeToString())
        self.flush()

    def add(self, event: bytes) -> None:
        """Adds a serialized Event: its length and itself, each followed by a masked CRC-32C."""
        length = LENGTH.pack(len(event))
        framed = b"".join((length, _masked_crc(length), event, _masked_crc(event)))
        self._waiting.append(framed)
        self.waiting_bytes += len(framed)

    def flush(self) -> None:
        """Hands what was added to the operating system; OSError when it cannot."""
        events, self._waiting, self.waiting_bytes = self._waiting, [], 0
        start, rest = self._file.tell(), memoryview(b"".join(events))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):  # half an event is none
                end = self._file.tell()
                ends = itertools.accumulate(map(len, events), initial=start)
                self._file.truncate(max(whole for whole in ends if whole <= end))
            raise

    def sync(self) -> None:
        """Has what was flushed on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file without flushing."""
        self._file.close()


def serialized(path: Path) -> Iterator[bytes]:
    """The serialized Events of a file, until one is not whole; OSError where it cannot be read.

    TensorBoard's own reader makes the checksums in Python, 5 MB of them in a second.
    """
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        while len(head := file.read(LENGTH.size + CRC_BYTES)) == LENGTH.size + CRC_BYTES:
            length = head[: LENGTH.size]
            size = LENGTH.unpack(length)[0]
            if head[LENGTH.size :] != _masked_crc(length) or size > end - file.tell():
                return
            event, checksum = file.read(size), file.read(CRC_BYTES)
            if len(event) < size or checksum != _masked_crc(event):
                return
            yield event


def _second(path: Path) -> str:
    """The seconds in the name of one of our event files; empty for any other file."""
    found = re.match(r"events\.out\.tfevents\.(\d{10})\.", path.name)
    return found[1] if found else ""


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
