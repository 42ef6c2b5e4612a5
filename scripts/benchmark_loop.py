"""What does the loop cost over the same training written by hand in bare PyTorch?

    python scripts/benchmark_loop.py

Both are measured in turn in one process, on two threads; the ratios are what counts.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainer import experiment, loop
from trainer.autograd import gradients
from trainer.config import load
from trainer.config.source import Document
from trainer.console import Console
from trainer.monitor import Monitor

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "linear.yaml"
ROUNDS = 9


def rows() -> tuple[Tensor, Tensor]:
    """One batch of 64 for the 10-layer MLP."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 784, generator=generator), torch.randn(64, 10, generator=generator)


MLP_CONFIG = """
name: mlp
data: {name: "benchmark_loop:rows"}
model: {name: "workloads:mlp"}
loss: {name: half_squared_error, reduction: sum}
optimizer: {name: sgd, lr: 1e-6}
"""


def by_hand(built: experiment.Experiment, steps: int) -> None:
    """The training step as one writes it without a framework."""
    model, optimizer = built.model, built.optimizer
    x, y = built.rows.x, built.rows.y
    parameters = list(model.parameters())
    for _ in range(steps):
        losses = 0.5 * (model(x) - y) ** 2
        found = torch.autograd.grad(losses, parameters, grad_outputs=torch.ones_like(losses))
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        optimizer.step()


class Unobserving(Monitor):
    """Never looks, so that only the loop's own cost is measured."""

    def observes(self, step: int) -> bool:
        return False

    def watch(self, step: int) -> None:
        pass


def by_loop(built: experiment.Experiment) -> None:
    monitor = Unobserving(built.model)
    loop.run(built, monitor, Console(quiet=True))


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], per: int) -> None:
    """Prints the median time of both per `per` repetitions, and the median ratio of the pairs."""
    pairs = []
    for _ in range(ROUNDS + 1):
        times = []
        for call in (ours, theirs):
            start = time.perf_counter()
            call()
            times.append(1e6 * (time.perf_counter() - start) / per)
        pairs.append(times)
    pairs = pairs[1:]  # the first warms up
    ratios = sorted(a / b for a, b in pairs)
    a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
    ratio = statistics.median(ratios)
    print(f"{name:44} {a:12.1f} {b:12.1f} {ratio:7.3f}  ({low:.3f} to {high:.3f})", flush=True)


def main() -> None:
    torch.set_num_threads(2)
    print(f"{'microseconds':44} {'here':>12} {'by hand':>12}   ratio  (quartiles)")
    for name, steps in (("linear", 2000), ("mlp", 60)):
        override = [f"stop.steps={steps}"]
        if name == "linear":
            override += ["stop.cost=null", "optimizer.lr=1e-9"]
            config, document = load(CONFIG, override, [experiment.check])
        else:
            document = Document("mlp", MLP_CONFIG)
            for text in override:
                document.override(text)
            config = experiment.Config.model_validate(document.tree)
        built = experiment.build(config, document)
        compare(
            f"{name}: a step that is not observed",
            lambda built=built: by_loop(built),
            lambda built=built, steps=steps: by_hand(built, steps),
            steps,
        )
        losses = built.loss(built.model(built.rows.x), built.rows.y)
        parameters, ones = list(built.model.parameters()), torch.ones_like(losses)
        calls = 2000 if name == "linear" else 40

        def ours(losses=losses, parameters=parameters, ones=ones, calls=calls) -> None:
            for _ in range(calls):
                gradients(losses, parameters, ones, retain_graph=True)

        def theirs(losses=losses, parameters=parameters, ones=ones, calls=calls) -> None:
            for _ in range(calls):
                torch.autograd.grad(losses, parameters, ones, retain_graph=True)

        compare(f"{name}: gradients() over torch.autograd.grad()", ours, theirs, calls)

    train = [sys.executable, "-m", "trainer", "--config", str(CONFIG), "stop.steps=1"]
    imports = [sys.executable, "-c", "import torch"]

    with tempfile.TemporaryDirectory() as folder:

        def process(command: list[str]) -> Callable[[], object]:
            return lambda: subprocess.run(command, cwd=folder, capture_output=True, check=True)

        compare("start to first step over `import torch`", process(train), process(imports), 1)


if __name__ == "__main__":
    sys.modules["benchmark_loop"] = sys.modules["__main__"]
    main()
