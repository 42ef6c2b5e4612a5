"""How the weights and biases of a model start: torch.nn.init's functions by name, or the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from trainer import callables
from trainer.config.initialisation_sections import Initialisation
from trainer.config.named import name_and_arguments
from trainer.config.problem import Path, Problem, shown
from trainer.models import activations

Value = str | dict[str, Any]
# Those without an underscore at the end are deprecated names of the same.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name.removesuffix("_"): thing
    for name, thing in vars(nn.init).items()
    if name.endswith("_") and not name.startswith("_") and callable(thing)
}
_WITH_WEIGHTS = (nn.Linear, nn.Conv2d, nn.Embedding)


def initialise(
    model: nn.Module, init: Initialisation, activation: Value, output: nn.Module | None = None
) -> None:
    """Fills the weights and biases of all linear layers, convolutions and embeddings.

    `output` is the layer whose weights start as `init.output` says.
    """
    for module in model.modules():
        if isinstance(module, _WITH_WEIGHTS):
            fill(module.weight, init.output if module is output else init.hidden, activation)
            bias = getattr(module, "bias", None)
            if bias is not None:
                fill(bias, init.bias, activation)


def fill(tensor: Tensor, value: Value, activation: Value) -> None:
    """Fills a tensor as the checked name, with its arguments, says; `default` leaves it alone.

    The argument `gain: auto` is torch's gain for the activation.
    """
    if value == "default":
        return
    name, arguments = name_and_arguments(value)
    if arguments.get("gain") == "auto":
        arguments["gain"] = activations.gain(activation)
    with torch.no_grad():
        _named(name)(tensor, **arguments)


def problems(value: Any, path: Path, activation: Any, shape: tuple[int, ...]) -> list[Problem]:
    """What is wrong with the name and arguments of an init for tensors of as many dimensions.

    [] for what the schema refuses. `activation` is what `gain: auto` asks, found good or not.
    """
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name or value == "default":
        return []
    try:
        thing = _named(name)
    except ValueError as error:
        return [Problem((*path, "name") if isinstance(value, dict) else path, str(error))]
    arguments = name_and_arguments(value)[1]
    if arguments.get("gain") == "auto":
        if activations.problems(activation, ()):
            return []  # told where the activation stands
        try:
            arguments["gain"] = activations.gain(activation)
        except ValueError as error:
            return [Problem((*path, "gain"), str(error))]
    first = next(iter(inspect.signature(thing).parameters), "")
    own = (first,) if ":" in name else (first, "generator")
    found = callables.argument_problems(thing, arguments, path, given=own)
    found += [
        Problem((*path, key), f"expected a finite number, got {shown(item)}")
        for key, item in arguments.items()
        if isinstance(item, float) and not isfinite(item)
    ]
    if not found:
        try:
            with torch.random.fork_rng(devices=[]):
                thing(torch.zeros(shape), **arguments)
        except Exception as error:  # whatever torch or the user's function raises
            reason = str(error) or type(error).__name__
            found.append(Problem(path, f"{name} refuses: {reason}"))
    return found


def _named(name: str) -> Callable[..., Any]:
    known = [*(f"{known}_" for known in FUNCTIONS), "default"]
    found = FUNCTIONS.get(name.lower().removesuffix("_"))
    return callables.named("init", name, found, known)
