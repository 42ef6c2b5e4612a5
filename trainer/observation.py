"""One step while it is made: gradients measured before its update, the change after it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from trainer import statistics
from trainer.activations import Activations
from trainer.record import StepRecord, TensorTable

NamedParameter = tuple[str, nn.Parameter]


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
        parameters: Sequence[NamedParameter],
        activations: Activations,
        copies: list[Tensor] | None,
        loss: Tensor | float | None,
        learning_rate: float | None,
        histograms: bool,
        step_ms: float,
        done: Callable[[Observation], None],
    ) -> None:
        self.step = step
        self.copies = copies  # of the trainable parameters; memory that is used again
        self._parameters = parameters
        self._activations = activations
        self._loss = loss
        self._learning_rate = learning_rate
        self._histograms = histograms
        self._step_ms = step_ms
        self._done = done
        self._clip_coefficient: Tensor | float | None = None

    def clipped(self, coefficient: Tensor | float) -> None:
        """Tells by what a loop of its own has multiplied the gradients (1: not at all)."""
        self._clip_coefficient = coefficient

    def __enter__(self) -> Self:
        started = time.perf_counter()
        self._wall_time = time.time()
        self._watched = self._activations.watching
        self._activations.pause()
        present = [(name, p.grad) for name, p in self._parameters if p.grad is not None]
        self._names = tuple(name for name, _ in present)
        self._gradients = [gradient for _, gradient in present]
        self._versions = [gradient._version for gradient in self._gradients]
        self._moments, self._counts = statistics.summarize(self._gradients, self._histograms)
        trainable = [(name, p) for name, p in self._parameters if p.requires_grad]
        self._trainable = tuple(name for name, _ in trainable)
        self._values = [parameter for _, parameter in trainable]
        self.copies, self._squares = statistics.snapshot(self._values, self.copies)
        # Seen by every optimizer that steps inside; the first tells the learning rate.
        self._hook = None
        if self._learning_rate is None:
            self._hook = register_optimizer_step_pre_hook(self._optimizer_steps)
        self._seconds = time.perf_counter() - started
        self._seconds += self._activations.seconds if self._watched else 0
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
            self._done(self)
        else:
            self._activations.release()

    def _made(self) -> StepRecord:
        started = time.perf_counter()
        assert self.copies is not None
        changes = statistics.squared_changes(self._values, self.copies)
        tables = [self._moments, self._squares, changes]
        tables += [] if self._counts is None else [self._counts]
        numbers = {
            "loss": self._loss,
            "coefficient": self._clip_coefficient,
            "norm_after": self._norm_after() if self._clip_coefficient is None else None,
        }
        read = {key: n.detach().reshape(1) for key, n in numbers.items() if isinstance(n, Tensor)}
        results = self._activations.results() if self._watched else []
        arrays = statistics.fetch([*tables, *read.values(), *results])
        layer_arrays = arrays[len(tables) + len(read) :]
        numbers |= {
            key: array.item() for key, array in zip(read, arrays[len(tables) :], strict=False)
        }

        moments, squares, changed = (array.astype(np.float64, copy=False) for array in arrays[:3])
        counts = None if self._counts is None else arrays[3]
        gradients = TensorTable(self._names, moments, counts)
        gradient_norm = float(np.linalg.norm(gradients.norms()))
        if numbers["norm_after"] and gradient_norm:
            numbers["coefficient"] = numbers["norm_after"] / gradient_norm
        sizes = np.array([value.numel() for value in self._values], dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            rms, ratio = np.sqrt(squares / sizes), np.sqrt(changed / squares)
        layers = self._activations.table(layer_arrays) if self._watched else None
        seconds = self._seconds + time.perf_counter() - started
        return StepRecord(
            step=self.step,
            wall_time=self._wall_time,
            loss=_number(numbers["loss"]),
            learning_rate=_number(self._learning_rate),
            gradient_norm=gradient_norm,
            clip_coefficient=_number(numbers["coefficient"]),
            step_ms=self._step_ms,
            monitor_ms=1000 * seconds,
            gradients=gradients,
            parameters=self._trainable,
            parameter_rms=rms,
            update_ratio=ratio,
            layers=layers,
        )

    def _norm_after(self) -> Tensor | None:
        """The norm of the gradients after the update, if something inside changed them in place:
        a clipping that the loop did not tell of."""
        same = zip(self._gradients, self._versions, strict=True)
        if all(gradient._version == version for gradient, version in same):
            return None
        dense = [gradient for gradient in self._gradients if gradient.layout is torch.strided]
        if len(dense) < len(self._gradients) or len({g.device for g in dense}) > 1:
            return None
        norms = [norm.float() for norm in torch._foreach_norm(dense)]
        after: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return after

    def _optimizer_steps(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._learning_rate is None:
            self._learning_rate = float(optimizer.param_groups[0]["lr"])


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
