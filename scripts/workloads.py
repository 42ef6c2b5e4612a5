"""What costs are measured on: an MLP, a small GPT, a ResNet-18 and the line of linear.yaml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Workload:
    """A model, the loss of one batch (the same at every step) and how many steps a round has."""

    name: str
    model: nn.Module
    loss: Callable[[], Tensor]
    steps: int  # measured in one go


def mlp() -> nn.Module:
    """784, ten hidden layers of 256 with ReLU, 10: 795,658 values in 22 tensors."""
    widths = [784, *[256] * 10, 10]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """One pre-norm block of a GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp_in, self.mlp_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        q, k, v = (
            part.view(batch, time, self.heads, -1).transpose(1, 2)
            for part in self.attention_in(self.norm_1(x)).split(width, dim=2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp_out(self.gelu(self.mlp_in(self.norm_2(x))))


class GPT(nn.Module):
    """4 blocks, width 128, 4 heads, context 64, vocabulary 65: 817,985 values in 52 tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(65, 128), nn.Embedding(64, 128)
        self.blocks = nn.Sequential(*[Block(128, 4) for _ in range(4)])
        self.head = nn.Linear(128, 65)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.blocks(x))


class Residual(nn.Module):
    """The basic block of a ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_1, self.norm_2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.skip = nn.Sequential(skip, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm_2(self.conv_2(F.relu(self.norm_1(self.conv_1(x)))))
        return F.relu(inner + self.skip(x))


def resnet18() -> nn.Module:
    """ResNet-18 for images of 32x32: 11,173,962 values in 62 tensors."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    width = 64
    for outputs in (64, 128, 256, 512):
        layers += [Residual(width, outputs, 1 if outputs == width else 2)]
        layers += [Residual(outputs, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def workload(name: str) -> Workload:
    """The named workload, its model and batch drawn from the same seed each time."""
    torch.manual_seed(0)
    if name == "MLP":
        model, x, y = mlp(), torch.randn(64, 784), torch.randint(10, (64,))
        return Workload(name, model, lambda: F.cross_entropy(model(x), y), 20)
    if name == "GPT":
        model, tokens = GPT(), torch.randint(65, (12, 65))
        x, y = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
        return Workload(name, model, lambda: F.cross_entropy(model(x).flatten(0, 1), y), 4)
    if name == "linear":
        model, x, y = nn.Linear(1, 1), torch.tensor([[2.0], [3.0]]), torch.tensor([[3.0], [2.0]])
        return Workload(name, model, lambda: 0.5 * (model(x) - y).square().sum(), 1000)
    model, x, y = resnet18(), torch.randn(16, 3, 32, 32), torch.randint(10, (16,))
    return Workload(name, model, lambda: F.cross_entropy(model(x), y), 2)


NAMES = ("MLP", "GPT", "ResNet-18", "linear")
