"""The states of all random numbers that training draws, and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


@contextmanager
def same(device: torch.device) -> Iterator[None]:
    """The context after which the random numbers go on as if nobody had drawn inside."""
    before = states(device)
    try:
        yield
    finally:
        put_back(before)


def states(device: torch.device) -> dict[str, Any]:
    """Those of Python, NumPy, torch on the host and on this kind of device, as plain values and
    tensors."""
    drawn: dict[str, Any] = np.random.get_state(legacy=False)
    version, numbers, spare = random.getstate()
    found: dict[str, Any] = {
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
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state_all()
    if device.type == "mps":
        found["mps"] = torch.mps.get_rng_state()
    return found


@lru_cache(maxsize=1)
def _tensor(numbers: tuple[int, ...]) -> Tensor:
    """The same as long as nobody draws."""
    return torch.tensor(numbers)


def put_back(states: Mapping[str, Any]) -> None:
    """Makes the generators go on from there."""
    version, numbers, spare = states["python"]
    random.setstate((version, tuple(numbers.tolist()), spare))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
