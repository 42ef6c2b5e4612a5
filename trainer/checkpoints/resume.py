"""Which checkpoint does a run go on from, and may it, with the configuration that it has now?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.checkpoints import CUT_SHORT, checkpoint, state
from trainer.checkpoints.checkpoint import Checkpoint, Damaged
from trainer.checkpoints.listing import FOLDER, NAME, complete
from trainer.config import Config, ConfigError, resolved
from trainer.config.problem import MAX_SHOWN, shown
from trainer.config.scalars import inline
from trainer.experiment import Experiment
from trainer.progress import Progress

Say = Callable[[str], None]
# A run may go on with these changed; with anything else it would be another run.
FREE = ("stop", "stop_on", "on_nonfinite", "checkpoint", "monitor", "metrics", "device",
        "deterministic", "optimizer.lr")  # fmt: skip
HELD = {"config": dict, "rows": list, "progress": dict, "model": dict, "optimizer": dict,
        "schedule": dict, "batches": dict, "random": dict, "mark": dict}  # fmt: skip
LIMITS = ("stop", "stop_on")


def run_folder(config: Config, wanted: Path | None, resume: str) -> Path | None:
    """The folder of the run to go on with; None where a new one is to be started.

    ConfigError where `resume` names something else.
    """
    if resume == "never":
        return None
    if resume == "auto":
        runs = Path("runs") / config.name
        folders = [wanted] if wanted else sorted(runs.glob("*/"), reverse=True)
        return next((f for f in folders if complete(f / FOLDER)), None)
    path = Path(resume)
    if NAME.fullmatch(path.name):
        folder = path.absolute().parent.parent
    else:
        folder = path.parent if path.name == FOLDER else path
    if wanted is not None and wanted.absolute() != folder.absolute():
        raise ConfigError([f"--run-dir {wanted}: a run goes on in its own folder, {folder}"])
    if not path.is_dir() or not complete(folder / FOLDER):
        raise ConfigError([f"--resume {path}: expected auto, never, a run's folder or one of its "
                           f"checkpoints, {FOLDER}/step-…"])  # fmt: skip
    return folder


def find(
    folder: Path, wanted: Path | None, resume: str, config: Config, say: Say
) -> Checkpoint | None:
    """The newest checkpoint of a run that is whole and that it can go on from, or the one named.

    Where there is none, `auto` gives None, with a message, for a new run; ConfigError where a
    folder was named or `wanted`, or where the run is of another experiment.
    """
    path = Path(resume)
    if NAME.fullmatch(path.name):
        try:
            return _read(path)
        except Damaged as error:
            raise ConfigError([f"--resume {error}"]) from None
    why = "holds no whole checkpoint"
    for candidate in complete(folder / FOLDER):
        try:
            found = _read(candidate)
        except Damaged as error:
            say(f"a damaged checkpoint is passed over: {error}")
            continue
        if found.tree.get("ended") not in CUT_SHORT or is_over(found, config):
            return found
        _refuse(found, _changes(found, config))
        why = (
            f"ended by its {found.tree['ended']} within a step, and no checkpoint before it is left"
        )
    if resume != "auto":
        raise ConfigError([f"--resume {folder}: {why}"])
    if wanted is not None:  # and what is left of its checkpoints is not for us to delete
        raise ConfigError([f"--run-dir {folder}: {why}; name a new folder"])
    say(f"{folder}: {why}; starting a new run")
    return None


def _read(path: Path) -> Checkpoint:
    """The checkpoint at a path, which holds what a run has to know; Damaged otherwise."""
    found = checkpoint.read(path)
    for key, kind in HELD.items():
        if not isinstance(found.tree.get(key), kind):
            raise Damaged(f"{path}: holds no {key} of a run")
    return found


def is_over(found: Checkpoint, config: Config) -> bool:
    """Whether the run had ended there, to its last word, by limits that are still the same."""
    said = (found.path.absolute().parent.parent / "result.json").exists()
    only = len(complete(found.path.parent)) == 1 and found.tree.get("ended") in CUT_SHORT
    return (said or only) and _ended_by_these_limits(found, config)


def _ended_by_these_limits(found: Checkpoint, config: Config) -> bool:
    tree, before = resolved(config), found.tree["config"]
    ended = found.tree.get("ended") is not None
    return ended and all(tree[key] == before.get(key) for key in LIMITS)


def apply(experiment: Experiment, progress: Progress, found: Checkpoint, say: Say) -> None:
    """Puts an experiment into the state of a checkpoint.

    ConfigError, with what differs, where it is another experiment.
    """
    tree, changes = found.tree, _changes(found, experiment.config)
    same_rows = tree["rows"] == state.fingerprint(experiment)
    if same_rows and len(tree["rows"]) > 1:  # known by their content
        changes.pop("data.file", None)
    _refuse(found, changes)
    if "optimizer.lr" in changes and experiment.schedule.has_own_rates:
        _refuse(found, {"schedule": "has rates of its own; another optimizer.lr changes none"})
    if not same_rows:
        _refuse(found, {"data": "the rows are not those that it was trained on"})
    for key, change in changes.items():
        say(f"changed since the checkpoint: {key}: {change}")
    try:
        state.restore(experiment, progress, found.weights, tree)
    except checkpoint.READ_ERRORS + (RuntimeError,) as error:  # the user's model has changed, say
        message = f"{type(error).__name__}: {error}"
        raise ConfigError([f"{found.path}: does not fit what the configuration names: {message}"]
                          ) from None  # fmt: skip


def _changes(found: Checkpoint, config: Config) -> dict[str, str]:
    return dict(differences(found.tree["config"], resolved(config)))


def _refuse(found: Checkpoint, changes: Mapping[str, str]) -> None:
    """Raises ConfigError with those of the changes that make another experiment, if any do."""
    refused = [f"  {key}: {change}" for key, change in changes.items() if not _free(key)]
    if refused:
        head = f"{found.path}: cannot go on with another experiment (`--resume never` starts anew):"
        raise ConfigError(["\n".join([head, *refused])])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys that differ, with `before → now`."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key) or (key in old) != (key in new):
            sides = (_side(each[key]) if key in each else "not there" for each in (old, new))
            yield key, " → ".join(sides)


def _side(value: Any) -> str:
    """A value, of which lists are shown with what is in them, if that is no more than a line."""
    whole = inline(value) if isinstance(value, list) else ""
    return whole if 0 < len(whole) <= MAX_SHOWN else shown(value)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE)
