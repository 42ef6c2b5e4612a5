"""What of the data, the metrics, the model and the loss does not fit the rest of an experiment."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from trainer import data, losses, optimizers
from trainer.config import Config, Problem, located
from trainer.config.source import Document
from trainer.data import Rows
from trainer.faults import attempt, fault
from trainer.losses import LossFunction


def check_table(table: data.Table, dtype: str, document: Document) -> None:
    """Raises where a value does not fit the type that it is used in, or where no row counts."""
    for key, values in {"x": table.x, "y": table.y, "weights": table.weights}.items():
        numbers = values if values is not None and values.is_floating_point() else torch.empty(0)
        if not bool(torch.isfinite(numbers).all()):
            message = f"{key} holds values that are not finite in {dtype}"
            raise fault(document, ("data", key), message)
    weights = table.weights
    if weights is not None and (bool((weights < 0).any()) or not bool((weights > 0).any())):
        message = "expected sample weights of 0 or more, at least one of them above 0"
        raise fault(document, ("data", "weights"), message)


def check_targets(config: Config, table: data.Table, document: Document) -> None:
    """Raises where a target, as it is trained on, is no number that the loss is for."""
    outside = losses.outside(config.loss.name, table.y)
    if outside is not None:
        if table.y_scale is not None:
            outside += "; they are standardized: set data.standardize to false"
        raise fault(document, ("loss", "name"), outside)


def check_metrics(config: Config, rows: Rows, document: Document) -> None:
    """Raises at a metric of classes for targets that are numbers, or the other way round."""
    of_loss = losses.threshold(config.loss.name) is not None
    for index, metric in enumerate(config.metrics):
        message = None
        if metric == "accuracy" and not (rows.shape.classes or of_loss):
            message = f"{metric} is for targets that are classes; the data give numbers"
        elif metric == "r2" and rows.shape.classes:
            message = f"{metric} is for targets that are numbers; the data give classes"
        elif metric == "r2" and of_loss:
            takes = f"{config.loss.name} takes targets for classes"
            message = f"{metric} is for a loss of numbers, and {takes}; use accuracy"
        if message is not None:
            raise fault(document, ("metrics", index), message)


def check_gradients(
    config: Config, model: nn.Module, optimizer: torch.optim.Optimizer, document: Document
) -> None:
    """Raises where clipping or the optimizer is not for gradients such as the model's."""
    clips, why = [("clip", key) for key, bound in config.clip if bound is not None], None
    if optimizers.needs_closure(optimizer):
        why = (
            f"optimizer.name is {config.optimizer.name}, which computes the gradient anew within "
            "its step, unclipped; leave this out, or use another optimizer"
        )
    elif (layer := _sparse_embedding(model)) is not None:
        told = f"the gradients of the model's layer {layer} are sparse"
        if (refused := optimizers.refuses_sparse(config.optimizer)) is not None:
            raise fault(document, ("optimizer", "name"), f"{told}: {refused}")
        why = f"{told}, and torch clips none of those; leave out this, or sparse=True"
    if clips and why is not None:
        raise located(document, [Problem(path, why) for path in clips])


def _sparse_embedding(model: nn.Module) -> str | None:
    """The name of an embedding whose gradients are sparse; None without one.

    Those of weights that another layer has too are dense.
    """
    holders = Counter(id(p) for each in model.modules() for p in each.parameters(recurse=False))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse:
            if layer.weight.requires_grad and holders[id(layer.weight)] == 1:
                return name or "model"
    return None


def probe(
    model: nn.Module, loss: LossFunction, rows: Rows, config: Config, document: Document
) -> bool:
    """Raises where two rows do not pass through model and loss; leaves no trace in the model.

    Whether a layer says that its gradients are sparse.
    """
    device = rows.x.device if isinstance(rows, data.Table) else rows.device
    first = [torch.arange(min(2, len(rows)), device=device)]
    x, y, _ = attempt(document, "data", lambda: next(iter(rows.parts(first))))
    was_training = model.training
    model.eval()
    with torch.no_grad(), torch.random.fork_rng():
        prediction = attempt(document, "model", lambda: model(x))
        if not isinstance(prediction, Tensor):
            got = f"it gives a {type(prediction).__name__}, expected a tensor"
            raise fault(document, ("model",), got)
        misfit = losses.misfit(config.loss.name, prediction, y)
        if misfit is not None:
            raise located(document, [misfit])
        values = attempt(document, "loss", lambda: loss(prediction, y))
    model.train(was_training)
    if not isinstance(values, Tensor):
        got = f"it gives a {type(values).__name__}, expected a tensor"
        raise fault(document, ("loss",), got)
    if values.dim() == 0 or values.shape[0] != len(x):
        wanted = "one value per sample (reduction='none' inside; `loss.reduction` does the rest)"
        got = f"{len(x)} samples give shape {tuple(values.shape)}; expected {wanted}"
        raise fault(document, ("loss",), got)
    crossed = losses.crossed(prediction, y, values)
    if crossed is not None:
        raise fault(document, ("model",), crossed)
    return any(getattr(module, "sparse", False) is True for module in model.modules())
