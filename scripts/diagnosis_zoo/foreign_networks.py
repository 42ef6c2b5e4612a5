"""Networks of families that networks.py does not have."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_zoo import networks as net

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = net.ACTIVATIONS | {
    "softsign": nn.Softsign,
    "hardsigmoid": nn.Hardsigmoid,
    "logsigmoid": nn.LogSigmoid,
    "relu6": nn.ReLU6,
    "prelu": nn.PReLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "celu": nn.CELU,
    "tanhshrink": nn.Tanhshrink,
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "sine": torch.sin,
    "square": torch.square,
    "none": lambda x: x,
}


def stack(widths: Sequence[int], activation: str) -> nn.Sequential:
    """Linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for one, other in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(one, other), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def vgg(
    channels: int, outputs: int, depth: int, width: int, activation: str, size: int,
    norm: Callable[[int], nn.Module] | None = None,
) -> nn.Sequential:  # fmt: skip
    """Convolutions, pooling after every third of the first six, and two linear layers."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Conv2d(channels if number == 0 else width, width, 3, padding=1))
        if norm is not None:
            layers.append(norm(width))
        layers.append(ACTIVATIONS[activation]())
        if number in (2, 5):
            layers.append(nn.MaxPool2d(2))
            size //= 2
    head = [nn.Linear(width * size**2, 32), ACTIVATIONS[activation](), nn.Linear(32, outputs)]
    return nn.Sequential(*layers, nn.Flatten(), *head)


class Sum(nn.Module):
    """Blocks whose results, times a factor, are added to what enters them; no norms."""

    def __init__(self, inputs: int, outputs: int, blocks: int, width: int, factor: float) -> None:
        super().__init__()
        self.stem, self.head, self.factor = (
            nn.Linear(inputs, width),
            nn.Linear(width, outputs),
            factor,
        )
        self.one = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.two = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for one, two in zip(self.one, self.two, strict=True):
            x = x + self.factor * two(F.relu(one(x)))
        return self.head(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """PyTorch's own transformer layers over rows of numbers or tokens, averaged."""

    def __init__(
        self, outputs: int, layers: int, first: bool, inputs: int = 0, vocabulary: int = 0,
        width: int = 32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(inputs, width)
        self.place = nn.Parameter(0.02 * torch.randn(64, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=first)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token(x) + self.place[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class OnlyAttention(nn.Module):
    """Attention without skips: its rank dies doubly exponentially (Dong et al. 2021)."""

    def __init__(self, inputs: int, outputs: int, layers: int, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.layers = nn.ModuleList(
            nn.MultiheadAttention(width, 4, batch_first=True) for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class Mixer(nn.Module):
    """Layers that mix rows, then columns (Tolstikhin et al. 2021)."""

    def __init__(self, rows: int, inputs: int, outputs: int, depth: int, skip: bool = True) -> None:
        super().__init__()
        self.stem, self.head, self.skip = nn.Linear(inputs, 32), nn.Linear(32, outputs), skip
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(2 * depth if skip else 0))
        self.across = nn.ModuleList(nn.Linear(rows, rows) for _ in range(depth))
        self.along = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, (across, along) in enumerate(zip(self.across, self.along, strict=True)):
            if self.skip:
                one, two = self.norms[2 * number : 2 * number + 2]
                x = x + F.gelu(across(one(x).mT)).mT
                x = x + F.gelu(along(two(x)))
            else:
                x = F.gelu(along(F.gelu(across(x.mT)).mT))
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class Graph(nn.Module):
    """Every row is a node that hears the mean of its neighbours in a ring of rows."""

    def __init__(self, inputs: int, outputs: int, layers: int, skip: bool, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head, self.skip = nn.Linear(inputs, width), nn.Linear(width, outputs), skip
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x.flatten(1)))
        near = 1 / (1 + torch.cdist(x.detach(), x.detach()))
        near = near / near.sum(1, keepdim=True)
        for layer in self.layers:
            heard = F.relu(layer(near @ x))
            x = x + heard if self.skip else heard
        return self.head(x)  # type: ignore[no-any-return]


class Siren(nn.Module):
    """Sines (Sitzmann et al. 2020); start values for the frequency where `fitting`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        frequency: float,
        fitting: bool,
        width: int = 64,
    ) -> None:
        super().__init__()
        widths = [inputs, *[width] * depth]
        pairs = zip(widths, widths[1:], strict=False)
        self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in pairs)
        self.head, self.frequency = nn.Linear(width, outputs), frequency
        for number, layer in enumerate(self.layers if fitting else ()):
            one = layer.in_features
            bound = 1 / one if number == 0 else math.sqrt(6 / one) / frequency
            nn.init.uniform_(layer.weight, -bound, bound)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = torch.sin(self.frequency * layer(x))
        return self.head(x)  # type: ignore[no-any-return]


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, width, 3, padding=1)
        self.two = nn.Conv2d(width, 2 * width, 3, padding=1, stride=2)
        self.three = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Conv2d(2 * width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.one(x))
        deep = F.relu(self.three(F.relu(self.two(one))))
        return self.last(torch.cat([one, F.relu(self.up(deep))], 1))  # type: ignore[no-any-return]


class Dense(nn.Module):
    """Every layer sees all before it (Huang et al. 2017)."""

    def __init__(self, channels: int, outputs: int, layers: int, growth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(channels + growth * k, growth, 3, padding=1) for k in range(layers)
        )
        self.head = nn.Linear(channels + growth * layers, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], 1)
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Separable(nn.Module):
    """Depthwise convolutions and a gate for every channel (Howard et al. 2017; Hu et al. 2018)."""

    def __init__(self, channels: int, outputs: int, blocks: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, stride=2)
        self.deep = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(blocks)
        )
        self.point = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(blocks))
        self.norm = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(blocks))
        self.gate = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        for deep, point, norm, gate in zip(
            self.deep, self.point, self.norm, self.gate, strict=True
        ):
            inner = F.relu6(norm(point(deep(x))))
            x = x + inner * torch.sigmoid(gate(inner.mean((2, 3))))[..., None, None]
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


class Dilated(nn.Module):
    """Causal convolutions over time with growing steps (van den Oord et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, layers: int, skip: bool, width: int = 16) -> None:
        super().__init__()
        self.stem, self.head, self.skip = (
            nn.Conv1d(inputs, width, 1),
            nn.Linear(width, outputs),
            skip,
        )
        self.layers = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 2, dilation=2 ** (k % 4)) for k in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.mT)
        for layer in self.layers:
            inner = F.glu(layer(F.pad(x, (layer.dilation[0], 0))), 1)  # type: ignore[index, arg-type]
            x = x + inner if self.skip else inner
        return self.head(x[..., -1])  # type: ignore[no-any-return]


class Highway(nn.Module):
    """Gates that carry the input past every layer (Srivastava et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, depth: int, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for gate, layer in zip(self.gates, self.layers, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * torch.tanh(layer(x)) + (1 - share) * x
        return self.head(x)  # type: ignore[no-any-return]


class Unrolled(nn.Module):
    """One layer that is applied again and again: Euler's steps of a differential equation."""

    def __init__(self, inputs: int, outputs: int, steps: int, size: float, width: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.rate, self.steps, self.size = nn.Linear(width, width), steps, size

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for _ in range(self.steps):
            x = x + self.size * torch.tanh(self.rate(x))
        return self.head(x)  # type: ignore[no-any-return]


class Coupling(nn.Module):
    """A normalising flow of affine couplings (Dinh et al. 2017): -log likelihood of each row."""

    def __init__(self, inputs: int, layers: int, bounded: bool, factor: float = 1.0) -> None:
        super().__init__()
        half, rest = inputs // 2, inputs - inputs // 2
        self.nets = nn.ModuleList(
            net.mlp(half, 2 * rest, 1, 32) if k % 2 == 0 else net.mlp(rest, 2 * half, 1, 32)
            for k in range(layers)
        )
        self.half, self.bounded, self.factor = half, bounded, factor

    def forward(self, x: Tensor) -> Tensor:
        one, two = x[:, : self.half], x[:, self.half :]
        volume = x.new_zeros(len(x))
        for layer in self.nets:
            scale, shift = (self.factor * layer(one)).chunk(2, -1)
            scale = torch.tanh(scale) if self.bounded else scale
            one, two, volume = two * scale.exp() + shift, one, volume + scale.sum(1)
        return 0.5 * (one.square().sum(1) + two.square().sum(1)) - volume


class Factors(nn.Module):
    """Two embeddings and their product: which user likes which thing."""

    def __init__(self, users: int, things: int, rank: int = 8) -> None:
        super().__init__()
        self.users, self.things = nn.Embedding(users, rank), nn.Embedding(things, rank)
        self.scale = nn.Linear(1, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        made = (self.users(pairs[:, 0]) * self.things(pairs[:, 1])).sum(1, keepdim=True)
        return self.scale(made)  # type: ignore[no-any-return]


class Gated(nn.Module):
    """LSTM or GRU layers, read at the last step; `bias` is added to the gates `rows`."""

    def __init__(
        self, kind: str, inputs: int, outputs: int, layers: int = 1, hidden: int = 24,
        bias: float = 0.0, gate: int = 0, both: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.rnn = getattr(nn, kind)(inputs, hidden, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(hidden * (2 if both else 1), outputs)
        for name, parameter in self.rnn.named_parameters():
            if bias and name.startswith("bias_ih"):
                parameter.detach()[gate * hidden : (gate + 1) * hidden] += bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])  # type: ignore[no-any-return]


class Straight(torch.autograd.Function):
    """The sign on the way forward, nothing on the way back."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.sign()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


class Through(nn.Module):
    """A model that is given what a function makes of its input."""

    def __init__(self, before: Callable[[Tensor], Tensor], inner: nn.Module) -> None:
        super().__init__()
        self.before, self.inner = before, inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.before(x))  # type: ignore[no-any-return]
