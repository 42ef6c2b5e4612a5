"""Which layers a record names, in order of execution, and of what kinds they are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from trainer.record import INPUT, TIME_STEPS, LayerTable, owner

RECTIFIERS = frozenset({"ReLU", "ReLU6", "Threshold"})
EXPONENTIALS = frozenset({"Exponential", "Exp"})
# The largest slope of activations that flatten out on both sides.
SATURATING = {"Tanh": 1.0, "Sigmoid": 0.25, "Hardtanh": 1.0, "Hardsigmoid": 1 / 6, "Softsign": 1.0}
ACTIVATIONS = (
    RECTIFIERS
    | SATURATING.keys()
    | {"LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Softplus"}
    | {"Hardswish", "LogSigmoid", "Tanhshrink", "Softshrink", "Hardshrink"}
    | EXPONENTIALS
)
RECURRENT = frozenset({"RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"})
GATED = RECURRENT - {"RNN", "RNNCell"}
FEW_LAYERS = 2  # recurrent ones, of which more leave little of a gradient
DROPOUTS = frozenset({"Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout"})
SOFT = frozenset({"Softmax", "LogSoftmax", "Softmin"})

Names = tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """What the records of a run have in common as long as they name the same layers."""

    all_names: Names  # of a LayerTable
    all_kinds: Names
    reached: Names  # the rows that have a gradient
    parameters: Names  # which begin with the names of their layers
    leads_to: Names = ()  # of a LayerTable

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """(L,) the rows of the table that layers put out; the network's input and the ends of
        sequences stand there as well."""
        named = enumerate(self.all_kinds)
        return np.array([row for row, kind in named if kind not in (INPUT, TIME_STEPS)], np.intp)

    @cached_property
    def names(self) -> Names:
        """(L,)"""
        return tuple(self.all_names[row] for row in self.rows.tolist())

    @cached_property
    def kinds(self) -> Names:
        """(L,)"""
        return tuple(self.all_kinds[row] for row in self.rows.tolist())

    @cached_property
    def gradients(self) -> NDArray[np.intp]:
        """(L,) the place of each layer's gradient; -1 where none came."""
        # A module called `input` has the same name as the input's row, which no gradient reaches.
        return np.array([self._place.get(name, -1) for name in self.names], np.intp)

    @cached_property
    def branches(self) -> list[NDArray[np.intp]]:
        """The numbers of the layers that lead to the same last one; not of those that nobody knows
        of, as of frozen ones, where there are several branches."""
        if not self.leads_to:
            return [np.arange(len(self.names))]
        ends = [self.leads_to[row] for row in self.rows.tolist()]
        known = filter(None, dict.fromkeys(ends))
        return [np.flatnonzero([end == each for end in ends]) for each in known]

    @cached_property
    def ends(self) -> list[tuple[int, int]]:
        """The places of the gradients at the first and the last steps of recurrent layers."""
        pairs = zip(self.all_names, self.all_kinds, strict=True)
        ends = [self._place.get(name) for name, kind in pairs if kind == TIME_STEPS]
        both = zip(ends[::2], ends[1::2], strict=True)
        return [(one, two) for one, two in both if one is not None and two is not None]

    @cached_property
    def looping(self) -> str | None:
        """The first layer that has ends in time."""
        pairs = zip(self.all_names, self.all_kinds, strict=True)
        return next((n.rpartition(".")[0] for n, kind in pairs if kind == TIME_STEPS), None)

    @cached_property
    def rectifiers(self) -> NDArray[np.intp]:
        """The numbers of the layers that are."""
        return np.array([row for row, kind in enumerate(self.kinds) if kind in RECTIFIERS], np.intp)

    @cached_property
    def gated(self) -> bool:
        """Whether some recurrent layer has gates."""
        return any(kind in GATED for kind in self.kinds)

    @cached_property
    def drops(self) -> bool:
        """Whether some layer is a dropout."""
        return not DROPOUTS.isdisjoint(self.kinds)

    @cached_property
    def normalised(self) -> bool:
        """Whether some layer normalises; what the model as a whole is called says nothing."""
        return len(self.kinds) > 1 and any("Norm" in kind for kind in self.kinds)

    @cached_property
    def outputs(self) -> list[int]:
        """The last layer of each branch that is no softmax; of branches of several layers, if there
        are such."""
        longest = [b for b in self.branches if len(b) > 1] or self.branches
        hard = ([row for row in b.tolist() if self.kinds[row] not in SOFT] for b in longest)
        return [rows[-1] for rows in hard if rows]

    @cached_property
    def begins(self) -> bool:
        """Whether the first layer is the first that has parameters, or the second: others before it
        that are not called may be used by functions, and what it is given is then not the network's
        input. One may be no layer but values that are added to that."""
        owners, before = dict.fromkeys(map(owner, self.parameters)), 0
        if len(self.names) == 1 and self.names[0] not in owners:
            return True  # the model as a whole
        called = {*self.names, *(n[:at] for n in self.names for at, c in enumerate(n) if c == ".")}
        for layer in filter(None, owners):
            if layer in self.names:
                return True
            around = (layer[:at] for at, c in enumerate(layer) if c == ".")
            before += layer not in called and called.isdisjoint(around)
            if before > 1:
                return False
        return True

    @cached_property
    def last_with_parameters(self) -> int | None:
        """The last layer that has parameters, be they tied to those of another one or frozen; the
        last one where none has, as where they are used without a module."""
        owners = {*map(owner, self.parameters)}
        rows, kinds = reversed(range(len(self.names))), self.kinds
        last = len(self.names) - 1 if self.names and self.parameters else None
        return next((r for r in rows if self.names[r] in owners or kinds[r] == "Linear"), last)

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.reached)}


@lru_cache(maxsize=8)
def _known(names: Names, kinds: Names, reached: Names, parameters: Names, leads_to: Names) -> Order:
    return Order(names, kinds, reached, parameters, leads_to)


def order(table: LayerTable, parameters: Names) -> Order:
    """That of the table; the same one as long as the names are the same."""
    return _known(table.names, table.kinds, table.gradients.names, parameters, table.leads_to)
