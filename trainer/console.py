"""What a person at a terminal reads: the start, the progress and the end of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console as Terminal
from rich.highlighter import RegexHighlighter
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.theme import Theme

from trainer.record import StepRecord

PLAIN_EVERY_SECONDS = 5.0
BAR_EVERY_SECONDS = 0.1


class Levels(RegexHighlighter):
    """Colours the levels of findings."""

    highlights = [
        r"\b(?P<critical>critical)\b",
        r"\b(?P<warning>warning)\b",
        r"(?P<ended>resolved)",
    ]


COLOURS = Theme({"critical": "bold red", "warning": "yellow", "ended": "green"})


class Stderr:
    """`sys.stderr`, but that what cannot be written to it is lost: its disk may be full, and who
    reads it may have seen enough, while training goes on."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def aside(line: str) -> None:
    """Prints a line on stderr, for whoever reads it."""
    print(line, file=cast(IO[str], Stderr()), flush=True)


class Console:
    """Messages and progress on stderr; a bar on a terminal, else a plain line every few seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self._terminal = Terminal(
            file=cast(IO[str], Stderr()), highlight=False, highlighter=Levels(), theme=COLOURS,
            quiet=quiet,
        )  # fmt: skip
        self._bar: Progress | None = None
        self._next = float("inf")  # nothing is due before the start
        self._every = PLAIN_EVERY_SECONDS
        self._steps, self._unit = 0, ""

    def say(self, message: str) -> None:
        """One plain line; long paths are not wrapped."""
        self._terminal.print(escape(message), soft_wrap=True)

    def found(self, lines: Iterable[str]) -> None:
        """What is told of findings: plain lines with the levels in colour."""
        for line in lines:
            self._terminal.print(escape(line), soft_wrap=True, highlight=True)

    def start(self, steps: int, unit: str = "") -> None:
        """Begins to show progress towards `steps`, with costs in a unit."""
        if self._terminal.is_terminal:
            self._every = BAR_EVERY_SECONDS
            self._bar = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("{task.fields[state]}"),
                TimeRemainingColumn(),
                console=self._terminal,
                transient=True,
            )
            self._bar.add_task("", total=steps, state="")
            self._bar.start()
        self._steps, self._unit = steps, unit
        self._next = time.monotonic() + self._every

    @property
    def due(self) -> bool:
        """Whether it is time to show progress again."""
        return time.monotonic() >= self._next

    def progress(self, step: int, latest: StepRecord | None, skipped: int = 0) -> None:
        """Shows how far training is, what the latest record says, which may be older, and how many
        steps were skipped."""
        self._next = time.monotonic() + self._every
        state = ""
        if latest is not None:
            state = f"cost {latest.loss:.6g}{self._unit}, gradient norm "
            state += f"{latest.gradient_norm:.3g} at step {latest.step}"
        state += f"  skipped {skipped}" if skipped else ""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step, state=state)
        else:
            self.say(f"step {step}/{self._steps}  {state}")

    def stop(self) -> None:
        """Ends the progress display; safe to call twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """A table of two columns, a line for each row; long paths are not wrapped."""
        rows = list(rows)
        width = max(len(left) for left, _ in rows)
        for left, right in rows:
            self.say(f"{left:{width}}  {right}")
