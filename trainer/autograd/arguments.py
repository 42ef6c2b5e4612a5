"""What may be given to `gradients`, and what is said about anything else."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Weight = Tensor | NDArray[Any] | complex | Sequence[Any] | None  # of one y
Weights = Weight | Sequence[Weight]


class UnconnectedGradients(enum.StrEnum):
    """What stands for the gradient of an x that no y depends on; TensorFlow's names."""

    NONE = "none"
    ZERO = "zero"


class AggregationMethod(enum.IntEnum):
    """TensorFlow's ways to add up the gradients that meet in a tensor; PyTorch needs only one."""

    DEFAULT = 0
    ADD_N = 0
    EXPERIMENTAL_TREE = 1
    EXPERIMENTAL_ACCUMULATE_N = 2


def as_tensors(value: Tensor | Iterable[Tensor], argument: str) -> list[Tensor]:
    """The tensors given as `argument`; TypeError for what is not a tensor or a list of them."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping | str) or not isinstance(value, Iterable):
        instead = f": list({argument}.values())?" if isinstance(value, Mapping) else ""
        raise TypeError(
            f"{argument} is a {type(value).__name__}, not a tensor or a list of tensors{instead}"
        )
    tensors = list(value)
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{argument}[{position}] is a {type(tensor).__name__}, not a tensor "
                f"({argument} is a tensor or a flat list of tensors)"
            )
    return tensors


def as_weights(
    ys: Sequence[Tensor], grad_ys: Weights, batched: bool, create_graph: bool
) -> list[Tensor]:
    """A tensor of weights for each y, in its shape: grad_ys, or ones where that has None.

    With batched the weights have a leading dimension before that shape, the same for all ys. With
    create_graph they are nodes of their own in the graph, without it constants.
    """
    if grad_ys is None:
        given: Sequence[Any] = [None] * len(ys)
    else:
        given = grad_ys if isinstance(grad_ys, list | tuple) else [grad_ys]
    if len(given) != len(ys):
        raise ValueError(
            f"grad_ys has length {len(given)}, but ys has length {len(ys)}: "
            "give a tensor or None for each y"
        )
    leading: tuple[int, ...] = ()
    if batched:
        leading = next((np.shape(entry)[:1] for entry in given if entry is not None), ())
        if not leading:
            raise ValueError(
                "batched=True needs grad_ys in which at least one tensor has a leading dimension "
                "(the number of products) before the shape of its y"
            )
    weights = []
    for position, (y, entry) in enumerate(zip(ys, given, strict=True)):
        if entry is not None:
            weight = _as_weight(y, entry, leading, position)
            if weight.requires_grad:
                # A weight may come back as a gradient. It must not bring its graph unasked, nor be
                # the same tensor, or to stop at that gradient would be to stop at the weight.
                with torch.enable_grad():
                    weight = weight.view_as(weight) if create_graph else weight.detach()
            weights.append(weight)
        elif y.is_complex():
            raise TypeError(
                f"ys[{position}] is complex ({y.dtype}), for which there is no default weight: "
                f"give grad_ys[{position}]"
            )
        else:
            weights.append(y.new_ones((*leading, *y.shape)) if leading else torch.ones_like(y))
    return weights


def _as_weight(y: Tensor, entry: Any, leading: tuple[int, ...], position: int) -> Tensor:
    if not isinstance(entry, Tensor):
        try:
            dtype = None if hasattr(entry, "dtype") else y.dtype
            entry = torch.as_tensor(entry, dtype=dtype, device=y.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"grad_ys[{position}] is a {type(entry).__name__} that no tensor of {y.dtype} "
                f"can be made of: {error}"
            ) from error
    weight: Tensor = entry
    shape = (*leading, *y.shape) if leading else y.shape
    if weight.shape != shape:
        raise ValueError(
            f"grad_ys[{position}] has shape {tuple(weight.shape)}, but ys[{position}] has shape "
            f"{tuple(y.shape)}: "
            + (
                f"batched=True needs shape {shape}"
                if leading
                else "give one weight for each of its values"
            )
        )
    if weight.dtype != y.dtype:
        raise TypeError(
            f"grad_ys[{position}] has dtype {weight.dtype}, but ys[{position}] has dtype "
            f"{y.dtype}: convert it with .to(ys[{position}].dtype)"
        )
    return weight


def differentiable_positions(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> list[int]:
    """The positions of the xs that autograd has recorded: all but the integer ones.

    Raises ValueError for another x that is not recorded. Warns of an integer x that is no y.
    """
    positions = []
    for position, x in enumerate(xs):
        if x.requires_grad:
            positions.append(position)
        elif x.is_floating_point() or x.is_complex():
            raise ValueError(
                f"xs[{position}] (shape {tuple(x.shape)}) does not require grad, so what depends "
                "on it was not recorded: call .requires_grad_() on it before computing ys from it"
            )
        elif not any(y is x for y in ys):
            warnings.warn(
                f"xs[{position}] has dtype {x.dtype}: only floating-point and complex tensors have "
                "gradients",
                stacklevel=4,
            )
    return positions


def check_options(
    name: object,
    colocate_gradients_with_ops: object,
    gate_gradients: object,
    aggregation_method: object,
    unconnected_gradients: object,
) -> None:
    """Raises TypeError or ValueError for a value that TensorFlow does not have."""
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}, not a string")
    if not isinstance(colocate_gradients_with_ops, bool):
        raise TypeError(
            f"colocate_gradients_with_ops is {colocate_gradients_with_ops!r}, not True or False"
        )
    if not isinstance(gate_gradients, bool):
        raise TypeError(f"gate_gradients is {gate_gradients!r}, not True or False")
    if aggregation_method is not None and aggregation_method not in list(AggregationMethod):
        raise ValueError(
            f"aggregation_method is {aggregation_method!r}, not None or one of "
            + ", ".join(f"{value} ({key})" for key, value in AggregationMethod.__members__.items())
        )
    if unconnected_gradients != "none" and unconnected_gradients != "zero":
        raise ValueError(
            f"unconnected_gradients is {unconnected_gradients!r}, not 'none' or 'zero'"
        )
