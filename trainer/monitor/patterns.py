"""Which parameters and layers of a model are looked at, by patterns of their names."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from trainer.config.schema import Monitor as Section
from trainer.monitor.layers import layers

SHOWN = 3  # names of a model's parameters in a message


class Patterns:
    """Tells whether a name is wanted: one of `include` of the section fits, none of `exclude`.

    ValueError where that leaves nothing of a model that has something to look at.
    """

    def __init__(self, model: nn.Module, section: Section) -> None:
        self._include, self._exclude = section.include, section.exclude
        names = [name_of(name) for name, _ in model.named_parameters()]
        both = [*names, *(name for found in layers(model) for name, _ in found)]
        if not names or any(map(self.wants, both)):
            return
        wrong, patterns = "include: nothing of the model is called", self._include
        if any(fnmatchcase(name, pattern) for name in both for pattern in patterns):
            wrong, patterns = "exclude: nothing of the model is left by", self._exclude
        said = " or ".join(map(repr, patterns)) or "an empty list"
        some = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        raise ValueError(f"{wrong} {said}; its parameters are {some}")

    def wants(self, name: str) -> bool:
        """Whether what has this name is looked at."""
        included = any(fnmatchcase(name, pattern) for pattern in self._include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self._exclude)


def name_of(name: str) -> str:
    """The name without what torch.compile adds to it."""
    return name.replace("_orig_mod.", "")
