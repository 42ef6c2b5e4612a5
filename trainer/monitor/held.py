"""Tensors that wait until many of them are measured in one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOGETHER = 64  # tensors that are measured in one call
SMALL = 1 << 15  # values of a tensor that waits: fresh memory for more costs more than another call


class Held:
    """Tensors that are measured together, since a call for many small ones costs little more than
    one for a single one; what is measured stays on the device."""

    def __init__(self, measure: Callable[[list[Tensor]], tuple[Tensor | None, ...]]) -> None:
        self.layers: list[int] = []  # the layer of each tensor, in order of arrival
        self.sizes: list[int] = []  # of each tensor
        self.measured: list[tuple[Tensor | None, ...]] = []  # with one row for each tensor
        self._measure = measure
        self._tensors: list[Tensor] = []

    def add(self, layer: int, tensor: Tensor, copy: bool) -> None:
        """Takes a tensor that may change afterwards (copy) or will not."""
        size = tensor.numel()
        self.layers.append(layer)
        self.sizes.append(size)
        if size >= SMALL or tensor.layout is not torch.strided:
            self.measure()  # in order of arrival
            self.measured.append(self._measure([tensor]))
            return
        self._tensors.append(tensor.clone() if copy else tensor)
        if len(self._tensors) >= TOGETHER:
            self.measure()

    def measure(self) -> None:
        """Measures what is held, and lets it go."""
        if self._tensors:
            self.measured.append(self._measure(self._tensors))
            self._tensors = []
