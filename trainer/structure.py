"""Does a model still consist of the modules and parameters that it had?"""

from __future__ import annotations

from operator import is_

from torch import nn


class Structure:
    """The modules and parameters of a model as they are now."""

    def __init__(self, model: nn.Module) -> None:
        parts = [
            part for module in model.modules() for part in (module._modules, module._parameters)
        ]
        self._parts = [(part, [*part.values()]) for part in parts]

    def is_same(self) -> bool:
        """Whether none has been replaced, added or taken away since; of each its values may be
        others."""
        return all(
            len(now) == len(then) and all(map(is_, now.values(), then)) for now, then in self._parts
        )
