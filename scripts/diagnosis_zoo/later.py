"""Families that were written when the rules were finished, to see what those say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_zoo import foreign_networks as more
from diagnosis_zoo import networks as net
from diagnosis_zoo.drawn import Pick, lot
from diagnosis_zoo.foreign import Family, program, training
from diagnosis_zoo.program import Program, Run, Task
from diagnosis_zoo.sick import COLLAPSE, DEAD, EXPLODING, NON_FINITE, RATE, VANISHING
from diagnosis_zoo.tasks import numbers, task

# Networks.


class Loop(nn.Module):
    """A recurrence written by hand: one linear layer called for each step of the sequence."""

    def __init__(self, task: Task, gain: float, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        features, self.width, self.function = task.x.shape[-1], 32, function
        self.cell = nn.Linear(features + self.width, self.width)
        self.head = nn.Linear(self.width, task.outputs)
        nn.init.orthogonal_(self.cell.weight[:, features:], gain)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            state = self.function(self.cell(torch.cat([step, state], 1)))
        return self.head(state)  # type: ignore[no-any-return]


class Shared(nn.Module):
    """The same layer again and again, with or without what went in added."""

    def __init__(self, task: Task, times: int, adds: bool, function: nn.Module, gain: float):
        super().__init__()
        self.stem, self.layer = nn.Linear(task.inputs, 32), nn.Linear(32, 32)
        self.function, self.head = function, nn.Linear(32, task.outputs)
        self.times, self.adds = times, adds
        nn.init.normal_(self.layer.weight, std=gain / 32**0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for _ in range(self.times):
            made = self.function(self.layer(x))
            x = x + made if self.adds else made
        return self.head(x)  # type: ignore[no-any-return]


class Elements(nn.Module):
    """Each element on its own, then their mean or maximum (Zaheer et al. 2017)."""

    def __init__(self, task: Task, depth: int, kind: str, largest: bool) -> None:
        super().__init__()
        widths = [task.x.shape[-1], *[48] * depth]
        self.each = nn.Sequential(*list(more.stack(widths, kind))[1:])
        self.largest = largest
        self.head = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, task.outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.each(x)
        return self.head(x.amax(1) if self.largest else x.mean(1))  # type: ignore[no-any-return]


class Towers(nn.Module):
    """One network for both halves of the input, then what they have in common."""

    def __init__(self, task: Task, depth: int, kind: str) -> None:
        super().__init__()
        self.tower = more.stack([task.inputs // 2, *[48] * depth], kind)
        self.head = nn.Linear(96, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        one, two = (self.tower(half) for half in x.flatten(1).chunk(2, 1))
        return self.head(torch.cat([(one - two).abs(), one * two], 1))  # type: ignore[no-any-return]


class Bag(nn.Module):
    """The mean of the words of a text, then a perceptron."""

    def __init__(self, outputs: int, depth: int, kind: str) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(100, 32)
        self.rest = more.stack([32, *[32] * depth, outputs], kind)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.words(x.long()))  # type: ignore[no-any-return]


def filters(task: Task, depth: int, kind: str, norm: bool, std: float | None = None) -> nn.Module:
    """Convolutions along a sequence."""
    layers: list[nn.Module] = [net.Calculation(lambda x: x.transpose(1, 2))]
    width = task.x.shape[-1]
    for _ in range(depth):
        layers.append(nn.Conv1d(width, 16, 5, padding=2))
        if std is not None:
            nn.init.normal_(layers[-1].weight, std=std)  # type: ignore[arg-type]
        layers += [*([nn.BatchNorm1d(16)] if norm else []), more.ACTIVATIONS[kind]()]
        width = 16
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, task.outputs)
    )


class Tied(nn.Module):
    """An autoencoder whose way back is its way there, transposed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.there = nn.Linear(64, width)
        self.bias = nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.there(x)), self.there.weight.T, self.bias)


class Variational(nn.Module):
    """Mean and log variance of a code, and what is made of a sample (Kingma and Welling 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = more.stack([64, 64, 16], "relu")
        self.decoder = more.stack([8, 64, 64], "relu")

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return torch.cat([self.decoder(code), mean, log_variance], 1)


class Excited(nn.Module):
    """Convolutions whose channels are weighted by their means (Hu et al. 2018)."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.gate = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
        self.head = nn.Linear(16 * 64, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.second(x) * self.gate(x.mean((2, 3)))[:, :, None, None])
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Largest(nn.Module):
    """Units that are the largest of four sums (Goodfellow et al. 2013)."""

    def __init__(self, task: Task, depth: int) -> None:
        super().__init__()
        widths = [task.inputs, *[48] * depth]
        self.layers = nn.ModuleList(nn.Linear(a, 4 * b) for a, b in zip(widths, widths[1:]))  # noqa: B905
        self.head = nn.Linear(48, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x).unflatten(1, (-1, 4)).amax(2)
        return self.head(x)  # type: ignore[no-any-return]


class Gates(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) of two linear layers, called step by step."""

    def __init__(self, task: Task, bias: float) -> None:
        super().__init__()
        inputs, self.width = task.x.shape[-1] + 32, 32
        self.gates, self.new = nn.Linear(inputs, 64), nn.Linear(inputs, 32)
        self.head = nn.Linear(32, task.outputs)
        nn.init.constant_(self.gates.bias[:32], bias)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.width)
        for step in x.unbind(1):
            keep, reset = self.gates(torch.cat([step, state], 1)).sigmoid().chunk(2, 1)
            new = torch.tanh(self.new(torch.cat([step, reset * state], 1)))
            state = keep * state + (1 - keep) * new
        return self.head(state)  # type: ignore[no-any-return]


class Product(nn.Module):
    """Layers whose outputs are multiplied (a polynomial of that degree)."""

    def __init__(self, task: Task, degree: int, std: float) -> None:
        super().__init__()
        self.factors = nn.ModuleList(nn.Linear(task.inputs, 48) for _ in range(degree))
        self.head = nn.Linear(48, task.outputs)
        for factor in self.factors:
            nn.init.normal_(factor.weight, std=std)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        made = self.factors[0](x)
        for factor in list(self.factors)[1:]:
            made = made * factor(x)
        return self.head(made)  # type: ignore[no-any-return]


class Pooled(nn.Module):
    """What a query that is learnt attends to (Lee et al. 2019)."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.embed = nn.Linear(task.x.shape[-1], 32)
        self.query = nn.Parameter(torch.randn(1, 1, 32))
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, task.outputs))

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], device=x.device)[:, None] / x.shape[1]
        x = self.embed(x) + place
        return self.head(self.attend(self.query.expand(len(x), -1, -1), x, x)[0][:, 0])  # type: ignore[no-any-return]


class Bumps(nn.Module):
    """Radial basis functions around centres that are learnt."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(64, task.inputs))
        self.head = nn.Linear(64, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        far = torch.cdist(x, self.centres).square() / x.shape[1]
        return self.head((-far).exp())  # type: ignore[no-any-return]


def scheduled(make: Callable[[torch.optim.Optimizer], Any]) -> Callable[[Run], None]:
    """A rate that follows one of torch's schedules, step by step."""

    def finish(run: Run) -> None:
        for optimizer in run.optimizers:
            schedule = make(optimizer)
            optimizer.register_step_post_hook(lambda *_, s=schedule: s.step())

    return finish


# Sick.


def loop_fades(pick: Pick) -> dict[str, Any]:
    gain, function = pick([0.3, 0.5]), pick([torch.tanh, F.relu])
    return {"data": "first_of_80", "verdicts": VANISHING, **training(pick), "steps": 250,
            "build": lambda t: Loop(t, gain, function)}  # fmt: skip


def shared_fades(pick: Pick) -> dict[str, Any]:
    times, kind, gain = pick([20, 40]), pick([nn.Tanh, nn.GELU, nn.Softsign]), pick([0.3, 0.6])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": COLLAPSE, **training(pick),
            "build": lambda t: Shared(t, times, False, kind(), gain)}  # fmt: skip


def elements_fade(pick: Pick) -> dict[str, Any]:
    depth, largest = pick([8, 12]), pick([False, True])
    return {"data": pick(["digit_rows", "waves"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Elements(t, depth, "sigmoid", largest)}  # fmt: skip


def towers_fade(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(8, "sigmoid"), (12, "sigmoid"), (24, "tanh"), (26, "relu")])
    return {"data": pick(["digits", "cancer"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: Towers(t, depth, kind)}  # fmt: skip


def bag_fades(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(8, "sigmoid"), (10, "hardsigmoid"), (24, "softsign"), (26, "relu")])
    return {"data": "reviews", "verdicts": VANISHING, **training(pick), "build": lambda t:
            Bag(t.outputs, depth, kind)}  # fmt: skip


def filters_fade(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([(8, "sigmoid"), (20, "tanh"), (22, "relu"), (20, "gelu")])
    return {"data": pick(["waves", "digit_rows"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: filters(t, depth, kind, False)}  # fmt: skip


def decayed(pick: Pick) -> dict[str, Any]:
    """A weight decay that leaves nothing of the weights."""
    optimizer, lr, decay = pick([("adamw", 1e-2, 30.0), ("sgd", 0.1, 5.0), ("momentum", 0.02, 5.0)])
    kind = pick(["relu", "tanh"])
    return {"data": pick(["digits", "blobs"]), "verdicts": COLLAPSE | DEAD | {"constant_output"},
            "optimizer": optimizer, "lr": lr, "options": {"weight_decay": decay}, "steps": 300,
            "build": lambda t: more.stack([t.inputs, 64, 64, 64, t.outputs], kind)}  # fmt: skip


def loop_grows(pick: Pick) -> dict[str, Any]:
    gain = pick([2.0, 3.0])
    return {"data": "first_of_80", "verdicts": EXPLODING | NON_FINITE | RATE, "steps": 120,
            **training(pick), "build": lambda t: Loop(t, gain, F.relu)}  # fmt: skip


def shared_grows(pick: Pick) -> dict[str, Any]:
    times, gain = pick([30, 50]), pick([1.5, 2.0])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": EXPLODING | NON_FINITE | RATE,
            **training(pick), "steps": 120,
            "build": lambda t: Shared(t, times, True, nn.ReLU(), gain)}  # fmt: skip


def cubes(pick: Pick) -> dict[str, Any]:
    def build(rows: Task) -> nn.Module:
        made = net.Functional(rows.inputs, rows.outputs, 4, 48, lambda x: x**3)
        return net.initialise(made, net.normal(0.4))

    return {"data": pick(["digits", "wine"]), "verdicts": EXPLODING | NON_FINITE | RATE,
            **training(pick), "build": build, "steps": 120}  # fmt: skip


def filters_grow(pick: Pick) -> dict[str, Any]:
    std, kind = pick([0.5, 0.8]), pick(["relu", "leaky", "gelu"])
    return {"data": pick(["waves", "digit_rows"]), "verdicts": EXPLODING | NON_FINITE | RATE,
            **training(pick), "steps": 120,
            "build": lambda t: filters(t, 12, kind, False, std)}  # fmt: skip


def summed_loss(pick: Pick) -> dict[str, Any]:
    """The sum over a large batch, with the rate for a mean."""

    def rows() -> Task:
        made = task("digits")
        return Task(made.x, made.y, lambda x, y: F.cross_entropy(x, y, reduction="sum"), 10,
                    made.constant)  # fmt: skip

    kind = pick(["tanh", "relu", "gelu"])
    return {"data": rows, "verdicts": RATE, "optimizer": pick(["sgd", "momentum"]), "lr": 1.0,
            "batch": 256, "steps": 120,
            "build": lambda t: more.stack([64, 64, 64, 10], kind)}  # fmt: skip


def naive(pick: Pick) -> dict[str, Any]:
    """exp, a sum and log, of logits that are large."""
    scale = pick([200.0, 1000.0])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        x = scale * x
        return (x.exp().sum(1).log() - x.gather(1, y[:, None])[:, 0]).mean()

    def rows() -> Task:
        made = task("digits")
        return Task(made.x, made.y, loss, 10, made.constant)

    return {"data": rows, "verdicts": NON_FINITE, **training(pick), "steps": 60,
            "build": lambda t: more.stack([64, 48, 48, 10], "tanh")}  # fmt: skip


SICK: dict[str, Family] = {
    "vanish/loop": loop_fades, "vanish/shared": shared_fades, "vanish/elements": elements_fade,
    "vanish/towers": towers_fade, "vanish/bag": bag_fades, "vanish/filters": filters_fade,
    "collapse/decay": decayed, "explode/loop": loop_grows, "explode/shared": shared_grows,
    "explode/cubes": cubes, "explode/filters": filters_grow, "explode/sum-loss": summed_loss,
    "finite/naive": naive,
}  # fmt: skip


def gates_shut(pick: Pick) -> dict[str, Any]:
    bias = pick([20.0, 40.0])
    return {"data": pick(["waves", "digit_rows", "first_of_10"]), "verdicts": COLLAPSE,
            **training(pick), "build": lambda t: Gates(t, bias)}  # fmt: skip


def bottleneck(pick: Pick) -> dict[str, Any]:
    """Many layers of two or three units."""
    depth, width, kind = pick([16, 24]), pick([2, 3]), pick(["tanh", "softsign", "gelu"])
    widths = [width] * depth
    return {"data": pick(["digits", "cancer", "teacher"]), "verdicts": VANISHING, **training(pick),
            "build": lambda t: more.stack([t.inputs, *widths, t.outputs], kind)}  # fmt: skip


def cold(pick: Pick) -> dict[str, Any]:
    """Activations of inputs so large that they are at their limits throughout."""
    scale, kind = pick([1e3, 1e4]), pick(["hardtanh", "hardsigmoid", "relu6"])

    def build(rows: Task) -> nn.Module:
        model = list(more.stack([rows.inputs, 64, 64, rows.outputs], kind))
        model.insert(2, net.Calculation(lambda x: scale * x))
        return nn.Sequential(*model)

    return {"data": pick(["digits", "cancer"]), "build": build, "steps": 200,
            "verdicts": VANISHING | DEAD | EXPLODING | {"saturated", "constant_output"},
            **training(pick)}  # fmt: skip


def products(pick: Pick) -> dict[str, Any]:
    degree, std = pick([5, 8]), pick([0.5, 1.0])
    return {"data": pick(["digits", "wine", "teacher"]), "verdicts": EXPLODING | NON_FINITE | RATE,
            **training(pick), "steps": 120, "build": lambda t: Product(t, degree, std)}  # fmt: skip


def penalised(pick: Pick) -> dict[str, Any]:
    """A penalty on the outputs' squares that is a million times too large for the rate."""

    def rows() -> Task:
        made = task("teacher")
        return Task(made.x, made.y, lambda x, y: 1e4 * (x - y).square().mean(), 3,
                    1e4 * made.constant)  # fmt: skip

    kind = pick(["tanh", "relu", "gelu"])
    return {"data": rows, "verdicts": RATE, "optimizer": pick(["sgd", "momentum"]), "lr": 0.01,
            "steps": 120, "build": lambda t: more.stack([t.inputs, 64, 64, 3], kind)}  # fmt: skip


def silent_head(pick: Pick) -> dict[str, Any]:
    """A rectifier behind the last layer, of targets that are below zero."""

    def rows() -> Task:
        made = task("diabetes")
        return numbers(made.x, -made.y.abs() - 3)

    def build(rows: Task) -> nn.Module:
        model = more.stack([10, 48, 48, 1], pick_kind)
        nn.init.constant_(model[-1].bias, -5.0)  # type: ignore[arg-type, union-attr]
        return nn.Sequential(*model, nn.ReLU())

    pick_kind = pick(["relu", "tanh"])
    return {"data": rows, "verdicts": DEAD, **training(pick), "steps": 100, "build": build}


def halved(pick: Pick) -> dict[str, Any]:
    """Half precision that overflows on the way."""
    scale = pick([300.0, 1000.0])

    def build(rows: Task) -> nn.Module:
        inner = more.stack([64, 64, 64, 10], "relu")
        net.initialise(inner, net.normal(0.5))
        inner = inner.half()
        return nn.Sequential(more.Through(lambda x: (scale * x).half(), inner),
                             net.Calculation(lambda x: x.float()))  # fmt: skip

    return {"data": "digits", "verdicts": NON_FINITE, "build": build, "steps": 60,
            **training(pick, "sgd", "momentum")}  # fmt: skip


LAST_SICK: dict[str, Family] = {
    "vanish/gates-shut": gates_shut, "vanish/bottleneck": bottleneck, "saturate/cold": cold,
    "explode/products": products, "explode/penalised": penalised, "dead/silent-head": silent_head,
    "finite/halved": halved,
}  # fmt: skip


# Healthy.


def loop(pick: Pick) -> dict[str, Any]:
    return {"data": pick(["waves", "digit_rows", "first_of_10"]), "steps": 400,
            **training(pick, "adam", "rmsprop"),
            "build": lambda t: Loop(t, 1.0, torch.tanh)}  # fmt: skip


def shared(pick: Pick) -> dict[str, Any]:
    times = pick([4, 8])
    return {"data": pick(["digits", "wine", "teacher"]), **training(pick), "steps": 400,
            "build": lambda t: Shared(t, times, True, nn.Tanh(), 0.3)}  # fmt: skip


def elements(pick: Pick) -> dict[str, Any]:
    depth, kind, largest = pick([2, 3]), pick(["relu", "gelu"]), pick([False, True])
    return {"data": pick(["digit_rows", "waves"]), **training(pick, "adam", "adamw"), "steps": 400,
            "build": lambda t: Elements(t, depth, kind, largest)}  # fmt: skip


def towers(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([1, 2, 3]), pick(["relu", "tanh", "silu"])
    return {"data": pick(["digits", "cancer"]), **training(pick), "steps": 400,
            "build": lambda t: Towers(t, depth, kind)}  # fmt: skip


def bag(pick: Pick) -> dict[str, Any]:
    depth = pick([1, 2])
    return {"data": "reviews", "optimizer": "adam", "lr": pick([3e-3, 1e-2]), "steps": 500,
            "build": lambda t: Bag(t.outputs, depth, "relu")}  # fmt: skip


def filtering(pick: Pick) -> dict[str, Any]:
    depth, norm = pick([(3, False), (6, True), (12, True)])
    return {"data": pick(["waves", "digit_rows"]), **training(pick, "adam", "adamw", "momentum"),
            "steps": 300, "build": lambda t: filters(t, depth, "relu", norm)}  # fmt: skip


def coded(pick: Pick) -> dict[str, Any]:
    x = task("digits").x

    def loss(made: Tensor, y: Tensor) -> Tensor:
        back, mean, log_variance = made.split([64, 8, 8], 1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return F.mse_loss(back, y) + 1e-3 * divergence

    def rows() -> Task:
        return Task(x, x, loss, 64, float((x - x.mean(0)).square().mean()))

    def plain() -> Task:
        return Task(x, x, F.mse_loss, 64, float((x - x.mean(0)).square().mean()))

    width = pick([16, 32])
    data, build = pick([(rows, lambda t: Variational()), (plain, lambda t: Tied(width))])
    return {"data": data, "build": build, "optimizer": "adam", "lr": pick([2e-3, 5e-3]),
            "steps": 500}  # fmt: skip


def excited(pick: Pick) -> dict[str, Any]:
    return {"data": "digit_images", **training(pick, "adam", "adamw", "momentum"), "steps": 300,
            "build": Excited}  # fmt: skip


def largest(pick: Pick) -> dict[str, Any]:
    depth = pick([1, 2, 3])
    return {"data": pick(["digits", "blobs", "cancer"]), **training(pick), "steps": 300,
            "build": lambda t: Largest(t, depth)}  # fmt: skip


def fixed_waves(pick: Pick) -> dict[str, Any]:
    """A perceptron on sines of fixed, random frequencies."""

    def build(rows: Task) -> nn.Module:
        torch.manual_seed(3)
        spread = torch.randn(rows.inputs, 64)
        make = net.Calculation(lambda x: torch.cat([(x @ spread).sin(), (x @ spread).cos()], 1))
        return nn.Sequential(make, *list(more.stack([128, 48, rows.outputs], "relu"))[1:])

    return {"data": pick(["sine", "digits", "moons"]), "optimizer": "adam", "lr": 2e-3,
            "build": build, "steps": 400}  # fmt: skip


def cycles(pick: Pick) -> dict[str, Any]:
    """Rates that rise tenfold and more in the middle of training."""
    restarts = scheduled(lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 60))
    one = scheduled(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=401))
    cyclic = scheduled(
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 1e-4, 1e-2, 40, cycle_momentum=False)
    )
    kind = pick(["relu", "tanh", "gelu"])
    return {"data": pick(["digits", "wine", "teacher"]), "optimizer": pick(["adam", "adamw"]),
            "lr": 5e-3, "finish": [pick([restarts, one, cyclic])], "steps": 400,
            "build": lambda t: more.stack([t.inputs, 64, 64, t.outputs], kind)}  # fmt: skip


def batches(pick: Pick) -> dict[str, Any]:
    """Of one sample, or of half of all; a momentum of 0.99."""
    choices = [(1, "sgd", 0.01, 800), (1, "adam", 1e-3, 600), (512, "adam", 3e-3, 300)]
    size, optimizer, lr, steps = pick([*choices, (512, "momentum", 0.1, 300)])
    return {"data": pick(["digits", "cancer", "wine"]), "optimizer": optimizer, "lr": lr,
            "batch": size, "steps": steps,
            "build": lambda t: more.stack([t.inputs, 48, 48, t.outputs], "relu")}  # fmt: skip


def quantiles(pick: Pick) -> dict[str, Any]:
    level, kind = pick([0.1, 0.5, 0.9]), pick(["relu", "elu"])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return torch.maximum(level * (y - x), (level - 1) * (y - x)).mean()

    def rows() -> Task:
        made = task("diabetes")
        best = made.y.quantile(level).expand_as(made.y)
        return Task(made.x, made.y, loss, 1, float(loss(best, made.y)))

    return {"data": rows, "optimizer": "adam", "lr": 3e-3, "steps": 400,
            "build": lambda t: more.stack([10, 48, 48, 1], kind)}  # fmt: skip


HEALTHY: dict[str, Family] = {
    "loop": loop, "shared": shared, "elements": elements, "towers": towers, "bag": bag,
    "filtering": filtering, "coded": coded, "excited": excited, "largest": largest,
    "fixed-waves": fixed_waves, "cycles": cycles, "batches": batches, "quantiles": quantiles,
}  # fmt: skip


def gating(pick: Pick) -> dict[str, Any]:
    bias = pick([0.0, 1.0])
    return {"data": pick(["waves", "digit_rows", "first_of_10"]), "optimizer": "adam", "lr": 5e-3,
            "steps": 400, "build": lambda t: Gates(t, bias)}  # fmt: skip


def pooling(pick: Pick) -> dict[str, Any]:
    return {"data": pick(["digit_rows", "waves"]), **training(pick, "adam", "adamw"), "steps": 400,
            "build": Pooled}  # fmt: skip


def bumps(pick: Pick) -> dict[str, Any]:
    return {"data": pick(["moons", "wine", "diabetes"]), "optimizer": "adam",
            "lr": pick([1e-2, 3e-2]), "steps": 500, "build": Bumps}  # fmt: skip


def counted(pick: Pick) -> dict[str, Any]:
    """Likelihoods: of counts, of numbers with a spread, which may be below zero, of many labels."""

    def counts() -> Task:
        made = task("diabetes")
        y = (made.y * 2 + 5).clamp(0).round()
        loss = F.poisson_nll_loss
        return Task(made.x, y, loss, 1, float(loss(y.mean().log().expand_as(y), y)))

    def spread() -> Task:
        made = task("diabetes")

        def loss(x: Tensor, y: Tensor) -> Tensor:
            mean, log_spread = x.chunk(2, 1)
            return (log_spread + ((y - mean) / log_spread.exp()).square() / 2).mean() - 2

        constant = float(made.y.std().log() + 0.5 - 2)
        return Task(made.x, made.y, loss, 2, constant)

    def labels() -> Task:
        made = task("digits")
        y = torch.stack([(made.y % k == 0).float() for k in (2, 3, 5)], 1)
        loss = F.binary_cross_entropy_with_logits
        return Task(made.x, y, loss, 3, float(loss(y.mean(0).logit().expand_as(y), y)))

    return {"data": pick([counts, spread, labels]), "optimizer": pick(["adam", "rmsprop"]),
            "lr": 2e-3, "steps": 400,
            "build": lambda t: more.stack([t.inputs, 48, 48, t.outputs], "relu")}  # fmt: skip


def low_degree(pick: Pick) -> dict[str, Any]:
    degree = pick([2, 3])
    return {"data": pick(["moons", "wine", "digits"]), "optimizer": "adam", "lr": 3e-3,
            "steps": 400, "build": lambda t: Product(t, degree, 0.1)}  # fmt: skip


def linear_code(pick: Pick) -> dict[str, Any]:
    x = task("digits").x

    def rows() -> Task:
        return Task(x, x, F.mse_loss, 64, float((x - x.mean(0)).square().mean()))

    return {
        "data": rows,
        "optimizer": pick(["adam", "momentum"]),
        "lr": pick([3e-3, 1e-2]),
        "steps": 600,
        "build": lambda t: nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64)),
    }


def sized(pick: Pick) -> dict[str, Any]:
    """Wide layers; many classes of few rows; a very small and a large rate for what it is."""
    width, lr = pick([(1024, 1e-4), (512, 3e-4), (16, 1e-2)])
    return {"data": pick(["digits", "blobs", "teacher"]), "optimizer": pick(["adam", "adamw"]),
            "lr": lr, "steps": 500,
            "build": lambda t: more.stack([t.inputs, width, width, t.outputs], "gelu")}  # fmt: skip


LAST_HEALTHY: dict[str, Family] = {
    "gating": gating, "pooling": pooling, "bumps": bumps, "counted": counted,
    "low-degree": low_degree, "linear-code": linear_code, "sized": sized,
}  # fmt: skip


def programs(draws: Iterable[int]) -> list[Program]:
    """One of each family for each of the numbers, which say what is drawn."""
    return drawn_of(draws, 20_000_000, (SICK, HEALTHY))


def last_programs(draws: Iterable[int]) -> list[Program]:
    """The same of the families that were written after the others had led to changes."""
    return drawn_of(draws, 30_000_000, (LAST_SICK, LAST_HEALTHY))


def drawn_of(
    draws: Iterable[int], start: int, groups: Iterable[dict[str, Family]]
) -> list[Program]:
    """One of each family of the groups for each of the numbers; the first lot is `start`."""
    made = []
    for draw in draws:
        for families in groups:
            for place, (name, family) in enumerate(families.items()):
                _, pick = lot(start + 1000 * draw + place)
                made.append(program(f"{name}.{draw}", family(pick)))
    return made
