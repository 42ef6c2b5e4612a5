"""Disks that are full, read-only, gone, slow or broken."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import shutil
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torture_suites.case import BALLAST, Case, NotPossible, at, disk, fill, give_up_rights
from torture_suites.runs import ended, log_of, train
from trainer.__main__ import main
from trainer.events import file as event_file

NO_CHECKPOINT = r"no checkpoint at step \d+, training goes on without: .*"
NOT_THE_LAST = "no checkpoint at step 80, whose weights are lost: .*"
NO_EVENTS = "events can no longer be written to .*; training goes on"
NO_RESULT = "the result cannot be written: "
NO_SPACE = "No space left on device"
SLOW_SECONDS = 0.2


def full_disk(case: Case) -> Iterator[str]:
    """The whole run is on it."""
    with disk(case.folder):
        step = case.step()
        messages = (NO_EVENTS, NOT_THE_LAST + NO_SPACE, NO_RESULT + NO_SPACE)
        prepare = partial(at, step, partial(fill, case.folder))
        # One that is written over the blocks of an older one has room.
        perhaps = (f"BEST: cannot be written: {NO_SPACE}", NO_CHECKPOINT)
        yield from case.ends(prepare, 1, *messages, perhaps=perhaps)
        (case.folder / BALLAST).unlink()
        # A checkpoint that was written over an older one may be newer than the last events.
        yield from case.goes_on(lost=("records", "curves"))


def full_for_a_while(case: Case) -> Iterator[str]:
    """Only checkpoints are on it, none fits to its end, and there is room again before the end."""
    step, ballast = case.drawn.randrange(5, 40), case.folder / "checkpoints" / BALLAST
    but = case.drawn.randrange(0, 40_000)

    def prepare() -> None:
        at(1, lambda: ballast.parent.symlink_to(case.work / "disk"))
        at(step, lambda: fill(ballast.parent, but))
        at(step + 20, ballast.unlink)

    messages = NO_CHECKPOINT + NO_SPACE, "they can be written again"
    with disk(case.work / "disk"):
        # Where all are kept none is written over the blocks of another, for which there is room.
        yield from case.ends(prepare, 0, *messages, arguments=("checkpoint.keep=90",))
        yield from case.is_the_unbroken_run()


def lost_messages(case: Case) -> Iterator[str]:
    """What the program says cannot be written, or nobody is there any more to read it."""
    yield from case.ends(lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 2), 0)
    yield from case.is_the_unbroken_run()
    shutil.rmtree(case.folder)

    step = case.step()

    def leave() -> None:
        reads, writes = os.pipe()
        os.dup2(writes, 2)
        at(step, lambda: os.close(reads))

    yield from case.ends(leave, 0)
    yield from case.is_the_unbroken_run()


def events_too_large(case: Case) -> Iterator[str]:
    """A file may not become as large as that of the events."""
    limit = case.drawn.randrange(20_000, 60_000)
    yield from case.ends(limited(limit), 0, NO_EVENTS, arguments=("checkpoint.keep=0",))


def checkpoints_too_large(case: Case) -> Iterator[str]:
    """Not one checkpoint can be written."""
    messages = NO_CHECKPOINT + "File too large", NO_EVENTS, NOT_THE_LAST
    yield from case.ends(limited(6000), 1, *messages)
    yield from case.goes_on()


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def no_permission(case: Case) -> Iterator[str]:
    """The folders become read-only for the one who trains; open files stay open."""

    step = case.step()

    def allow(writing: int) -> None:
        for path in [case.folder, *case.folder.rglob("*")]:
            path.chmod((0o555 if path.is_dir() else 0o444) | writing)

    def prepare() -> None:
        give_up_rights()
        at(step, lambda: allow(0))

    why = "Permission denied"
    messages = NO_CHECKPOINT + why, NOT_THE_LAST + why, NO_RESULT + why
    yield from case.ends(prepare, 1, *messages, read_only=True)
    allow(0o200)
    yield from case.goes_on()


def immutable(case: Case) -> Iterator[str]:
    """Nothing there can be written any more, open files neither."""

    def freeze(flag: bool) -> None:
        for path in [*case.folder.rglob("*"), case.folder]:
            set_immutable(path, flag)

    probe = case.work / "probe"
    probe.touch()
    set_immutable(probe, True)
    set_immutable(probe, False)
    step, why = case.step(), "Operation not permitted"
    try:
        messages = NO_CHECKPOINT + why, NO_EVENTS, NOT_THE_LAST + why, NO_RESULT + why
        prepare = lambda: at(step, lambda: freeze(True))  # noqa: E731
        yield from case.ends(prepare, 1, *messages, read_only=True)
        yield from case.ends(None, 1, "cannot be written: " + why, read_only=True)
    finally:
        freeze(False)
    yield from case.goes_on()


def set_immutable(path: Path, flag: bool) -> None:
    """What `chattr +i` does."""
    get, put, bit = 0x80086601, 0x40086602, 0x10  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
    opened = os.open(path, os.O_RDONLY)
    try:
        flags = struct.unpack("l", fcntl.ioctl(opened, get, bytes(8)))[0]
        fcntl.ioctl(opened, put, struct.pack("l", flags | bit if flag else flags & ~bit))
    except OSError as error:
        raise NotPossible(f"chattr +i: {error.strerror}") from None
    finally:
        os.close(opened)


def removed_folder(case: Case) -> Iterator[str]:
    """Nothing of it comes back."""
    step, why = case.step(), "No such file or directory"
    messages = NO_CHECKPOINT + why, NOT_THE_LAST + why, NO_RESULT + why
    yield from case.ends(lambda: at(step, lambda: shutil.rmtree(case.folder)), 1, *messages)
    if case.folder.exists():
        yield "the folder is there again"
    yield from case.goes_on()


def slow_disk(case: Case) -> Iterator[str]:
    """Each flush of events and each sync takes its time; then a signal ends the run."""
    step = case.step()

    def slow() -> None:
        sync, flush = os.fsync, event_file.EventFile.flush

        def slow_sync(descriptor: int) -> None:
            time.sleep(SLOW_SECONDS * case.drawn.random())
            sync(descriptor)

        def slow_flush(self: event_file.EventFile) -> None:
            time.sleep(SLOW_SECONDS)
            flush(self)

        os.fsync, event_file.EventFile.flush = slow_sync, slow_flush  # type: ignore[method-assign]

    def signalled() -> None:
        slow()
        at(step, lambda: os.kill(os.getpid(), signal.SIGTERM))

    yield from case.ends(signalled, 143)
    yield from case.ends(slow, 0)
    yield from case.is_the_unbroken_run()


def hanging_disk(case: Case) -> Iterator[str]:
    """A sync does not come back; the second SIGINT ends the process all the same."""
    step, hangs = case.step(), 60.0

    def prepare() -> None:
        def interrupt() -> None:
            os.fsync = lambda _: time.sleep(hangs)
            for seconds in (0.2, 0.5):
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()

        at(step, interrupt)
        sys.argv = ["trainer", "--config", str(case.config), "--run-dir", str(case.folder)]
        main()  # as a process of its own has it

    started = time.monotonic()
    status = ended(train(case.config, case.folder, prepare))
    if status != 130 or time.monotonic() - started > hangs:
        yield f"status {status} after {time.monotonic() - started:.0f} s"
    if log_of(case.folder).read_text().count("interrupted at once") != 1:
        yield log_of(case.folder).read_text()
    yield from case.goes_on()


def interrupted_writes(case: Case) -> Iterator[str]:
    """Signals of a timer break into all system calls, and files take a part of what is written."""

    def interrupt() -> None:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        event_file.open = lambda *given, **keys: Short(open(*given, **keys), case.drawn)  # type: ignore[attr-defined]

    yield from case.ends(interrupt, 0)
    yield from case.is_the_unbroken_run()


def broken_write(case: Case) -> Iterator[str]:
    """The disk fails amid an event; what was whole before is kept."""

    def fail() -> None:
        event_file.open = lambda *given, **keys: Short(open(*given, **keys), case.drawn, 20_000)  # type: ignore[attr-defined]

    yield from case.ends(fail, 0, NO_EVENTS, arguments=("checkpoint.keep=0",))


class Short:
    """A file that takes a part of what it is given, and fails when it has taken enough."""

    def __init__(self, opened: Any, drawn: random.Random, bytes_left: int | None = None) -> None:
        self._file, self._drawn, self._left = opened, drawn, bytes_left

    def write(self, content: memoryview) -> int:
        if self._left is not None and self._left <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        taken = int(self._file.write(content[: self._drawn.randint(1, max(1, len(content)))]))
        if self._left is not None:
            self._left -= taken
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


DISKS = (
    full_disk, full_for_a_while, lost_messages, events_too_large, checkpoints_too_large,
    no_permission, immutable, removed_folder, slow_disk, hanging_disk, interrupted_writes,
    broken_write,
)  # fmt: skip
