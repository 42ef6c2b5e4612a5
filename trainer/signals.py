"""Signals that ask a run to end or to write a checkpoint, when the step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

CHECKPOINT = getattr(signal, "SIGUSR1", None)  # Windows has none


class Signals:
    """Takes SIGINT, SIGTERM and SIGUSR1 as wishes while it is entered.

    `ending` is the signal that asked for the end, `checkpoint` whether one is asked for. A second
    signal of the same kind does what it does by default: it ends the program at once. Outside the
    main thread, which alone can take signals, nothing changes.
    """

    def __init__(self) -> None:
        self.ending: int | None = None
        self.checkpoint = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            wanted = (signal.SIGINT, signal.SIGTERM, CHECKPOINT)
            self._before = {s: signal.signal(s, self._take) for s in wanted if s is not None}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if number == CHECKPOINT:
            self.checkpoint = True
            return
        self.ending = number
        again = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, again)
