"""All that training changes, as a tree of plain values and tensors, and put back bit for bit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import optimizers
from trainer.config import resolved
from trainer.data.table import Table
from trainer.experiment import Experiment
from trainer.progress import Progress


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
        "random": _random_states(experiment),
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
    _set_random_states(tree["random"])


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


@contextmanager
def same_random_numbers(experiment: Experiment) -> Iterator[None]:
    """The context after which the random numbers go on as if nobody had drawn inside."""
    before = _random_states(experiment)
    try:
        yield
    finally:
        _set_random_states(before)


def _check_sizes(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """ValueError where a parameter's state is of another shape, which torch would not notice."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = [p for group in state["param_groups"] for p in group["params"]]
    for key, parameter in zip(known, parameters, strict=True):
        held = state["state"].get(key, {}).get("exp_avg")
        if isinstance(held, Tensor) and held.shape != parameter.shape:
            raise ValueError(f"the optimizer's state has shape {tuple(held.shape)} where the "
                             f"parameter has {tuple(parameter.shape)}")  # fmt: skip


def _random_states(experiment: Experiment) -> dict[str, Any]:
    drawn: dict[str, Any] = np.random.get_state(legacy=False)
    version, numbers, spare = random.getstate()
    states: dict[str, Any] = {
        "python": (version, _tensor(numbers), spare),
        "numpy": (
            drawn["bit_generator"],
            torch.from_numpy(drawn["state"]["key"]),
            drawn["state"]["pos"],
            drawn["has_gauss"],
            drawn["gauss"],
        ),
        "torch": torch.get_rng_state(),
    }
    if experiment.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state_all()
    if experiment.device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


@lru_cache(maxsize=1)
def _tensor(numbers: tuple[int, ...]) -> Tensor:
    """The same as long as nobody draws."""
    return torch.tensor(numbers)


def _set_random_states(states: Mapping[str, Any]) -> None:
    version, numbers, spare = states["python"]
    random.setstate((version, tuple(numbers.tolist()), spare))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
