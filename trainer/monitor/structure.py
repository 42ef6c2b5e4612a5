"""Does a model still consist of the modules and parameters that it had?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import is_

from torch import nn

from trainer.monitor.watched import Watched, watched

Places = Sequence[Mapping[str, object]]


class Structure:
    """The modules and parameters of a model as they were when it was last looked at."""

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        self._model, self._wanted = model, wanted
        self._note()

    def _note(self) -> None:
        modules = [*self._model.modules()]
        self._modules: Places = [module._modules for module in modules]
        self._parameters: Places = [module._parameters for module in modules]
        self._had_modules, self._had_parameters = _in(self._modules), _in(self._parameters)
        self._watched: Watched | None = None

    def look(self) -> bool:
        """Looks again: whether a module has been replaced, added or taken away since. Where one
        was, or a parameter, the watched ones are found anew."""
        same = _are_same(_in(self._modules), self._had_modules)
        if not (same and _are_same(_in(self._parameters), self._had_parameters)):
            self._note()
        return not same

    @property
    def watched(self) -> Watched:
        """The wanted parameters that it had then."""
        if self._watched is None or not self._watched.is_complete:
            self._watched = watched(self._model, self._wanted)
        return self._watched


def _in(places: Places) -> list[object]:
    return [part for place in places for part in place.values()]


def _are_same(now: list[object], then: list[object]) -> bool:
    """By identity: tensors have an equality of their own."""
    return len(now) == len(then) and all(map(is_, now, then))
