"""Losses that stay a vector: one value for each sample (or each sample and output)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]


def half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """½(ŷ−y)² of each value, in the shape of `target`; its derivative is the error itself."""
    error = prediction - target
    return 0.5 * error * error


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """(ŷ−y)² of each value, in the shape of `target`."""
    error = prediction - target
    return error * error


LOSSES: dict[str, LossFunction] = {"half_squared_error": half_squared_error, "mse": mse}
