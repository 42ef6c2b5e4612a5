"""Does a model still consist of the modules and parameters that it had?"""

from __future__ import annotations

from operator import is_

from torch import nn


class Structure:
    """The modules and parameters of a model as they are now."""

    def __init__(self, model: nn.Module) -> None:
        self._places = [
            place for module in model.modules() for place in (module._modules, module._parameters)
        ]
        self._parts = self._now()

    def is_same(self) -> bool:
        """Whether none has been replaced, added or taken away since; of each its values may be
        others."""
        now = self._now()  # by identity, as tensors have an equality of their own
        return len(now) == len(self._parts) and all(map(is_, now, self._parts))

    def _now(self) -> list[object]:
        return [part for place in self._places for part in place.values()]
