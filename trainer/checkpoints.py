"""The checkpoints of a run: when one is due, how many are kept, and which is the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer import checkpoint, state
from trainer.config.schema import Checkpoint as Section
from trainer.experiment import Experiment
from trainer.progress import Keeper, Progress
from trainer.signals import Signals

FOLDER = "checkpoints"
CUT_SHORT = ("cost", "patience", "finding")  # ends after something that the next step would repeat


class Checkpoints(Keeper):
    """Writes checkpoints where they are due, at the end, and when a signal asks for one.

    Training goes on where one cannot be written. `LAST` and `BEST` hold the names of the newest
    and of the one whose weights had the lowest validation loss. `mark` is asked for what else a
    run needs to go on; `BEST` also has the loss.
    """

    def __init__(
        self,
        run_dir: Path,
        experiment: Experiment,
        signals: Signals,
        mark: Callable[[], dict[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        self.folder = run_dir / FOLDER
        self.saved: int | None = None  # the step of the newest that is whole
        self._experiment, self._section = experiment, experiment.config.checkpoint
        self._signals, self._mark, self._say = signals, mark, say
        self._tried: int | None = None
        self._best = best(self.folder)
        self._at = time.monotonic()
        self._rows: list[int | str] | None = None

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
        if self.save(progress) and not ends:
            self._say(f"checkpoint at step {progress.step}; training goes on")
        self._signals.taken()
        return "interrupted" if ends else None

    def validated(self, step: int, loss: float) -> None:
        """Has `BEST` name the checkpoint of this step if no other had a loss so low."""
        if step == self.saved and not loss >= self._best[1] and math.isfinite(loss):
            path = self.folder / f"step-{step:09d}"
            try:
                checkpoint.point(self.folder, "BEST", f"{path.name} {loss!r}")
            except OSError as error:
                self._say(f"{self.folder}: cannot be written: {error.strerror}")
                return
            self._best = path, loss

    def ended(self, progress: Progress, reason: str) -> None:
        """Writes the last one, which has the final weights."""
        kept = reason in CUT_SHORT and self.saved == progress.step  # and can be gone on from
        if reason not in ("not finite", "interrupted") and not kept:
            self._tried = None
            self.save(progress, reason)

    def save(self, progress: Progress, ended: str | None = None) -> bool:
        """Writes a checkpoint, unless this step has one; whether there is one."""
        step = progress.step
        if self._section.keep == 0:
            return False
        if self._tried == step:
            return self.saved == step
        self._tried = step
        try:
            held = state.weights(self._experiment)
            if not all(_finite(tensor) for tensor in held.values()):
                self._say(f"no checkpoint at step {step}: weights are not finite any more")
                return False
            if self._rows is None:
                self._rows = state.fingerprint(self._experiment)
            tree = state.capture(self._experiment, progress)
            tree |= {"rows": self._rows, "mark": self._mark(), "ended": ended}
            path = checkpoint.write(self.folder, step, held, tree)
            checkpoint.point(self.folder, "LAST", path.name)
        except (OSError, TypeError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self._say(f"no checkpoint at step {step}, training goes on without: {why}")
            return False
        finally:
            self._at = time.monotonic()
        self.saved = step
        self._prune()
        return True

    def _due(self, step: int) -> bool:
        section: Section = self._section
        if step in (0, self._tried):
            return False
        by_steps = section.every_steps is not None and step % section.every_steps == 0
        minutes = section.every_minutes
        return by_steps or (minutes is not None and time.monotonic() - self._at >= 60 * minutes)

    def _prune(self) -> None:
        for path in checkpoint.complete(self.folder)[self._section.keep :]:
            if path != self._best[0]:
                try:
                    checkpoint.remove(path)
                except OSError as error:
                    self._say(f"{path}: cannot be deleted: {error.strerror}")


def best(folder: Path) -> tuple[Path | None, float]:
    """The checkpoint that `BEST` names, and its validation loss; None and infinity without."""
    try:
        name, loss = (folder / "BEST").read_text(encoding="utf-8").split()
        if checkpoint.NAME.fullmatch(name) and (folder / name).is_dir():
            return folder / name, float(loss)
    except (OSError, ValueError):
        pass
    return None, math.inf


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
