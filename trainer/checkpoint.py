"""One checkpoint of a run: a folder that is there whole or not at all, and proves what it holds.

`model.safetensors` holds the weights under the names of the model's `state_dict`, for this program
and for others, `training.safetensors` all other tensors, `checkpoint.json` the rest and the
SHA-256 of all three. Nothing in it is code, and nothing is parsed before its checksum is right.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.plain import packed, unpacked

FORMAT = 1
DESCRIPTION, WEIGHTS, TENSORS = "checkpoint.json", "model.safetensors", "training.safetensors"
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


def write(folder: Path, step: int, weights: Mapping[str, Tensor], tree: Mapping[str, Any]) -> Path:
    """Writes the checkpoint `step-<number>` into a folder, all on the disk before it has its name.

    OSError where it cannot be written; TypeError where it cannot hold something.
    """
    path = folder / f"step-{step:09d}"
    temporary = path.with_suffix(".tmp")
    tensors: dict[str, Tensor] = {}
    content = {"format": FORMAT, "step": step, "tree": packed(dict(tree), tensors)}
    folder.mkdir(exist_ok=True)
    remove(temporary)
    temporary.mkdir()
    try:
        content["files"] = {
            name: _write_tensors(temporary / name, held)
            for name, held in ((WEIGHTS, dict(weights)), (TENSORS, tensors))
        }
        text = json.dumps(content)
        signed = json.dumps({"sha256": _sha256(text), "content": text})
        with (temporary / DESCRIPTION).open("xb") as file:
            file.write(signed.encode())
            file.flush()
            os.fsync(file.fileno())
        synced(temporary)
        remove(path)
        temporary.rename(path)
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
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(path.name.removeprefix("step-"))


def remove(path: Path) -> None:
    """Deletes a checkpoint; what is killed meanwhile leaves none that looks whole."""
    gone = path.with_suffix(".gone")
    shutil.rmtree(gone, ignore_errors=True)
    if path.exists():
        path.rename(gone)
        shutil.rmtree(gone)


def point(folder: Path, name: str, text: str) -> None:
    """Lets the file `name` of a folder hold a line that names a checkpoint."""
    temporary = folder / f"{name}.tmp"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / name)
    synced(folder)


def synced(folder: Path) -> None:
    """Has the names in a folder on the disk; Windows opens no folders."""
    if os.name == "nt":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
    try:
        save_file(tensors, path, {"format": "pt"})
    except SafetensorError as error:  # that is how it tells of a full disk
        raise OSError(None, str(error)) from None
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _read(path: Path) -> Checkpoint:
    with (path / DESCRIPTION).open("rb") as file:
        text = file.read(MAX_DESCRIPTION_BYTES + 1)
    if len(text) > MAX_DESCRIPTION_BYTES:
        raise ValueError(f"{DESCRIPTION} is too large")
    signed = json.loads(text)
    if _sha256(signed["content"]) != signed["sha256"]:
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
        with (path / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != said["sha256"]:
                raise ValueError(f"the checksum of {name} is wrong")
        # The copies are where torch puts them, as in the run that wrote them.
        held[name] = {key: tensor.clone() for key, tensor in load_file(path / name).items()}
    tree = unpacked(content["tree"], held[TENSORS])
    step = content["step"]
    if not (isinstance(tree, dict) and type(step) is int and step == step_of(path)):
        raise ValueError("is named for another step than it holds")
    return Checkpoint(path, step, held[WEIGHTS], tree)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
