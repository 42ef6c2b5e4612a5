"""Runs of a few seconds that the suites do things to, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sklearn.datasets  # noqa: F401 - what is imported before a fork is not imported after it

import trainer.session  # noqa: F401
from trainer.__main__ import main

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


def train(
    config: Path,
    folder: Path,
    prepare: Callable[[], object] | None = None,
    *arguments: str,
) -> int:
    """Starts a run, or goes on with it, in a process of its own, where `prepare` is called before.

    The process' number. What it says is added to a file `.log` beside the folder.
    """
    with log_of(folder).open("a") as stderr:
        process = os.fork()
        if process:
            return process
        os.dup2(stderr.fileno(), 2)
    status = 1
    try:
        if prepare is not None:
            prepare()
        given = ["--config", str(config), "--run-dir", str(folder), "--resume", "auto"]
        status = main([*given, *arguments])
    finally:
        os._exit(status)


def start(config: Path, folder: Path, **keys: Any) -> subprocess.Popen[bytes]:
    """The same, as it is started from a terminal: an interpreter that has imported nothing yet."""
    command = [sys.executable, "-m", "trainer", "--config", str(config), "--run-dir", str(folder)]
    with log_of(folder).open("a") as stderr:
        return subprocess.Popen([*command, "--resume", "auto"], stderr=stderr, **keys)


def log_of(folder: Path) -> Path:
    """The file that a run's messages go to."""
    return folder.with_name(f"{folder.name}.log")


def ended(process: int) -> int:
    """Waits for a process; its exit status as a shell tells it."""
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return status if status >= 0 else 128 - status


def unbroken(config: Path, folder: Path) -> float:
    """Trains a run that nothing happens to; how many seconds it takes once all is compiled."""
    for each in (folder.with_name(f"{folder.name}-first"), folder):
        started = time.monotonic()
        assert ended(train(config, each)) == 0, log_of(each).read_text()
    return time.monotonic() - started
