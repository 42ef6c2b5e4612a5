"""Does a run that is killed at any moment end as the one that is not?

    python scripts/torture.py [--runs 200] [--processes 2]

Kills runs with SIGKILL at random moments, some several times, lets them go on with `--resume auto`
and compares with a run that nobody killed: weights, optimizer state and random numbers of the last
checkpoint, all records but their times, and the findings. Prints how many ended the same.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer import checkpoint
from trainer.__main__ import main as trainer
from trainer.checkpoint import Saved
from trainer.events.reader import records
from trainer.record import StepRecord

CONFIGS = Path(__file__).parent.parent / "configs"
TIMES = ("wall_time", "step_ms", "monitor_ms")
NETWORKS = {
    "linear": ["linear.yaml", "stop={cost: null, steps: 400}", "optimizer.lr=0.01"],
    "mlp": ["digits_mlp.yaml", "model.dropout=0.2", "optimizer={name: adam, lr: 1e-2}",
            "schedule={name: CosineAnnealingLR, T_max: 200, warmup_steps: 10}", "stop.steps=200"],
    "lstm": ["adding_lstm.yaml", "data.length=20", "data.samples=2000",
             "validation={fraction: 0.1, every_steps: 25}", "stop.steps=150"],
}  # fmt: skip
ALWAYS = ["checkpoint.every_steps=10", "monitor.every_steps=5", "monitor.histogram_every_steps=20",
          "monitor.activation_every_steps=20"]  # fmt: skip


def process(folder: Path, arguments: list[str]) -> None:
    """One run, in a process of its own."""
    os.chdir(folder)
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
        status = trainer(arguments)
        sys.stdout.flush()
        os._exit(status)


def run(folder: Path, network: str, kill_after_s: float | None) -> tuple[int | None, float]:
    """Starts the network's run or goes on with it; exit status and seconds."""
    config, *overrides = NETWORKS[network]
    arguments = ["--config", str(CONFIGS / config), "--resume", "auto", *overrides, *ALWAYS]
    child = get_context("fork").Process(target=process, args=(folder, arguments))
    started = time.monotonic()
    child.start()
    child.join(kill_after_s)
    if child.is_alive():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    return child.exitcode, time.monotonic() - started


def end(folder: Path) -> tuple[Saved, list[StepRecord], bytes]:
    """The last checkpoint of the newest run in a folder, its records and its findings.

    One that was killed before its first checkpoint is there too, and left alone.
    """
    run_dir = max((folder / "runs").glob("*/*"))
    saved = checkpoint.newest(run_dir, print)
    assert saved is not None
    found = run_dir / "findings.jsonl"
    return saved, [*records(run_dir, print)], found.read_bytes() if found.exists() else b""


def same(one: Any, other: Any) -> bool:
    """Whether two nests of values are equal, bit for bit."""
    if isinstance(one, torch.Tensor | np.ndarray):
        a, b = np.asarray(one), np.asarray(other)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        fields = [f.name for f in dataclasses.fields(one) if f.name not in TIMES]
        return all(same(getattr(one, name), getattr(other, name)) for name in fields)
    return bool(one == other or (one != one and other != other))


def differences(one: tuple[Saved, list[StepRecord], bytes], other: Any) -> list[str]:
    """What is not the same at the ends of two runs."""
    checks = {
        "step": one[0].step == other[0].step,
        "weights": same(one[0].weights, other[0].weights),
        "state": same(one[0].state, other[0].state),
        "steps of the records": [r.step for r in one[1]] == [r.step for r in other[1]],
        "records": same(one[1], other[1]),
        "findings": one[2] == other[2],
    }
    return [name for name, equal in checks.items() if not equal]


def tortured(whole: dict[str, Any], seconds: dict[str, float], number: int) -> tuple[str, int, str]:
    """One run that is killed up to four times: network, kills, and what is not the same."""
    lot = random.Random(number)
    network, kills = [*NETWORKS][number % len(NETWORKS)], 0
    with tempfile.TemporaryDirectory() as name:
        for _ in range(lot.choice([1, 1, 2, 4])):
            status, _ = run(Path(name), network, lot.uniform(0, seconds[network]))
            kills += status == -signal.SIGKILL
        status, _ = run(Path(name), network, None)
        if status != 0:
            return network, kills, f"exit status {status}"
        return network, kills, ", ".join(differences(end(Path(name)), whole[network]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    whole, seconds = {}, {}
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as name:
            run(Path(name), network, None)  # compiles what is compiled once
        with tempfile.TemporaryDirectory() as name:
            status, seconds[network] = run(Path(name), network, None)
            assert status == 0, f"{network}: exit status {status}"
            whole[network] = end(Path(name))
    with ThreadPoolExecutor(asked.processes) as pool:
        results = [*pool.map(partial(tortured, whole, seconds), range(asked.runs))]
    for network in NETWORKS:
        own = [(kills, wrong) for name, kills, wrong in results if name == network]
        equal, kills = sum(not wrong for _, wrong in own), sum(kills for kills, _ in own)
        print(f"{network}: {equal} of {len(own)} runs as if never killed; {kills} kills")
    faults = Counter(wrong for _, _, wrong in results if wrong)
    print("\n".join(f"{number} x {wrong}" for wrong, number in faults.most_common()))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
