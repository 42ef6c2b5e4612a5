"""Which module makes values that are not finite of finite ones?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainer.monitor.layers import first_tensor, is_in_memory, kind, layers, root_name, tensors
from trainer.record import INPUT

Noted = Callable[[str, str, Tensor], object]  # name, kind and output of a module


class _Entered(NamedTuple):
    name: str
    module: nn.Module
    bad: Tensor | None  # of what it was given


class Breaking:
    """Within this context, notes the first module of all whose own work does that, if it is no
    layer: what a layer puts out is measured anyway, if it has a graph.

    Values that are broken when they enter a module were broken by the one around it, between two of
    its parts; where the model itself was given them, they are noted as its input. It may be given
    others that it knows how to handle, such as what is missing or masked.
    """

    def __init__(self, model: nn.Module, note: Noted) -> None:
        self._model, self._note = model, note
        self._layers = {module for _, module in layers(model)[0]}
        self._entered: list[_Entered] = []
        self._hooks: list[RemovableHandle] = []
        self.found = False  # whether there is one, or a layer

    def __enter__(self) -> Self:
        root = root_name(self._model)
        for name, module in self._model.named_modules():
            enters, leaves = partial(self._enters, name or root), self._leaves
            self._hooks += [
                module.register_forward_pre_hook(enters, with_kwargs=True),
                # Before the hook that measures the output, which comes after the one at fault.
                module.register_forward_hook(leaves, with_kwargs=True, prepend=True),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enters(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self.found:
            self._entered.append(_Entered(name, module, _broken((args, kwargs))))

    def _leaves(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.found:
            return
        entered = self._entered.pop()
        made = first_tensor(output)
        if made is None or made.isfinite().all():
            return
        self.found = True
        inner = entered
        while entered.bad is not None and self._entered:
            entered = self._entered.pop()
        if entered.bad is not None:
            first = made if inner is entered or inner.bad is None else inner.bad
            if _is_same_memory(first, entered.bad) or _is_of_same_samples(first, entered.bad):
                self._note("", INPUT, entered.bad)
            return
        is_measured = entered.module in self._layers and torch.is_grad_enabled()
        if not is_measured:
            self._note(entered.name, kind(entered.module), made)


def _broken(given: Any) -> Tensor | None:
    """The first tensor with a NaN, or the very first where that has an infinity: masks are made of
    those."""
    known = [tensor for tensor in tensors(given) if is_in_memory(tensor)]
    for number, tensor in enumerate(known):
        if tensor.is_floating_point() or tensor.is_complex():
            bad = tensor.isnan() if number else ~tensor.isfinite()
            if bad.any():
                return tensor
    return None


def _is_same_memory(one: Tensor, other: Tensor) -> bool:
    """Whether they are the same values, or parts of the same."""
    storages = one.untyped_storage(), other.untyped_storage()
    return len({storage.data_ptr() for storage in storages}) == 1


def _is_of_same_samples(one: Tensor, other: Tensor) -> bool:
    """Whether both are broken in the same of their first dimension's entries, and not in all."""
    if not one.dim() or not other.dim() or len(one) != len(other) or one.device != other.device:
        return False
    sound = [each.reshape(len(each), -1).isfinite().all(1) for each in (one, other)]
    return bool(sound[0].any() and torch.equal(*sound))
