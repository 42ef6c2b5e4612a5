"""What one step of training does: differentiates the losses of its batches, clips and updates."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer import optimizers
from trainer.autograd import gradients
from trainer.clipping import clip
from trainer.data.batches import Batch
from trainer.experiment import Experiment

Probes = Callable[[], list[Tensor]]


class Training:
    """One experiment in training: differentiates the losses of its batches and steps."""

    def __init__(self, experiment: Experiment, probes: Probes = list) -> None:
        self._probes = probes
        self.model, self.loss = experiment.model, experiment.loss
        self.optimizer, self.schedule = experiment.optimizer, experiment.schedule
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.clip = experiment.config.clip
        self._accumulates = experiment.config.accumulate_steps
        self._means = experiment.config.loss.reduction == "mean"
        self._step = optimizers.step_function(self.optimizer)
        self._closure = optimizers.needs_closure(self.optimizer)
        self._batches = experiment.batches
        self._current: list[Batch] = []
        self._losses: list[tuple[Tensor, Tensor | None]] = []

    def differentiate(self) -> None:
        """Draws the batches of a step and leaves the gradients of their cost in every `.grad`."""
        batches = self._batches
        self._current = [next(batches) for _ in range(self._accumulates)]
        self._differentiate()

    def _differentiate(self) -> None:
        self._losses = []
        shared = self._means and self._accumulates > 1
        total = sum(batch.weight for batch in self._current) if shared else 1
        for number, batch in enumerate(self._current):
            losses = self.loss(self.model(batch.x), batch.y)  # (B,) or (B, outputs) or (B, time)
            weights = batch.grad_losses(losses)
            if shared and weights is not None:
                # The mean over all batches together: the last of a pass may be smaller, and the
                # samples of one may weigh more.
                weights = weights * batch.weight / total
            # What is only looked at is differentiated by the same call.
            found = gradients(losses, [*self.parameters, *self._probes()], weights)
            for parameter, gradient in zip(self.parameters, found, strict=False):
                if number == 0:
                    parameter.grad = gradient
                elif gradient is not None:
                    before = parameter.grad
                    parameter.grad = gradient if before is None else before + gradient
            self._losses.append((losses.detach(), weights))

    def cost(self) -> Tensor:
        """The cost of the step: the sum of its losses, each times its weight."""
        parts = [
            losses.sum() if weights is None else torch.sum(losses * weights)
            for losses, weights in self._losses
        ]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum()

    def finite(self, cost: Tensor | float | None) -> bool:
        """Whether cost and gradients are; reads one number back to the host."""
        present = [p.grad for p in self.parameters if p.grad is not None]
        dense = [g.coalesce().values() if g.is_sparse else g for g in present]
        filled = [g for g in dense if g.numel()]
        largest = list(torch._foreach_norm(filled, math.inf)) if filled else []
        if isinstance(cost, Tensor):
            largest.append(cost.detach())
        elif cost is not None and not math.isfinite(cost):
            return False
        return not largest or bool(torch.isfinite(torch.stack(largest)).all())

    def update(self) -> Tensor | float:
        """Clips and steps; the clip coefficient, NaN without clipping."""
        coefficient = clip(self.parameters, self.clip.max_grad_norm, self.clip.max_grad_value)
        if self._closure:
            optimizers.closure_step(self.optimizer, self._again)
        else:
            self._step()
        if not self.schedule.constant:
            self.schedule.step()
        return coefficient

    @torch.enable_grad()
    def _again(self) -> Tensor:
        self._differentiate()
        return self.cost()
