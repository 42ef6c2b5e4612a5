"""Families that were written when those of later.py had led to changes, for another first look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_zoo import foreign_networks as more
from diagnosis_zoo import networks as net
from diagnosis_zoo.drawn import Pick
from diagnosis_zoo.foreign import Family, training
from diagnosis_zoo.later import drawn_of
from diagnosis_zoo.program import Program, Run, Task
from diagnosis_zoo.sick import DEAD, EXPLODING, NON_FINITE, RATE, VANISHING
from diagnosis_zoo.tasks import task

TOO_LARGE = EXPLODING | NON_FINITE | RATE

# Networks.


class Leaky(nn.Module):
    """Blocks that are added to a part, or a multiple, of what enters them."""

    def __init__(self, task: Task, depth: int, kept: float, kind: str) -> None:
        super().__init__()
        self.stem, self.kept = nn.Linear(task.inputs, 48), kept
        self.blocks = nn.ModuleList(nn.Linear(48, 48) for _ in range(depth))
        self.function, self.head = more.ACTIVATIONS[kind](), nn.Linear(48, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = self.kept * (x + self.function(block(x)))
        return self.head(x)  # type: ignore[no-any-return]


class Pairs(nn.Module):
    """Layers that multiply all pairs of two projections (Tenenbaum and Freeman 2000)."""

    def __init__(self, task: Task, depth: int, std: float) -> None:
        super().__init__()
        self.stem = nn.Linear(task.inputs, 16)
        self.layers = nn.ModuleList(nn.Bilinear(16, 16, 16) for _ in range(depth))
        self.head = nn.Linear(16, task.outputs)
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=std)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for layer in self.layers:
            x = layer(x, x)
        return self.head(x)  # type: ignore[no-any-return]


class Linearised(nn.Module):
    """Attention without a softmax: products of queries, keys and values."""

    def __init__(self, task: Task, depth: int, scale: float, skips: bool) -> None:
        super().__init__()
        self.embed, self.scale, self.skips = nn.Linear(task.x.shape[-1], 24), scale, skips
        self.layers = nn.ModuleList(nn.Linear(24, 72) for _ in range(depth))
        self.head = nn.Linear(24, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            query, key, value = layer(x).chunk(3, -1)
            made = self.scale * query @ (key.transpose(1, 2) @ value)
            x = x + made if self.skips else made
        return self.head(x.mean(1))  # type: ignore[no-any-return]


class Flow(nn.Module):
    """A state that a small network changes, once for each step of a sequence."""

    def __init__(self, task: Task, gain: float, kept: float) -> None:
        super().__init__()
        self.kept, self.put = kept, nn.Linear(task.x.shape[-1], 24)
        self.change = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24))
        self.head = nn.Linear(24, task.outputs)
        for layer in (self.change[0], self.change[2]):
            nn.init.normal_(layer.weight, std=gain / 24**0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 24)
        for step in x.unbind(1):
            state = self.kept * state + self.change(state + self.put(step))
        return self.head(state)  # type: ignore[no-any-return]


class Squashed(nn.Module):
    """Capsules whose lengths are squashed (Sabour et al. 2017), as many write it."""

    def __init__(self, task: Task, safe: float) -> None:
        super().__init__()
        self.safe = safe
        self.first = nn.Linear(task.inputs, 64)
        self.second = nn.Linear(64, 64)
        self.head = nn.Linear(64, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x.flatten(1))))).unflatten(1, (16, 4))
        square = x.square().sum(2, keepdim=True)
        x = square / (1 + square) * x / (square + self.safe).sqrt()
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Rises(nn.Module):
    """A picture from a code: convolutions that double the size, and what reads it again."""

    def __init__(self, depth: int, kind: str, norm: bool, std: float | None) -> None:
        super().__init__()
        inner: list[nn.Module] = []
        for _ in range(depth):
            inner += [nn.Conv2d(8, 8, 3, padding=1), *([nn.BatchNorm2d(8)] if norm else []),
                      more.ACTIVATIONS[kind]()]  # fmt: skip
        self.encoder = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), more.ACTIVATIONS[kind](), *inner)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(8, 8, 4, 2, 1), more.ACTIVATIONS[kind](),
                                     nn.Conv2d(8, 1, 3, padding=1))  # fmt: skip
        if std is not None:
            net.initialise(self, net.normal(std))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))  # type: ignore[no-any-return]


class Codebook(nn.Module):
    """An autoencoder whose code is the nearest of some vectors (van den Oord et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 32), more.stack([32, 64, 64], "relu")
        self.vectors = nn.Parameter(torch.randn(16, 8) / 4)

    def forward(self, x: Tensor) -> Tensor:
        made = self.encoder(x).unflatten(1, (4, 8))
        nearest = torch.cdist(made, self.vectors.expand(len(x), -1, -1)).argmin(2)
        code = self.vectors[nearest]
        self.penalty = (code - made.detach()).square().mean() + (
            code.detach() - made
        ).square().mean() / 4
        return torch.cat(
            [self.decoder((made + (code - made).detach()).flatten(1)),
             self.penalty.expand(len(x), 1)], 1)  # fmt: skip


class Translator(nn.Module):
    """A recurrent network reads a sequence, another one writes it (Sutskever et al. 2014)."""

    def __init__(self, task: Task, kind: str, bias: float) -> None:
        super().__init__()
        make = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}[kind]
        self.reader = make(task.x.shape[-1], 32, batch_first=True)
        self.writer = make(task.x.shape[-1], 32, batch_first=True)
        self.head = nn.Linear(32, task.x.shape[-1])
        if kind == "LSTM":
            for layer in (self.reader, self.writer):
                nn.init.constant_(layer.bias_hh_l0[32:64], bias)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.reader(x)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return self.head(self.writer(before, state)[0])  # type: ignore[no-any-return]


class Softmaxes(nn.Module):
    """Hidden layers with a softmax."""

    def __init__(self, task: Task, depth: int, width: int) -> None:
        super().__init__()
        widths = [task.inputs, *[width] * depth]
        self.layers = nn.Sequential(
            *(k for a, b in zip(widths, widths[1:], strict=False)
              for k in (nn.Linear(a, b), nn.Softmax(1))))  # fmt: skip
        self.head = nn.Linear(width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.flatten(1)))  # type: ignore[no-any-return]


class Made(nn.Module):
    """A layer whose weights another network makes (Ha et al. 2017)."""

    def __init__(self, task: Task, std: float | None) -> None:
        super().__init__()
        self.inputs, self.outputs = task.inputs, task.outputs
        self.code = nn.Parameter(torch.randn(8))
        self.maker = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, task.inputs * 32))
        self.head = nn.Linear(32, task.outputs)
        if std is not None:
            nn.init.normal_(self.maker[2].weight, std=std)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        weight = self.maker(self.code).view(32, self.inputs)
        return self.head(F.relu(F.linear(x.flatten(1), weight)))  # type: ignore[no-any-return]


# Sick: nothing arrives.


def leaks(pick: Pick) -> dict[str, Any]:
    depth, kept, kind = pick([24, 40]), pick([0.4, 0.5]), pick(["relu", "tanh", "gelu"])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Leaky(t, depth, kept, kind)}  # fmt: skip


def pairs_fade(pick: Pick) -> dict[str, Any]:
    depth, std = pick([5, 7]), pick([0.01, 0.02])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Pairs(t, depth, std)}  # fmt: skip


def linearised_fades(pick: Pick) -> dict[str, Any]:
    depth = pick([3, 5])
    return {"data": pick(["digit_rows", "waves"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Linearised(t, depth, 0.01, False)}  # fmt: skip


def flow_fades(pick: Pick) -> dict[str, Any]:
    gain, kept = pick([0.3, 0.6]), pick([0.3, 0.6])
    return {"data": "first_of_80", "verdicts": VANISHING, **training(pick), "steps": 250,
            "build": lambda t: Flow(t, gain, kept)}  # fmt: skip


def pictures_fade(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(8, "sigmoid"), (20, "tanh"), (24, "relu"), (10, "hardsigmoid")])
    return {"data": pictured, "verdicts": VANISHING, **training(pick),
            "build": lambda t: Rises(depth, kind, False, None)}  # fmt: skip


def softmaxes_fade(pick: Pick) -> dict[str, Any]:
    depth, width = pick([4, 6, 8]), pick([32, 64, 128])
    return {"data": pick(["digits", "wine", "cancer"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Softmaxes(t, depth, width)}  # fmt: skip


def repeated_fades(pick: Pick) -> dict[str, Any]:
    """A deep perceptron whose output a recurrent network is given ten times."""
    kind, depth = pick(["tanh", "sigmoid"]), pick([1, 2])
    widths = [32] * (24 if kind == "tanh" else 8)

    def build(rows: Task) -> nn.Module:
        return nn.Sequential(
            net.Calculation(lambda x: x.flatten(1)),
            *list(more.stack([rows.inputs, *widths, 32], kind))[1:],
            nn.Unflatten(1, (1, 32)),
            net.Calculation(lambda x: x.expand(-1, 10, -1)),
            nn.GRU(32, 32, depth, batch_first=True),
            net.Calculation(lambda x: x[0][:, -1]), nn.Linear(32, rows.outputs),
        )  # fmt: skip

    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": VANISHING, **training(pick),
            "build": build}  # fmt: skip


# Sick: too much arrives.


def leaks_grow(pick: Pick) -> dict[str, Any]:
    depth, kept, kind = pick([24, 40]), pick([1.3, 1.6]), pick(["relu", "tanh", "gelu"])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": TOO_LARGE,
            **training(pick), "steps": 120,
            "build": lambda t: Leaky(t, depth, kept, kind)}  # fmt: skip


def pairs_grow(pick: Pick) -> dict[str, Any]:
    depth, std = pick([4, 6]), pick([0.5, 1.0])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": TOO_LARGE,
            **training(pick), "steps": 120, "build": lambda t: Pairs(t, depth, std)}  # fmt: skip


def linearised_grows(pick: Pick) -> dict[str, Any]:
    depth, scale = pick([4, 6]), pick([1.0, 3.0])
    return {"data": pick(["digit_rows", "waves"]), "verdicts": TOO_LARGE,
            **training(pick), "steps": 120,
            "build": lambda t: Linearised(t, depth, scale, True)}  # fmt: skip


def flow_grows(pick: Pick) -> dict[str, Any]:
    gain, kept = pick([1.0, 1.5]), pick([1.0, 1.1])
    return {"data": pick(["first_of_80", "waves"]), "verdicts": TOO_LARGE,
            **training(pick), "steps": 120, "build": lambda t: Flow(t, gain, kept)}  # fmt: skip


def pictures_grow(pick: Pick) -> dict[str, Any]:
    depth, std = pick([10, 16]), pick([0.4, 0.7])
    return {"data": pictured, "verdicts": TOO_LARGE, **training(pick),
            "steps": 120, "build": lambda t: Rises(depth, "relu", False, std)}  # fmt: skip


def made_large(pick: Pick) -> dict[str, Any]:
    std = pick([30.0, 300.0])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": TOO_LARGE,
            **training(pick, "sgd", "momentum", "adam"), "steps": 120,
            "build": lambda t: Made(t, std)}  # fmt: skip


# Sick: no numbers.


def squashed_nothing(pick: Pick) -> dict[str, Any]:
    return {"data": pick(["digits", "wine"]), "verdicts": NON_FINITE, **training(pick),
            "steps": 60, "build": lambda t: Squashed(t, 0.0)}  # fmt: skip


def masked_root(pick: Pick) -> dict[str, Any]:
    """What torch.where leaves out has a gradient that is no number all the same."""
    power = pick([0.5, 0.25])

    def measure(x: Tensor) -> Tensor:
        return torch.where(x > 0, x**power, torch.zeros_like(x))

    def build(rows: Task) -> nn.Module:
        first = nn.Sequential(nn.Flatten(), nn.Linear(rows.inputs, 48))
        return nn.Sequential(first, net.Calculation(measure), nn.Linear(48, rows.outputs))

    return {"data": pick(["digits", "cancer"]), "verdicts": NON_FINITE, **training(pick),
            "steps": 60, "build": build}  # fmt: skip


def all_masked(pick: Pick) -> dict[str, Any]:
    """Attention in which some rows may look at nothing."""
    limit = pick([0.1, 0.3])

    class Looking(nn.Module):
        def __init__(self, rows: Task) -> None:
            super().__init__()
            self.embed, self.score = nn.Linear(rows.x.shape[-1], 24), nn.Linear(24, 1)
            self.head = nn.Linear(24, rows.outputs)

        def forward(self, x: Tensor) -> Tensor:
            hidden = torch.tanh(self.embed(x))
            shut = x.abs().amax(2) < limit + torch.rand(len(x), 1) * 2
            weight = self.score(hidden)[..., 0].masked_fill(shut, -math.inf).softmax(1)
            return self.head((weight[..., None] * hidden).sum(1))  # type: ignore[no-any-return]

    return {"data": pick(["digit_rows", "waves"]), "verdicts": NON_FINITE, **training(pick),
            "steps": 60, "build": Looking}  # fmt: skip


# Sick: units that say nothing.


def dead_filters(pick: Pick) -> dict[str, Any]:
    """Convolutions with rectifiers whose biases keep them shut, or all pictures at the limit."""
    bias, kind = pick([(-20.0, "relu"), (50.0, "relu6"), (-30.0, "relu6"), (50.0, "hardtanh")])

    def build(rows: Task) -> nn.Module:
        model = net.cnn(1, 10, 8, depth=3, width=8, activation="relu")
        layers = list(model.modules())
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]
            for name, child in layer.named_children():
                if isinstance(child, nn.ReLU):
                    setattr(layer, name, more.ACTIVATIONS[kind]())
        return model

    return {"data": "digit_images", "verdicts": DEAD | VANISHING | {"saturated", "constant_output"},
            **training(pick), "steps": 200, "build": build}  # fmt: skip


def thrown_units(pick: Pick) -> dict[str, Any]:
    """Rates that throw all rectifiers out of reach within a few steps."""
    lr, depth = pick([3.0, 10.0]), pick([4, 6])
    return {"data": pick(["digits", "diabetes", "teacher"]), "verdicts": TOO_LARGE | DEAD,
            "optimizer": pick(["adam", "rmsprop", "momentum"]), "lr": lr, "steps": 120,
            "build": lambda t: more.stack([t.inputs, *[64] * depth, t.outputs],
            "relu")}  # fmt: skip


# Healthy.


def pictured() -> Task:
    x = task("digit_images").x
    constant = float((x - x.mean(0)).square().mean())
    return Task(x, x, F.mse_loss, 64, constant)


def leaking(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([4, 8, 12]), pick(["relu", "tanh"])
    return {"data": pick(["digits", "wine", "teacher"]), **training(pick, "adam", "adamw"),
            "steps": 400, "build": lambda t: Leaky(t, depth, 0.7, kind)}  # fmt: skip


def drawing(pick: Pick) -> dict[str, Any]:
    depth, norm = pick([(1, False), (2, False), (4, True), (8, True)])
    return {"data": pictured, "optimizer": "adam", "lr": pick([2e-3, 5e-3]), "steps": 300,
            "build": lambda t: Rises(depth, "relu", norm, None)}  # fmt: skip


def mixtures(pick: Pick) -> dict[str, Any]:
    """The weights, means and spreads of three normal distributions (Bishop 1994)."""

    def loss(x: Tensor, y: Tensor) -> Tensor:
        share, mean, log_spread = x.chunk(3, 1)
        logs = share.log_softmax(1) - log_spread - ((y - mean) / log_spread.exp()).square() / 2
        return -logs.logsumexp(1).mean()

    def rows() -> Task:
        made = task("diabetes")
        return Task(made.x, made.y, loss, 9, float(made.y.std().log() + 0.5))

    kind = pick(["relu", "tanh", "silu"])
    return {"data": rows, "optimizer": "adam", "lr": pick([1e-3, 3e-3]), "steps": 400,
            "build": lambda t: more.stack([t.inputs, 48, 48, 9], kind)}  # fmt: skip


def codebooks(pick: Pick) -> dict[str, Any]:
    def rows() -> Task:
        x = task("digits").x

        def loss(made: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(made[:, :64], y) + made[:, 64].mean() / 50

        return Task(x, x, loss, 64, float((x - x.mean(0)).square().mean()))

    return {"data": rows, "optimizer": "adam", "lr": pick([2e-3, 5e-3]), "steps": 500,
            "build": lambda t: Codebook()}  # fmt: skip


def translating(pick: Pick) -> dict[str, Any]:
    def rows() -> Task:
        x = task("digit_rows").x
        return Task(x, x, F.mse_loss, 8, float((x - x.mean((0, 1))).square().mean()))

    kind = pick(["GRU", "LSTM", "RNN"])
    return {"data": rows, "optimizer": "adam", "lr": pick([3e-3, 5e-3]), "steps": 500,
            "build": lambda t: Translator(t, kind, 1.0)}  # fmt: skip


def making(pick: Pick) -> dict[str, Any]:
    return {"data": pick(["digits", "wine", "cancer"]), "optimizer": pick(["adam", "adamw"]),
            "lr": pick([1e-3, 3e-3]), "steps": 400, "build": lambda t: Made(t, None)}  # fmt: skip


def squashing(pick: Pick) -> dict[str, Any]:
    return {"data": pick(["digits", "wine"]), **training(pick, "adam", "rmsprop", "momentum"),
            "steps": 400, "build": lambda t: Squashed(t, 1e-6)}  # fmt: skip


def flowing(pick: Pick) -> dict[str, Any]:
    kept = pick([0.9, 0.7])
    return {"data": pick(["waves", "digit_rows"]), "optimizer": "adam", "lr": pick([2e-3, 5e-3]),
            "steps": 400, "build": lambda t: Flow(t, 0.5, kept)}  # fmt: skip


def moving(pick: Pick) -> dict[str, Any]:
    """Inputs or labels that change in the middle; noise on inputs; mixed and smoothed labels."""
    base = task("digits")

    def mixed(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(x, y, label_smoothing=0.2)

    def smoothed() -> Task:
        return Task(base.x, base.y, mixed, 10, float(mixed(torch.zeros(1, 10), base.y[:1])))

    class Changing(nn.Module):
        def __init__(self, rows: Task, how: str) -> None:
            super().__init__()
            self.body, self.how, self.calls = more.stack([64, 64, 64, 10], "relu"), how, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            if self.training and self.how == "noise":
                x = x + 0.3 * torch.randn_like(x)
            if self.how == "turned" and self.training and self.calls < 150:
                x = x.flip(1)
            if self.how == "scaled" and self.calls > 150:
                x = 2 * x
            return self.body(x)  # type: ignore[no-any-return]

    how = pick(["noise", "scaled", "turned"])
    return {"data": pick(["digits", smoothed]), **training(pick, "adam", "momentum", "adamw"),
            "steps": 500, "build": lambda t: Changing(t, how)}  # fmt: skip


def penalties(pick: Pick) -> dict[str, Any]:
    """A second derivative in the loss; an L1 penalty; two heads; a teacher's answers."""
    base = task("digits")

    def build(rows: Task) -> nn.Module:
        return more.stack([64, 64, rows.outputs], pick_kind)

    pick_kind = pick(["tanh", "silu", "relu"])

    def two() -> Task:
        y = torch.stack([base.y, base.y % 2], 1)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(x[:, :10], y[:, 0]) + F.cross_entropy(x[:, 10:], y[:, 1])

        return Task(base.x, y, loss, 12, math.log(10) + math.log(2))

    def taught() -> Task:
        generator = torch.Generator().manual_seed(4)
        y = (3 * base.x @ torch.randn(64, 10, generator=generator)).softmax(1)
        mean = y.mean(0)

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return F.kl_div(x.log_softmax(1), y, reduction="batchmean")

        return Task(
            base.x, y, loss, 10, float((y * (y / mean).clamp_min(1e-30).log()).sum(1).mean())
        )

    def sparse(run: Run) -> None:
        inner, parameters = run.loss, list(run.model.parameters())

        def loss() -> Tensor:
            return inner() + 1e-4 * torch.stack([p.abs().sum() for p in parameters]).sum()

        run.loss = loss

    def smooth(run: Run) -> None:
        inner, parameters = run.loss, list(run.model.parameters())

        def loss() -> Tensor:
            value = inner()
            slopes = torch.autograd.grad(value, parameters, create_graph=True)
            return value + 0.1 * torch.stack([g.square().sum() for g in slopes]).sum()

        run.loss = loss

    data, finish = pick([(two, []), (taught, []), ("digits", [sparse]), ("digits", [smooth])])
    return {"data": data, "finish": finish, **training(pick, "adam", "adamw"), "steps": 400,
            "build": build}  # fmt: skip


def averaged(pick: Pick) -> dict[str, Any]:
    """Other optimizers of torch."""
    optimizer, lr = pick([("adagrad", 0.03), ("nesterov", 0.02), ("rmsprop", 1e-3)])
    kind: Callable[[Task], nn.Module] = pick([
        lambda t: more.stack([t.inputs, 96, t.outputs], "silu"),
        lambda t: net.mlp(t.inputs, t.outputs, 4, 64, activation="relu", norm=nn.LayerNorm),
        lambda t: net.mlp(t.inputs, t.outputs, 4, 64, activation="tanh", norm=nn.BatchNorm1d),
    ])  # fmt: skip
    return {"data": pick(["digits", "wine", "teacher", "cancer"]), "optimizer": optimizer,
            "lr": lr, "steps": 400, "build": kind}  # fmt: skip


SICK: dict[str, Family] = {
    "vanish/leaks": leaks, "vanish/pairs": pairs_fade, "vanish/linearised": linearised_fades,
    "vanish/flow": flow_fades, "vanish/pictures": pictures_fade,
    "vanish/softmaxes": softmaxes_fade, "vanish/repeated": repeated_fades,
    "explode/leaks": leaks_grow, "explode/pairs": pairs_grow,
    "explode/linearised": linearised_grows, "explode/flow": flow_grows,
    "explode/pictures": pictures_grow, "explode/made": made_large,
    "finite/squashed": squashed_nothing, "finite/masked-root": masked_root,
    "finite/all-masked": all_masked, "dead/filters": dead_filters, "dead/thrown": thrown_units,
}  # fmt: skip

HEALTHY: dict[str, Family] = {
    "leaking": leaking, "drawing": drawing, "mixtures": mixtures, "codebooks": codebooks,
    "translating": translating, "making": making, "squashing": squashing, "flowing": flowing,
    "moving": moving, "penalties": penalties, "averaged": averaged,
}  # fmt: skip


# After those above had led to changes.


class Factored(nn.Module):
    """Linear layers through a few units each."""

    def __init__(self, task: Task, depth: int, rank: int, kind: str, scale: float) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Flatten(), nn.Linear(task.inputs, 64)]
        for _ in range(depth):
            parts += [
                nn.Linear(64, rank, bias=False),
                nn.Linear(rank, 64),
                more.ACTIVATIONS[kind](),
            ]
            nn.init.normal_(parts[-3].weight, std=scale / 8)  # type: ignore[arg-type]
            nn.init.normal_(parts[-2].weight, std=scale / rank**0.5)  # type: ignore[arg-type]
        self.body = nn.Sequential(*parts, nn.Linear(64, task.outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class EachStep(nn.Module):
    """A recurrent network that says something at each step."""

    def __init__(self, task: Task, kind: str, gain: float | None) -> None:
        super().__init__()
        make = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}[kind]
        keys = {"nonlinearity": "relu"} if kind == "RNN" and gain is not None else {}
        self.body = make(task.x.shape[-1], 32, batch_first=True, **keys)
        self.head = nn.Linear(32, task.outputs)
        if gain is not None:
            nn.init.orthogonal_(self.body.weight_hh_l0, gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0])  # type: ignore[no-any-return]


def entropy(classes: Tensor) -> float:
    """The loss of the frequencies at each place of (rows, places…, classes)."""
    share = classes.double().mean(0)
    return float(-torch.xlogy(share, share).sum(-1).mean())


def each_pixel() -> Task:
    """Is the pixel above the median of its neighbours, and light?"""
    x = task("digit_images").x
    around = F.avg_pool2d(x, 3, 1, 1)
    y = (x > around).long() + (around > 0.4).long()

    def loss(made: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(made, y[:, 0])

    return Task(x, y, loss, 3, entropy(F.one_hot(y[:, 0], 3)))


def each_moment() -> Task:
    """A wave without its noise, from the wave with more noise."""
    x = task("waves").x
    generator = torch.Generator().manual_seed(8)
    noisy = x + 0.5 * torch.randn(x.shape, generator=generator)
    return Task(noisy, x, F.mse_loss, 1, float((x - x.mean(0)).square().mean()))


def each_token() -> Task:
    """Is the row of a picture lighter than the one before?"""
    x = task("digit_rows").x
    light = x.sum(2)
    y = (light > light.roll(1, 1)).long()

    def loss(made: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(made.flatten(0, 1), y.flatten())

    return Task(x, y, loss, 2, entropy(F.one_hot(y, 2)))


def along(depth: int, kind: str) -> Callable[[Task], nn.Module]:
    """Convolutions along a sequence that keep its length."""

    class Along(nn.Module):
        def __init__(self, rows: Task) -> None:
            super().__init__()
            widths = [rows.x.shape[-1], *[16] * depth]
            parts = [k for a, b in zip(widths, widths[1:], strict=False) for k in (
                nn.Conv1d(a, b, 5, padding=2), more.ACTIVATIONS[kind]())]  # fmt: skip
            self.body = nn.Sequential(*parts, nn.Conv1d(16, rows.outputs, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]

    return Along


def all_over(depth: int, kind: str, norm: bool = False) -> Callable[[Task], nn.Module]:
    """Convolutions that keep the picture's size."""

    def build(rows: Task) -> nn.Module:
        parts: list[nn.Module] = []
        width = 1
        for _ in range(depth):
            parts += [nn.Conv2d(width, 12, 3, padding=1), *([nn.BatchNorm2d(12)] if norm else []),
                      more.ACTIVATIONS[kind]()]  # fmt: skip
            width = 12
        return nn.Sequential(*parts, nn.Conv2d(12, rows.outputs, 1))

    return build


def by_token(depth: int, kind: str) -> Callable[[Task], nn.Module]:
    """A perceptron for each row and the one before it."""

    def build(rows: Task) -> nn.Module:
        pair = net.Calculation(lambda x: torch.cat([x, x.roll(1, 1)], 2))
        return nn.Sequential(pair, *list(more.stack([16, *[48] * depth, rows.outputs], kind))[1:])

    return build


def pixels_fade(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(9, "sigmoid"), (22, "tanh"), (24, "relu"), (24, "gelu")])
    return {"data": each_pixel, "verdicts": VANISHING, **training(pick), "steps": 150,
            "build": all_over(depth, kind)}  # fmt: skip


def moments_fade(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(9, "sigmoid"), (22, "tanh"), (24, "relu"), (24, "elu")])
    return {"data": each_moment, "verdicts": VANISHING, **training(pick), "steps": 150,
            "build": along(depth, kind)}  # fmt: skip


def tokens_fade(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(9, "sigmoid"), (26, "tanh"), (28, "relu"), (10, "hardsigmoid")])
    return {"data": each_token, "verdicts": VANISHING, **training(pick), "steps": 150,
            "build": by_token(depth, kind)}  # fmt: skip


def factors_fade(pick: Pick) -> dict[str, Any]:
    depth, rank, scale = pick([10, 14]), pick([2, 4]), pick([0.3, 0.5])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Factored(t, depth, rank, "tanh", scale)}  # fmt: skip


def norms_fade(pick: Pick) -> dict[str, Any]:
    """Weight norm whose lengths start too small."""
    from torch.nn.utils import parametrizations

    depth, size, kind = pick([8, 12]), pick([0.1, 0.2]), pick(["tanh", "relu"])

    def build(rows: Task) -> nn.Module:
        parts = list(more.stack([rows.inputs, *[48] * depth, rows.outputs], kind))
        for part in parts[:-1]:
            if isinstance(part, nn.Linear):
                parametrizations.weight_norm(part)
                nn.init.constant_(part.parametrizations.weight.original0, size)  # type: ignore[union-attr]
        return nn.Sequential(*parts)

    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": VANISHING, **training(pick),
            "build": build}  # fmt: skip


def positive(pick: Pick) -> dict[str, Any]:
    depth, bound, kind = pick([6, 8]), pick([0.5, 1.0]), pick(["relu", "leaky", "gelu"])

    def build(rows: Task) -> nn.Module:
        model = more.stack([rows.inputs, *[48] * depth, rows.outputs], kind)
        for part in model:
            if isinstance(part, nn.Linear):
                nn.init.uniform_(part.weight, 0, bound)
        return model

    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": TOO_LARGE
            | DEAD, **training(pick), "steps": 120, "build": build}  # fmt: skip


def blocks_grow(pick: Pick) -> dict[str, Any]:
    """Residual blocks without norms, as He has them start, or wider."""
    depth, std = pick([20, 30]), pick([1.0, 1.5])

    class Grown(nn.Module):
        def __init__(self, rows: Task) -> None:
            super().__init__()
            self.stem = nn.Conv2d(1, 12, 3, padding=1)
            self.blocks = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1) for _ in range(depth))
            self.head = nn.Linear(12, rows.outputs)
            for block in self.blocks:
                nn.init.normal_(block.weight, std=std * (2 / 108) ** 0.5)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(F.relu(x))
            return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    return {"data": "digit_images", "verdicts": TOO_LARGE, **training(pick),
            "steps": 120, "build": Grown}  # fmt: skip


def steps_grow(pick: Pick) -> dict[str, Any]:
    gain = pick([1.8, 2.5])
    return {"data": each_moment, "verdicts": TOO_LARGE, **training(pick),
            "steps": 120, "build": lambda t: EachStep(t, "RNN", gain)}  # fmt: skip


def raw_inputs(pick: Pick) -> dict[str, Any]:
    """Columns in units that make them thousands."""
    size, kind = pick([1e3, 1e4]), pick(["relu", "gelu", "leaky"])

    def rows() -> Task:
        made = task(name)
        return Task(made.x * size, made.y, made.loss, made.outputs, made.constant)

    name = pick(["diabetes", "teacher"])
    return {"data": rows, "verdicts": TOO_LARGE | DEAD,
            **training(pick, "sgd", "momentum"), "steps": 120,
            "build": lambda t: more.stack([t.inputs, 48, 48, t.outputs], kind)}  # fmt: skip


def divided(pick: Pick) -> dict[str, Any]:
    """Rows that are divided by their length or spread where some are zero or constant."""
    how = pick(["length", "spread", "columns"])

    def measure(x: Tensor) -> Tensor:
        if how == "length":
            return x / x.norm(dim=1, keepdim=True)
        return (x - x.mean(0)) / x.std(0) if how == "columns" else x / x.std(1, keepdim=True)

    def rows() -> Task:
        made = task("digits")
        x = made.x.clone()
        x[::50] = 0.0
        return Task(x, made.y, made.loss, 10, made.constant)

    return {"data": rows, "verdicts": NON_FINITE, **training(pick), "steps": 60, "build": lambda t:
            more.Through(measure, more.stack([64, 48, 48, 10], "relu"))}  # fmt: skip


def exponents(pick: Pick) -> dict[str, Any]:
    """Exponentials of what a large rate makes larger."""

    def build(rows: Task) -> nn.Module:
        model = list(more.stack([rows.inputs, 48, 48, rows.outputs], "tanh"))
        model.insert(4, net.Calculation(lambda x: (4 * x).exp()))
        return nn.Sequential(*model)

    return {"data": pick(["digits", "wine"]), "verdicts": NON_FINITE | EXPLODING | RATE | DEAD |
            {"constant_output", "vanishing"}, "optimizer": "sgd", "lr": pick([1.0, 10.0]),
            "steps": 120, "build": build}  # fmt: skip


def shut(pick: Pick) -> dict[str, Any]:
    """Rectifiers that no module tells of, shut by biases or by inputs below zero."""
    bias, sign = pick([(-10.0, 1), (-30.0, 1), (0.0, -1)])

    def build(rows: Task) -> nn.Module:
        model = net.Functional(rows.inputs, rows.outputs, 3, 48, F.relu)
        first = next(k for k in model.modules() if isinstance(k, nn.Linear))
        with torch.no_grad():
            first.bias.fill_(bias)
            if sign < 0:
                first.weight.abs_().neg_()
        return model

    return {"data": "digits", "verdicts": DEAD | {"vanishing", "constant_output"},
            **training(pick), "steps": 150, "build": build}  # fmt: skip


def pixels(pick: Pick) -> dict[str, Any]:
    depth, kind, norm = pick([(2, "relu", False), (4, "gelu", False), (8, "relu", True)])
    return {"data": each_pixel, **training(pick, "adam", "adamw", "momentum"), "steps": 250,
            "build": all_over(depth, kind, norm)}  # fmt: skip


def waves_cleaned(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(2, "relu"), (3, "tanh"), (4, "gelu")])
    return {"data": each_moment, "optimizer": "adam", "lr": pick([2e-3, 5e-3]), "steps": 300,
            "build": along(depth, kind)}  # fmt: skip


def tokens(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(1, "relu"), (2, "tanh"), (3, "silu")])
    return {"data": each_token, **training(pick, "adam", "rmsprop", "momentum"), "steps": 300,
            "build": by_token(depth, kind)}  # fmt: skip


def factored(pick: Pick) -> dict[str, Any]:
    depth, rank = pick([1, 2, 3]), pick([8, 16])
    return {"data": pick(["digits", "wine", "cancer"]), "optimizer": pick(["adam", "adamw"]),
            "lr": 3e-3, "steps": 400,
            "build": lambda t: Factored(t, depth, rank, "relu", 1.2)}  # fmt: skip


def each_step(pick: Pick) -> dict[str, Any]:
    kind = pick(["RNN", "GRU", "LSTM"])
    return {"data": pick([each_moment, each_token]), "optimizer": "adam", "lr": pick([3e-3, 1e-2]),
            "steps": 400, "build": lambda t: EachStep(t, kind, None)}  # fmt: skip


def few(pick: Pick) -> dict[str, Any]:
    """Twenty rows that are learnt by heart; half of all labels wrong."""

    def heart() -> Task:
        made = task("digits")
        return Task(made.x[:20], made.y[:20], made.loss, 10, made.constant)

    def wrong() -> Task:
        made = task("digits")
        generator = torch.Generator().manual_seed(9)
        other = torch.randint(0, 10, made.y.shape, generator=generator)
        kept = torch.rand(made.y.shape, generator=generator) < 0.5
        return Task(made.x, torch.where(kept, made.y, other), made.loss, 10, made.constant)

    kind = pick(["relu", "tanh", "gelu"])
    return {"data": pick([heart, wrong]), "optimizer": pick(["adam", "adamw"]), "lr": 3e-3,
            "steps": 400, "build": lambda t: more.stack([64, 64, 64, 10], kind)}  # fmt: skip


def likeness(pick: Pick) -> dict[str, Any]:
    """Two views of a row are to be more alike than those of two rows (Chen et al. 2020)."""
    temperature = pick([0.1, 0.3])

    def rows() -> Task:
        made = task("digits")

        def loss(made: Tensor, y: Tensor) -> Tensor:
            one, two = F.normalize(made, dim=1).chunk(2)
            made = F.cross_entropy(one @ two.T / temperature, torch.arange(len(one)))
            return made / math.log(len(one))  # 1 by chance, of any number of rows

        return Task(made.x, made.y, loss, 16, 1.0)

    class Views(nn.Module):
        def __init__(self, rows: Task) -> None:
            super().__init__()
            self.body = more.stack([64, 64, 16], "relu")

        def forward(self, x: Tensor) -> Tensor:
            views = [x + 0.1 * torch.randn_like(x) for _ in range(2)]
            return self.body(torch.cat(views))  # type: ignore[no-any-return]

    return {"data": rows, "optimizer": "adam", "lr": pick([1e-3, 3e-3]), "steps": 300,
            "build": Views}  # fmt: skip


LAST_SICK: dict[str, Family] = {
    "vanish/pixels": pixels_fade, "vanish/moments": moments_fade, "vanish/tokens": tokens_fade,
    "vanish/factors": factors_fade, "vanish/norms": norms_fade, "explode/positive": positive,
    "explode/blocks": blocks_grow, "explode/steps": steps_grow, "explode/raw-inputs": raw_inputs,
    "finite/divided": divided, "finite/exponents": exponents, "dead/shut": shut,
}  # fmt: skip

LAST_HEALTHY: dict[str, Family] = {
    "pixels": pixels, "waves-cleaned": waves_cleaned, "tokens": tokens, "factored": factored,
    "each-step": each_step, "few": few, "likeness": likeness,
}  # fmt: skip


def programs(draws: Iterable[int]) -> list[Program]:
    """One of each family for each of the numbers, which say what is drawn."""
    return drawn_of(draws, 40_000_000, (SICK, HEALTHY))


def last_programs(draws: Iterable[int]) -> list[Program]:
    """The same of the families that were written after the others had led to changes."""
    return drawn_of(draws, 50_000_000, (LAST_SICK, LAST_HEALTHY))
