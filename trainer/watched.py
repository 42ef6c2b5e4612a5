"""The parameters that are looked at, and what about them stays the same from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
from torch import Tensor, nn

from trainer import statistics
from trainer.layers import dtype_name
from trainer.shards import here

_GRADIENT, _TRAINED = attrgetter("grad"), attrgetter("requires_grad")
_SHAPE, _DTYPE = attrgetter("shape"), attrgetter("dtype")


class Watched:
    """Named parameters; those of them that are trained have rows in a record."""

    def __init__(self, named: Sequence[tuple[str, nn.Parameter]]) -> None:
        self.names = tuple(name for name, _ in named)
        self.parameters = [parameter for _, parameter in named]
        self.snapshot = statistics.Snapshot()  # of those that are trained
        self._is_trained: list[bool] | None = None
        self._forms: list[object] | None = None

    def gradients(self) -> list[Tensor | None]:
        """What is in `.grad` of each parameter."""
        return [*map(_GRADIENT, self.parameters)]

    def look(self) -> None:
        """Finds out which parameters are trained now, in what form they are, and their values that
        are in this process."""
        is_trained = [*map(_TRAINED, self.parameters)]
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
