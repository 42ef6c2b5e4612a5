"""Losses that stay a vector: one value for each sample (or each sample and output or position)."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer import callables
from trainer.config.problem import Problem
from trainer.config.schema import Loss as Section
from trainer.data.batches import Counts

LossFunction = Callable[[Tensor, Tensor], Tensor]


def half_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """½(ŷ−y)² of each value, in the shape of `target`; its derivative is the error itself."""
    error = prediction - target
    return 0.5 * error * error


def _plain(name: str) -> str:
    """`cross_entropy` and `CrossEntropyLoss` as one word."""
    return name.lower().replace("_", "").removesuffix("loss")


def _readable(name: str) -> str:
    """`CrossEntropyLoss` as `cross_entropy`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return words.lower().removesuffix("_loss")


_TORCH: dict[str, type[nn.Module]] = {
    _plain(name): thing
    for name, thing in vars(nn).items()
    if inspect.isclass(thing) and issubclass(thing, nn.Module) and name.endswith("Loss")
    if "reduction" in inspect.signature(thing).parameters
}
_OWN = "half_squared_error"
BINARY = {"bce": 0.5, "bcewithlogits": 0.0}  # the prediction from which on the class is 1
ELEMENTWISE = {"mse", "l1", "smoothl1", "huber", "softmargin", *BINARY}
OF_CLASSES = {"crossentropy", "nll"}
IGNORED = -100  # the class that torch ignores where none is named
LARGEST = {"poissonnll": math.inf, **dict.fromkeys(BINARY, 1.0)}  # targets; the smallest is 0


def check(tree: dict[str, Any]) -> list[Problem]:
    """What is wrong with the section `loss` that only torch can know: its name and arguments."""
    section = tree.get("loss")
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(name, str) or not name:
        return []
    arguments = {key: value for key, value in section.items() if key not in Section.model_fields}
    if name == _OWN:
        thing: Callable[..., Any] = _no_arguments
    else:
        try:
            thing = _named(name)
        except ValueError as error:
            return [Problem(("loss", "name"), str(error))]
    taken = arguments if ":" in name else _with_tensors(arguments)
    problems = callables.argument_problems(thing, taken, ("loss",), given=_GIVEN)
    if (
        ":" in name
        and len(problems) == 2
        and all(p.message.startswith("missing") for p in problems)
    ):
        missing = " and ".join(str(p.path[-1]) for p in problems)
        return [Problem(("loss", "name"), (
            f"{thing.__name__} cannot be called without {missing}; if these are predictions and "
            f"targets: name what makes the loss, such as `def make(): return {thing.__name__}`"
        ))]  # fmt: skip
    if not problems and ":" not in name:
        try:
            make(name, arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            problems = [Problem(("loss",), f"{thing.__name__} does not accept this: {error}")]
    return problems


_GIVEN = ("reduction", "reduce", "size_average")


def _no_arguments() -> None:
    """What `half_squared_error` takes besides predictions and targets: nothing."""


_no_arguments.__name__ = _OWN


def _named(name: str) -> Callable[..., Any]:
    known = [_OWN, *(_readable(kind.__name__) for kind in _TORCH.values())]
    return callables.named("loss", name, _TORCH.get(_plain(name)), known)


def make(name: str, arguments: dict[str, Any]) -> LossFunction:
    """The named loss as a function of predictions and targets, one value per sample or finer.

    Predictions with classes (B, T, C) go with class indices (B, T). Raises what the named thing
    raises.
    """
    if name == _OWN:
        return half_squared_error
    if ":" in name:
        made = callables.load(name)(**arguments)
        if not callable(made):
            raise TypeError(f"it made a {type(made).__name__}, which cannot be called")
        return made  # type: ignore[no-any-return]
    loss = _named(name)(**_with_tensors(arguments), reduction="none")

    def of(prediction: Tensor, target: Tensor) -> Tensor:
        if prediction.dim() == 3 and target.dim() == 2 and not target.is_floating_point():
            found: Tensor = loss(prediction.flatten(0, 1), target.flatten())
            return found.view(target.shape)
        found = loss(prediction, target)
        return found

    return of


def _with_tensors(arguments: dict[str, Any]) -> dict[str, Any]:
    """Lists of numbers as torch's losses take them, in its default type."""
    return {
        key: torch.tensor(value, dtype=torch.get_default_dtype()) if _are_numbers(value) else value
        for key, value in arguments.items()
    }


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def counts(name: str, arguments: dict[str, Any]) -> Counts | None:
    """How much each of the classes (B,) or (B, time) that are targets counts in a mean, of the same
    shape and in torch's default type: what torch divides by where classes weigh differently or one
    of them is ignored.

    None where all count 1, and of targets that are probabilities.
    """
    weight = arguments.get("weight")
    if _plain(name) not in OF_CLASSES or (weight is None and "ignore_index" not in arguments):
        return None
    ignored, dtype = arguments.get("ignore_index", IGNORED), torch.get_default_dtype()
    of_class = None if weight is None else torch.tensor(weight, dtype=dtype)

    def of(target: Tensor) -> Tensor | None:
        if target.is_floating_point():
            return None
        kept: Tensor = target != ignored
        if of_class is None:
            return kept.to(dtype)
        found = of_class.to(target.device)[target.where(kept, 0)]
        return found * kept

    return of


def outside(name: str, target: Tensor) -> str | None:
    """Why numbers as targets are none of which the loss makes sense; None where they may be."""
    most = LARGEST.get(_plain(name))
    if most is None or not target.is_floating_point():
        return None
    low, high = float(target.min()), float(target.max())
    if low >= 0 and high <= most:
        return None
    wanted = "from 0 to 1" if most == 1 else "of 0 or more"
    return f"{name} is for targets {wanted}; the data give {low if low < 0 else high:.6g}"


def misfit(name: str, prediction: Tensor, target: Tensor) -> Problem | None:
    """Why the loss would take such predictions and say nothing of them; None where it does not."""
    shape, plain = tuple(prediction.shape), _plain(name)
    if (name == _OWN or plain in ELEMENTWISE) and shape != tuple(target.shape):
        if not target.is_floating_point():
            return Problem(("loss", "name"), _for_numbers(name))
        # Otherwise (B,) against (B, 1) would silently broadcast to (B, B).
        return Problem(("model",), _shapes(prediction, target))
    positions = len(shape) == 3 and target.dim() == 2 and not target.is_floating_point()
    if plain == "crossentropy" and len(shape) > 1 and shape[2 if positions else 1] == 1:
        message = (
            f"it gives one output, whose {name} is always 0: it would be the only class; use "
            "bce_with_logits for two classes, mse for numbers"
        )
        return Problem(("model",), message)
    return None


def _for_numbers(name: str) -> str:
    two = ", or one of two classes for each sample" if _plain(name) in BINARY else ""
    remedy = "use cross_entropy, or give the targets as floating-point numbers"
    return f"{name} is for targets that are numbers{two}; the data give classes; {remedy}"


def crossed(prediction: Tensor, target: Tensor, values: Tensor) -> str | None:
    """Why the loss gives more values than there are predictions or targets; None where it does not.

    Any loss may broadcast (B,) against (B, 1) to (B, B): every sample against all others.
    """
    try:
        # torch.broadcast_shapes would load all of sympy, a second, for the same answer.
        shape = np.broadcast_shapes(prediction.shape, target.shape)
    except ValueError:
        return None
    if values.shape == shape and values.numel() > max(prediction.numel(), target.numel()):
        return _shapes(prediction, target)
    return None


def _shapes(prediction: Tensor, target: Tensor) -> str:
    shapes = tuple(prediction.shape), tuple(target.shape)
    return f"it gives predictions of shape {shapes[0]} for targets of shape {shapes[1]}"


def threshold(name: str) -> float | None:
    """From what prediction on a loss of one value per sample means class 1; None for others."""
    return BINARY.get(_plain(name))
