"""A run that goes on: where its checkpoint is, whether it fits, and what it had logged by then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from trainer import checkpoint, training_state
from trainer.checkpoint import DamagedError, Saved
from trainer.config import Config, ConfigError, resolved
from trainer.config.source import read
from trainer.events import Events
from trainer.events.reader import event_files
from trainer.experiment import Experiment
from trainer.journal import FILE
from trainer.signals import Signals

Say = Callable[[str], None]
# Keys that may change: they decide how long a run is and what is seen of it, or are said to.
FREE = ("name", "stop", "stop_on", "checkpoint", "validation.every_steps", "optimizer.lr")


class Best(Protocol):
    """What is known of the validation losses."""

    best: float
    best_step: int
    asked_at: int


class Keeper:
    """Writes a run's checkpoints when they are due or wanted, and ends it at a signal."""

    def __init__(
        self, experiment: Experiment, run_dir: Path, events: Events, signals: Signals, say: Say
    ) -> None:
        self._experiment, self._run_dir, self._events = experiment, run_dir, events
        self._signals, self._say = signals, say
        section = experiment.config.checkpoint
        self._every_steps, self._keep = section.every_steps, section.keep
        self._seconds = None if section.every_minutes is None else 60 * section.every_minutes
        self._written = time.monotonic()
        self.path: Path | None = None  # of the newest

    def after(self, step: int, best: Best, ends: bool) -> bool:
        """Called when all before `step` is done; whether a signal wants the end."""
        signals = self._signals
        ending = signals.ending is not None
        due = ends or ending or signals.checkpoint
        if self._every_steps is not None:
            due = due or step % self._every_steps == 0
        if self._seconds is not None:
            due = due or time.monotonic() - self._written >= self._seconds
        if due:
            signals.checkpoint = False
            self._save(step, best)
        return ending

    def _save(self, step: int, best: Best) -> None:
        self._written = time.monotonic()
        weights = training_state.weights(self._experiment)
        for name, values in weights.items():
            if not bool(torch.isfinite(values).all()):
                self._say(f"no checkpoint at step {step}: {name} is not finite")
                return
        state = training_state.state(self._experiment)
        state["validation"] = [best.best, best.best_step, best.asked_at]
        self._events.flush()
        try:
            self.path = checkpoint.save(
                self._run_dir, step, weights, state, lengths(self._run_dir), self._keep
            )
        except OSError as error:  # training goes on; those before are whole
            self._say(f"no checkpoint at step {step}: {error.strerror or error}")


def lengths(run_dir: Path) -> dict[str, int]:
    """The length in bytes of each file of the run that is only ever added to."""
    logs = [*event_files(run_dir), run_dir / FILE]
    return {path.name: path.stat().st_size for path in logs if path.exists()}


def found(wanted: str, name: str, say: Say) -> Saved | None:
    """The checkpoint to go on from: of `auto` the newest of the experiment's newest run that has
    one, else that of a run's folder or of a checkpoint's own; None where `auto` finds none.

    ConfigError where the named one is not there or damaged.
    """
    if wanted != "auto":
        path = Path(wanted)
        if (path / checkpoint.ABOUT).exists():
            try:
                return checkpoint.load(path)
            except DamagedError as error:
                raise ConfigError([f"--resume {error}"]) from None
        saved = checkpoint.newest(path, say)
        if saved is None:
            message = "holds no whole checkpoint; name the folder of a run, or of a checkpoint"
            raise ConfigError([f"--resume {path}: {message}"])
        return saved
    runs = sorted((Path("runs") / name).glob(f"*/{checkpoint.FOLDER}"), reverse=True)
    return next((s for run in runs if (s := checkpoint.newest(run.parent, say))), None)


def check(config: Config, saved: Saved) -> dict[str, tuple[Any, Any]]:
    """The changed keys that may change, with both values; ConfigError where others changed."""
    path = saved.run_dir / "config.yaml"
    before, now = _flat(read(path, []).tree), _flat(resolved(config))
    changed = {
        key: (before.get(key), now.get(key))
        for key in [*before, *(key for key in now if key not in before)]
        if before.get(key) != now.get(key)
    }
    fixed = [key for key in changed if not any(f"{key}.".startswith(f"{f}.") for f in FREE)]
    if fixed:
        lines = [
            f"  {key}: {changed[key][0]!r} in the run, {changed[key][1]!r} now" for key in fixed
        ]
        head = f"--resume {saved.path}: the run is of another configuration; start a new one, or:"
        raise ConfigError([head, *lines])
    return changed


def _flat(tree: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{start}{key}.")
        else:
            flat[f"{start}{key}"] = value
    return flat


def restore(experiment: Experiment, saved: Saved) -> None:
    """Puts the experiment where the checkpoint was taken; ConfigError where it does not fit."""
    try:
        training_state.restore(experiment, saved.step, saved.weights, saved.state)
    except ValueError as error:
        raise ConfigError([f"--resume {saved.path}: does not fit the model: {error}"]) from None


def cut(saved: Saved) -> None:
    """Takes from the run's files what came after the checkpoint, which will come again."""
    for path in event_files(saved.run_dir):
        if path.name not in saved.logs:
            path.unlink()
    for name, length in saved.logs.items():
        path = saved.run_dir / Path(name).name
        if path.exists() and path.stat().st_size > length:
            with path.open("r+b") as file:
                file.truncate(length)
    if FILE not in saved.logs:
        (saved.run_dir / FILE).unlink(missing_ok=True)
    (saved.run_dir / "result.json").unlink(missing_ok=True)
