"""Which modules of a model count as layers, and what of their output is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from trainer.monitor.shards import is_stand_in
from trainer.record import owner

Named = list[tuple[str, nn.Module]]

_OF_WEIGHTS = "parametrizations"  # where torch.nn.utils.parametrize keeps what computes them


def layers(model: nn.Module) -> tuple[Named, Named]:
    """The modules that count as layers, and those that may: (name, module) pairs.

    A layer is a module without children or with parameters of its own; a model that is one itself
    is `model`. One that holds others is one where it uses their weights and calls none of them.
    What is inside a compiled module is left out, and what holds one is no layer: compiled code
    calls no hooks. Nor is what only computes the weights of a layer (parametrizations) one.
    """
    found: Named = []
    holders: Named = []
    root, seen = root_name(model), {model}

    def visit(name: str, module: nn.Module) -> None:
        if is_compiled(module):
            return
        children = [pair for pair in module.named_children() if pair[0] != _OF_WEIGHTS]
        if not children or any(True for _ in module.parameters(recurse=False)):
            found.append((name or root, module))
        elif type(module) is not nn.Sequential and any(True for _ in module.parameters()):
            if not any(map(is_compiled, module.modules())):
                holders.append((name or root, module))
        for child_name, child in children:
            if child not in seen:  # under another name
                seen.add(child)
                visit(f"{name}.{child_name}" if name else child_name, child)

    visit("", model)
    return found, holders


def of_none(model: nn.Module, layers: Named, wanted: Callable[[str], bool]) -> dict[int, str]:
    """The names, by the `id`, of the wanted parameters that none of these layers has but the model
    itself: functions use them, if anybody does."""
    owners = {name for name, module in layers if module is not model}
    return {
        id(weight): name
        for name, weight in model.named_parameters()
        if owner(name) not in owners and wanted(name)
    }


def root_name(model: nn.Module) -> str:
    """What a model itself is called, which has no name among its modules."""
    return "(model)" if "model" in model._modules else "model"


def is_compiled(module: nn.Module) -> bool:
    """Whether a module runs as compiled code, which calls no hooks inside."""
    kept = module._compiled_call_impl is not None or isinstance(module, torch.jit.ScriptModule)
    return kept or type(module).__name__ == "OptimizedModule"


def kind(module: nn.Module) -> str:
    """The name of a layer's class."""
    return type_before_parametrizations(module).__name__


@cache
def dtype_name(dtype: torch.dtype) -> str:
    """The name of a dtype: `float32`, `bfloat16`, …"""
    return str(dtype).removeprefix("torch.")


def tensors(given: Any) -> Iterator[Tensor]:
    """All of an output, or of arguments: itself, or inside tuples, lists and dicts."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, dict | tuple | list):
        for part in given.values() if isinstance(given, dict) else given:
            yield from tensors(part)


def first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor of an output.

    Only one with values counts, and they have to be in memory.
    """
    for tensor in (output,) if isinstance(output, Tensor) else tensors(output):
        numbers = tensor.is_floating_point() or tensor.is_complex()
        if numbers and is_in_memory(tensor) and tensor.numel():
            return tensor
    return None


def is_in_memory(tensor: Tensor) -> bool:
    """Not so inside torch.func's transforms, such as vmap, nor of nested, meta, fake and other
    tensors that stand for something else."""
    return not (
        tensor.is_meta
        or tensor.is_nested
        or is_stand_in(tensor)
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        or torch._C._functorch.is_legacy_batchedtensor(tensor)
    )
