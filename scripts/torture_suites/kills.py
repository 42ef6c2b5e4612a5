"""Kills runs at random moments, lets them go on, and asks whether they are the unbroken run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from torture_suites.runs import EVERY, WORKLOADS, train, unbroken
from trainer.checkpoints import listing
from trainer.events.reader import records
from trainer.record import StepRecord
from trainer.wire import encode

TIMES = ("wall_time", "step_ms", "monitor_ms")


def said(folder: Path) -> dict[str, Any]:
    """All that a run leaves, but for names and times."""
    warnings: list[str] = []
    found = list(records(folder, warnings.append))
    steps = [record.step for record in found]
    last = listing.complete(folder / "checkpoints")[0]
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
    runs_of: dict[str, tuple[Path, float, dict[str, Any]]] = {}
    for name, text in WORKLOADS.items():
        config = work / f"{name}.yaml"
        config.write_text(text + EVERY)
        seconds = unbroken(config, work / f"{name}-whole")
        runs_of[name] = config, seconds, said(work / f"{name}-whole")
    for name in WORKLOADS:
        counts: Counter[str] = Counter()
        config, seconds, whole = runs_of[name]
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
