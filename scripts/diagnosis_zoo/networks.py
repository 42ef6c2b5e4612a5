"""The networks of the programs, in plain torch as their users write them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Init = Callable[[Tensor], object]


class Exponential(nn.Module):
    """eˣ."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "leaky": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "exponential": Exponential,
}


def he(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight)


def xavier(weight: Tensor) -> None:
    nn.init.xavier_uniform_(weight)


def normal(std: float) -> Init:
    return lambda weight: nn.init.normal_(weight, std=std)


def uniform(bound: float) -> Init:
    return lambda weight: nn.init.uniform_(weight, -bound, bound)


def initialise(model: nn.Module, init: Init | None, bias: float | None = 0.0) -> nn.Module:
    """Fills all matrices and, unless None, sets all biases of linear layers and convolutions."""
    for module in model.modules():
        if init is not None and isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            init(module.weight)
            if bias is not None and getattr(module, "bias", None) is not None:
                nn.init.constant_(module.bias, bias)
    return model


def mlp(
    inputs: int,
    outputs: int,
    depth: int = 2,
    width: int = 64,
    activation: str = "relu",
    init: Init | None = None,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Hidden layers, each linear, norm, activation and dropout."""
    layers: list[nn.Module] = [nn.Flatten()]
    for number in range(depth):
        layers.append(nn.Linear(inputs if number == 0 else width, width))
        if norm is not None:
            layers.append(norm(width))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
    layers.append(nn.Linear(width if depth else inputs, outputs))
    model = nn.Sequential(*layers)
    initialise(model, init)
    return model


class Functional(nn.Module):
    """An MLP whose activations are functions: no module tells of them."""

    def __init__(
        self, inputs: int, outputs: int, depth: int, width: int, f: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(inputs if k == 0 else width, width) for k in range(depth)
        )
        self.head, self.f = nn.Linear(width, outputs), f

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = self.f(layer(x))
        return self.head(x)  # type: ignore[no-any-return]


class ResidualMlp(nn.Module):
    """Blocks of norm, linear, activation and linear that are added to what enters them."""

    def __init__(
        self, inputs: int, outputs: int, depth: int = 8, width: int = 64, zero: bool = False
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)
            )
            for _ in range(depth)
        )
        self.head = nn.Linear(width, outputs)
        if zero:
            for block in self.blocks:
                nn.init.zeros_(block[-1].weight)  # type: ignore[index, arg-type]
                nn.init.zeros_(block[-1].bias)  # type: ignore[index, arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)  # type: ignore[no-any-return]


class ReZero(nn.Module):
    """Residual blocks behind a gate that starts at zero (Bachlechner et al. 2021)."""

    def __init__(self, inputs: int, outputs: int, depth: int = 8, width: int = 64) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.Parameter(torch.zeros(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for gate, block in zip(self.gates, self.blocks, strict=True):
            x = x + gate * F.relu(block(x))
        return self.head(x)  # type: ignore[no-any-return]


def cnn(
    channels: int,
    outputs: int,
    size: int,
    depth: int = 2,
    width: int = 8,
    activation: str = "relu",
    norm: bool = False,
    init: Init | None = None,
) -> nn.Sequential:
    """Convolutions of 3x3, the first two halved, and a linear layer."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Conv2d(channels if number == 0 else width, width, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(ACTIVATIONS[activation]())
        if number < 2:
            layers.append(nn.MaxPool2d(2))
            size //= 2
    layers += [nn.Flatten(), nn.Linear(width * size * size, outputs)]
    model = nn.Sequential(*layers)
    initialise(model, init)
    return model


class ResidualBlock(nn.Module):
    """Two convolutions with batch norm around a skip."""

    def __init__(self, width: int, zero: bool, skip: bool, norm: bool) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.norm_one = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.norm_two = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.skip = skip
        if zero and norm:
            nn.init.zeros_(self.norm_two.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm_two(self.two(F.relu(self.norm_one(self.one(x)))))
        return F.relu(x + inner if self.skip else inner)


class ResNet(nn.Module):
    """A stem, residual blocks and global average pooling."""

    def __init__(
        self,
        channels: int,
        outputs: int,
        blocks: int = 3,
        width: int = 12,
        zero: bool = False,
        skip: bool = True,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, stride=2)
        self.blocks = nn.Sequential(
            *[ResidualBlock(width, zero, skip, norm) for _ in range(blocks)]
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(F.relu(self.stem(x))).mean((2, 3)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """A recurrent network, read at its last step."""

    def __init__(
        self,
        kind: str,
        inputs: int,
        outputs: int,
        hidden: int = 32,
        layers: int = 1,
        vocabulary: int | None = None,
        gain: float | None = None,
        nonlinearity: str = "tanh",
        every: bool = False,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.embedding = None if vocabulary is None else nn.Embedding(vocabulary, inputs)
        extra = {"nonlinearity": nonlinearity} if kind == "RNN" else {}
        self.rnn = getattr(nn, kind)(inputs, hidden, layers, batch_first=True, **extra)
        self.head, self.every = nn.Linear(hidden, outputs), every
        for name, parameter in self.rnn.named_parameters():
            if gain is not None and name.startswith("weight_hh"):
                nn.init.orthogonal_(parameter, gain)
            if forget_bias is not None and name.startswith("bias_ih"):
                nn.init.constant_(parameter.detach()[hidden : 2 * hidden], forget_bias)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(x if self.embedding is None else self.embedding(x))
        return self.head(states if self.every else states[:, -1])  # type: ignore[no-any-return]


class Cells(nn.Module):
    """A recurrent network written as a loop over one cell."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 32) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.cell.hidden_size)
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.head(state)  # type: ignore[no-any-return]


class Block(nn.Module):
    """One block of a transformer."""

    def __init__(self, width: int, heads: int, post: bool) -> None:
        super().__init__()
        self.post, self.heads = post, heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inward, self.outward = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attention(self, x: Tensor) -> Tensor:
        parts = self.attention_in(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norm_1(x + self.attention(x))
            return self.norm_2(x + self.outward(F.gelu(self.inward(x))))  # type: ignore[no-any-return]
        x = x + self.attention(self.norm_1(x))
        return x + self.outward(F.gelu(self.inward(self.norm_2(x))))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """A small GPT over tokens, or over rows of numbers (a small ViT when averaged)."""

    def __init__(
        self,
        outputs: int,
        vocabulary: int | None = None,
        inputs: int = 0,
        layers: int = 2,
        width: int = 32,
        post: bool = False,
        tied: bool = False,
        average: bool = False,
        std: float | None = 0.02,
        longest: int = 128,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(inputs, width)
        self.position = nn.Embedding(longest, width)
        self.blocks = nn.Sequential(*[Block(width, 4, post) for _ in range(layers)])
        self.norm = nn.Identity() if post else nn.LayerNorm(width)
        self.head, self.average = nn.Linear(width, outputs, bias=not tied), average
        if std is not None:
            initialise(self, normal(std))
        if tied:
            self.head.weight = self.token.weight  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        x = self.norm(self.blocks(self.token(x) + self.position(places)))
        return self.head(x.mean(1) if self.average else x)  # type: ignore[no-any-return]


class Lora(nn.Module):
    """A frozen linear layer with a trainable product of low rank beside it (Hu et al. 2022)."""

    def __init__(self, frozen: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, frozen.in_features) / math.sqrt(rank))
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + x @ self.a.T @ self.b.T  # type: ignore[no-any-return]


class Experts(nn.Module):
    """A mixture of experts of which each row uses the best one."""

    def __init__(self, inputs: int, outputs: int, experts: int = 4, width: int = 32) -> None:
        super().__init__()
        self.gate = nn.Linear(inputs, experts)
        self.experts = nn.ModuleList(mlp(inputs, outputs, 1, width) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        share, chosen = self.gate(x.flatten(1)).softmax(-1).max(-1)
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return outputs[torch.arange(len(x)), chosen] * share[:, None]


class Calculation(nn.Module):
    """A function of torch as a layer with a name."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)
