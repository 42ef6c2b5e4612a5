"""The events of one run, from the training loop's side."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.events import about
from trainer.events.reader import event_files
from trainer.events.writer import Writer
from trainer.record import StepRecord

# The tab takes its columns from one run of all: what is in any of them is named in each.
METRICS = ("loss/train", "loss/validation", "gradient_norm/global")


class Events:
    """A new event file in the run's folder, which TensorBoard can show while it grows.

    All is written by a thread: within some two seconds, at `close`, and when the interpreter ends
    without it. When the file cannot be written any more, one message says so (by `warn`, at the
    call that finds it out; a RuntimeWarning by default) and training goes on without events.
    """

    def __init__(
        self,
        run_dir: Path,
        warn: Callable[[str], None] | None = None,
        resumed: tuple[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """`resumed`: the step from which the run goes on, and the `mark` that it was left at."""
        if resumed is not None:
            rewind(run_dir, resumed[1]["bytes"])
        self._writer = Writer(run_dir)
        if resumed is not None:
            self._writer.curves.resume(resumed[1]["curves"])
            self._writer.put(about.resumption(resumed[0]))
        self._run_dir = run_dir
        self._warn = warn or (lambda message: warnings.warn(message, RuntimeWarning, stacklevel=4))
        self._warned = False
        self._finalizer = weakref.finalize(self, self._writer.close, failed=True)
        self._writer.put(about.layout())

    def write(self, record: StepRecord) -> None:
        """Adds a record: its curves, its histograms and its place in the blocks of records."""
        self._writer.put(record)
        if self._writer.failure is not None:
            self._report()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point of each of these curves, such as the loss of a validation."""
        self._writer.put(about.scalars(values, step))

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Shows `markdown` in TensorBoard's TEXT tab."""
        self._writer.put(about.text(tag, markdown, step))

    def hyperparameters(
        self,
        values: Mapping[str, bool | int | float | str],
        metrics: Sequence[str] = (),
        varied: Collection[str] = (),
    ) -> None:
        """Shows the run in TensorBoard's HPARAMS tab; the same names in all runs to compare.

        Beside the values stand the last points of curves: of the losses, of the gradient norm and
        of the tags `metrics`. Names in `varied` come first. TypeError when a value is none of bool,
        int, float and str.
        """
        for event in about.hyperparameters(values, [*METRICS, *metrics], varied):
            self._writer.put(event)
        self._writer.is_session = True

    def mark(self, durable: bool) -> Callable[[bool], dict[str, Any] | None]:
        """What tells, when all events until now are written, where they end: for `resumed`.

        Any thread may call it. Told to wait, it waits for that, and if `durable` for the disk; else
        it gives None as long as there is no answer.
        """
        mark = self._writer.mark(durable)

        def reached(wait: bool) -> dict[str, Any] | None:
            if wait:
                self._writer.wait(mark)
            elif not mark.reached.is_set():
                return None
            return {"bytes": mark.sizes, "curves": mark.curves}

        return reached

    def close(self, failed: bool = False, seconds: float | None = None) -> None:
        """Writes everything that waits and closes the file; safe to call twice.

        `failed` is the status of a run with hyperparameters; it is true where nobody closes. A disk
        that hangs is waited for no longer than `seconds`.
        """
        if self._finalizer.detach():
            self._writer.close(failed, seconds)
        if self._writer.failure is not None:
            self._report()

    def _report(self) -> None:
        if not self._warned:
            self._warned = True
            what = f"events can no longer be written to {self._run_dir}: {self._writer.failure}"
            self._warn(f"{what}; training goes on, TensorBoard shows nothing newer")


def rewind(run_dir: Path, sizes: Mapping[str, int]) -> None:
    """Cuts the event files of a folder to these sizes and deletes those that have none."""
    for path in event_files(run_dir):
        size = sizes.get(path.name)
        if size is None:
            path.unlink()
        elif size < path.stat().st_size:
            os.truncate(path, size)
