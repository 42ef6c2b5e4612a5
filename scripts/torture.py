"""Kills runs at random moments, lets them go on, and asks whether they are the unbroken run.

python scripts/torture.py kills [--runs 200] [--seed 0]
python scripts/torture.py damage [--ways 1000] [--seed 0]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer import checkpoint
from trainer.__main__ import main
from trainer.events.reader import records
from trainer.record import StepRecord
from trainer.wire import encode

EVERY = "monitor: {every_steps: 2, histogram_every_steps: 10, activation_every_steps: 6}\n"
WORKLOADS = {
    "linear": """
name: linear
data: {name: points, x: [[2.0], [3.0]], y: [[3.0], [2.0]]}
model: {name: linear, weight: 1.6649098, bias: 0.54648024}
loss: {name: half_squared_error, reduction: sum}
optimizer: {name: sgd, lr: 0.1}
stop: {cost: 0.01, steps: 1000}
checkpoint: {every_steps: 20}
""",
    "mlp": """
name: mlp
data: {name: digits, batch_size: 64}
model: {name: mlp, depth: 14, width: 16, activation: sigmoid, dropout: 0.1}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 2e-3}
schedule: {name: CosineAnnealingLR, T_max: 80, warmup_steps: 10}
validation: {fraction: 0.2, every_steps: 20}
stop: {steps: 80}
checkpoint: {every_steps: 4}
""",
    "lstm": """
name: lstm
data: {name: adding_problem, samples: 256, length: 20, batch_size: 32}
model: {name: rnn, kind: lstm, hidden_size: 8}
loss: {name: mse}
optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
stop: {steps: 80}
checkpoint: {every_steps: 4}
""",
}
TIMES = ("wall_time", "step_ms", "monitor_ms")


def train(config: Path, folder: Path) -> int:
    """Starts a run, or goes on with it, in a process of its own; its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with (folder.parent / f"{folder.name}.log").open("a") as log:
            os.dup2(log.fileno(), 2)
            status = main(["--config", str(config), "--run-dir", str(folder), "--resume", "auto"])
    finally:
        os._exit(status)


def said(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for names and times."""
    warnings: list[str] = []
    found = list(records(folder, warnings.append))
    steps = [record.step for record in found]
    last = checkpoint.complete(folder / "checkpoints")[0]
    held = load_file(last / "model.safetensors") | load_file(last / "training.safetensors")
    journal = folder / "findings.jsonl"
    curves = EventAccumulator(str(folder), {"scalars": 0}).Reload()
    return {
        "warnings": warnings,
        "doubled steps": len(steps) - len(set(steps)),
        "records": [without_times(record) for record in found],
        "tensors": {key: (str(t.dtype), t.numpy().tobytes()) for key, t in held.items()},
        "findings": journal.read_text() if journal.exists() else "",
        "result": json.loads((folder / "result.json").read_text()),
        "curves": {
            tag: [(point.step, repr(point.value)) for point in curves.Scalars(tag)]
            for tag in curves.Tags()["scalars"]
            if not tag.startswith("time/")
        },
    }


def without_times(record: StepRecord) -> bytes:
    """The bytes of a record but for the clock's part."""
    return encode([StepRecord(**{**vars(record), **dict.fromkeys(TIMES, 0.0)})])


def different(whole: dict[str, Any], broken: dict[str, Any]) -> list[str]:
    """The parts in which a run is not the unbroken one."""
    return [part for part in whole if whole[part] != broken[part]]


def kills(work: Path, runs: int, seed: int) -> int:
    """Trains each workload unbroken, then again and again with kills; how many runs differ."""
    drawn, wrong = random.Random(seed), 0
    unbroken: dict[str, tuple[Path, float, dict[str, Any]]] = {}
    for name, text in WORKLOADS.items():
        config = work / f"{name}.yaml"
        config.write_text(text + EVERY)
        for warm in ("first", "whole"):
            started = time.monotonic()
            status = os.waitpid(train(config, work / f"{name}-{warm}"), 0)[1]
            assert status == 0, (work / f"{name}-{warm}.log").read_text()
        unbroken[name] = config, time.monotonic() - started, said(work / f"{name}-whole")
    for name in WORKLOADS:
        counts: Counter[str] = Counter()
        config, seconds, whole = unbroken[name]
        for number in range(-(-runs // len(WORKLOADS))):
            folder, planned = work / f"{name}-{number}", drawn.randint(1, 4)
            while True:
                process, status = train(config, folder), None
                if planned:
                    time.sleep(drawn.uniform(0.02, seconds))
                    os.kill(process, signal.SIGKILL)
                    planned -= 1
                _, status = os.waitpid(process, 0)
                if os.WIFSIGNALED(status):
                    counts["kills"] += 1
                    continue
                break
            counts["runs"] += 1
            parts = different(whole, said(folder)) if status == 0 else [f"status {status}"]
            if parts:
                wrong += 1
                print(f"{folder}: differs in {', '.join(parts)}")
            else:
                counts["identical"] += 1
                shutil.rmtree(folder)
        print(f"{name}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    return wrong


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
        yield "version, signed", signed(files, None, b"", format=drawn.randrange(2, 9))
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
        digest = hashlib.sha256(body).hexdigest()
        content["files"][name] = {"bytes": len(body), "sha256": digest}
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    made = {"checkpoint.json": json.dumps({"sha256": digest, "content": text}).encode()}
    return made | ({name: body} if name else {})


def damage(work: Path, ways: int, seed: int) -> int:
    """Damages a checkpoint again and again; how often anything but a refusal came of it."""
    config, folder, wrong = work / "mlp.yaml", work / "damaged", 0
    config.write_text(
        WORKLOADS["mlp"].replace("steps: 80", "steps: 20").replace("T_max: 80", "T_max: 20")
    )
    assert os.waitpid(train(config, folder), 0)[1] == 0
    path = checkpoint.complete(folder / "checkpoints")[0]
    files = {p.name: p.read_bytes() for p in path.iterdir()}
    true, counts, slowest = checkpoint.read(path), Counter[str](), 0.0
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
    print(f"{sum(counts.values())} ways, {wrong} wrong, the slowest took {slowest:.3f} s")
    return wrong


def run(arguments: list[str]) -> int:
    """Runs one of the suites; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("kills", "damage"))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--ways", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work and leave what differs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # small networks; and a fork has no other threads
    work = given.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(work):
        if given.suite == "kills":
            wrong = kills(work, given.runs, given.seed)
        else:
            wrong = damage(work, given.ways, given.seed)
    if not wrong and not given.folder:
        shutil.rmtree(work)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
