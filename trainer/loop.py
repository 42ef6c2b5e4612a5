"""Trains: the only loop there is, from the losses of a batch to the update of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer import optimizers, random_numbers
from trainer.autograd import gradients
from trainer.console import Console
from trainer.data.batches import Batch
from trainer.evaluation import Evaluation
from trainer.experiment import Experiment
from trainer.finding import Finding, Level
from trainer.monitor import Monitor
from trainer.progress import Keeper, Progress
from trainer.record import StepRecord

Logged = Callable[[int, dict[str, float]], None]  # a step and the values of tags
Probes = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Result:
    """How training ended."""

    reason: str  # "cost", "steps", "patience", "not finite", "finding" or "interrupted"
    steps: int  # at which it ended
    training: Evaluation  # on the rows that were trained on; interrupted, the cost last looked at
    validation: Evaluation | None  # on those kept apart
    best_validation_loss: float | None = None
    finding: Finding | None = None  # that ended it
    skipped: int = 0  # steps without an update
    looked_at: int | None = None  # of an interrupted run, the step that the cost is of


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
        coefficient = clipped(self.parameters, self.clip.max_grad_norm, self.clip.max_grad_value)
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


def run(
    experiment: Experiment,
    monitor: Monitor,
    console: Console,
    log: Logged | None = None,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Result:
    """Trains until one of the section `stop` holds, a number is not finite, or a finding of the
    level `stop_on` is there.

    `log` is given the values of validations, of each step once, at the step before whose update
    they hold. Training goes on from `progress`; `keeper` is told of it and may end it.
    """
    config, optimizer = experiment.config, experiment.optimizer
    training, stop_cost = Training(experiment, monitor.probes), config.stop.cost
    progress, keeper = progress or Progress(), keeper or Keeper()
    patience, validates = progress.patience, experiment.validation
    patience.steps = config.stop.patience_steps
    checks = config.on_nonfinite != "stop"
    on_host = experiment.device.type == "cpu"  # where the monitor sees at once what is not finite
    experiment.model.train()
    reason, found = "steps", None
    latest: StepRecord | None = None
    validated_at: int | None = None
    for step in range(progress.step, config.stop.steps):
        progress.step = step
        if (told := keeper.pause(progress)) is not None:
            reason = told
            break
        if validates is not None and step % config.validation.every_steps == 0:
            with random_numbers.same(experiment.device):
                evaluation = validates(experiment.model)
            keeper.validated(progress, evaluation.cost)
            experiment.schedule.validated(evaluation.cost)
            validated_at = step
            if log is not None:
                log(step, tagged(evaluation))
            if patience.ended_by(step, evaluation.cost):
                reason = "patience"
                break
        training.differentiate()
        cost: Tensor | float | None = None
        if stop_cost is not None:
            cost = training.cost().item()  # what a stop at a cost needs
            if cost <= stop_cost:
                reason = "cost"
            elif not math.isfinite(cost) and not checks:
                reason = "not finite"
        elif checks or on_host or monitor.observes(step):
            cost = training.cost()
        bad = checks and reason == "steps" and not training.finite(cost)
        last = reason != "steps"
        with monitor.step(step, cost, optimizer, always=last or bad) as observation:
            if not last and not bad:
                observation.clipped(training.update())
        if bad:
            if config.on_nonfinite == "raise":
                raise FloatingPointError(f"the loss or a gradient is not finite at step {step}")
            progress.skipped += 1
        progress.step = step if last else step + 1
        if observation.record is not None:
            latest = observation.record
            if not (bad or math.isfinite(latest.loss) and math.isfinite(latest.gradient_norm)):
                reason, progress.step = "not finite", step
            found = fatal(monitor.findings, config.stop_on)
            if reason == "steps" and found is not None:
                reason = "finding"
        if reason != "steps":
            break
        if console.due:
            console.progress(step + 1, latest, progress.skipped)
    if reason not in ("interrupted", "not finite"):
        monitor.end()  # before the last checkpoint, which knows what was found
    keeper.ended(progress, reason)
    steps, final = progress.step, None
    best = patience.best if validates is not None else None
    ended_by = found if reason == "finding" else None
    if reason == "interrupted":
        cost, at = (latest.loss, latest.step) if latest is not None else (math.nan, None)
        return Result(reason, steps, Evaluation(cost), None, best, None, progress.skipped, at)
    if validates is not None:
        final = validates(experiment.model)
        if reason != "not finite":  # whose last update is not in a checkpoint of that step
            keeper.validated(progress, final.cost)
        if log is not None and steps != validated_at:
            log(steps, tagged(final))
        best = min(patience.best, final.cost)
    on_rows = experiment.training(experiment.model)
    return Result(reason, steps, on_rows, final, best, ended_by, progress.skipped)


def fatal(findings: Iterable[Finding], level: Level | None) -> Finding | None:
    """The first finding of at least this level that has not ended; None where the level is None."""
    fitting = (f for f in findings if level and f.at_least(level) and not f.resolved)
    return next(fitting, None)


def tagged(evaluation: Evaluation) -> dict[str, float]:
    """The values of a validation by their TensorBoard tags; the loss has the unit of
    `loss/train`."""
    metrics = {f"{name}/validation": value for name, value in evaluation.metrics.items()}
    standardized = evaluation.standardized
    cost = evaluation.cost if standardized is None else standardized
    return {"loss/validation": cost, **metrics}


def clipped(
    parameters: list[torch.nn.Parameter], max_norm: float | None, max_value: float | None
) -> Tensor | float:
    """Cuts single values of the gradients, then scales all so that their L2 norm is bounded.

    The result is what the norm was multiplied by, NaN where nothing is bounded. Computed as
    torch.nn.utils.clip_grad_norm_ does, which reads nothing back to the host.
    """
    present = [p.grad for p in parameters if p.grad is not None]
    if not present or max_norm is None and max_value is None:
        return math.nan
    norm = before = torch.nn.utils.get_total_norm(present)
    if max_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, max_value)
        norm = torch.nn.utils.get_total_norm(present)
    coefficient = torch.ones_like(norm)
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        coefficient = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
    if max_value is not None:  # gradients of zero are left as they are
        coefficient = coefficient * torch.where(before > 0, norm / before, 1.0)
    return coefficient
