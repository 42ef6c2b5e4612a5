"""All that the next step of a training depends on, taken and put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.experiment import Experiment


def weights(experiment: Experiment) -> dict[str, Tensor]:
    """The parameters and buffers of the model, by name."""
    state = experiment.model.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def state(experiment: Experiment) -> dict[str, Any]:
    """The rest: optimizer, schedule and random numbers, as plain values and tensors."""
    return {
        "optimizer": experiment.optimizer.state_dict(),
        "schedule": experiment.schedule.state_dict(),
        "random": random_state(),
    }


def restore(
    experiment: Experiment, step: int, weights: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Puts the experiment where it was before the given step; ValueError where it does not fit."""
    try:
        experiment.model.load_state_dict(weights)
        experiment.optimizer.load_state_dict(state["optimizer"])
        experiment.schedule.load_state_dict(state["schedule"])
        # Which rows a batch holds depends on its number alone.
        drawn = step * experiment.config.accumulate_steps
        experiment.batches.load_state_dict({"drawn": drawn})
        set_random_state(state["random"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's random numbers, on all devices."""
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), int(place),
                  int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }  # fmt: skip


def set_random_state(state: dict[str, Any]) -> None:
    """Puts all random numbers back to where `random_state` found them."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
