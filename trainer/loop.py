"""Trains: the only loop there is, from the losses of a batch to the update of the parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import optimizers
from trainer.autograd import gradients
from trainer.console import Console
from trainer.experiment import Experiment
from trainer.monitor import Monitor


@dataclass(frozen=True)
class Result:
    """How training ended."""

    steps: int  # at which it ended
    cost: float  # over all rows, in the units of the data
    reason: str  # "cost", "steps" or "not finite"


def run(experiment: Experiment, monitor: Monitor, console: Console) -> Result:
    """Trains until the cost or the number of steps is reached, or a number is not finite."""
    config, optimizer = experiment.config, experiment.optimizer
    model, loss = experiment.model, experiment.loss
    parameters = [p for p in model.parameters() if p.requires_grad]
    max_norm, stop_cost = config.clip.max_grad_norm, config.stop.cost
    update = optimizers.step_function(optimizer)
    closure_optimizer = optimizers.needs_closure(optimizer)
    batches = iter(experiment.batches)
    batch = next(batches)
    model.train()

    def differentiate() -> tuple[Tensor, Tensor | None]:
        """The losses of the batch and their weights; leaves the gradients in every `.grad`."""
        losses = loss(model(batch.x), batch.y)  # (B,) or (B, outputs)
        weights = batch.grad_losses(losses)
        for parameter, gradient in zip(
            parameters, gradients(losses, parameters, weights), strict=True
        ):
            parameter.grad = gradient
        return losses.detach(), weights

    def advance() -> Tensor | float:
        """Clips and updates; the clip coefficient, NaN without clipping."""
        coefficient: Tensor | float = math.nan
        if max_norm is not None:
            coefficient = clip(parameters, max_norm)
        if closure_optimizer:
            closure = torch.enable_grad()(lambda: total(*differentiate()))
            optimizers.closure_step(optimizer, closure)
        else:
            update()
        return coefficient

    reason, steps = "steps", config.stop.steps
    latest_cost = latest_norm = math.nan
    for step in range(config.stop.steps):
        losses, weights = differentiate()
        cost: Tensor | float | None = None
        if stop_cost is not None:
            cost = latest_cost = total(losses, weights).item()  # what a stop at a cost needs
            if cost <= stop_cost:
                reason = "cost"
            elif not math.isfinite(cost):
                reason = "not finite"
        last = reason != "steps"
        if cost is None and monitor.observes(step):
            cost = total(losses, weights)
        learning_rate = optimizer.param_groups[0]["lr"]
        with monitor.step(step, cost, learning_rate, always=last) as observation:
            if not last:
                observation.clipped(advance())
        if observation.record is not None:
            latest_cost, latest_norm = observation.record.loss, observation.record.gradient_norm
            if not (math.isfinite(latest_cost) and math.isfinite(latest_norm)):
                reason = "not finite"
        if reason != "steps":
            steps = step
            break
        if console.due:
            console.progress(step + 1, latest_cost, latest_norm)
        batch = next(batches)
    return Result(steps, experiment.evaluate(), reason)


def total(losses: Tensor, weights: Tensor | None) -> Tensor:
    """The cost: the sum of the losses, each times its weight."""
    return losses.sum() if weights is None else torch.sum(losses * weights)


def clip(parameters: list[torch.nn.Parameter], max_norm: float) -> Tensor:
    """Scales the gradients so that their common L2 norm is at most `max_norm`; the coefficient.

    Computed as torch.nn.utils.clip_grad_norm_ does, which reads nothing back to the host.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return torch.clamp(max_norm / (norm + 1e-6), max=1.0)
