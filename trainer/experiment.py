"""Turns a configuration into the things that are trained: data, model, loss and optimizer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from trainer import callables, optimizers
from trainer.config import Config, ConfigError, Problem, located
from trainer.config import schema as sections
from trainer.config.problem import shown
from trainer.config.source import Document
from trainer.data import csv, custom, points
from trainer.data.table import Batches, Table, weighting
from trainer.losses import LOSSES, LossFunction
from trainer.models.linear import Linear

T = TypeVar("T")


@dataclass(frozen=True)
class Experiment:
    """Everything that a configuration names, built and on its device."""

    config: Config
    device: torch.device
    table: Table
    batches: Batches
    model: nn.Module
    loss: LossFunction
    optimizer: torch.optim.Optimizer

    def evaluate(self) -> float:
        """The cost over all rows, in the units that the data came in."""
        table = self.table
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            prediction, target = self.model(table.x), table.y
            if table.y_scale is not None:
                prediction, target = table.y_scale.undo(prediction), table.y_scale.undo(target)
            losses = self.loss(prediction, target)
            weights = weighting(table.weights, self.config.loss.reduction)(losses)
        self.model.train(was_training)
        return float(losses.sum() if weights is None else (losses * weights).sum())


def check(tree: dict[str, Any]) -> list[Problem]:
    """What is wrong with a tree that only torch or an import can know."""
    problems = []
    device = torch.device("cpu")
    if isinstance(tree.get("device", "auto"), str):
        try:
            device = _device(tree.get("device", "auto"), str(tree.get("dtype")))
        except ValueError as error:
            problems.append(Problem(("device",), str(error)))
    problems += optimizers.check(tree, device)
    for key in ("data", "model", "loss"):
        section = tree.get(key)
        name = section.get("name") if isinstance(section, dict) else None
        if not isinstance(section, dict) or not isinstance(name, str) or ":" not in name:
            continue
        try:
            thing = callables.load(name)
        except ValueError as error:
            problems.append(Problem((key, "name"), str(error)))
            continue
        own = sections.KINDS[key][-1].model_fields
        arguments = {k: v for k, v in section.items() if k not in own}
        problems += callables.argument_problems(thing, arguments, (key,))
    return problems


def build(config: Config, document: Document) -> Experiment:
    """The experiment of a checked configuration; raises ConfigError where data or shapes misfit."""
    device, dtype = _device(config.device, config.dtype), getattr(torch, config.dtype)
    seed_everything(config.seed)
    table = _table(config.data, document).to(device, dtype)
    _check_table(table, config.dtype, document)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # start values are drawn in the type they are used in
    try:
        model = _attempt(document, "model", lambda: _model(config.model, table)).to(device, dtype)
        loss = _attempt(document, "loss", lambda: _loss(config.loss))
    finally:
        torch.set_default_dtype(default)
    _probe(model, loss, table, document)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise _fault(document, ("model",), "the model has no parameter that requires a gradient")
    optimizer = _attempt(
        document, "optimizer", lambda: optimizers.build(config.optimizer, parameters)
    )
    if isinstance(optimizer, torch.optim.SparseAdam) and not any(
        getattr(module, "sparse", False) for module in model.modules()
    ):
        message = (
            "SparseAdam needs sparse gradients, and no layer of the model gives them; use Adam"
        )
        raise _fault(document, ("optimizer", "name"), message)
    data = config.data
    batches = Batches(table, data.batch_size, data.shuffle, config.loss.reduction, config.seed)
    return Experiment(config, device, table, batches, model, loss, optimizer)


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's and PyTorch's (all devices') global random numbers."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _device(name: str, dtype: str) -> torch.device:
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        lacks_float64 = accelerator is not None and accelerator.type == "mps"
        if accelerator is None or (lacks_float64 and dtype == "float64"):
            return torch.device("cpu")
        return accelerator
    try:
        device = torch.device(name)
        number = torch.zeros((), device=device, dtype=torch.float64 if dtype == "float64" else None)
        number.item()  # the device `meta` makes tensors that hold no values
    except Exception as error:  # each kind of device has its own for being absent
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"cannot use {shown(name)}: {reason}; use auto or cpu") from None
    return device


def _table(section: sections.Data, document: Document) -> Table:
    if isinstance(section, sections.Points):
        return points.read(section)
    try:
        if isinstance(section, sections.Csv):
            return csv.read(section)
        return _attempt(document, "data", lambda: custom.read(section))
    except csv.CsvError as error:
        raise located(document, error.problems) from None


def _check_table(table: Table, dtype: str, document: Document) -> None:
    """Raises where a value does not fit the type that it is used in, or where no row counts."""
    parts = {"x": table.x, "y": table.y, "weights": table.weights}
    for key, values in parts.items():
        if values is not None and not bool(torch.isfinite(values).all()):
            message = f"{key} holds values that are not finite in {dtype}"
            raise _fault(document, ("data", key), message)
    weights = table.weights
    if weights is not None and (bool((weights < 0).any()) or not bool((weights > 0).any())):
        message = "expected sample weights of 0 or more, at least one of them above 0"
        raise _fault(document, ("data", "weights"), message)


def _model(section: sections.Model, table: Table) -> nn.Module:
    if isinstance(section, sections.CustomModel):
        made = callables.load(section.name)(**section.arguments)
        if not isinstance(made, nn.Module):
            raise TypeError(f"it made a {type(made).__name__}, which is no torch.nn.Module")
        return made
    for key, values in (("x", table.x), ("y", table.y)):
        if values.dim() != 2 or not values.is_floating_point():
            got = f"{key} of shape {tuple(values.shape)} and type {values.dtype}"
            raise ValueError(f"linear needs rows of floating-point numbers; the data gives {got}")
    model = Linear(table.x.shape[1], table.y.shape[1], section.weight, section.bias)
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name}: not finite in {parameter.dtype}")
    return model


def _loss(section: sections.AnyLoss) -> LossFunction:
    if isinstance(section, sections.CustomLoss):
        made = callables.load(section.name)(**section.arguments)
        if not callable(made):
            raise TypeError(f"it made a {type(made).__name__}, which cannot be called")
        return made  # type: ignore[no-any-return]
    return LOSSES[section.name]


def _probe(model: nn.Module, loss: LossFunction, table: Table, document: Document) -> None:
    """Raises where two rows do not pass through model and loss; leaves no trace in the model."""
    x, y = table.x[:2], table.y[:2]
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        prediction = _attempt(document, "model", lambda: model(x))
        losses = _attempt(document, "loss", lambda: loss(prediction, y))
    model.train(was_training)
    for key, tensor in (("model", prediction), ("loss", losses)):
        if not isinstance(tensor, Tensor):
            raise _fault(document, (key,), f"it gives a {type(tensor).__name__}, expected a tensor")
    built_in = loss in LOSSES.values()
    if built_in and prediction.shape != y.shape:
        # Otherwise (B,) against (B, 1) would silently broadcast to (B, B).
        shapes = f"{tuple(prediction.shape)} for targets of shape {tuple(y.shape)}"
        raise _fault(document, ("model",), f"it gives predictions of shape {shapes}")
    if losses.dim() == 0 or losses.shape[0] != len(x):
        wanted = "one value per sample (reduction='none' inside; `loss.reduction` does the rest)"
        shape = tuple(losses.shape)
        raise _fault(document, ("loss",), f"{len(x)} samples give shape {shape}; expected {wanted}")


def _attempt(document: Document, key: str, make: Callable[[], T]) -> T:
    """The result of a call into code that the configuration names; its errors become ours."""
    try:
        return make()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # the user's code or arguments, whatever they raise
        name = f"{type(error).__name__}: " if not isinstance(error, ValueError | TypeError) else ""
        argument = str(error).partition(":")[0]
        path = (key, argument) if argument in document.tree.get(key, {}) else (key,)
        message = str(error).removeprefix(f"{argument}: ") if len(path) == 2 else str(error)
        raise _fault(document, path, f"{name}{message}") from error


def _fault(document: Document, path: tuple[str, ...], message: str) -> ConfigError:
    return located(document, [Problem(path, message)])
