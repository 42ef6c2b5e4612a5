"""The models that a configuration can name: what is wrong with their keys, and their making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from trainer import callables, memory
from trainer.config import model_sections as sections
from trainer.config.problem import Problem
from trainer.config.section import Section, names
from trainer.data.table import Shape
from trainer.models import activations, autoencoder, cnn, initialisation, mlp, rnn, transformer
from trainer.models.linear import Linear

__all__ = ["build", "check"]


def check(tree: dict[str, Any]) -> list[Problem]:
    """What is wrong with the section `model` that only torch knows: activations and inits."""
    section = tree.get("model")
    name = section.get("name") if isinstance(section, dict) else None
    kinds = {known: kind for kind in sections.MODEL_KINDS for known in names(kind)}
    if not isinstance(section, dict) or not isinstance(name, str) or name not in kinds:
        return []
    fields = kinds[name].model_fields
    problems: list[Problem] = []
    if "activation" in fields:
        activation = section.get("activation", fields["activation"].default)
        problems += activations.problems(activation, ("model", "activation"))
    else:
        activation = section.get("nonlinearity", "tanh")
    init = section.get("init")
    if "init" not in fields or not isinstance(init, dict):
        return problems
    # A weight of the kind that each key fills: some inits are for some dimensions only.
    weights = {"hidden": (8, 8, 3, 3) if name == "cnn" else (8, 8), "bias": (8,)}
    for key in type(fields["init"].default).model_fields:
        if key in init:
            shape = weights.get(key, (8, 8))
            path = ("model", "init", key)
            problems += initialisation.problems(init[key], path, activation, shape)
    return problems


def build(section: Section, shape: Shape) -> nn.Module:
    """The model of a checked section for data of a shape, its start values drawn.

    ValueError("<key>: message") where the value of that key does not fit the data; ValueError or
    MemoryError where the memory that is free does not hold its parameters and their gradients.
    """
    free, taken = memory.available(), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal taken
        if parameter is None or is_lazy(parameter) or parameter.device.type != "cpu":
            return
        taken += 2 * parameter.nbytes
        if taken > free:
            sizes = f"{memory.told(taken)} or more of memory, and {memory.told(free)} are free"
            raise ValueError(f"its parameters and their gradients take {sizes}")

    # Parameters are registered before they are filled: until then they take no memory.
    counting = register_module_parameter_registration_hook(count)
    try:
        return _BUILD[type(section)](section, shape)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise MemoryError from error
        raise
    finally:
        counting.remove()


def _linear(section: sections.Linear, shape: Shape) -> nn.Module:
    if len(shape.inputs) != 1 or shape.vocabulary is not None or shape.per_position:
        got = "tokens" if shape.vocabulary is not None else f"samples of shape {shape.inputs}"
        raise ValueError(f"linear needs rows of floating-point numbers; the data gives {got}")
    memory.need(16 * shape.inputs[0] * shape.outputs, "its parameters and their gradients")
    model = Linear(shape.inputs[0], shape.outputs, section.weight, section.bias)
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(f"{name}: not finite in {parameter.dtype}")
    return model


def _custom(section: sections.CustomModel, shape: Shape) -> nn.Module:
    made = callables.load(section.name)(**section.arguments)
    if not isinstance(made, nn.Module):
        raise TypeError(f"it made a {type(made).__name__}, which is no torch.nn.Module")
    return made


_BUILD: dict[type[Section], Callable[[Any, Shape], nn.Module]] = {
    sections.Linear: _linear,
    sections.Mlp: mlp.build,
    sections.Cnn: cnn.build,
    sections.Rnn: rnn.build,
    sections.Transformer: transformer.build,
    sections.Autoencoder: autoencoder.build,
    sections.CustomModel: _custom,
}
