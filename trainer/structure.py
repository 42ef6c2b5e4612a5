"""Does a model still consist of the modules and parameters that it had?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import is_

from torch import nn


class Structure:
    """The modules and parameters of a model as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = Parts([module._modules for module in model.modules()])
        self._parameters = Parts([module._parameters for module in model.modules()])

    def has_same_modules(self) -> bool:
        """Whether none has been replaced, added or taken away since."""
        return self._modules.are_same()

    def has_same_parameters(self) -> bool:
        """The same of the parameters; of each its values may be others."""
        return self._parameters.are_same()


class Parts:
    """What stands in some dicts as they are now."""

    def __init__(self, places: Sequence[Mapping[str, object]]) -> None:
        self._places = places
        self._then = self._now()

    def are_same(self) -> bool:
        """Whether the same things stand there still."""
        now = self._now()  # by identity, as tensors have an equality of their own
        return len(now) == len(self._then) and all(map(is_, now, self._then))

    def _now(self) -> list[object]:
        return [part for place in self._places for part in place.values()]
