"""Y = X·W + b, with scalar W and b when there is one input and one output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.table import Table


class Linear(nn.Module):
    """Maps x (B, inputs) to (B, outputs) by `weight` (inputs, outputs) and `bias` (outputs,).

    With one input and one output both are scalars (0-d) and the result is W·x + b. A start value is
    a number (used throughout), a nested list of the parameter's shape, or None to draw it from a
    standard normal distribution; ValueError when a list has another shape.
    """

    def __init__(self, inputs: int, outputs: int, weight: Any = None, bias: Any = None) -> None:
        super().__init__()
        scalar = inputs == outputs == 1
        self.weight = nn.Parameter(_start("weight", weight, () if scalar else (inputs, outputs)))
        self.bias = nn.Parameter(_start("bias", bias, () if scalar else (outputs,)))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 0:
            return self.weight * x + self.bias  # (B, 1)
        return x @ self.weight + self.bias  # (B, outputs)

    def coefficients(self, table: Table) -> list[tuple[str, float]]:
        """The named values of weight and bias for inputs and outputs in the data's own units."""
        inputs, outputs = table.x.shape[1], table.y.shape[1]
        weight = self.weight.detach().reshape(inputs, outputs)
        bias = self.bias.detach().reshape(outputs)
        if table.x_scale is not None and table.y_scale is not None:
            # y = ((x - mean_x) / dev_x @ W + b) * dev_y + mean_y
            weight = weight / table.x_scale.deviation[:, None] * table.y_scale.deviation
            bias = bias * table.y_scale.deviation + table.y_scale.mean - table.x_scale.mean @ weight
        x_names = table.x_names or tuple(str(i) for i in range(inputs))
        y_names = table.y_names or tuple(str(i) for i in range(outputs))
        single = not table.x_names and inputs == 1, outputs == 1
        named = []
        for i, x_name in enumerate(x_names):
            for o, y_name in enumerate(y_names):
                index = "" if all(single) else x_name if single[1] else f"{x_name}, {y_name}"
                named.append((f"weight[{index}]" if index else "weight", weight[i, o].item()))
        for o, y_name in enumerate(y_names):
            named.append(("bias" if single[1] else f"bias[{y_name}]", bias[o].item()))
        return named


def _start(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    if value is None:
        return torch.randn(shape)
    try:
        start = torch.tensor(value, dtype=torch.get_default_dtype())
    except ValueError:  # lists of different lengths
        raise ValueError(f"{name}: the lists differ in length; expected shape {shape}") from None
    if start.dim() == 0 or start.numel() == 1 and shape == ():
        return start.reshape(()).expand(shape).clone()
    if start.shape != shape:
        raise ValueError(f"{name}: shape {tuple(start.shape)} does not fit; expected {shape}")
    return start
