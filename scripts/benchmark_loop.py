"""What does the loop cost over the same training written by hand, and in PyTorch Lightning?

    python scripts/benchmark_loop.py [linear mlp cnn transformer start gradients]

All ways take turns in one process, on one thread, in changing order. CPU time is measured, which
other programs on the machine disturb least (from the start of a program to its first step it is the
time on the clock); the ratios are what counts. Lightning comes with the extra `benchmark`.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer import experiment, loop
from trainer.autograd import gradients
from trainer.config import load
from trainer.console import Console
from trainer.experiment import Experiment
from trainer.monitor import Monitor

try:
    import lightning
except ImportError:
    lightning = None

CONFIGS = Path(__file__).parent.parent / "configs"
ROUNDS = 11
Way = Callable[[], object]

# The configuration of each network, and the steps of a round.
NETWORKS = {
    "linear": ("linear", 2000, ["stop.cost=null", "optimizer.lr=1e-9"]),
    "mlp": ("digits_mlp", 500, ["validation.fraction=0"]),
    "cnn": ("digits_cnn", 40, ["validation.fraction=0"]),
    "transformer": ("charlm_transformer", 15, ["validation.fraction=0"]),
}


class Unobserving(Monitor):
    """Never looks, so that only the loop's own cost is measured."""

    def observes(self, step: int) -> bool:
        return False

    def watch(self, step: int) -> None:
        pass


def made(name: str) -> tuple[Experiment, int]:
    """The experiment without the evaluation at its end, and its steps."""
    config_name, steps, overrides = NETWORKS[name]
    path = CONFIGS / f"{config_name}.yaml"
    config, document = load(path, [*overrides, f"stop.steps={steps}"], [experiment.check])
    built = experiment.build(config, document)
    return replace(built, training=None), steps


def by_loop(built: Experiment) -> None:
    """The loop of this package."""
    loop.run(built, Unobserving(built.model), Console(quiet=True))


def rows(built: Experiment) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of rows in memory, pass after pass."""
    x, y, size = built.rows.x, built.rows.y, built.config.data.batch_size
    while True:
        if size is None:
            yield x, y
            continue
        for numbers in torch.randperm(len(x)).split(size):
            yield x[numbers], y[numbers]


def cost(built: Experiment, x: Tensor, y: Tensor) -> Tensor:
    """The loss of a batch as one writes it by hand."""
    prediction = built.model(x)
    if built.config.loss.name == "cross_entropy":
        return F.cross_entropy(prediction.flatten(0, -2), y.flatten())
    return 0.5 * (prediction - y).square().sum()


def by_hand(built: Experiment, steps: int) -> None:
    """The training step as one writes it without a framework."""
    optimizer = built.optimizer
    built.model.train()
    for x, y in itertools.islice(rows(built), steps):
        optimizer.zero_grad()
        cost(built, x, y).backward()
        optimizer.step()


def by_lightning(built: Experiment, steps: int) -> Callable[[], float]:
    """Lightning's fit without logger, checkpoints or progress bar; gives the time of its steps."""

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = built.model

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return cost(built, *batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return built.optimizer

        def on_train_start(self) -> None:
            self.begin = time.process_time()

        def on_train_end(self) -> None:
            self.seconds = time.process_time() - self.begin

    def fit() -> float:
        module = Module()
        trainer = lightning.Trainer(
            accelerator="cpu", barebones=True, max_steps=steps, enable_progress_bar=False
        )
        trainer.fit(module, rows(built))
        return float(module.seconds)

    return fit


def compare(
    name: str, ways: dict[str, Way], per: int, clock: Callable[[], float] = time.process_time
) -> None:
    """Prints each way's median time per repetition, and the median ratio of the first to it.

    A way that gives a number is timed by itself, and that is its time in seconds.
    """
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        order = list(ways) if number % 2 else list(reversed(ways))
        for way in order:
            start = clock()
            own = ways[way]()
            took = own if isinstance(own, float) else clock() - start
            if number:  # the first round warms up
                times[way].append(1e6 * took / per)
    first = next(iter(ways))
    print(name)
    for way, values in times.items():
        ratios = sorted(ours / value for ours, value in zip(times[first], values, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
        line = f"  {way:28} {statistics.median(values):12.1f} us"
        if way != first:
            line += f"   here / there {statistics.median(ratios):6.3f}  ({low:.3f} to {high:.3f})"
        print(line, flush=True)


def network(name: str) -> None:
    """The steps of a network in each way."""
    built, steps = made(name)
    ways: dict[str, Way] = {
        "here": lambda: by_loop(built),
        "by hand": lambda: by_hand(built, steps),
    }
    if lightning is not None:
        ways["Lightning"] = by_lightning(built, steps)
    compare(f"{name}: a step that is not observed", ways, steps)


def derivative() -> None:
    """gradients() and what it calls, on the mlp."""
    built, _ = made("mlp")
    batch = next(built.batches)
    losses = built.loss(built.model(batch.x), batch.y)
    parameters, ones = list(built.model.parameters()), torch.ones_like(losses)
    arguments: Any = losses, parameters, ones
    calls = 500

    def repeated(call: Callable[..., object]) -> Way:
        return lambda: [call(*arguments, retain_graph=True) for _ in range(calls)]

    ways = {"gradients": repeated(gradients), "torch.autograd.grad": repeated(torch.autograd.grad)}
    compare("mlp: derivatives", ways, calls)


def start() -> None:
    """From the start of the program to its first step."""
    train = ["-m", "trainer", "--config", str(CONFIGS / "linear.yaml"), "stop.steps=1"]
    with tempfile.TemporaryDirectory() as folder:

        def process(*arguments: str) -> Way:
            command = [sys.executable, *arguments]
            return lambda: subprocess.run(command, cwd=folder, capture_output=True, check=True)

        ways = {"here": process(*train), "import torch": process("-c", "import torch")}
        compare("start to first step", ways, 1, time.perf_counter)


def main() -> None:
    others = {"gradients": derivative, "start": start}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*NETWORKS, *others]
    parser.add_argument("names", nargs="*", default="all", choices=["all", *names])
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name in names if "all" in given.names else given.names:
        if name in NETWORKS:
            network(name)
        else:
            others[name]()


if __name__ == "__main__":
    main()
