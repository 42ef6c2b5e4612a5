"""What the outside asks of a run: to end in good order, or to write a checkpoint now."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

ENDING = (signal.SIGINT, signal.SIGTERM)
AGAIN_SECONDS = 0.02  # after which an interrupt that was lost comes again
ASKING = tuple(s for s in [getattr(signal, "SIGUSR1", None)] if s is not None)  # not on Windows


def outside_training() -> None:
    """What signals do to this process before and after it trains, when there is nothing to keep.

    SIGINT ends it at once, as SIGTERM does, without a traceback from amid an import; SIGUSR1, that
    would end it too, has nothing to ask for.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)


def end_at_once(status: int) -> NoReturn:
    """Ends this process and its children, and waits for no thread that may wait for a disk."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)


class Signals:
    """While open, SIGINT, SIGTERM and SIGUSR1 are remembered for the end of the step.

    The second SIGINT raises KeyboardInterrupt at once, and again where that came amid a callback of
    C, from which Python raises nothing. Outside the main thread, where Python takes no signals,
    none is ever received.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._interrupted = False  # by SIGINT, whatever else was received since
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    @property
    def ends(self) -> bool:
        """Whether what was received ends the run; SIGUSR1 asks for no more than a checkpoint."""
        return self.received in ENDING

    @property
    def status(self) -> int:
        """The exit status of a run that a signal has ended."""
        return 128 + (self.received or 0)

    def taken(self) -> None:
        """What was asked for is done."""
        if not self.ends:
            self.received = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (*ENDING, *ASKING):
                self._before[number] = signal.signal(number, self._receive)
            self._hook, sys.unraisablehook = sys.unraisablehook, self._unraised
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook
        self._before = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
        if number in ENDING or self.received is None:
            self.received = number

    def _unraised(self, lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is KeyboardInterrupt:
            again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()
        else:
            self._hook(lost)
