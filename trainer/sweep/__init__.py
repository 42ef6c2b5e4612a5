"""Trains every combination of values, or sampled ones, each in its own process, and ranks them."""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config, ConfigError, dump, load
from trainer.config.file import read
from trainer.programs import called
from trainer.sweep.axes import Axis, Range, combinations, one_by_one, parse, written

NO_OPTUNA = "a sweep needs Optuna; install it with: pip install 'optuna>=5'"


@dataclass(frozen=True)
class Plan:
    """What a command line asks for."""

    config: Config  # of the first trial
    tree: dict[str, Any]  # what all trials share, by the rules of the file
    axes: list[Axis]
    sampler: str
    trials: int

    @property
    def folder(self) -> Path:
        """The same for the same command: `runs/<name>/sweep-<id>`; --jobs and --trials are free."""
        asked = repr((self.tree, self.axes, self.sampler)).encode()
        name = f"sweep-{hashlib.sha256(asked).hexdigest()[:8]}"
        return Path("runs") / self.config.name / name


def main(arguments: Sequence[str]) -> int:
    """Runs a sweep to its end; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer sweep",
        description="Train combinations of values; the same command again goes on after a kill.",
        epilog="Values: optimizer.lr=1e-3,1e-2; for random and tpe also log(1e-4,1e-1), "
        "uniform(0,0.5) and int(2,8).",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", required=True)
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="trials at a time")
    parser.add_argument("--sampler", choices=("grid", "random", "tpe"), default="grid")
    parser.add_argument("--trials", type=_positive, metavar="N", help="for random and tpe")
    parser.add_argument("overrides", nargs="+", metavar="section.key=value,value")
    given = parser.parse_intermixed_args(arguments)
    if given.sampler != "grid" and given.trials is None:
        parser.error(f"--trials N is missing: how many the sampler {given.sampler} is to draw")
    if given.sampler == "grid" and given.trials is not None:
        parser.error("--trials goes with --sampler random or tpe; a grid has all combinations")
    try:
        return _run(plan(given.config, given.overrides, given.sampler, given.trials), given.jobs)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


def plan(config: Path, overrides: Sequence[str], sampler: str, trials: int | None) -> Plan:
    """The sweep of a command line; raises ConfigError for a mistake in what any trial would get."""
    from trainer import experiment

    fixed, axes = parse(overrides)
    if not axes:
        raise ConfigError(["nothing to vary: give a key several values, optimizer.lr=1e-3,1e-2"])
    ranges = [axis.key for axis in axes if isinstance(axis.values, Range)]
    if ranges and sampler == "grid":
        message = "a grid cannot list a range; write its values, or use --sampler random --trials N"
        raise ConfigError([f"command line: {key}: {message}" for key in ranges])
    tried = list(combinations(axes) if sampler == "grid" else one_by_one(axes))
    first: Config | None = None
    for values in tried:
        loaded, _ = load(config, [*fixed, *written(values)], [experiment.check])
        first = first or loaded
    assert first is not None
    tree = read(config, fixed).tree
    file = getattr(first.data, "file", None)
    if file is not None and isinstance(tree.get("data"), dict):
        tree["data"]["file"] = file  # it was relative to the folder of the configuration
    return Plan(first, tree, axes, sampler, trials or len(tried))


def _run(asked: Plan, jobs: int) -> int:
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise ConfigError([NO_OPTUNA]) from None
    from trainer.console import aside
    from trainer.sweep import ranking, workers
    from trainer.sweep.storage import Storage

    folder = asked.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "config.yaml").exists():
            draft = folder / f"config.yaml.{os.getpid()}"
            draft.write_text(dump(asked.tree), encoding="utf-8")
            draft.replace(folder / "config.yaml")
    except OSError as error:
        raise ConfigError([f"{folder}: cannot make the folder: {error.strerror}"]) from None
    storage = Storage(folder, asked.axes, asked.sampler, asked.trials)
    watch = shlex.join([called("tensorboard"), "--logdir", str(folder)])
    aside(f"{asked.trials} trials in {folder}; watch with: {watch}")
    signal = workers.run(storage, jobs)
    if signal is not None:
        return 128 + signal
    return 0 if ranking.show(storage) else 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_positive.__name__ = "positive number"  # argparse says: invalid positive number value
