"""The activations that a configuration can name: torch.nn's, the exponential, or the user's own."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from trainer import callables
from trainer.config.named import name_and_arguments
from trainer.config.problem import Path, Problem, shown


class Exponential(nn.Module):
    """eˣ: its outputs and gradients grow without bound, and faster with every layer."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


# GLU halves the number of values, and attention takes three inputs.
_NAMES = [n for n in nn.modules.activation.__all__ if n not in ("GLU", "MultiheadAttention")]
CLASSES: dict[str, type[nn.Module]] = {
    **{name.lower(): getattr(nn, name) for name in _NAMES},
    "identity": nn.Identity,
    "exponential": Exponential,
}
_SOFTMAXES = (nn.Softmax, nn.Softmin, nn.LogSoftmax)
_GAINS = {  # torch.nn.init.calculate_gain's names
    nn.Identity: "linear",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.SELU: "selu",
}


def activation(value: str | dict[str, Any]) -> nn.Module:
    """The activation of a checked name, or name with arguments; never one that works in place."""
    name, arguments = name_and_arguments(value)
    thing = _named(name)
    if thing in _SOFTMAXES:
        arguments = {"dim": -1, **arguments}
    made = thing(**arguments)
    if not isinstance(made, nn.Module):
        raise TypeError(f"{name} made a {type(made).__name__}, which is no torch.nn.Module")
    return made


def gain(value: str | dict[str, Any]) -> float:
    """By what torch.nn.init.calculate_gain would have the weights around the activation scaled.

    ValueError where torch knows no gain.
    """
    made = activation(value)
    kind = _GAINS.get(type(made))
    if kind is None:
        known = ", ".join(sorted(thing.__name__ for thing in _GAINS))
        label = shown(name_and_arguments(value)[0])
        raise ValueError(f"torch has no gain for {label}, only for {known}; write a number")
    return nn.init.calculate_gain(kind, getattr(made, "negative_slope", None))  # type: ignore[arg-type]


def problems(value: Any, path: Path) -> list[Problem]:
    """What is wrong with an activation's name and arguments; [] for what the schema refuses."""
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name:
        return []
    try:
        thing = _named(name)
    except ValueError as error:
        return [Problem((*path, "name") if isinstance(value, dict) else path, str(error))]
    arguments = name_and_arguments(value)[1]
    # In place, an activation would change what the monitor has yet to measure.
    own = () if ":" in name else ("inplace", "device", "dtype")
    found = callables.argument_problems(thing, arguments, path, given=own)
    if not found:
        try:
            if ":" in name:
                activation(value)
            else:
                with torch.device("meta"), warnings.catch_warnings():  # takes no memory
                    warnings.simplefilter("error")  # of an argument that has another name by now
                    activation(value)
        except Exception as error:  # whatever torch or the user's class raises
            reason = str(error) or type(error).__name__
            found.append(Problem(path, f"{name} refuses these arguments: {reason}"))
    return found


def _named(name: str) -> Any:
    known = [kind.__name__ for kind in CLASSES.values()]
    return callables.named("activation", name, CLASSES.get(name.lower().replace("_", "")), known)
