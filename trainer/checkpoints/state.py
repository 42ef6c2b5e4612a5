"""All that training changes, as a tree of plain values and tensors, and put back bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainer import optimizers, random_numbers
from trainer.config import resolved
from trainer.data.table import Table
from trainer.experiment import Experiment
from trainer.progress import Progress

# What torch's optimizers keep of each value of a parameter.
PER_VALUE = ("exp_avg", "exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "acc_delta",
             "sum", "ax", "prev", "step_size")  # fmt: skip


def capture(experiment: Experiment, progress: Progress) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of the model's `state_dict`, and what else a run needs to go on between two steps
    as if it had not stopped.

    They are no copies: training changes them.
    """
    weights: dict[str, Tensor] = {}
    model: dict[str, Any] = {}
    for name, value in experiment.model.state_dict().items():
        (weights if isinstance(value, Tensor) else model)[name] = value
    return weights, {
        "progress": progress.state_dict(),
        "model": model,
        "optimizer": optimizers.state_dict(experiment.optimizer),
        "schedule": experiment.schedule.state_dict(),
        "batches": experiment.batches.state_dict(),
        "random": random_numbers.states(experiment.device),
    }


def restore(
    experiment: Experiment,
    progress: Progress,
    held: Mapping[str, Tensor],
    tree: Mapping[str, Any],
) -> None:
    """Puts back what `capture` took; raises what torch raises where it misfits."""
    experiment.model.load_state_dict({**held, **tree["model"]})
    optimizer = experiment.optimizer
    rate, before = experiment.config.optimizer.lr, tree["config"]["optimizer"]["lr"]
    _check_sizes(optimizer, tree["optimizer"])
    optimizers.load_state_dict(optimizer, tree["optimizer"])
    experiment.schedule.load_state_dict(tree["schedule"])
    if rate != before:
        experiment.schedule.scale(rate, before)
    experiment.batches.load_state_dict(tree["batches"])
    progress.load_state_dict(tree["progress"])
    random_numbers.put_back(tree["random"])


def constant(experiment: Experiment) -> dict[str, Any]:
    """What stays as it is while a run trains, and has to be known where it goes on."""
    return {"config": resolved(experiment.config), "rows": fingerprint(experiment)}


def fingerprint(experiment: Experiment) -> list[int | str]:
    """What tells the rows of one run from those of another: their number; in memory, all bits."""
    rows = experiment.rows
    found: list[int | str] = [len(rows)]
    if isinstance(rows, Table):
        digest = hashlib.sha256()
        for part in (rows.x, rows.y, rows.weights):
            if part is not None:
                digest.update(part.detach().cpu().contiguous().view(-1).numpy().data)
        found.append(digest.hexdigest())
    return found


def _check_sizes(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """ValueError where a parameter's state is of another shape, which torch would not notice."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = [p for group in state["param_groups"] for p in group["params"]]
    for key, parameter in zip(known, parameters, strict=True):
        held = state["state"].get(key, {})
        for name in PER_VALUE:
            if isinstance(held.get(name), Tensor) and held[name].shape != parameter.shape:
                raise ValueError(f"the optimizer's state has shape {tuple(held[name].shape)} where "
                                 f"the parameter has {tuple(parameter.shape)}")  # fmt: skip
