"""Turns a configuration into the things that are trained: data, model, loss and optimizer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from trainer import callables, data, devices, losses, models, optimizers, schedules
from trainer.config import Config, ConfigError, Problem, located, schema
from trainer.config.source import Document
from trainer.data.batches import Batches
from trainer.evaluation import Evaluator
from trainer.losses import LossFunction
from trainer.patterns import Patterns
from trainer.schedules import Schedule

T = TypeVar("T")
Rows = data.Table | data.Stream


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
    training: Evaluator  # on the rows that are trained on
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
        _check_table(rows, config.dtype, document)
    _check_metrics(config, rows, document)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # start values are drawn in the type they are used in
    try:
        model = _attempt(
            document, "model", lambda: models.build(config.model, rows.shape).to(device, dtype)
        )
        loss = _attempt(
            document, "loss", lambda: losses.make(config.loss.name, config.loss.arguments)
        )
    finally:
        torch.set_default_dtype(default)
    loss = _on_device(loss, device, dtype)
    _attempt(document, "monitor", lambda: Patterns(model, config.monitor))
    sparse = _probe(model, loss, rows, config, document)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise _fault(document, ("model",), "the model has no parameter that requires a gradient")
    optimizer = _attempt(
        document, "optimizer", lambda: optimizers.build(config.optimizer, parameters)
    )
    if not sparse and isinstance(optimizer, torch.optim.SparseAdam):
        message = (
            "SparseAdam needs sparse gradients, and no layer of the model gives them; use Adam"
        )
        raise _fault(document, ("optimizer", "name"), message)
    schedule = _attempt(document, "schedule", lambda: Schedule(config.schedule, optimizer))
    reduction, section = config.loss.reduction, config.data
    batches = Batches(rows, section.batch_size, section.shuffle, reduction, config.seed)
    threshold = losses.threshold(config.loss.name)
    on_rows = Evaluator(rows, loss, reduction, config.metrics, threshold)
    on_kept = None if kept is None else Evaluator(kept, loss, reduction, config.metrics, threshold)
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

    return _attempt(document, "data", read)


def _as_loss_wants(rows: Rows, config: Config) -> Rows:
    """Two classes as one column of 0 and 1 for a loss of single values, such as bce_with_logits."""
    two = isinstance(rows, data.Table) and rows.classes == 2 and rows.y.dim() == 1
    if two and isinstance(rows, data.Table) and losses.threshold(config.loss.name) is not None:
        return replace(rows, y=rows.y[:, None].to(getattr(torch, config.dtype)), classes=None)
    return rows


def _check_table(table: data.Table, dtype: str, document: Document) -> None:
    """Raises where a value does not fit the type that it is used in, or where no row counts."""
    for key, values in {"x": table.x, "y": table.y, "weights": table.weights}.items():
        numbers = values if values is not None and values.is_floating_point() else torch.empty(0)
        if not bool(torch.isfinite(numbers).all()):
            message = f"{key} holds values that are not finite in {dtype}"
            raise _fault(document, ("data", key), message)
    weights = table.weights
    if weights is not None and (bool((weights < 0).any()) or not bool((weights > 0).any())):
        message = "expected sample weights of 0 or more, at least one of them above 0"
        raise _fault(document, ("data", "weights"), message)


def _check_metrics(config: Config, rows: Rows, document: Document) -> None:
    classes = rows.shape.classes or losses.threshold(config.loss.name) is not None
    for index, metric in enumerate(config.metrics):
        if (metric == "accuracy") != classes:
            wanted = "classes" if metric == "accuracy" else "numbers"
            got = "classes" if classes else "numbers"
            message = f"{metric} is for targets that are {wanted}; the data give {got}"
            raise _fault(document, ("metrics", index), message)


def _on_device(loss: LossFunction, device: torch.device, dtype: torch.dtype) -> LossFunction:
    """The loss with what it holds (class weights, say) where the data are."""
    if isinstance(loss, nn.Module):
        return loss.to(device, dtype)
    for cell in getattr(loss, "__closure__", None) or ():
        if isinstance(cell.cell_contents, nn.Module):
            cell.cell_contents.to(device, dtype)
    return loss


def _probe(
    model: nn.Module, loss: LossFunction, rows: Rows, config: Config, document: Document
) -> bool:
    """Raises where two rows do not pass through model and loss; leaves no trace in the model.

    Whether a layer says that its gradients are sparse.
    """
    device = rows.x.device if isinstance(rows, data.Table) else rows.device
    first = [torch.arange(min(2, len(rows)), device=device)]
    x, y, _ = _attempt(document, "data", lambda: next(iter(rows.parts(first))))
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        prediction = _attempt(document, "model", lambda: model(x))
        if not isinstance(prediction, Tensor):
            got = f"it gives a {type(prediction).__name__}, expected a tensor"
            raise _fault(document, ("model",), got)
        misfit = losses.misfit(config.loss.name, prediction, y)
        if misfit is not None:
            raise _fault(document, ("model",), misfit)
        values = _attempt(document, "loss", lambda: loss(prediction, y))
    model.train(was_training)
    if not isinstance(values, Tensor):
        got = f"it gives a {type(values).__name__}, expected a tensor"
        raise _fault(document, ("loss",), got)
    if values.dim() == 0 or values.shape[0] != len(x):
        wanted = "one value per sample (reduction='none' inside; `loss.reduction` does the rest)"
        got = f"{len(x)} samples give shape {tuple(values.shape)}; expected {wanted}"
        raise _fault(document, ("loss",), got)
    return any(getattr(module, "sparse", False) is True for module in model.modules())


def _attempt(document: Document, key: str, make: Callable[[], T]) -> T:
    """The result of a call into code that the configuration names; its errors become ours."""
    try:
        return make()
    except ConfigError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _fault(document, (key,), "takes more memory than there is") from error
    except (Exception, SystemExit) as error:  # the user's code or arguments, whatever they raise
        name = f"{type(error).__name__}: " if not isinstance(error, ValueError | TypeError) else ""
        argument = str(error).partition(":")[0]
        path = (key, argument) if argument in document.tree.get(key, {}) else (key,)
        message = str(error).removeprefix(f"{argument}: ") if len(path) == 2 else str(error)
        raise _fault(document, path, f"{name}{message}") from error


def _fault(document: Document, path: tuple[str | int, ...], message: str) -> ConfigError:
    return located(document, [Problem(path, message)])
