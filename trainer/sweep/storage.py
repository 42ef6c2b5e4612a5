"""What is known of a sweep's trials, in a folder that several processes and machines may share."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from trainer.config import ConfigError
from trainer.sweep.axes import Axis, Range, combinations
from trainer.sweep.lock import Lock, hold

optuna.logging.set_verbosity(optuna.logging.WARNING)
DIVERGED = "not finite"  # the reason of an end


@dataclass(frozen=True)
class Claim:
    """A trial that is ours to run: while its log is open, here or in its run, nobody takes it."""

    index: int
    trial: Trial
    values: dict[str, str]  # by key, as they are written on a command line
    log: IO[bytes]


class Storage:
    """The trials of one sweep, numbered from 0: each waits, runs, is complete or has failed.

    Folder `0003/` is the run of trial 3 and `0003.log` what it said. Whoever runs it holds the log,
    so that a trial which runs and whose log nobody holds was killed. It then gets a second entry
    in Optuna's journal, which waits; the last entry of a trial is the one that counts.
    """

    def __init__(self, folder: Path, axes: Sequence[Axis], sampler: str, trials: int) -> None:
        self.folder, self.axes = folder, axes
        self._sampler, self._count = sampler, trials
        self._grid = list(combinations(axes)) if sampler == "grid" else []
        self._journal, self._lock = folder / "journal.log", Lock(folder / "lock")
        try:
            with self._alone():
                # BaseJournalFileLock is not public; Lock has its two methods.
                backend = JournalFileBackend(str(self._journal), lock_obj=self._lock)  # type: ignore[arg-type]
                self._study = optuna.create_study(
                    storage=JournalStorage(backend), study_name="sweep", load_if_exists=True
                )
                self._plan()
        except OSError as error:
            raise ConfigError([f"{folder}: cannot keep a sweep there: {error.strerror}"]) from None

    def trials(self) -> dict[int, FrozenTrial]:
        """The last entry of each trial, by the trial's number."""
        entries = self._study.get_trials(deepcopy=False)
        return {entry.user_attrs["index"]: entry for entry in entries}

    def run_folder(self, index: int) -> Path:
        """Where a trial's run writes."""
        return self.folder / f"{index:04d}"

    def log(self, index: int) -> Path:
        """What a trial's process says."""
        return self.folder / f"{index:04d}.log"

    def result(self, index: int) -> dict[str, Any] | None:
        """How a trial's run ended; None when it did not come to an end."""
        try:
            text = (self.run_folder(index) / "result.json").read_text(encoding="utf-8")
        except OSError:
            return None
        tree: dict[str, Any] = json.loads(text)
        return tree

    def claim(self) -> Claim | None:
        """Takes the next waiting trial; None if none waits."""
        with self._alone():
            self._reap()
            waiting = [t for t in self.trials().values() if t.state == TrialState.WAITING]
            if not waiting:
                return None
            # `ask` takes the first entry that waits and may draw some of its values right away.
            index = min(waiting, key=lambda entry: entry.number).user_attrs["index"]
            self._study.sampler = self._sampler_of(index)
            trial = self._study.ask()
            assert trial.user_attrs["index"] == index
            values = {axis.key: _suggested(trial, axis) for axis in self.axes}
            log = hold(self.log(index))
            assert log is not None, "a trial that waits is nobody's"
            log.truncate(0)
            shutil.rmtree(self.run_folder(index), ignore_errors=True)  # of a run that was killed
            return Claim(index, trial, values, log)

    def finish(self, claim: Claim, status: int) -> None:
        """Takes down how a trial's process ended, and only then lets go of the trial."""
        with self._alone():
            if self.result(claim.index) is None:
                claim.trial.set_user_attr("status", status)
            self._tell(claim.index, claim.trial.number)
            claim.log.close()

    def finished(self) -> bool:
        """Whether no trial waits or runs; those that were killed wait again after this."""
        with self._alone():
            self._reap()
            return all(entry.state.is_finished() for entry in self.trials().values())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process reads or changes what is known, nor is this one in the middle of it."""
        with self._lock:
            _drop_torn_line(self._journal)
            yield

    def _reap(self) -> None:
        """Looks after trials whose process is gone: finished ones are told, others wait again."""
        for index, entry in self.trials().items():
            if entry.state == TrialState.RUNNING and (log := hold(self.log(index))):
                self._tell(index, entry.number)
                log.close()
        self._plan()

    def _tell(self, index: int, number: int) -> None:
        result = self.result(index)
        if result is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, objective(result))

    def _plan(self) -> None:
        """Lets every trial wait that has no entry, or was killed; may be repeated."""
        known = self.trials()
        for index in range(self._count):
            last = known.get(index)
            if last is not None and (last.state != TrialState.FAIL or "status" in last.user_attrs):
                continue
            values = self._grid[index] if self._grid else last.params if last is not None else {}
            self._study.enqueue_trial(values, user_attrs={"index": index})

    def _sampler_of(self, index: int) -> BaseSampler:
        """Seeded for each trial: what is drawn depends on no process, and none repeats another."""
        seed = int.from_bytes(hashlib.sha256(f"{self.folder.name} {index}".encode()).digest()[:4])
        return TPESampler(seed=seed) if self._sampler == "tpe" else RandomSampler(seed=seed)


def objective(result: dict[str, Any]) -> float:
    """What a sweep minimises: the best validation loss, else the final cost; inf if it diverged."""
    value = result.get("best_validation_loss")
    value = result.get("cost") if value is None else value
    if result.get("reason") == DIVERGED or value is None or not math.isfinite(value):
        return math.inf
    return float(value)


def _suggested(trial: Trial, axis: Axis) -> str:
    values = axis.values
    if not isinstance(values, Range):
        return str(trial.suggest_categorical(axis.key, values))
    if values.kind == "int":
        return str(trial.suggest_int(axis.key, int(values.low), int(values.high)))
    return repr(trial.suggest_float(axis.key, values.low, values.high, log=values.kind == "log"))


def _drop_torn_line(journal: Path) -> None:
    """Cuts off a last line without its end, which whoever is killed while writing can leave."""
    if not journal.exists():
        return
    with journal.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read() in (b"", b"\n"):
            return
    content = journal.read_bytes()
    os.truncate(journal, content.rfind(b"\n") + 1)
