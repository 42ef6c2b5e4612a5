"""What does a checkpoint cost the training that goes on while it is written?

    python scripts/benchmark_checkpoints.py [--turns 150] [--threads 2] [--folder DIR]

Trains the multilayer perceptron of workloads.py and the configuration digits_mlp, fifty steps with
a checkpoint every ten and fifty without in turns, and compares each turn with the one before it:
the median of the ratios, and 1.57 times their quartiles' distance by the root of their number,
which is a median's 95 % interval (McGill, Tukey and Larsen, 1978). Then holds up a network of 100
million parameters for one checkpoint, beside a bare copy of its weights. Times are on the clock.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from benchmark_loop import Unobserving
from torch import Tensor, nn

from trainer import experiment, loop
from trainer.checkpoints import Checkpoints
from trainer.config import load
from trainer.console import Console
from trainer.experiment import Experiment
from trainer.progress import Progress
from trainer.signals import Signals

EVERY_STEPS = 10  # the checkpoints of the mlp and of digits_mlp
TURN_STEPS = 50  # a turn is short, so that a machine's moods meet both ways alike
WARM_TURNS = 6
MLP = """
name: mlp
data: {name: "benchmark_checkpoints:images", batch_size: 64}
model: {name: "workloads:mlp"}
loss: {name: cross_entropy}
optimizer: {name: sgd, lr: 1.0e-4}
"""
LARGE = MLP.replace("workloads:mlp", "benchmark_checkpoints:large")
DIGITS = Path(__file__).parent.parent / "configs" / "digits_mlp.yaml"


def images() -> tuple[Tensor, Tensor]:
    """As many as 100 batches of noise."""
    return torch.randn(6400, 784), torch.arange(6400) % 10


def large() -> nn.Module:
    """784, nine layers of 3500, 10: 101 million values."""
    widths = [784, *[3500] * 9, 10]
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())))


def built(folder: Path, text: str, *overrides: str) -> Experiment:
    """The experiment of a configuration, without the evaluation at its end."""
    path = folder / "config.yaml"
    path.write_text(text)
    config, document = load(path, ["validation.fraction=0", *overrides], [experiment.check])
    made = experiment.build(config, document)
    return replace(made, training=None)


class Turns(Checkpoints):
    """Writes checkpoints in every other turn; knows when each turn began."""

    def __init__(self, made: Experiment, folder: Path) -> None:
        folder.mkdir()
        super().__init__(folder, made, Signals(), lambda durable: lambda wait: {}, sys.exit)
        self.began: list[float] = []

    def pause(self, progress: Progress) -> str | None:
        turn, steps = divmod(progress.step, TURN_STEPS)
        if steps == 0:
            self.wait()
            self.began.append(time.perf_counter())
        return super().pause(progress) if turn % 2 else None

    def ended(self, progress: Progress, reason: str) -> None:
        self.wait()
        self.began.append(time.perf_counter())


def often(name: str, work: Path, text: str, turns: int, *overrides: str) -> None:
    """Prints what a checkpoint every ten steps costs."""
    steps = TURN_STEPS * (2 * turns + WARM_TURNS)
    options = [f"stop.steps={steps}", f"checkpoint.every_steps={EVERY_STEPS}", *overrides]
    made = built(work, text, *options)
    keeper = Turns(made, Path(tempfile.mkdtemp(dir=work)) / "run")
    loop.run(made, Unobserving(made.model), Console(quiet=True), keeper=keeper)
    keeper.close()
    times = [after - before for before, after in itertools.pairwise(keeper.began)][WARM_TURNS:]
    without, written = times[::2], times[1::2]
    ratios = sorted(a / b for a, b in zip(written, without, strict=True))
    error = 1.57 * (ratios[3 * turns // 4] - ratios[turns // 4]) / turns**0.5
    print(
        f"{name}: {sum(p.numel() for p in made.model.parameters()):,} values, "
        f"{1e3 * statistics.median(without) / TURN_STEPS:.2f} ms a step, with a checkpoint every "
        f"{EVERY_STEPS} {statistics.median(ratios):.3f} +- {error:.3f} times that "
        f"(sums {sum(written) / sum(without):.3f})",
        flush=True,
    )


def once(work: Path) -> None:
    """Prints how long a large network is held up by one checkpoint."""
    made = built(work, LARGE, "optimizer.name=sgd")
    keeper, progress = Turns(made, work / "large"), Progress()
    copies, held, writing = [], [], []
    for progress.step in range(1, 6):
        start = time.perf_counter()
        copy = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
        copies.append(time.perf_counter() - start)
        del copy
        start = time.perf_counter()
        keeper.save(progress)
        held.append(time.perf_counter() - start)
        keeper.wait()
        writing.append(time.perf_counter() - start)
    values = sum(p.numel() for p in made.model.parameters())
    print(
        f"{values:,} values: held up for {statistics.median(held):.3f} s, a copy of the weights "
        f"alone takes {statistics.median(copies):.3f} s; on the disk after "
        f"{statistics.median(writing):.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=150, help="of each way")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; else a temporary one")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        work = Path(folder)
        for optimizer in ("sgd", "adam"):
            often(f"mlp, {optimizer}", work, MLP, given.turns, f"optimizer.name={optimizer}")
        often("digits_mlp", work, DIGITS.read_text(), given.turns)
        once(work)


if __name__ == "__main__":
    main()
