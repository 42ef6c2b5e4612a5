"""The processes that read samples: that signals spare them, that they end, and what killed one."""

from __future__ import annotations

import atexit
import multiprocessing
import multiprocessing.connection
import signal
import sys
import weakref
from collections.abc import Generator
from multiprocessing.process import BaseProcess
from typing import Any

OUT_OF_MEMORY = ", as a system does that runs out of memory: use fewer workers or smaller batches"
DYING_SECONDS = 1.0  # from what a trainer notices to the end of the process
_READING: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()
_WORKERS: weakref.WeakSet[BaseProcess] = weakref.WeakSet()


class Started:
    """The context in which workers are started: `lost` then knows of them."""

    def __enter__(self) -> None:
        self._before = multiprocessing.active_children()

    def __exit__(self, *_: object) -> None:
        _WORKERS.update(
            each for each in multiprocessing.active_children() if each not in self._before
        )


def reading(parts: Generator[Any, None, None]) -> None:
    """Has what reads samples closed when Python ends, if it is not at its end then."""
    _READING.add(parts)


def lost() -> str | None:
    """What is to be told if a worker has died, which makes the trainer fail in many ways; or None.

    The user's own mistakes reach the trainer as they are, and leave the worker alive. The other
    workers are ended with it.
    """
    workers = list(_WORKERS)
    if not workers:
        return None
    _tell_nothing_of_children()
    multiprocessing.connection.wait([each.sentinel for each in workers], DYING_SECONDS)
    for worker in workers:
        code = worker.exitcode
        if code:
            how = f"ended with status {code}"
            if code < 0:
                how = f"was killed by {signal.Signals(-code).name}"
            if code == -9:
                how += OUT_OF_MEMORY
            for other in workers:  # before it complains of what the trainer no longer answers
                other.kill()
            return f"data.workers: process {worker.pid}, which read samples, {how}"
    return None


def outlive_signals(worker: int) -> None:
    """In a worker: leaves it to the trainer to end, which may need it to do so in good order.

    A signal to all processes of a job reaches the workers too. The second SIGTERM ends them, so
    that one that hangs can be ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    sys.excepthook = _unless_unanswered


def _unless_unanswered(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Python's own telling of an error, but in silence where the trainer has hung up on the thread
    that hands tensors over: it ends the run, and tells why."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _tell_nothing_of_children() -> None:
    """Takes away torch's handler, which raises wherever the trainer is when a worker dies."""
    if hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@atexit.register
def _close() -> None:
    """Python's own ending of child processes is one SIGTERM and an endless wait."""
    for parts in list(_READING):
        parts.close()
    _tell_nothing_of_children()
    for worker in list(_WORKERS):  # where an error has kept what read them from its end
        if worker.is_alive():
            worker.kill()
