"""One checkpoint of a run: a folder that is there whole or not at all, and proves what it holds.

`model.safetensors` holds the weights under the names of the model's `state_dict`, for this program
and for others, `training.safetensors` all other tensors, `checkpoint.json` the rest and the
CRC-32C of all three. Nothing in it is code, and nothing is parsed before its checksum is right.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trainer.plain import joined, packed, unpacked
from trainer.tensor_file import TensorFile, checksum, overwriting

FORMAT = 2
DESCRIPTION, WEIGHTS, TENSORS = "checkpoint.json", "model.safetensors", "training.safetensors"
NEXT = "next"  # where one is written
GONE = ".gone"  # ends the name of one that is being deleted
MAX_DESCRIPTION_BYTES = 64 << 20
NAME = re.compile(r"step-(\d{1,15})")
READ_ERRORS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError,
)  # fmt: skip


class Damaged(Exception):
    """A checkpoint that is not what was written, or not of this program; says why."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    path: Path
    step: int  # the next one
    weights: Mapping[str, Tensor]
    tree: Mapping[str, Any]  # all else


class Snapshot:
    """A copy of all that a checkpoint holds, which training no longer changes.

    A `durable` one is to survive a power cut, for which its writing waits for the disk; any other
    one survives the death of the process. TypeError where there is something that it cannot hold.
    """

    def __init__(
        self, step: int, weights: Mapping[str, Tensor], tree: Mapping[str, Any], durable: bool
    ) -> None:
        tensors: dict[str, Tensor] = {}
        self.step, self.durable, self.tree = step, durable, packed(dict(tree), tensors)
        self.files = {WEIGHTS: TensorFile(weights), TENSORS: TensorFile(tensors)}

    def is_finite(self) -> bool:
        """Whether all weights are."""
        return self.files[WEIGHTS].is_finite()


def write(folder: Path, snapshot: Snapshot, more: Any) -> Path:
    """Writes the checkpoint `step-<number>` into a folder, all of it before it has its name.

    `more` is the rest of its tree, a packed dict. OSError where it cannot be written.
    """
    path, temporary = folder / f"step-{snapshot.step:09d}", folder / NEXT
    tree, durable = joined(snapshot.tree, more), snapshot.durable
    content = {"format": FORMAT, "step": snapshot.step, "tree": tree}
    folder.mkdir(exist_ok=True)
    temporary.mkdir(exist_ok=True)
    try:
        content["files"] = {
            name: held.write(temporary / name, durable) for name, held in snapshot.files.items()
        }
        text = json.dumps(content)
        signed = json.dumps({"crc32c": _checksum(text), "content": text})
        with overwriting(temporary / DESCRIPTION, durable) as write:
            write(signed.encode())
        if durable:
            synced(temporary)
        remove(path)
        temporary.rename(path)
        if durable:
            synced(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path


def read(path: Path) -> Checkpoint:
    """The checkpoint at a path; Damaged where it is anything else."""
    try:
        return _read(path)
    except READ_ERRORS as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Damaged(f"{path}: {why or type(error).__name__}") from None


def complete(folder: Path) -> list[Path]:
    """The checkpoints in a folder that were written to the end, the newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted((folder / n for n in names if NAME.fullmatch(n)), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def remove(path: Path) -> None:
    """Deletes a checkpoint; what is killed meanwhile leaves none that looks whole."""
    if path.exists():
        gone = path.with_suffix(GONE)
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)
        shutil.rmtree(gone)


def retire(path: Path) -> None:
    """Takes a checkpoint's name from it and has the next one written over it.

    Blocks of the disk that are there already cost half of what new ones do.
    """
    if (path.parent / NEXT).exists():
        remove(path)
    else:
        path.rename(path.parent / NEXT)


def clear(folder: Path) -> None:
    """Deletes what was kept for the next checkpoint, and what is left of deleted ones."""
    for path in (folder / NEXT, *folder.glob(f"*{GONE}")):
        shutil.rmtree(path, ignore_errors=True)


def point(folder: Path, name: str, text: str, durable: bool) -> None:
    """Lets the file `name` of a folder hold a line that names a checkpoint."""
    temporary = folder / f"{name}.tmp"
    try:
        with overwriting(temporary, durable) as write:
            write(f"{text}\n".encode())
        temporary.replace(folder / name)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        synced(folder)


def sync(path: Path) -> None:
    """Has a checkpoint that is written on the disk."""
    for name in (WEIGHTS, TENSORS, DESCRIPTION):
        with (path / name).open("rb+") as file:
            os.fsync(file.fileno())
    synced(path)
    synced(path.parent)


def synced(folder: Path) -> None:
    """Has the names in a folder on the disk; Windows opens no folders."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _read(path: Path) -> Checkpoint:
    with (path / DESCRIPTION).open("rb") as file:
        text = file.read(MAX_DESCRIPTION_BYTES + 1)
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise ValueError(f"{DESCRIPTION} is too large")
    signed = json.loads(text)
    if _checksum(signed["content"]) != signed["crc32c"]:
        raise ValueError(f"the checksum of {DESCRIPTION} is wrong")
    content = json.loads(signed["content"])
    if content["format"] != FORMAT:
        written = str(content["format"])[:20]
        raise ValueError(f"is of format {written}; this program reads format {FORMAT}")
    held = {}
    for name in (WEIGHTS, TENSORS):
        said, size = content["files"][name], (path / name).stat().st_size
        if size != said["bytes"]:
            raise ValueError(f"{name} has {size:,} bytes instead of {said['bytes']:,}")
        if checksum(path / name) != said["crc32c"]:
            raise ValueError(f"the checksum of {name} is wrong")
        # The copies are where torch puts them, as in the run that wrote them.
        held[name] = {key: tensor.clone() for key, tensor in load_file(path / name).items()}
    tree = unpacked(content["tree"], held[TENSORS])
    step = content["step"]
    if not (isinstance(tree, dict) and type(step) is int and step == step_of(path)):
        raise ValueError("is named for another step than it holds")
    return Checkpoint(path, step, held[WEIGHTS], tree)


def _checksum(text: str) -> int:
    return int(google_crc32c.value(text.encode()))
