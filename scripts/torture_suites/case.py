"""A run that a fault is injected into, and what may be said of its end."""

from __future__ import annotations

import contextlib
import ctypes
import random
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture_suites.kills import different, said
from torture_suites.remains import half_written
from torture_suites.runs import ended, log_of, train
from trainer.checkpoints import Checkpoints

TROUBLE = re.compile(
    r"cannot|can no longer|no checkpoint|damaged|left out|another process|rror|again"
)
BALLAST = "ballast"
DISK_BYTES = 2 << 20


class NotPossible(Exception):
    """This machine, or this user, cannot have the fault; says why."""


@dataclass
class Case:
    """What a fault is injected into."""

    work: Path  # a folder of its own
    config: Path
    expected: dict[str, Any]  # of the run that nothing happens to
    drawn: random.Random

    @property
    def folder(self) -> Path:
        return self.work / "run"

    def step(self) -> int:
        """One at which a checkpoint is there and another will be written."""
        return self.drawn.randrange(5, 70)

    def ends(
        self,
        prepare: Callable[[], object] | None,
        status: int,
        *messages: str,
        arguments: tuple[str, ...] = (),
        read_only: bool = False,
        perhaps: tuple[str, ...] = (),
    ) -> Iterator[str]:
        """Trains; says where it ends otherwise than with this status and with these messages, which
        are patterns, each once, and with no other about trouble, but perhaps these, once each."""
        log_of(self.folder).write_text("")
        found = ended(train(self.config, self.folder, prepare, *arguments))
        told = log_of(self.folder).read_text()
        if found != status:
            yield f"status {found} instead of {status}"
        if "Traceback" in told:
            yield "a traceback"
        lines = [line for line in told.splitlines() if TROUBLE.search(line)]
        for message in messages:
            if not any(re.search(message, line) for line in lines):
                yield f"not said: {message}"
        more = [line for one in perhaps for line in lines if re.search(one, line)]
        if len(lines) - len(more) != len(messages) or len(more) > len(perhaps):
            yield f"{len(lines)} messages instead of {len(messages)}: {lines}"
        left = half_written(self.folder) if self.folder.exists() else ()
        yield from (each for each in left if not (read_only and each.endswith(" is left")))

    def is_the_unbroken_run(self, lost: tuple[str, ...] = ()) -> Iterator[str]:
        """Says in what the run differs from the one that nothing happens to, but for these."""
        try:
            parts = different(self.expected, said(self.folder))
            yield from (f"differs in {part}" for part in parts if part not in lost)
        except (OSError, LookupError) as error:
            yield f"left nothing to compare: {error!r}"

    def goes_on(self, lost: tuple[str, ...] = ()) -> Iterator[str]:
        """Lets the run go on without a fault."""
        yield from self.ends(None, 0)
        yield from self.is_the_unbroken_run(lost)


def at(step: int, action: Callable[[], object]) -> None:
    """In a process that will train: does something before a step, amid no checkpoint."""
    pause = Checkpoints.pause

    def paused(self: Checkpoints, progress: Any) -> str | None:
        if progress.step == step:
            self.wait()
            action()
        return pause(self, progress)

    Checkpoints.pause = paused  # type: ignore[method-assign]


def give_up_rights() -> None:
    """Lets permissions hold for this process and its children even where it is root's."""
    libc, override, drop = ctypes.CDLL(None), 1, 24  # CAP_DAC_OVERRIDE, PR_CAPBSET_DROP
    libc.prctl(drop, override, 0, 0, 0)
    header, sets = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    libc.capget(header, sets)
    values = list(struct.unpack("=6I", sets.raw))
    values[0] &= ~(1 << override)
    values[1] &= ~(1 << override)
    libc.capset(header, struct.pack("=6I", *values))


@contextlib.contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A small disk of its own, mounted there."""
    folder.mkdir(parents=True)
    size = f"size={DISK_BYTES}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        raise NotPossible("no file system may be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, but: int = 0) -> None:
    """Leaves no byte, or so many, on the disk of a folder."""
    with (folder / BALLAST).open("ab", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - but)
