"""One training program of the benchmark: what is trained, what is wrong with it, how it ends."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer import Monitor
from trainer.record import StepRecord

Optimizers = list[torch.optim.Optimizer]


@dataclass
class Run:
    """A program with its seed: everything that one training needs."""

    model: nn.Module
    loss: Callable[[], Tensor]  # of the next batch
    optimizers: Optimizers
    evaluate: Callable[[], float] = lambda: math.nan  # the loss over all training rows
    constant: float = math.nan  # that of the best constant prediction
    before_step: Callable[[], None] = lambda: None  # clipping, say
    after_step: Callable[[], None] = lambda: None  # a schedule, say
    backwards: int = 1  # batches whose gradients are added up for a step
    zeroes: bool = True  # whether gradients are set to none after a step


@dataclass(frozen=True)
class Program:
    """How to make a run from a seed, and what the diagnosis should say of it."""

    name: str
    make: Callable[[int], Run]
    steps: int = 400
    verdicts: frozenset[str] = frozenset()  # any of these is right; none: it is healthy
    where: tuple[str, ...] = ()  # starts of the names of layers that are right; none: any
    causes: tuple[str, ...] = ()  # right categories of cause; none: any
    reaches: float | None = None  # a loss that a healthy run without a constant prediction reaches

    @property
    def family(self) -> str:
        """The part of the name before the first slash."""
        return self.name.partition("/")[0]


@dataclass
class Trace:
    """What was seen of one run and how it ended."""

    program: str
    seed: int
    records: list[StepRecord] = field(default_factory=list)
    final: float = math.nan
    constant: float = math.nan
    steps: int = 0
    last: float | None = None  # the median of the last losses that the monitor was told


def run(program: Program, seed: int, keys: dict[str, int | None]) -> Trace:
    """Trains the program with this seed, watched with these keys of `Monitor`."""
    torch.manual_seed(seed)
    made, trace = program.make(seed), Trace(program.name, seed)
    trace.constant = made.constant
    with Monitor(made.model, sinks=[trace.records.append], **keys) as monitor:
        losses = deque[float](maxlen=5)
        for step in range(program.steps):
            loss = made.loss() / made.backwards
            loss.backward()
            for _ in range(made.backwards - 1):
                part = made.loss() / made.backwards
                part.backward()
                loss = loss.detach() + part.detach()
            with monitor.step(step, loss):
                made.before_step()
                for optimizer in made.optimizers:
                    optimizer.step()
            made.after_step()
            if made.zeroes:
                for parameter in made.model.parameters():
                    parameter.grad = None
            trace.steps = step + 1
            losses.append(loss.item())
            if trace.records and not math.isfinite(trace.records[-1].loss):
                break
    trace.last, trace.final = statistics.median(losses), made.evaluate()
    return trace


def batches(rows: int, size: int, seed: int) -> Iterator[Tensor]:
    """Row numbers of batches for ever, each pass in a new order."""
    generator = torch.Generator().manual_seed(seed)
    size = min(size, rows)
    while True:
        order = torch.randperm(rows, generator=generator)
        yield from itertools.islice(order.split(size), rows // size)


def supervised(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer | Optimizers,
    seed: int,
    batch: int = 32,
    **extra: object,
) -> Run:
    """The run that fits a model to a task."""
    numbers = batches(len(task.x), batch, seed)

    def loss() -> Tensor:
        rows = next(numbers)
        return task.loss(model(task.x[rows]), task.y[rows])

    def evaluate() -> float:
        was = model.training
        model.eval()
        with torch.no_grad():
            total = sum(
                float(task.loss(model(x), y)) * len(x)
                for x, y in zip(task.x.split(512), task.y.split(512), strict=True)
            )
        model.train(was)
        return total / len(task.x)

    made = optimizer if isinstance(optimizer, list) else [optimizer]
    return Run(model, loss, made, evaluate, task.constant, **extra)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Task:
    """Rows, and what a prediction of them costs."""

    x: Tensor
    y: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    outputs: int
    constant: float  # the loss of the best prediction that is the same for all rows

    @property
    def inputs(self) -> int:
        """Values of a row."""
        return self.x[0].numel()
