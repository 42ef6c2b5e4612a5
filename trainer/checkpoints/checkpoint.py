"""One checkpoint of a run: a folder that is there whole or not at all, and proves what it holds.

`model.safetensors` holds the weights under the names of the model's `state_dict`, for this program
and for others, `training.safetensors` all other tensors, `checkpoint.json` the rest and the
CRC-32C of all three. Nothing in it is code, and nothing is parsed before its checksum is right.
"""

from __future__ import annotations

import json
import os
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

from trainer.checkpoints.listing import name_of, step_of
from trainer.checkpoints.plain import joined, packed, pairs, unpacked
from trainer.checkpoints.tensor_file import NotFinite, TensorFile, checksum, overwrite

FORMAT = 2
DESCRIPTION, WEIGHTS, TENSORS = "checkpoint.json", "model.safetensors", "training.safetensors"
NEXT = "next"  # where one is written
GONE = ".gone"  # ends the name of one that is being deleted
SMALL_BYTES = 16 << 20  # of tensors, which a system takes within milliseconds
MAX_DESCRIPTION_BYTES = 64 << 20
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
    """All that a checkpoint holds, as it is now.

    Training must not go on before `keep`. A `durable` one is to survive a power cut, for which its
    writing waits for the disk; any other one survives the death of the process. TypeError where
    there is something that it cannot hold.
    """

    def __init__(
        self, step: int, weights: Mapping[str, Tensor], tree: Mapping[str, Any], durable: bool
    ) -> None:
        tensors: dict[str, Tensor] = {}
        self.step, self.durable, self.tree = step, durable, packed(dict(tree), tensors)
        self.files = {WEIGHTS: TensorFile(weights), TENSORS: TensorFile(tensors)}
        self.is_finite: bool | None = None  # whether all weights are; None until they are written
        self.written: dict[str, Any] | None = None  # what the description says of each file

    def keep(self, folder: Path) -> None:
        """Makes it one that training no longer changes; OSError where that cannot be written.

        What is small is written at once, which takes less time than a copy and another thread.
        """
        files = self.files.values()
        if sum(file.bytes for file in files) <= SMALL_BYTES and all(file.on_host for file in files):
            self.write(folder)
        else:
            for file in files:
                file.copy()

    def write(self, folder: Path) -> None:
        """Writes the tensors, if all are finite, to where a folder's next checkpoint is made."""
        if self.is_finite is not None:
            return
        self.is_finite = False
        place = f"{folder}/{NEXT}"
        if not os.path.isdir(place):
            folder.mkdir(exist_ok=True)
            os.mkdir(place)
        try:
            self.written = {
                n: file.write(f"{place}/{n}", finite=n == WEIGHTS) for n, file in self.files.items()
            }
            self.is_finite = True
        except BaseException as error:
            shutil.rmtree(place, ignore_errors=True)
            if not isinstance(error, NotFinite):
                raise


def write(folder: Path, snapshot: Snapshot, *more: str) -> Path:
    """Gives a snapshot that was written into a folder its description and name, `step-<number>`.

    `more` is the rest of its tree, the `pairs` of packed dicts. OSError where it cannot be written.
    """
    assert snapshot.written is not None
    path, place = f"{folder}/{name_of(snapshot.step)}", f"{folder}/{NEXT}"
    about = json.dumps({"format": FORMAT, "step": snapshot.step, "files": snapshot.written})
    text = f'{about[:-1]}, "tree": {joined(pairs(snapshot.tree), *more)}}}'
    signed = json.dumps({"crc32c": google_crc32c.value(text.encode()), "content": text})
    try:
        overwrite(f"{place}/{DESCRIPTION}", [signed.encode()])
        if snapshot.durable:
            _flush(*(f"{place}/{name}" for name in (*snapshot.files, DESCRIPTION)))
            synced(place)
        try:
            os.rename(place, path)
        except OSError:  # where there is one of this step
            remove(Path(path))
            os.rename(place, path)
        if snapshot.durable:
            synced(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return Path(path)


def read(path: Path) -> Checkpoint:
    """The checkpoint at a path; Damaged where it is anything else."""
    try:
        return _read(path)
    except READ_ERRORS as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Damaged(f"{path}: {why or type(error).__name__}") from None


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
    try:
        os.rename(path, f"{path.parent}/{NEXT}")
    except FileNotFoundError:  # somebody else has deleted it
        pass
    except OSError:  # one is kept already
        remove(path)


def clear(folder: Path) -> None:
    """Deletes what was kept for the next checkpoint, and what is left of deleted ones."""
    for path in (folder / NEXT, *folder.glob(f"*{GONE}")):
        shutil.rmtree(path, ignore_errors=True)


def point(folder: Path, name: str, text: str, durable: bool) -> None:
    """Lets the file `name` of a folder hold a line that names a checkpoint.

    A durable one takes the old one's place; else it is written over it, in one piece.
    """
    line = f"{text}\n".encode()
    if not durable:
        overwrite(f"{folder}/{name}", [line])
        return
    temporary = f"{folder}/{name}.tmp"
    try:
        overwrite(temporary, [line])
        _flush(temporary)
        os.replace(temporary, f"{folder}/{name}")
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    synced(folder)


def sync(path: Path) -> None:
    """Has a checkpoint that is written on the disk."""
    _flush(*(f"{path}/{name}" for name in (WEIGHTS, TENSORS, DESCRIPTION)))
    synced(path)
    synced(path.parent)


def synced(folder: str | Path) -> None:
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
    if google_crc32c.value(signed["content"].encode()) != signed["crc32c"]:
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


def _flush(*paths: str) -> None:
    """Has what is in these files on the disk."""
    for path in paths:
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
