"""How tensors change: their copies before, and what differs from them after."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from trainer.statistics.kinds import Dense, by_kind, dense

_FORM = attrgetter("shape", "dtype", "device")
_DTYPE = attrgetter("dtype")


class Snapshot:
    """Copies of the same tensors, again and again.

    On the CPU their memory is used again, since fresh memory costs several times what copying does.
    An accelerator's allocator keeps it at hand, and it is scarce there.
    """

    def __init__(self) -> None:
        self.copies: list[Tensor] = []
        self._dense = Dense([], True)
        self._where: Any = None  # the tensors in memory, where they are all read in place on a CPU

    def take(self, tensors: Sequence[Tensor]) -> Tensor:
        """Copies the tensors; their sums of squares (N,) float64.

        A value that is not finite makes its sum so.
        """
        if self._where is None or self._where != _where(tensors):
            self._dense = dense(tensors)
            values = self._dense.values
            if [*map(_FORM, self.copies)] != [*map(_FORM, values)]:
                self.copies = [torch.empty_like(each, requires_grad=False) for each in values]
            on_cpu = {each.device.type for each in values} == {"cpu"}
            self._where = _where(tensors) if on_cpu and values is tensors else None
        if not tensors:
            return torch.zeros(0, dtype=torch.float64)
        squares: Tensor
        (squares,) = by_kind(self._dense, lambda kind, *both: (kind.copy(*both),), self.copies)
        return squares

    def changes(self, tensors: Sequence[Tensor]) -> Tensor:
        """The sums of (now - before)^2 and how many values are the same, bit for bit: (N, 2).

        The copies are what was before; NaN for a tensor that has another form now.
        """
        other: list[int] = []
        now_dense = self._dense
        if self._where is None or self._where != _where(tensors):
            values = list(dense(tensors).values)
            for row, (now, old) in enumerate(zip(values, self.copies, strict=True)):
                if _FORM(now) != _FORM(old):
                    other.append(row)
                    values[row] = old
            now_dense = dense(values)
        if not tensors:
            return torch.zeros(0, 2, dtype=torch.float64)
        rows: Tensor
        (rows,) = by_kind(now_dense, lambda kind, *both: (kind.compare(*both),), self.copies)
        for row in other:
            rows[row].fill_(torch.nan)
        if self.copies[0].device.type != "cpu":
            self.copies = []
        return rows


def _where(tensors: Sequence[Tensor]) -> list[Any]:
    """Equal for tensors that are the same values in memory."""
    return [*map(Tensor.data_ptr, tensors), *map(Tensor.numel, tensors), *map(_DTYPE, tensors)]
