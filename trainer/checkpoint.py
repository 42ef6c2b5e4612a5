"""Checkpoints of a run: written whole or not at all, verified when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

FOLDER, LAST = "checkpoints", "LAST"  # in a run's folder; in that one, the name of the newest
WEIGHTS, STATE, ABOUT = "weights.safetensors", "state.pt", "checkpoint.json"
VERSION = 1
LARGEST_ABOUT = 1 << 20  # bytes

Say = Callable[[str], None]


class DamagedError(ValueError):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint: what is true before the update of a step."""

    path: Path
    step: int  # that comes next
    weights: dict[str, Tensor]  # on the CPU
    state: dict[str, Any]
    logs: dict[str, int]  # length of each file of the run that is only ever added to

    @property
    def run_dir(self) -> Path:
        """The folder of its run."""
        return self.path.parent.parent


def save(
    run_dir: Path,
    step: int,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    logs: Mapping[str, int],
    keep: int,
) -> Path:
    """Writes a checkpoint, points LAST to it and removes all but the newest `keep`.

    Nobody sees a part of it: a folder is filled, synced to the disk and only then gets its name.
    OSError where it cannot be written; those before are then as they were.
    """
    folder = run_dir / FOLDER
    path, unfinished = folder / f"step-{step:08d}", folder / f".unfinished-{os.getpid()}"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        # Each tensor by itself: tied weights and views share their memory.
        own = {name: each.detach().cpu().contiguous().clone() for name, each in weights.items()}
        safetensors.torch.save_file(own, unfinished / WEIGHTS)
        torch.save(dict(state), unfinished / STATE)
        sums = {name: checksum(unfinished / name) for name in (WEIGHTS, STATE)}
        about = {"version": VERSION, "step": step, "sha256": sums, "logs": dict(logs)}
        text = json.dumps(about)
        seal = hashlib.sha256(text.encode()).hexdigest()
        (unfinished / ABOUT).write_text(f"{text}\n{seal}\n")
        for name in (WEIGHTS, STATE, ABOUT):
            sync(unfinished / name)
        sync(unfinished)
        shutil.rmtree(path, ignore_errors=True)  # of the same step, where a run goes on
        unfinished.rename(path)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    pointer = folder / f".{LAST}"
    pointer.write_text(f"{path.name}\n")
    sync(pointer)
    pointer.replace(folder / LAST)
    sync(folder)
    for old in all_of(run_dir)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def all_of(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, newest first; LAST's before all others."""
    folder = run_dir / FOLDER
    found = sorted(folder.glob("step-*"), reverse=True)
    try:
        last = folder / (folder / LAST).read_text(encoding="utf-8")[:64].strip()
    except (OSError, ValueError):
        return found
    return sorted(found, key=lambda path: path != last)


def newest(run_dir: Path, say: Say) -> Saved | None:
    """The newest checkpoint of a run that is whole; `say` is told of those that are not."""
    return next(_whole(all_of(run_dir), say), None)


def _whole(paths: list[Path], say: Say) -> Iterator[Saved]:
    for path in paths:
        try:
            yield load(path)
        except DamagedError as error:
            say(f"{error}; trying the one before")


def load(path: Path) -> Saved:
    """The checkpoint in a folder; DamagedError where it is not the one that was written.

    Nothing in it is run: the weights are numbers (safetensors), and the state is read by torch's
    reader of plain values (`weights_only`), both after their checksums were compared.
    """
    try:
        if (path / ABOUT).stat().st_size > LARGEST_ABOUT:
            raise DamagedError(f"{path / ABOUT}: too large for what it should hold")
        text, _, seal = (path / ABOUT).read_text(encoding="utf-8").partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != seal.strip():
            raise DamagedError(f"{path / ABOUT}: is damaged")
        about = json.loads(text)
        if about.get("version") != VERSION:
            wanted = f"this program reads version {VERSION}"
            raise DamagedError(f"{path}: is of version {about.get('version')!r}; {wanted}")
        for name in (WEIGHTS, STATE):
            if checksum(path / name) != about["sha256"][name]:
                raise DamagedError(f"{path / name}: is damaged")
        weights = safetensors.torch.load_file(path / WEIGHTS)
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
        return Saved(path, int(about["step"]), weights, state, dict(about["logs"]))
    except DamagedError:
        raise
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # whatever the readers make of bytes that are not what they should
        raise DamagedError(f"{path}: cannot be read: {type(error).__name__}") from None


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Has the system bring a file or a folder to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
