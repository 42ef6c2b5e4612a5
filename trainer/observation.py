"""One step while it is made: gradients measured before its update, the change after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import compress
from operator import attrgetter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainer import statistics
from trainer.activations import Activations
from trainer.leftover import Leftover, leftover
from trainer.record import UNDEFINED, StepRecord, TensorTable
from trainer.shards import here
from trainer.watched import Watched

_VERSION = attrgetter("_version")


class Unobserved:
    """The context of a step that nobody looks at: does nothing, costs nothing."""

    record: StepRecord | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def clipped(self, coefficient: Tensor | float) -> None:
        """As for a step that is observed."""


class Observation(Unobserved):
    """Measures the gradients when its context begins, the change of the parameters when it ends.

    All results stay on their devices until the end and are then copied to the host at once;
    `record` is there afterwards, and `done` has been called with it.
    """

    def __init__(
        self,
        step: int,
        watched: Watched,
        activations: Activations,
        loss: Tensor | float | None,
        optimizer: torch.optim.Optimizer | None,
        before: Leftover | None,
        histograms: bool,
        step_ms: float,
        done: Callable[[Observation], None],
    ) -> None:
        self.step = step
        self.entered = False
        self.leftover: Leftover | None = None  # of the gradients, for the step after
        self._watched = watched
        self._activations = activations
        self._loss = loss
        self._optimizer = optimizer
        self._before = before  # None: the step before was not observed
        self._learning_rate = math.nan
        self._histograms = histograms
        self._step_ms = step_ms
        self._done = done
        self._clip_coefficient: Tensor | float | None = None

    def clipped(self, coefficient: Tensor | float) -> None:
        """Tells by what a loop of its own has multiplied the gradients (1: not at all)."""
        self._clip_coefficient = coefficient

    def __enter__(self) -> Self:
        started, self.entered = time.perf_counter(), True
        self._wall_time = time.time()
        self._layers = self._activations.watching
        self._activations.pause()
        watched = self._watched
        watched.look()
        gradients = watched.gradients()
        self._carried = math.nan if self._before is None else self._before.carried(gradients)
        self._gradients = [gradient for gradient in gradients if gradient is not None]
        self._names = watched.names
        if len(self._gradients) < len(gradients):
            present = [gradient is not None for gradient in gradients]
            self._names = tuple(compress(watched.names, present))
        self._versions = [*map(_VERSION, self._gradients)]
        values = here(self._gradients)
        self._moments, self._counts = statistics.summarize(values, self._histograms)
        self._squares = watched.snapshot.take(watched.values)
        # Seen by every optimizer that steps inside; the first is the one that is told of.
        self._hook, optimizer = None, self._optimizer
        self._optimizer = None
        if optimizer is None:
            self._hook = register_optimizer_step_pre_hook(self._optimizer_steps)
        else:
            self._optimizer_steps(optimizer)
        self._seconds = time.perf_counter() - started
        self._seconds += self._activations.seconds if self._layers else 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
        if kind is None:
            self.record = self._made()
        else:
            self._activations.release()
        self._gradients = []  # the monitor, and maybe the loop, keeps its last observation
        if self.record is not None:
            self._done(self)

    def _made(self) -> StepRecord:
        started = time.perf_counter()
        watched = self._watched
        if self.leftover is None:
            self.leftover = leftover(self.step, watched.gradients(), watched.parameters)
        changes = watched.snapshot.changes(here(watched.trained))
        tables = [self._moments, self._squares, changes]
        tables += [] if self._counts is None else [self._counts]
        numbers = {
            "loss": self._loss,
            "coefficient": self._clip_coefficient,
            "norm_after": self._norm_after() if self._clip_coefficient is None else None,
        }
        read = {key: _readable(n) for key, n in numbers.items() if isinstance(n, Tensor)}
        results = self._activations.results() if self._layers else []
        arrays = statistics.fetch([*tables, *read.values(), *results])
        layer_arrays = arrays[len(tables) + len(read) :]
        numbers |= {
            key: array.item() for key, array in zip(read, arrays[len(tables) :], strict=False)
        }

        moments, squares, changed = (array.astype(np.float64, copy=False) for array in arrays[:3])
        counts = None if self._counts is None else arrays[3]
        gradients = TensorTable(self._names, moments, counts)
        norms = gradients.norms().tolist()
        # hypot says that of infinity and NaN the norm is infinity.
        gradient_norm = math.hypot(*norms) if all(map(math.isfinite, norms)) else sum(norms)
        if numbers["norm_after"] and gradient_norm:
            numbers["coefficient"] = numbers["norm_after"] / gradient_norm
        with np.errstate(divide="ignore", invalid="ignore"):
            rms, ratio = np.sqrt(squares / watched.sizes), np.sqrt(changed[:, 0] / squares)
            unchanged = changed[:, 1] / watched.sizes
        layers = self._activations.table(layer_arrays) if self._layers else None
        loss = _number(numbers["loss"])
        seconds = self._seconds + time.perf_counter() - started
        return StepRecord(
            step=self.step,
            wall_time=self._wall_time,
            loss=UNDEFINED if self._loss is not None and math.isnan(loss) else loss,
            learning_rate=self._learning_rate,
            gradient_norm=gradient_norm,
            clip_coefficient=_number(numbers["coefficient"]),
            step_ms=self._step_ms,
            monitor_ms=1000 * seconds,
            carried_gradients=float(self._carried),
            optimizer="" if self._optimizer is None else type(self._optimizer).__name__,
            gradients=gradients,
            parameters=watched.trained_names,
            shapes=watched.shapes,
            dtypes=watched.dtypes,
            parameter_rms=rms,
            update_ratio=ratio,
            unchanged_fraction=unchanged,
            layers=layers,
        )

    def _norm_after(self) -> Tensor | None:
        """The norm of the gradients after the update, if something inside changed them in place:
        a clipping that the loop did not tell of."""
        values = here(self._gradients)
        if values is self._gradients and [*map(_VERSION, values)] == self._versions:
            return None  # shards have no versions
        dense = [each for each in values if each.layout is torch.strided]
        if len(dense) < len(self._gradients) or len({g.device for g in dense}) > 1:
            return None
        norms = [norm.float() for norm in torch._foreach_norm(dense)]
        after: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return after

    def _optimizer_steps(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._optimizer is None:
            self._optimizer = optimizer
            self._learning_rate = float(optimizer.param_groups[0]["lr"])
            # Now, since the user may clear the gradients before the context ends.
            watched = self._watched
            self.leftover = leftover(self.step, watched.gradients(), watched.parameters)


def told(loss: Tensor | float | None) -> Tensor | float | None:
    """A loss, as a number where that is in the host's memory: for others somebody has to wait."""
    if isinstance(loss, Tensor) and loss.is_cpu and loss.numel() == 1:
        return loss.item()
    return loss


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _readable(number: Tensor) -> Tensor:
    """A number of a kind that numpy knows, which has none for bfloat16."""
    number = number.detach().reshape(1)
    return number.float() if number.itemsize < 4 else number
