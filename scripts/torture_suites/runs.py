"""Runs of a few seconds that the suites do things to, in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

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
