"""What does watching cost? Step times with the monitor, with its peers and with nothing.

    python scripts/benchmark_overhead.py [--rounds 9] [--only MLP GPT ResNet-18 linear] [--growth]

Every way of watching trains its own copy of the model on two threads; the ways take turns, round
by round, so that a slow moment of the machine meets all of them. Printed are medians over rounds
and the ratio to the bare loop with its quartiles; the default cadences, which repeat after 200
steps, are measured over as many, beside a bare loop's. wandb and tensorboardX come with the extra
`benchmark`; a peer that is not installed is left out with a note.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from workloads import NAMES, Workload, workload

from trainer import Monitor

SETTLE_SECONDS = 0.5
CYCLE = 200  # steps after which the default cadences repeat
EVERYTHING = {"every_steps": 1, "histogram_every_steps": 1, "activation_every_steps": None}


class Way:
    """One way of watching: its own model, and a step that trains and watches."""

    def __init__(self, work: Workload, folder: Path) -> None:
        self.work, self.folder = work, folder
        self.parameters = list(work.model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, lr=1e-4)
        self.next_step = 1000  # past the first steps, which are watched more densely
        self.made = 0
        self.seconds: list[float] = []  # per step, one entry a round

    def step(self, step: int) -> None:
        loss = self.work.loss()
        loss.backward()
        self.watched_update(step, loss)
        self.optimizer.zero_grad()

    def watched_update(self, step: int, loss: torch.Tensor) -> None:
        self.optimizer.step()

    def round(self, steps: int) -> None:
        # What the way before has left to its threads is not this one's cost, nor are cold caches.
        time.sleep(SETTLE_SECONDS)
        for step in range(self.next_step - 2, self.next_step):
            self.step(step)
        self.timed(steps)

    def timed(self, steps: int) -> None:
        started = time.perf_counter()
        for step in range(self.next_step, self.next_step + steps):
            self.step(step)
        self.seconds.append((time.perf_counter() - started) / steps)
        self.next_step += steps
        self.made += steps

    def close(self) -> None:
        """Ends the watching."""


class ForeachNorm(Way):
    """The floor: the norm of each gradient and nothing else, read by the host."""

    def watched_update(self, step: int, loss: torch.Tensor) -> None:
        torch.stack(torch._foreach_norm([p.grad for p in self.parameters])).tolist()
        self.optimizer.step()


class Ours(Way):
    """The monitor, with the keys of the class."""

    keys: dict[str, Any] = EVERYTHING

    def __init__(self, work: Workload, folder: Path) -> None:
        super().__init__(work, folder)
        self.monitor = Monitor(work.model, folder, **self.keys)
        self.monitor.watch(self.next_step)

    def watched_update(self, step: int, loss: torch.Tensor) -> None:
        with self.monitor.step(step, loss):
            self.optimizer.step()

    def close(self) -> None:
        self.monitor.close()


class OursWithActivations(Ours):
    keys = {**EVERYTHING, "activation_every_steps": 1}


class OursByDefault(Ours):
    keys = {}


class Histograms(Way):
    """add_histogram of every gradient at every step, with torch's or tensorboardX's writer."""

    package = "torch.utils.tensorboard"

    def __init__(self, work: Workload, folder: Path) -> None:
        super().__init__(work, folder)
        self.writer = importlib.import_module(self.package).SummaryWriter(str(folder))

    def watched_update(self, step: int, loss: torch.Tensor) -> None:
        for name, parameter in self.work.model.named_parameters():
            self.writer.add_histogram(name, parameter.grad, step)
        self.optimizer.step()

    def close(self) -> None:
        self.writer.close()


class HistogramsX(Histograms):
    package = "tensorboardX"


class Wandb(Way):
    """wandb.watch of the gradients at every step, offline."""

    def __init__(self, work: Workload, folder: Path) -> None:
        super().__init__(work, folder)
        os.environ["WANDB_SILENT"] = "true"
        import wandb

        self.run = wandb.init(mode="offline", dir=str(folder), project="benchmark", reinit=True)
        self.run.watch(work.model, log="gradients", log_freq=1)

    def watched_update(self, step: int, loss: torch.Tensor) -> None:
        self.run.log({"loss": loss.item()})
        self.optimizer.step()

    def close(self) -> None:
        self.run.finish()


DEFAULT = "monitor, default cadences"
WAYS: dict[str, type[Way]] = {
    "bare loop": Way,
    "torch._foreach_norm alone": ForeachNorm,
    DEFAULT: OursByDefault,
    "monitor, everything but activations": Ours,
    "monitor, everything": OursWithActivations,
    "wandb.watch, offline": Wandb,
    "tensorboardX add_histogram": HistogramsX,
    "SummaryWriter add_histogram": Histograms,
}


@contextmanager
def ways(name: str) -> Iterator[dict[str, Way]]:
    with tempfile.TemporaryDirectory() as folder:
        made: dict[str, Way] = {}
        for index, (title, kind) in enumerate(WAYS.items()):
            path = Path(folder) / str(index)
            path.mkdir()
            try:
                made[title] = kind(workload(name), path)
            except ImportError as error:
                print(f"{title}: left out ({error})")
        yield made
        for way in made.values():
            way.close()


def measure(name: str, rounds: int) -> None:
    """Prints a table for one workload."""
    with ways(name) as made:
        steps = next(iter(made.values())).work.steps
        for way in made.values():
            way.round(steps)
            way.seconds.clear()
        for number in range(rounds):
            order = list(made.items())
            for title, way in order[number % len(order) :] + order[: number % len(order)]:
                if title != DEFAULT:
                    way.round(steps)
        bare = made["bare loop"]
        bare_seconds = list(bare.seconds)
        default_ratios = cycles(bare, made[DEFAULT], statistics.median(bare_seconds))
        values = sum(p.numel() for p in bare.parameters)
        print(f"\n{name}: {values:,} values in {len(bare.parameters)} tensors, {rounds} rounds")
        print(
            f"{'':38} {'ms a step':>9} {'ratio':>6}  {'quartiles':13} {'added':>8} {'kB/step':>8}"
        )
        bare_ms = 1000 * statistics.median(bare_seconds)
        for title, way in made.items():
            seconds = bare_seconds if way is bare else way.seconds
            ratios = default_ratios
            if title != DEFAULT:
                ratios = [a / b for a, b in zip(seconds, bare_seconds, strict=True)]
            ratios, middle = sorted(ratios), statistics.median(ratios)
            spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
            ms = bare_ms * middle if title == DEFAULT else 1000 * statistics.median(seconds)
            added = bare_ms * (middle - 1)
            written = sum(f.stat().st_size for f in way.folder.rglob("*") if f.is_file()) / 1000
            row = f"{ms:9.2f} {middle:6.3f}  {spread:13} {added:8.3f} {written / way.made:8.2f}"
            print(f"{title:38} {row}", flush=True)


def cycles(bare: Way, default: Way, seconds: float) -> list[float]:
    """Ratios of whole cycles of the default cadences, of a second at least: what the thread that
    writes does every now and then is in it."""
    default.next_step = 10 * CYCLE
    default.monitor.watch(default.next_step)
    steps = CYCLE * max(1, round(1 / (CYCLE * seconds)))
    ratios = []
    for number in range(max(1, min(9, round(9 / (steps * seconds))))):
        both = (bare, default) if number % 2 else (default, bare)
        for way in both:
            time.sleep(SETTLE_SECONDS)
            way.timed(steps)
        ratios.append(default.seconds[-1] / bare.seconds[-1])
    return ratios


def growth() -> None:
    """Prints the monitor's time of a step (all statistics, no activations) against model size."""
    print(f"\n{'tensors':>8} {'values':>12} {'monitor ms':>11} {'ns a value':>11} {'peak MB':>8}")
    for tensors, values in (
        (10, 10**6), (100, 10**6), (500, 10**6), (2000, 10**6), (50, 10**7), (50, 10**8),
    ):  # fmt: skip
        size = values // tensors
        model = nn.ParameterList(nn.Parameter(torch.randn(size)) for _ in range(tensors))
        for parameter in model:
            parameter.grad = torch.randn_like(parameter)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        taken = []
        with tempfile.TemporaryDirectory() as folder:
            with Monitor(model, folder, **EVERYTHING) as monitor:
                for step in range(9):
                    with monitor.step(step, 0.0) as observation:
                        optimizer.step()
                    taken.append(observation.record.monitor_ms)
        ms = statistics.median(taken[1:])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        row = f"{tensors:8} {values:12,} {ms:11.3f} {1e6 * ms / values:11.3f} {peak:8.0f}"
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--growth", action="store_true", help="cost against size")
    given = parser.parse_args()
    torch.set_num_threads(2)
    for name in given.only:
        measure(name, given.rounds)
    if given.growth:
        growth()


if __name__ == "__main__":
    main()
