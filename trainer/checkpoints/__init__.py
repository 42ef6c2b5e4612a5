"""The checkpoints of a run: when one is due, how many are kept, and which is the best."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainer.checkpoints import checkpoint, state
from trainer.checkpoints.listing import BEST, FOLDER, NAME, complete, name_of, step_of
from trainer.checkpoints.plain import packed, pairs
from trainer.config.schema import Checkpoint as Section
from trainer.experiment import Experiment
from trainer.progress import Keeper, Progress
from trainer.signals import Signals

DURABLE_SECONDS = 5.0  # from one that survives a power cut to the next; ext4 commits as often
# What else a run needs to go on; told not to wait for that, None as long as it is not written.
Rest = Callable[[bool], dict[str, Any] | None]
CUT_SHORT = ("cost", "patience", "finding")  # ends after something that the next step would repeat


class Checkpoints(Keeper):
    """Writes checkpoints where they are due, where the validation loss is the lowest so far, at the
    end, and when a signal asks for one.

    Training waits while the state is kept, which `Snapshot.keep` says how, and goes on where one
    cannot be written. Where something is left to wait for, a thread does that and the rest; one is
    in hand at a time. A disk takes longer to be done than a file is written, so that of checkpoints
    that follow each other closely one in five seconds is waited for, and kept until another one is;
    so are the last, those that a signal asks for and, when all has ended, the best. `LAST` and
    `BEST` hold the names of the newest and of the one whose weights had the lowest validation loss;
    `BEST` also has the loss, and what a power cut would leave of it is kept until it names a later
    one for good. `mark` is told whether a power cut has to leave there what others write, up to
    now, of what a run needs to go on.
    """

    def __init__(
        self,
        run_dir: Path,
        experiment: Experiment,
        signals: Signals,
        mark: Callable[[bool], Rest],
        say: Callable[[str], None],
    ) -> None:
        self.folder = run_dir / FOLDER
        self.saved: int | None = None  # the step of the newest that is whole, when none is written
        self._experiment, self._section = experiment, experiment.config.checkpoint
        self._signals, self._mark, self._say = signals, mark, say
        self._tried: int | None = None
        self._told = False  # that none can be written
        self._told_of_best = False  # that it cannot be named
        self._best = best(self.folder)
        self._durable_best = self._best[0]
        self._whole = complete(self.folder)  # listing them each time takes longer
        self._durable: Path | None = next(iter(self._whole), None)
        self._durable_at = -math.inf
        self._at = time.monotonic()
        self._constant: str | None = None  # of the description; made when it is first needed
        self._thread = ThreadPoolExecutor(1, "trainer-checkpoints")
        self._writing: deque[Future[None]] = deque()

    def resume(self, step: int) -> None:
        """Goes on from the checkpoint of a step."""
        self.saved = self._tried = step

    def pause(self, progress: Progress) -> str | None:
        """Writes one where it is due or asked for; "interrupted" where a signal ends the run."""
        if self._signals.received is None:
            if self._due(progress.step):
                self.save(progress)
            return None
        ends = self._signals.ends
        self.wait()
        self._told = False  # who asks is told again
        self._durable_at = -math.inf
        self.save(progress)
        self.wait()
        path = self.folder / name_of(progress.step)
        if self.saved == progress.step and path != self._durable:  # written before the signal came
            self._leave(self._outlast, path, self._mark(True))
            self.wait()
        if self.saved == progress.step and not ends:
            self._say(f"checkpoint at step {progress.step}; training goes on")
        self._signals.taken()
        return "interrupted" if ends else None

    def is_ending(self) -> bool:
        """Whether a signal ends the run."""
        return self._signals.ends

    def validated(self, progress: Progress, loss: float) -> None:
        """Has `BEST` name the checkpoint of this step, written now where there is none, if no other
        had a loss so low; not of step 0, before which nothing was learnt."""
        step = progress.step
        if not math.isfinite(loss) or loss >= self._best[1]:
            return
        if step not in (0, self._tried):
            self.wait()  # for one that may have been lower
            if loss < self._best[1]:
                self.save(progress)
        if step == self._tried:
            self._leave(self._compare, step, loss)

    def ended(self, progress: Progress, reason: str) -> None:
        """Writes the last one, which has the final weights."""
        self.wait()
        kept = reason in CUT_SHORT and self.saved == progress.step  # and can be gone on from
        if reason not in ("not finite", "interrupted") and not kept:
            self._tried, self._told = None, False
            self.save(progress, reason, durable=True)
        self._tried = progress.step  # no other is written, however low its loss

    def save(self, progress: Progress, ended: str | None = None, durable: bool = False) -> None:
        """Keeps the state, and writes the rest or leaves that to the thread, unless this step has a
        checkpoint."""
        step = progress.step
        if self._section.keep == 0 or self._tried == step:
            return
        self._tried = step
        self.wait()
        durable = durable or time.monotonic() - self._durable_at >= DURABLE_SECONDS
        try:
            rest = self._mark(durable)  # others write meanwhile
            weights, tree = state.capture(self._experiment, progress)
            snapshot = checkpoint.Snapshot(step, weights, tree, durable)
            snapshot.keep(self.folder)
        except (OSError, TypeError, RuntimeError) as error:
            self._missed(step, ended, error)
        else:
            is_written = snapshot.is_finite is not None
            if is_written and not durable and rest(False) is not None:
                self._write(snapshot, ended, rest)
            else:
                self._leave(self._write, snapshot, ended, rest)
        self._at = time.monotonic()

    def wait(self) -> None:
        """Waits until all that was left to the thread is done."""
        while self._writing:
            self._writing.popleft().result()

    def close(self) -> None:
        """Waits likewise; the best is there for good then, and nothing is written afterwards."""
        self.wait()
        path, loss = self._best
        if path is not None and path != self._durable_best and not self._told:
            self._name_best(path, loss, durable=True)
        self._thread.shutdown()
        checkpoint.clear(self.folder)

    def _leave(self, task: Callable[..., None], *given: Any) -> None:
        self._writing.append(self._thread.submit(task, *given))

    def _write(self, snapshot: checkpoint.Snapshot, ended: str | None, rest: Rest) -> None:
        try:
            snapshot.write(self.folder)
            if not snapshot.is_finite:
                self._say(f"no checkpoint at step {snapshot.step}: weights are not finite any more")
                return
            if self._constant is None:
                self._constant = pairs(packed(state.constant(self._experiment), {}))
            more = pairs(packed({"mark": rest(True), "ended": ended}, {}))
            path = checkpoint.write(self.folder, snapshot, self._constant, more)
            checkpoint.point(self.folder, "LAST", path.name, snapshot.durable)
        except OSError as error:
            self._missed(snapshot.step, ended, error)
            return
        if self._told:
            self._told = False
            self._say(f"checkpoint at step {snapshot.step}; they can be written again")
        self.saved = snapshot.step
        if snapshot.durable:
            self._durable, self._durable_at = path, time.monotonic()
        self._prune(path)

    def _outlast(self, path: Path, rest: Rest) -> None:
        """Has a checkpoint that is written, and what goes with it, survive a power cut."""
        try:
            rest(True)
            checkpoint.sync(path)
        except OSError as error:
            self._say(f"{path}: may not survive a power cut: {error.strerror}")
        else:
            self._durable, self._durable_at = path, time.monotonic()

    def _missed(self, step: int, ended: str | None, error: Exception) -> None:
        if self._told:
            return
        self._told = True
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        what = "whose weights are lost" if ended else "training goes on without"
        self._say(f"no checkpoint at step {step}, {what}: {why}")

    def _compare(self, step: int, loss: float) -> None:
        if step == self.saved and loss < self._best[1]:
            self._name_best(self.folder / name_of(step), loss)

    def _name_best(self, path: Path, loss: float, durable: bool = False) -> None:
        try:
            if durable and path != self._durable:
                checkpoint.sync(path)
            durable = durable or path == self._durable
            checkpoint.point(self.folder, BEST, f"{path.name} {loss!r}", durable)
        except OSError as error:
            if not self._told_of_best:
                self._say(f"{self.folder / BEST}: cannot be written: {error.strerror}")
            self._told_of_best = True
            return
        self._told_of_best = False
        self._best = path, loss
        if durable:
            self._durable_best = path
        self._prune(path)

    def _due(self, step: int) -> bool:
        section: Section = self._section
        if step in (0, self._tried):
            return False
        by_steps = section.every_steps is not None and step % section.every_steps == 0
        minutes = section.every_minutes
        return by_steps or (minutes is not None and time.monotonic() - self._at >= 60 * minutes)

    def _prune(self, new: Path) -> None:
        if new not in self._whole:
            self._whole = sorted([*self._whole, new], key=step_of, reverse=True)
        for path in self._whole[self._section.keep :]:
            if path not in (self._best[0], self._durable_best, self._durable):
                try:
                    checkpoint.retire(path)
                    self._whole.remove(path)
                except OSError as error:
                    self._say(f"{path}: cannot be deleted: {error.strerror}")


def best(folder: Path) -> tuple[Path | None, float]:
    """The checkpoint that `BEST` names, and its validation loss; None and infinity without."""
    try:
        name, loss = (folder / BEST).read_text(encoding="utf-8").split()
        if NAME.fullmatch(name) and (folder / name).is_dir():
            return folder / name, float(loss)
    except (OSError, ValueError):
        pass
    return None, math.inf
