"""Trains: the only loop there is, from the losses of a batch to the update of the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from trainer import random_numbers
from trainer.console import Console
from trainer.evaluation import Evaluation
from trainer.experiment import Experiment
from trainer.finding import Finding, Level
from trainer.monitor import Monitor
from trainer.progress import Keeper, Progress
from trainer.record import StepRecord
from trainer.training import Training

Logged = Callable[[int, dict[str, float]], None]  # a step and the values of tags


@dataclass(frozen=True)
class Result:
    """How training ended."""

    reason: str  # "cost", "steps", "patience", "not finite", "finding" or "interrupted"
    steps: int  # at which it ended
    training: Evaluation  # on the rows that were trained on, or the cost last looked at
    validation: Evaluation | None  # on those kept apart
    best_validation_loss: float | None = None
    finding: Finding | None = None  # that ended it
    skipped: int = 0  # steps without an update
    looked_at: int | None = None  # the step whose cost that is


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
                evaluation = validates(experiment.model, keeper.is_ending)
            if evaluation is None:  # whoever goes on from here validates again
                reason = keeper.pause(progress) or "interrupted"
                break
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
    cost, at = (latest.loss, latest.step) if latest is not None else (math.nan, None)
    result = Result(
        reason,
        progress.step,
        training=Evaluation(cost),
        validation=None,
        best_validation_loss=patience.best if validates is not None else None,
        finding=found if reason == "finding" else None,
        skipped=progress.skipped,
        looked_at=at,
    )
    if reason == "interrupted":
        return result
    return _evaluated(result, experiment, progress, keeper, log, validated_at)


def _evaluated(
    result: Result,
    experiment: Experiment,
    progress: Progress,
    keeper: Keeper,
    log: Logged | None,
    validated_at: int | None,
) -> Result:
    """A result with what the model does at the end of training; interrupted where a signal comes
    meanwhile: whoever goes on has that to do, and nothing else."""
    interrupted = replace(result, reason="interrupted", finding=None)
    if experiment.validation is not None:
        final = experiment.validation(experiment.model, keeper.is_ending)
        if final is None:
            return interrupted
        if result.reason != "not finite":  # whose last update is not in a checkpoint of that step
            keeper.validated(progress, final.cost)
        if log is not None and result.steps != validated_at:
            log(result.steps, tagged(final))
        best = min(progress.patience.best, final.cost)
        result = replace(result, validation=final, best_validation_loss=best)
    if experiment.training is not None:
        on_rows = experiment.training(experiment.model, keeper.is_ending)
        if on_rows is None:
            return interrupted
        result = replace(result, training=on_rows, looked_at=None)
    return result


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
