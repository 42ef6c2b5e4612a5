"""How well a model does on rows it is shown without learning: its cost and its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer.data.batches import Counts, counted
from trainer.data.stream import Stream
from trainer.data.table import Table
from trainer.losses import LossFunction

ROWS_AT_ONCE = 1024  # where the model learns from all of them at once


@dataclass(frozen=True)
class Evaluation:
    """Cost and metrics over all rows, in the units that the data came in."""

    cost: float
    metrics: dict[str, float] = field(default_factory=dict)
    standardized: float | None = None  # the cost in the units trained on, where those are others


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a model on rows, without changing it or drawing random numbers."""

    rows: Table | Stream
    loss: LossFunction
    reduction: str  # as of a configuration's loss: sum or mean
    metrics: Sequence[str] = ()
    threshold: float | None = None  # from what prediction on a single output means class 1
    counts: Counts | None = None  # of targets, in a mean; None for ones
    rows_at_once: int = ROWS_AT_ONCE  # of a model, which may have memory for no more

    def __call__(
        self, model: nn.Module, given_up: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """The cost (the weighted sum or mean of the losses) and the metrics of the model; None
        where it was `given_up` meanwhile."""
        was_training = model.training
        model.eval()
        try:
            return self._evaluated(model, given_up)
        finally:
            model.train(was_training)

    def _evaluated(self, model: nn.Module, given_up: Callable[[], bool]) -> Evaluation | None:
        cost = weight = standardized = 0.0
        metrics = {name: METRICS[name](self.threshold) for name in self.metrics}
        scale = self.rows.y_scale if isinstance(self.rows, Table) else None
        device = self.rows.x.device if isinstance(self.rows, Table) else self.rows.device
        numbers = torch.arange(len(self.rows), device=device)
        with torch.no_grad():
            for x, y, weights in self.rows.parts(torch.split(numbers, self.rows_at_once)):
                if given_up():
                    return None
                prediction = model(x)
                counts = None if self.counts is None else self.counts(y)
                if scale is not None:
                    standardized += _sums(self.loss(prediction, y), weights, counts)[0]
                    prediction, y = scale.undo(prediction), scale.undo(y)
                of_part, weight_of_part = _sums(self.loss(prediction, y), weights, counts)
                cost, weight = cost + of_part, weight + weight_of_part
                for metric in metrics.values():
                    metric.add(prediction, y)
        if self.reduction == "mean":
            cost, standardized = ((s / weight if weight else 0.0) for s in (cost, standardized))
        found = {name: metric.value() for name, metric in metrics.items()}
        return Evaluation(cost, found, None if scale is None else standardized)


def _sums(losses: Tensor, weights: Tensor | None, counts: Tensor | None) -> tuple[float, float]:
    """The sum of losses, each times the weight of its row, and what a mean is divided by."""
    divisor = counted(weights, torch.ones_like(losses) if counts is None else counts)
    return (
        counted(weights, losses).sum(dtype=torch.float64).item(),
        divisor.sum(dtype=torch.float64).item(),
    )


class Accuracy:
    """The share of predictions whose largest entry is the right class."""

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._right = self._all = 0

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Takes predictions (B, C), (B, T, C) or (B, C, H, W, …) and the classes of all that is not
        C, or one output each."""
        if target.is_floating_point():
            limit = 0.5 if self._threshold is None else self._threshold
            right = (prediction > limit) == (target > 0.5)
        else:
            right = prediction.argmax(1 if prediction.dim() > 3 else -1) == target
        self._right += int(right.sum())
        self._all += right.numel()

    def value(self) -> float:
        """The share so far."""
        return self._right / self._all


class R2:
    """The coefficient of determination: 1 - Σ(y-ŷ)² / Σ(y-mean y)², averaged over the outputs."""

    def __init__(self, threshold: float | None) -> None:
        self._targets: list[Tensor] = []
        self._residual: Tensor | float = 0.0  # (outputs,)

    def add(self, prediction: Tensor, target: Tensor) -> None:
        """Takes predictions and targets (B, outputs)."""
        self._targets.append(target.double())
        self._residual = self._residual + (target.double() - prediction.double()).square().sum(0)

    def value(self) -> float:
        """R² so far; NaN where the targets do not vary."""
        targets = torch.cat(self._targets)
        total = (targets - targets.mean(0)).square().sum(0)
        return float((1 - self._residual / total.where(total > 0, math.nan)).mean())


METRICS: dict[str, Callable[[float | None], Accuracy | R2]] = {"accuracy": Accuracy, "r2": R2}
