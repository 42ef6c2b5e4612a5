"""Does a model still consist of the modules and parameters that it had?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_

from torch import nn

Places = Sequence[Mapping[str, object]]


class Structure:
    """The modules and parameters of a model as they are now."""

    def __init__(self, model: nn.Module) -> None:
        modules = [*model.modules()]
        self._modules: Places = [module._modules for module in modules]
        self._parameters: Places = [module._parameters for module in modules]
        self._had_modules, self._had_parameters = _in(self._modules), _in(self._parameters)

    def has_same_modules(self) -> bool:
        """Whether none has been replaced, added or taken away since."""
        return _are_same(_in(self._modules), self._had_modules)

    def has_same_parameters(self) -> bool:
        """The same of the parameters; of each its values may be others."""
        return _are_same(_in(self._parameters), self._had_parameters)


def _in(places: Places) -> list[object]:
    return [part for place in places for part in place.values()]


def _are_same(now: list[object], then: list[object]) -> bool:
    """By identity: tensors have an equality of their own."""
    return len(now) == len(then) and all(map(is_, now, then))
