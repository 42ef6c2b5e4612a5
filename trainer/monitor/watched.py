"""The parameters that are looked at, and what about them stays the same from step to step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import numpy as np
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer

from trainer import statistics
from trainer.monitor.layers import dtype_name
from trainer.monitor.others import held_by_optimizers
from trainer.monitor.patterns import name_of
from trainer.monitor.shards import here

_GRADIENT, _TRAINED = attrgetter("grad"), attrgetter("requires_grad")
_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


class Watched:
    """Named parameters; those of them that are trained have rows in a record."""

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        self.is_complete = True  # whether no parameter of the model has yet to get its shape
        self.names = tuple(name for name, _ in named)
        self.parameters = [parameter for _, parameter in named]
        self.snapshot = statistics.Snapshot()  # of those that are trained
        self._ids = frozenset(map(id, self.parameters))
        self._spare: set[int] | None = None  # that no optimizer has, and that had no gradient yet
        self._is_trained: list[bool] | None = None
        self._forms: list[object] | None = None

    def gradients(self) -> list[Tensor | None]:
        """What is in `.grad` of each parameter."""
        return [*map(_GRADIENT, self.parameters)]

    def has_any(self, optimizer: Optimizer) -> bool:
        """Whether an optimizer updates any of them."""
        return any(
            id(each) in self._ids for group in optimizer.param_groups for each in group["params"]
        )

    def look(self, gradients: Sequence[Tensor | None]) -> None:
        """Finds out which parameters are trained now, in what form they are, and their values that
        are in this process; by the gradients, in the order of the parameters.

        One that is cut off from the loss and that no optimizer has is frozen in another way.
        """
        is_trained = [*map(_TRAINED, self.parameters)]
        if any(gradient is None for gradient in gradients):
            rows = zip(self.parameters, is_trained, gradients, strict=True)
            spare = self._spares(gradients)
            is_trained = [
                trained and (gradient is not None or id(parameter) not in spare)
                for parameter, trained, gradient in rows
            ]
        if is_trained != self._is_trained:
            pairs = zip(self.names, self.parameters, is_trained, strict=True)
            trained = [(name, parameter) for name, parameter, trained in pairs if trained]
            self._is_trained, self._forms = is_trained, None
            self.trained_names = tuple(name for name, _ in trained)
            self.trained = [parameter for _, parameter in trained]
        self.values = here(self.trained)
        forms = [*map(_SHAPE, self.values), *map(_DTYPE, self.values)]
        if forms != self._forms:
            self._forms = forms
            sizes = [max(1, statistics.size(each)) for each in self.values]
            self.sizes = np.array(sizes, dtype=np.float64)  # so that no values have an RMS of 0
            self.shapes = tuple(tuple(each.shape) for each in self.trained)
            self.dtypes = tuple(dtype_name(each.dtype) for each in self.trained)

    def _spares(self, gradients: Sequence[Tensor | None]) -> set[int]:
        if self._spare is None:  # none where nobody's optimizer has any of them
            held = set[int]().union(*held_by_optimizers())
            self._spare = set() if self._ids.isdisjoint(held) else {*self._ids - held}
        if self._spare:
            rows = zip(self.parameters, gradients, strict=True)
            self._spare -= {id(each) for each, gradient in rows if gradient is not None}
        return self._spare


def watched(model: nn.Module, wanted: Callable[[str], bool]) -> Watched:
    """The wanted parameters of a model; without those that have no shape yet (lazy modules)."""
    named = [(name_of(name), each) for name, each in model.named_parameters()]
    known = [pair for pair in named if not isinstance(pair[1], UninitializedParameter)]
    found = Watched([pair for pair in known if wanted(pair[0])])
    found.is_complete = len(known) == len(named)
    return found
