"""Turns a configuration into the things that are trained: data, model, loss and optimizer."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from trainer import callables, data, devices, losses, misfits, models, optimizers, schedules
from trainer.config import Config, Problem, located, schema
from trainer.config.source import Document
from trainer.data import Rows
from trainer.data.batches import Batches
from trainer.evaluation import ROWS_AT_ONCE, Evaluator
from trainer.faults import attempt, fault
from trainer.losses import LossFunction
from trainer.monitor.patterns import Patterns
from trainer.schedules import Schedule


@dataclass(frozen=True)
class Experiment:
    """Everything that a configuration names, built and on its device."""

    config: Config
    device: torch.device
    rows: Rows  # for training
    batches: Batches
    model: nn.Module
    loss: LossFunction
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    training: Evaluator | None  # on the rows that are trained on, unless that takes too long
    validation: Evaluator | None  # on those kept apart


def check(tree: dict[str, Any]) -> list[Problem]:
    """What is wrong with a tree that only torch or an import can know."""
    problems: list[Problem] = []
    chosen = torch.device("cpu")
    device, dtype = tree.get("device", "auto"), tree.get("dtype", "float32")
    if isinstance(device, str):
        try:
            chosen = devices.choose(device, str(dtype))
        except ValueError as error:
            problems.append(Problem(("device",), str(error)))
    problems += optimizers.check(tree, chosen) + losses.check(tree)
    problems += models.check(tree) + schedules.check(tree)
    for key in ("data", "model"):
        section = tree.get(key)
        name = section.get("name") if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(name, str) or ":" not in name:
            continue
        try:
            thing = callables.load(name)
        except ValueError as error:
            problems.append(Problem((key, "name"), str(error)))
            continue
        own = schema.KINDS[key][-1].model_fields
        arguments = {k: v for k, v in section.items() if k not in own}
        problems += callables.argument_problems(thing, arguments, (key,))
    return problems


def build(config: Config, document: Document) -> Experiment:
    """The experiment of a checked configuration; raises ConfigError where data or shapes misfit."""
    _check_relations(config, document)
    device, dtype = devices.choose(config.device, config.dtype), getattr(torch, config.dtype)
    devices.same_bits(config.deterministic)
    seed_everything(config.seed)
    rows, kept = _rows(config, document)
    rows = _as_loss_wants(rows.to(device, dtype), config)
    kept = kept and _as_loss_wants(kept.to(device, dtype), config)
    if isinstance(rows, data.Table):
        misfits.check_table(rows, config.dtype, document)
    for table in (rows, kept):
        if isinstance(table, data.Table):
            misfits.check_targets(config, table, document)
    misfits.check_metrics(config, rows, document)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # start values are drawn in the type they are used in
    try:
        model = attempt(
            document, "model", lambda: models.build(config.model, rows.shape).to(device, dtype)
        )
        loss = attempt(
            document, "loss", lambda: losses.make(config.loss.name, config.loss.arguments)
        )
        counts = None  # which only a mean is divided by
        if config.loss.reduction == "mean":
            counts = losses.counts(config.loss.name, config.loss.arguments)
    finally:
        torch.set_default_dtype(default)
    loss = _on_device(loss, device, dtype)
    attempt(document, "monitor", lambda: Patterns(model, config.monitor))
    sparse = misfits.probe(model, loss, rows, config, document)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise fault(document, ("model",), "the model has no parameter that requires a gradient")
    optimizer = attempt(
        document, "optimizer", lambda: optimizers.build(config.optimizer, parameters)
    )
    if not sparse and isinstance(optimizer, torch.optim.SparseAdam):
        message = (
            "SparseAdam needs sparse gradients, and no layer of the model gives them; use Adam"
        )
        raise fault(document, ("optimizer", "name"), message)
    misfits.check_gradients(config, model, optimizer, document)
    schedule = attempt(
        document,
        "schedule",
        lambda: schedules.build(config.schedule, optimizer, config.stop.steps),
    )
    reduction, section = config.loss.reduction, config.data
    batches = Batches(rows, section.batch_size, section.shuffle, reduction, config.seed, counts)
    evaluator = partial(
        Evaluator,
        loss=loss,
        reduction=reduction,
        metrics=config.metrics,
        threshold=losses.threshold(config.loss.name),
        counts=counts,
        rows_at_once=section.batch_size or ROWS_AT_ONCE,
    )
    on_kept = None if kept is None else evaluator(kept)
    # A Dataset that is read anew may be as large as it likes.
    on_rows = None if isinstance(rows, data.Stream) and kept is not None else evaluator(rows)
    return Experiment(
        config, device, rows, batches, model, loss, optimizer, schedule, on_rows, on_kept
    )


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's (all devices') global random numbers."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _check_relations(config: Config, document: Document) -> None:
    problems = []
    if config.schedule.warmup_steps > config.stop.steps:
        message = f"{config.schedule.warmup_steps} is more than stop.steps ({config.stop.steps})"
        problems.append(Problem(("schedule", "warmup_steps"), message))
    if config.stop.patience_steps is not None and not config.validation.fraction:
        message = "there is no validation loss to wait for; set validation.fraction"
        problems.append(Problem(("stop", "patience_steps"), message))
    if config.stop_on is not None and not config.monitor.diagnose:
        problems.append(Problem(("stop_on",), "nothing is found while monitor.diagnose is false"))
    if problems:
        raise located(document, problems)


def _rows(config: Config, document: Document) -> tuple[Rows, Rows | None]:
    """The rows for training and those for validation, scaled alike."""

    def read() -> tuple[Rows, Rows | None]:
        try:
            rows: Rows = data.read(config.data, config.seed)
            if not config.validation.fraction:
                return rows.scaled(), None
            training: Rows
            kept: Rows
            training, kept = rows.split(config.validation.fraction, config.seed)
        except data.DataError as error:
            raise located(document, error.problems) from None
        # Both are scaled as the training rows are; those for validation tell nothing.
        return training.scaled(), kept.scaled(training)  # type: ignore[arg-type]

    return attempt(document, "data", read)


def _as_loss_wants(rows: Rows, config: Config) -> Rows:
    """Two classes as one column of 0 and 1 for a loss of single values, such as bce_with_logits."""
    shape = rows.shape
    two = shape.classes and shape.outputs == 2 and not shape.per_position
    if not two or losses.threshold(config.loss.name) is None:
        return rows
    if isinstance(rows, data.Stream):
        return replace(rows, as_numbers=True, shape=replace(shape, outputs=1, classes=False))
    return replace(rows, y=rows.y[:, None].to(getattr(torch, config.dtype)), classes=None)


def _on_device(loss: LossFunction, device: torch.device, dtype: torch.dtype) -> LossFunction:
    """The loss with what it holds (class weights, say) where the data are."""
    if isinstance(loss, nn.Module):
        return loss.to(device, dtype)
    for cell in getattr(loss, "__closure__", None) or ():
        if isinstance(cell.cell_contents, nn.Module):
            cell.cell_contents.to(device, dtype)
    return loss
