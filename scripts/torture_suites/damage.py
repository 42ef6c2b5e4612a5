"""Damages checkpoints in all ways and asks whether each is refused."""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import torch

from torture_suites.runs import WORKLOADS, train
from trainer.checkpoints import checkpoint, listing

MAX_SECONDS = 5.0  # to refuse one
MAX_MB = 300.0  # checkpoint.json alone may be read up to 64 MiB


class Bomb:
    """What a pickle of it would do when loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


def damages(path: Path, drawn: random.Random) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Endless ways of damaging a checkpoint: what kind, and the new content of files."""
    files = {p.name: p.read_bytes() for p in path.iterdir()}
    while True:
        name = drawn.choice(list(files))
        content = files[name]
        place = drawn.randrange(len(content))
        flipped = bytearray(content)
        flipped[place] ^= 1 << drawn.randrange(8)
        yield "flipped", {name: bytes(flipped)}
        yield "cut", {name: content[:place]}
        yield "zeros", {name: content[:place] + bytes(len(content) - place)}
        yield "longer", {name: content + content[:place]}
        yield "empty", {name: b""}
        other = drawn.choice(list(files))
        if other != name:
            yield "swapped", {name: files[other], other: content}
        yield "pickle", {name: pickle.dumps(Bomb())}
        yield "deep", {name: b"[" * 100_000}
        huge = struct.pack("<Q", 1 << drawn.randrange(20, 63)) + content[8:]
        yield "huge header", {"model.safetensors": huge}
        yield "huge header, signed", signed(files, "model.safetensors", huge)
        header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (1 << 50, 1 << 52)
        body = struct.pack("<Q", len(header)) + header
        yield "huge tensor, signed", signed(files, "model.safetensors", body)
        yield "pickle, signed", signed(files, "training.safetensors", pickle.dumps(Bomb()))
        yield "version, signed", signed(files, None, b"", format=drawn.choice([0, 1, 3, 9]))
        yield "step, signed", signed(files, None, b"", step=drawn.randrange(10**9))
        yield (
            "tree, signed",
            signed(
                files, None, b"", tree=drawn.choice([None, 1, [], "x", {}, {"dict": [[{}, 1]]}])
            ),
        )


def signed(
    files: dict[str, bytes], name: str | None, body: bytes, **values: Any
) -> dict[str, bytes]:
    """A checkpoint with other content whose checksums are right."""
    content = json.loads(json.loads(files["checkpoint.json"])["content"]) | values
    if name is not None:
        content["files"][name] = {"bytes": len(body), "crc32c": google_crc32c.value(body)}
    text = json.dumps(content)
    signature = {"crc32c": google_crc32c.value(text.encode()), "content": text}
    made = {"checkpoint.json": json.dumps(signature).encode()}
    return made | ({name: body} if name else {})


def damage(work: Path, ways: int, seed: int) -> int:
    """Damages a checkpoint again and again; how often anything but a refusal came of it."""
    config, folder, wrong = work / "mlp.yaml", work / "damaged", 0
    config.write_text(
        WORKLOADS["mlp"].replace("steps: 80", "steps: 20").replace("T_max: 80", "T_max: 20")
    )
    assert os.waitpid(train(config, folder), 0)[1] == 0
    path = listing.complete(folder / "checkpoints")[0]
    files = {p.name: p.read_bytes() for p in path.iterdir()}
    true, counts, slowest = checkpoint.read(path), Counter[str](), 0.0
    memory = peak_mb()
    for number, (kind, contents) in enumerate(damages(path, random.Random(seed))):
        if number >= ways:
            break
        for name, content in contents.items():
            (path / name).write_bytes(content)
        started, outcome = time.monotonic(), "refused"
        try:
            found = checkpoint.read(path)
            same = all(torch.equal(found.weights[key], true.weights[key]) for key in true.weights)
            outcome = "the same" if same and repr(found.tree) == repr(true.tree) else "WRONG"
        except checkpoint.Damaged:
            pass
        except BaseException as error:
            outcome = f"CRASH {type(error).__name__}"
        slowest = max(slowest, time.monotonic() - started)
        if Path("exploded").exists():
            outcome = "CODE WAS RUN"
        if outcome.isupper() or outcome.startswith(("WRONG", "CRASH")):
            wrong += 1
            print(f"{kind}: {outcome}")
        counts[f"{kind}: {outcome}"] += 1
        for name, content in files.items():
            (path / name).write_bytes(content)
    print("\n".join(f"{number:5} {what}" for what, number in sorted(counts.items())))
    memory = peak_mb() - memory
    print(
        f"{sum(counts.values())} ways, {wrong} wrong, the slowest took {slowest:.3f} s, "
        f"memory grew by {memory:.0f} MB"
    )
    return wrong + (slowest > MAX_SECONDS) + (memory > MAX_MB)


def peak_mb() -> float:
    """The most memory that this process has ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
