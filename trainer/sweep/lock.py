"""Who is at it? Locks that the system lets go of when their holder dies, however it dies."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


class Lock:
    """A file that one process at a time has locked; it may lock it again while it has it."""

    def __init__(self, path: Path) -> None:
        self._path, self._depth = path, 0

    def acquire(self) -> bool:
        """Waits until the lock is ours."""
        if self._depth == 0:
            self._file = self._path.open("ab")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._depth += 1
        return True

    def release(self) -> None:
        """Lets go of the lock."""
        self._depth -= 1
        if self._depth == 0:
            self._file.close()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def hold(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed here and in all programs it is given to.

    None while somebody else holds it.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
