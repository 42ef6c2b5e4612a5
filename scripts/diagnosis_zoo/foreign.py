"""Families of networks that the rules were not made with, sick and healthy, drawn by lot."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_zoo import foreign_networks as more
from diagnosis_zoo import networks as net
from diagnosis_zoo.drawn import Pick, lot
from diagnosis_zoo.healthy import OPTIMIZERS, clipping, warm_up
from diagnosis_zoo.program import Program, Run, Task, supervised
from diagnosis_zoo.sick import COLLAPSE, DEAD, EXPLODING, NON_FINITE, RATE, VANISHING
from diagnosis_zoo.tasks import classes, first_symbol, numbers, task, waves

Make = Callable[[Task], nn.Module]
Finish = Callable[[Run], None]
Family = Callable[[Pick], dict[str, Any]]
TABLES = ["digits", "blobs", "cancer", "wine", "teacher", "diabetes", "moons"]


def rate(pick: Pick, optimizer: str, factor: float = 1.0) -> float:
    """A usual rate."""
    if optimizer in ("sgd", "momentum", "nesterov"):
        return factor * float(pick([0.01, 0.03, 0.05, 0.1]) / (5 if optimizer != "sgd" else 1))
    return factor * float(pick([3e-4, 1e-3, 2e-3, 3e-3])) * (10 if optimizer == "adagrad" else 1)


def program(name: str, drawn: dict[str, Any]) -> Program:
    """What a family has drawn, as a program."""
    data, build = drawn["data"], drawn["build"]
    optimizer, lr = drawn["optimizer"], drawn["lr"]
    options = drawn.get("options", {})

    def make(seed: int) -> Run:
        rows = task(data) if isinstance(data, str) else data()
        model = build(rows)
        made = OPTIMIZERS[optimizer](model.parameters(), lr=lr, **options)
        run = supervised(model, rows, made, seed, drawn.get("batch", 32))
        for finish in drawn.get("finish", ()):
            finish(run)
        return run

    named = f"{name}-{data}-{optimizer}" if isinstance(data, str) else name
    verdicts, causes = drawn.get("verdicts", frozenset()), drawn.get("causes", ())
    return Program(named, make, drawn.get("steps", 200), verdicts, (), causes)


def any_optimizer(pick: Pick) -> str:
    return str(pick(["sgd", "momentum", "adam", "adam", "adamw", "rmsprop", "adagrad"]))


def training(pick: Pick, *optimizers: str, factor: float = 1.0) -> dict[str, Any]:
    """An optimizer and its rate."""
    optimizer = str(pick(list(optimizers))) if optimizers else any_optimizer(pick)
    return {"optimizer": optimizer, "lr": rate(pick, optimizer, factor)}


# Sick: the signal and the gradient die.


def flat(pick: Pick) -> dict[str, Any]:
    """Deep networks of activations that flatten out, as torch starts them."""
    kind, depth = pick(["sigmoid", "hardsigmoid", "sigmoid", "logsigmoid"]), pick([7, 9, 12, 16])
    width = pick([8, 24, 64, 200])
    return {"data": pick(TABLES), "verdicts": VANISHING, **training(pick), "build": lambda t:
            more.stack([t.inputs, *[width] * depth, t.outputs], kind)}  # fmt: skip


def deep(pick: Pick) -> dict[str, Any]:
    """Very deep networks as torch starts them, whose gain is a third."""
    kind = pick(["relu", "tanh", "softsign", "gelu", "silu", "elu", "mish", "prelu", "celu"])
    depth, width = pick([20, 26, 34]), pick([16, 48, 96])
    return {"data": pick(TABLES), "verdicts": VANISHING, **training(pick), "build": lambda t:
            more.stack([t.inputs, *[width] * depth, t.outputs], kind)}  # fmt: skip


def function(pick: Pick) -> dict[str, Any]:
    """The same without modules for the activations, or linear throughout."""
    kind, depth = pick(["relu", "tanh", "sine", "none", "gelu"]), pick([20, 28])
    return {"data": pick(TABLES), "verdicts": VANISHING, **training(pick), "build": lambda t:
            net.Functional(t.inputs, t.outputs, depth, 48, more.FUNCTIONS[kind])}  # fmt: skip


def deep_vgg(pick: Pick) -> dict[str, Any]:
    kind, depth = pick([("relu", 18), ("relu", 22), ("sigmoid", 7), ("tanh", 20), ("elu", 22),
                        ("sigmoid", 10)])  # fmt: skip
    return {"data": "digit_images", "verdicts": VANISHING, **training(pick), "steps": 220,
            "build": lambda t: more.vgg(1, 10, depth, 8, kind, 8)}  # fmt: skip


def autoencoded() -> Task:
    rows = task("digits").x
    return numbers(rows, rows)


def deep_autoencoder(pick: Pick) -> dict[str, Any]:
    depth, kind = pick([4, 6]), pick(["sigmoid", "sigmoid", "hardsigmoid"])
    inner = [48, *[32] * depth, 8, *[32] * depth, 48]
    return {"data": autoencoded, "verdicts": VANISHING, **training(pick),
            "build": lambda t: more.stack([64, *inner, 64], kind)}  # fmt: skip


def mixed_away(pick: Pick) -> dict[str, Any]:
    """Messages between all rows until they are alike; attention and mixing without skips."""
    depth = pick([16, 24])
    builds: list[tuple[str, Make]] = [
        ("digits", lambda t: more.Graph(t.inputs, t.outputs, depth, False)),
        ("digit_rows", lambda t: more.OnlyAttention(8, t.outputs, depth)),
        ("digit_rows", lambda t: more.Mixer(8, 8, t.outputs, depth, False)),
        ("waves", lambda t: more.Dilated(1, t.outputs, depth, False)),
    ]
    data, build = pick(builds)
    return {"data": data, "build": build, "verdicts": COLLAPSE, **training(pick)}


def closed_gates(pick: Pick) -> dict[str, Any]:
    """Gates that let nothing in: of an LSTM into its cell, of a GRU into its state."""
    kind, gate, bias = pick([("LSTM", 0, -30.0), ("LSTM", 3, -40.0), ("GRU", 1, 40.0)])
    return {"data": pick(["waves", "digit_rows", "first_of_10"]), "verdicts": COLLAPSE,
            **training(pick), "build": lambda t: more.Gated(kind, t.x.shape[-1], t.outputs,
            bias=bias, gate=gate)}  # fmt: skip


def long_sequence(pick: Pick) -> dict[str, Any]:
    gain, kind = pick([0.3, 0.5, 0.7]), pick(["tanh", "tanh", "relu"])
    return {"data": pick(["first_of_80", "first_of_80", "adding_100"]), "verdicts": VANISHING,
            **training(pick), "steps": 250, "build": lambda t: net.Recurrent("RNN",
            t.x.shape[-1], t.outputs, gain=gain, nonlinearity=kind)}  # fmt: skip


def small_start(pick: Pick) -> dict[str, Any]:
    kind, std, depth = pick(["relu", "gelu", "tanh", "silu"]), pick([0.01, 0.02]), pick([6, 9, 14])
    return {"data": pick(TABLES), "verdicts": COLLAPSE | DEAD, **training(pick), "build": lambda t:
            net.initialise(more.stack([t.inputs, *[48] * depth, t.outputs], kind),
            net.normal(std))}  # fmt: skip


def post_norm(pick: Pick) -> dict[str, Any]:
    """Deep transformers that normalise after each branch, without a warm-up."""
    layers = pick([10, 14, 18])
    return {"data": pick(["digit_rows", "waves"]), "verdicts": VANISHING | RATE,
            "optimizer": pick(["adam", "adamw"]), "lr": pick([3e-3, 1e-2]), "steps": 150,
            "build": lambda t: more.Encoder(t.outputs, layers, False, t.x.shape[-1])}  # fmt: skip


# Sick: something grows.


def large_start(pick: Pick) -> dict[str, Any]:
    kind, depth = (
        pick(["relu", "gelu", "silu", "elu", "leaky", "prelu", "softplus", "hardswish"]),
        12,
    )
    std = pick([0.6, 0.9])
    return {"data": pick(TABLES), "verdicts": EXPLODING | NON_FINITE, **training(pick),
            "build": lambda t: net.initialise(more.stack([t.inputs, *[64] * depth, t.outputs],
            kind), net.normal(std))}  # fmt: skip


def large_vgg(pick: Pick) -> dict[str, Any]:
    depth, std = pick([8, 12]), pick([0.6, 1.0])
    return {"data": "digit_images", "verdicts": EXPLODING | NON_FINITE, **training(pick),
            "steps": 100, "build": lambda t: net.initialise(more.vgg(1, 10, depth, 8, "relu", 8),
            net.normal(std))}  # fmt: skip


def adding_up(pick: Pick) -> dict[str, Any]:
    """Residual networks without norms whose branches are too large; linear ones; squares."""

    def plain(depth: int, kind: str, std: float) -> Make:
        return lambda t: net.initialise(
            net.Functional(t.inputs, t.outputs, depth, 48, more.FUNCTIONS[kind]), net.normal(std)
        )

    builds: list[Make] = [
        lambda t: net.initialise(more.Sum(t.inputs, t.outputs, 24, 48, 2.0), net.he),
        plain(16, "relu", 0.7),
        plain(20, "none", 0.4),
        plain(6, "square", 0.5),
    ]  # fmt: skip
    return {"data": pick(TABLES), "verdicts": EXPLODING | NON_FINITE, **training(pick),
            "build": pick(builds), "steps": 100}  # fmt: skip


def growing_state(pick: Pick) -> dict[str, Any]:
    gain = pick([2.0, 2.5])
    return {"data": pick(["first_of_80", "adding_100"]), "verdicts": EXPLODING | NON_FINITE | RATE,
            **training(pick, "sgd", "momentum", "adam"), "steps": 120, "build": lambda t:
            net.Recurrent("RNN", t.x.shape[-1], t.outputs, gain=gain,
            nonlinearity="relu")}  # fmt: skip


def thrown(pick: Pick) -> dict[str, Any]:
    """A rate a hundred times too large, or one that jumps there."""
    builds: list[tuple[str, Make]] = [
        ("digit_rows", lambda t: more.Encoder(10, 2, True, 8)),
        ("digit_rows", lambda t: more.Mixer(8, 8, 10, 3)),
        ("digit_images", lambda t: more.vgg(1, 10, 4, 8, "relu", 8)),
        ("digits", lambda t: more.stack([64, 64, 64, 64, 10], "gelu")),
        ("waves", lambda t: more.Gated("GRU", 1, 3)),
        ("diabetes", lambda t: more.stack([10, 32, 32, 1], "silu")),
        ("textures", lambda t: more.Dense(3, 4, 4)),
    ]
    data, build = pick(builds)
    optimizer = pick(["sgd", "momentum", "adam", "rmsprop"])
    lr = {"sgd": 100.0, "momentum": 20.0, "adam": 2.0, "rmsprop": 1.0}[str(optimizer)]
    return {"data": data, "build": build, "optimizer": optimizer, "lr": lr, "verdicts": RATE,
            "steps": 100}  # fmt: skip


def jump(pick: Pick) -> dict[str, Any]:
    drawn = thrown(pick)
    at, large = pick([25, 60]), drawn["lr"]

    def finish(run: Run) -> None:
        (optimizer,) = run.optimizers
        counted = itertools.count()

        def later(*_: object) -> None:
            if next(counted) == at:
                optimizer.param_groups[0]["lr"] = large

        optimizer.register_step_post_hook(later)

    return drawn | {"lr": large / 1000, "finish": [finish], "steps": 160,
                    "verdicts": RATE | frozenset({"vanishing"})}  # fmt: skip


def own_units(pick: Pick) -> dict[str, Any]:
    """Inputs up to 255, or targets in thousands, and a rate for numbers around one."""
    kind = pick(["relu", "tanh", "gelu"])

    def loud() -> Task:
        made = task("diabetes")
        return numbers(made.x, 1e4 * made.y)

    def bright() -> Task:
        made = task("diabetes")
        return numbers(255 * (made.x - made.x.min()), made.y)

    data = pick([loud, bright])
    kind = "relu" if data is bright else kind
    return {"data": data, "optimizer": pick(["sgd", "momentum"]), "lr": 0.1,
            "verdicts": RATE | EXPLODING, "steps": 120,
            "build": lambda t: more.stack([10, 64, 64, 1], kind)}  # fmt: skip


# Sick: units die.


def negative(pick: Pick) -> dict[str, Any]:
    """Biases, weights or inputs that leave rectifiers nothing."""
    bias, kind = pick([-20.0, -100.0]), pick(["relu", "relu6"])

    def filled(module: nn.Module) -> nn.Module:
        for layer in list(module.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
                nn.init.constant_(layer.bias, bias)
        return module

    def weights(rows: Task) -> nn.Module:
        model = more.stack([rows.inputs, 64, 64, 64, rows.outputs], kind)
        with torch.no_grad():
            model[3].weight.copy_(-model[3].weight.abs())  # type: ignore[union-attr, operator]
            model[3].bias.fill_(-0.1)  # type: ignore[union-attr, operator]
        return model

    builds: list[tuple[str, Make]] = [
        ("digit_images", lambda t: filled(more.vgg(1, 10, 4, 8, kind, 8))),
        ("digits", lambda t: filled(more.stack([64, 48, 48, 10], kind))),
        ("digits", lambda t: filled(net.Functional(64, 10, 4, 48, F.relu))),
        ("digits", weights),
        ("textures", lambda t: filled(net.ResNet(3, 4, 4, skip=False, norm=False))),
    ]
    data, build = pick(builds)
    return {"data": data, "build": build, "verdicts": DEAD, **training(pick), "steps": 100}


# Sick: numbers that are none.


def undefined(pick: Pick) -> dict[str, Any]:
    """An operation outside of where it, or its derivative, is defined."""

    def by_hand(values: Tensor, y: Tensor) -> Tensor:
        return -values.softmax(-1).gather(-1, y[:, None]).log().mean()

    def zero_norm(x: Tensor) -> Tensor:
        return x / F.relu(x - x).norm(dim=-1, keepdim=True)

    def masked(x: Tensor) -> Tensor:
        return (x + torch.tensor(-math.inf)).softmax(-1)

    def root(x: Tensor) -> Tensor:
        return (F.relu(x) ** 0.5).clamp(max=5.0)

    def one_sample(x: Tensor) -> Tensor:
        return x / x[:1].std(0)

    def angle(x: Tensor) -> Tensor:
        return torch.acos(x.sigmoid().round().clamp(0, 1))

    def far(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x.abs().mul(500).exp() - 1)

    def over(x: Tensor) -> Tensor:
        return 1 / F.relu(x)

    layer = pick([zero_norm, masked, root, one_sample, angle, far, over])

    def build(rows: Task) -> nn.Module:
        model = list(more.stack([rows.inputs, 48, 48, 48, rows.outputs], "tanh"))
        model.insert(4, net.Calculation(layer))
        return nn.Sequential(*model)

    def own_loss() -> Task:
        rows = task("digits")
        return Task(1000 * rows.x, rows.y, by_hand, 10, rows.constant)

    if pick([False, False, True]):
        return {"data": own_loss, "build": lambda t: more.stack([64, 64, 10], "relu"),
                "verdicts": NON_FINITE, **training(pick), "steps": 60}  # fmt: skip
    return {"data": pick(["digits", "cancer", "teacher"]), "build": build, "verdicts": NON_FINITE,
            **training(pick), "steps": 60}  # fmt: skip


def bad_rows(pick: Pick) -> dict[str, Any]:
    """NaN or infinity in a few rows of the data or of the targets."""
    at, value = pick([3, 50, 300]), pick([math.nan, math.inf])
    of_target = pick([False, True])

    def spoiled() -> Task:
        made = task("diabetes")
        x, y = made.x.clone(), made.y.clone()
        (y if of_target else x)[at, 0] = value
        return Task(x, y, made.loss, 1, made.constant)

    return {"data": spoiled, "build": lambda t: more.stack([10, 32, 32, 1], "relu"),
            "verdicts": NON_FINITE, **training(pick), "steps": 80}  # fmt: skip


def flow_away(pick: Pick) -> dict[str, Any]:
    factor = pick([30.0, 100.0])
    return {"data": flow_rows, "verdicts": EXPLODING | NON_FINITE | RATE, **training(pick),
            "steps": 80, "build": lambda t: more.Coupling(8, 8, False, factor)}  # fmt: skip


def flow_rows() -> Task:
    x = task("blobs").x
    return Task(x, x, lambda made, _: made.mean(), 1, math.nan)


SICK: dict[str, Family] = {
    "vanish/flat": flat, "vanish/deep": deep, "vanish/function": function,
    "vanish/vgg": deep_vgg, "vanish/autoencoder": deep_autoencoder, "vanish/mixed": mixed_away,
    "vanish/gates": closed_gates, "vanish/sequence": long_sequence, "collapse/start": small_start,
    "vanish/post-norm": post_norm, "explode/start": large_start, "explode/vgg": large_vgg,
    "explode/sum": adding_up, "explode/state": growing_state, "explode/rate": thrown,
    "explode/jump": jump, "explode/units": own_units, "dead/negative": negative,
    "finite/undefined": undefined, "finite/rows": bad_rows, "finite/flow": flow_away,
}  # fmt: skip


# Healthy.


def usual(pick: Pick) -> dict[str, Any]:
    """Plain networks with less usual activations, of any width."""
    kind = pick(["softsign", "gelu", "silu", "elu", "mish", "prelu", "celu", "hardswish", "relu6"])
    depth, width = pick([1, 2, 3, 4]), pick([12, 64, 512])
    return {"data": pick(TABLES), **training(pick), "steps": 300, "build": lambda t:
            net.initialise(more.stack([t.inputs, *[width] * depth, t.outputs], kind),
            net.xavier)}  # fmt: skip


def narrow(pick: Pick) -> dict[str, Any]:
    width, kind = pick([2, 3, 5, 8]), pick(["tanh", "relu", "gelu"])
    return {"data": pick(["moons", "iris", "diabetes"]), "batch": pick([1, 2, 4]),
            **training(pick, "sgd", "adam"), "steps": 600,
            "build": lambda t: more.stack([t.inputs, width, width, t.outputs], kind)}  # fmt: skip


def deep_he(pick: Pick) -> dict[str, Any]:
    kind, depth = pick(["relu", "leaky", "gelu", "prelu"]), pick([10, 20])
    return {"data": pick(["digits", "blobs", "teacher"]), "steps": 400,
            **training(pick, "adam", "adamw", factor=0.5), "build": lambda t:
            net.initialise(more.stack([t.inputs, *[96] * depth, t.outputs], kind),
            net.he)}  # fmt: skip


def linear(pick: Pick) -> dict[str, Any]:
    def build(rows: Task) -> nn.Module:
        model = net.Functional(rows.inputs, rows.outputs, 12, 48, more.FUNCTIONS["none"])
        return net.initialise(model, nn.init.orthogonal_)

    return {"data": pick(["teacher", "diabetes", "digits"]), "build": build, "steps": 300,
            **training(pick, "sgd", "adam", factor=0.3)}  # fmt: skip


def pictures(pick: Pick) -> dict[str, Any]:
    builds: list[tuple[str, Make]] = [
        ("digit_images", lambda t: net.initialise(more.vgg(1, 10, 9, 12, "relu", 8), net.he)),
        ("digit_images", lambda t: more.vgg(1, 10, 14, 8, "relu", 8, nn.BatchNorm2d)),
        ("digit_images", lambda t: more.vgg(1, 10, 6, 8, "silu", 8,
                                            lambda c: nn.InstanceNorm2d(c, affine=True))),
        ("digit_images", lambda t: more.vgg(1, 10, 4, 12, "elu", 8)),
        ("textures", lambda t: more.Dense(3, 4, 5)),
        ("textures", lambda t: more.Separable(3, 4, 3)),
    ]  # fmt: skip
    data, build = pick(builds)
    return {"data": data, "build": build, **training(pick, "adam", "momentum", "rmsprop"),
            "steps": 250}  # fmt: skip


def summed(pick: Pick) -> dict[str, Any]:
    blocks = pick([8, 24])
    builds: list[Make] = [
        lambda t: more.Sum(t.inputs, t.outputs, blocks, 48, 1.0),
        lambda t: net.initialise(more.Sum(t.inputs, t.outputs, blocks, 48, 1 / blocks), net.he),
        lambda t: more.Highway(t.inputs, t.outputs, blocks),
        lambda t: more.Unrolled(t.inputs, t.outputs, blocks, 2 / blocks),
    ]
    return {"data": pick(["digits", "blobs", "teacher"]), "build": pick(builds), "steps": 300,
            **training(pick, "adam", "sgd", "adamw")}  # fmt: skip


def attention(pick: Pick) -> dict[str, Any]:
    layers, first = pick([(2, True), (8, True), (2, False), (4, False)])
    finish = [warm_up(60)] if not first else []
    return {"data": pick(["digit_rows", "waves"]), "optimizer": pick(["adam", "adamw"]), "lr": 1e-3,
            "steps": 300, "finish": finish,
            "build": lambda t: more.Encoder(t.outputs, layers, first, t.x.shape[-1])}  # fmt: skip


def words(pick: Pick) -> dict[str, Any]:
    layers = pick([1, 2])
    return {"data": "reviews", "optimizer": "adam", "lr": 2e-3, "steps": 400,
            "build": lambda t: more.Encoder(2, layers, True, vocabulary=100)}  # fmt: skip


def mixing(pick: Pick) -> dict[str, Any]:
    builds: list[tuple[str, Make]] = [
        ("digit_rows", lambda t: more.Mixer(8, 8, 10, 4)),
        ("digits", lambda t: more.Graph(64, 10, 2, False)),
        ("digits", lambda t: more.Graph(64, 10, 8, True)),
        ("waves", lambda t: more.Dilated(1, 3, 6, True)),
    ]
    data, build = pick(builds)
    return {"data": data, "build": build, **training(pick, "adam", "rmsprop"), "steps": 300}


def gated(pick: Pick) -> dict[str, Any]:
    kind, layers, both = pick(["LSTM", "GRU"]), pick([1, 2, 3]), pick([False, True])
    bias = pick([0.0, 2.0]) if kind == "LSTM" else 0.0
    return {"data": pick(["waves", "digit_rows", "first_of_10"]), "optimizer": "adam", "lr": 5e-3,
            "steps": 300, "build": lambda t: more.Gated(kind, t.x.shape[-1], t.outputs, layers,
            bias=bias, gate=1, both=both), "finish": pick([[], [clipping(1.0)]])}  # fmt: skip


def waving(pick: Pick) -> dict[str, Any]:
    frequency, data = pick([5.0, 30.0]), pick(["sine", "digits"])
    lr, depth = pick([1e-4, 5e-4]), pick([3, 5])
    return {"data": data, "optimizer": "adam", "lr": lr, "steps": 400,
            "build": lambda t: more.Siren(t.inputs, t.outputs, depth, frequency, True)}  # fmt: skip


def noisy_pictures() -> Task:
    clean = task("digit_images").x
    noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    constant = float((clean - clean.mean(0)).square().mean())
    return Task(noisy, clean, F.mse_loss, 64, constant)


def restored(pick: Pick) -> dict[str, Any]:
    builds: list[tuple[Callable[[], Task], Make]] = [
        (noisy_pictures, lambda t: more.UNet(1, 8)),
        (autoencoded, lambda t: more.stack([64, 48, 12, 48, 64], "gelu")),
        (autoencoded, lambda t: more.stack([64, 32, 8, 32, 64], "elu")),
    ]
    data, build = pick(builds)
    return {"data": data, "build": build, **training(pick, "adam", "adamw"), "steps": 400}


def in_units(pick: Pick) -> dict[str, Any]:
    """Targets and inputs far from one, with rates for them, or norms."""

    def small() -> Task:
        made = task("diabetes")
        return numbers(made.x, 1e-4 * made.y)

    def loud() -> Task:
        made = task("diabetes")
        return numbers(made.x, 1e4 * made.y)

    def bright() -> Task:
        made = task("digits")
        return classes(255 * made.x, made.y)

    choices: list[dict[str, Any]] = [
        {"data": small, "optimizer": "sgd", "lr": 0.05,
         "build": lambda t: net.initialise(more.stack([10, 32, 1], "tanh"), net.normal(0.01))},
        {"data": loud, "optimizer": "sgd", "lr": 1e-3,
         "build": lambda t: nn.Sequential(*more.stack([10, 32, 1], "relu"),
                                          net.Calculation(lambda x: 1e4 * x)),
         "finish": [lambda run: run.optimizers[0].param_groups[0].update(lr=1e-11)]},
        {"data": loud, "optimizer": "rmsprop", "lr": 0.3,
         "build": lambda t: more.stack([10, 64, 1], "relu")},
        {"data": bright, "optimizer": "adam", "lr": 1e-3,
         "build": lambda t: more.stack([64, 64, 64, 10], "relu")},
        {"data": bright, "optimizer": "sgd", "lr": 0.05, "build": lambda t: nn.Sequential(
            nn.BatchNorm1d(64), *more.stack([64, 64, 10], "tanh"))},
    ]  # fmt: skip
    return {"steps": 400, **pick(choices)}


def uneven(pick: Pick) -> dict[str, Any]:
    """One class in twenty; or a fifth of the labels wrong."""

    def rare() -> Task:
        made = task("digits")
        keep = torch.tensor([i for i, y in enumerate(made.y.tolist()) if y != 3 or i % 3 == 0])
        return classes(made.x[keep], (made.y[keep] == 3).long())

    def mistaken() -> Task:
        made = task("digits")
        generator = torch.Generator().manual_seed(1)
        wrong = torch.rand(len(made.y), generator=generator) < 0.2
        other = torch.randint(0, 10, made.y.shape, generator=generator)
        return classes(made.x, torch.where(wrong, other, made.y))

    drawn = {"data": pick([rare, mistaken]), **training(pick), "steps": 400}
    kind = pick(["relu", "tanh"])
    return drawn | {"build": lambda t: more.stack([64, 64, 64, t.outputs], kind)}


def losses(pick: Pick) -> dict[str, Any]:
    """Other losses than the usual ones."""

    def regression(loss: Callable[..., Tensor]) -> Callable[[], Task]:
        def made() -> Task:
            rows = task("teacher")
            constant = float(loss(rows.y.median(0).values.expand_as(rows.y), rows.y))
            return Task(rows.x, rows.y, loss, 3, constant)

        return made

    def hinge() -> Task:
        rows = task("digits")
        return Task(rows.x, rows.y, F.multi_margin_loss, 10, 0.9)

    def focal() -> Task:
        rows = task("digits")

        def loss(x: Tensor, y: Tensor) -> Tensor:
            single = F.cross_entropy(x, y, reduction="none")
            return ((1 - (-single).exp()) ** 2 * single).mean()

        return Task(rows.x, rows.y, loss, 10, loss(torch.zeros(1, 10), rows.y[:1]).item())

    data = pick([regression(F.l1_loss), regression(F.huber_loss), hinge, focal,
                 regression(partial(F.mse_loss, reduction="sum"))])  # fmt: skip
    return {"data": data, "optimizer": "adam", "lr": 2e-3, "steps": 300,
            "build": lambda t: more.stack([t.inputs, 64, 64, t.outputs], "relu")}  # fmt: skip


def sorts(pick: Pick) -> dict[str, Any]:
    """Low precision, signs, weight and spectral norm, dropout, strong decay, a flow, factors."""

    def liked() -> Task:
        generator = torch.Generator().manual_seed(5)
        pairs = torch.randint(0, 60, (3000, 2), generator=generator)
        taste, kind = torch.randn(2, 60, 3, generator=generator)
        return numbers(pairs, (taste[pairs[:, 0]] * kind[pairs[:, 1]]).sum(1))

    def pair_task() -> Task:
        made = liked()
        return Task(made.x.long() if made.x.is_floating_point() else made.x, made.y, made.loss, 1,
                    made.constant)  # fmt: skip

    def half(rows: Task) -> nn.Module:
        inner = more.stack([64, 64, 64, 10], "relu").bfloat16()
        return nn.Sequential(more.Through(lambda x: x.bfloat16(), inner),
                             net.Calculation(lambda x: x.float()))  # fmt: skip

    def signs(rows: Task) -> nn.Module:
        model = list(more.stack([64, 96, 96, 10], "hardtanh"))
        model.insert(3, net.Calculation(more.Straight.apply))
        return nn.Sequential(*model)

    def parametrized(wrap: Callable[[nn.Module], nn.Module]) -> Make:
        def build(rows: Task) -> nn.Module:
            layers = more.stack([64, 64, 64, 10], "relu")
            return nn.Sequential(*[wrap(k) if isinstance(k, nn.Linear) else k for k in layers])

        return build

    from torch.nn.utils import parametrizations

    choices: list[dict[str, Any]] = [
        {"data": "digits", "build": half, "optimizer": "sgd", "lr": 0.1},
        {"data": "digits", "build": signs, "optimizer": "adam", "lr": 2e-3},
        {"data": "digits", "build": parametrized(parametrizations.weight_norm),
         "optimizer": "adam", "lr": 2e-3},
        {"data": "digits", "build": parametrized(parametrizations.spectral_norm),
         "optimizer": "adam", "lr": 5e-3},
        {"data": "digits", "build": lambda t: net.mlp(64, 10, 3, 96, dropout=0.5),
         "optimizer": "adam", "lr": 2e-3},
        {"data": "digits", "build": lambda t: more.stack([64, 64, 10], "relu"),
         "optimizer": "adamw", "lr": 3e-3, "options": {"weight_decay": 0.5}},
        {"data": pair_task, "build": lambda t: more.Factors(60, 60), "optimizer": "adam",
         "lr": 1e-2, "batch": 128, "steps": 600},
        {"data": "digits", "build": lambda t: net.Functional(64, 10, 2, 64, torch.square),
         "optimizer": "adam", "lr": 1e-3},
        {"data": "digits", "build": lambda t: net.mlp(64, 10, 2, 64), "optimizer": "momentum",
         "lr": 0.5, "finish": [clipping(0.1), warm_up(40)]},
    ]  # fmt: skip
    return {"steps": 300, **pick(choices)}


def long(pick: Pick) -> dict[str, Any]:
    """Long sequences of which the end, or any part, tells enough."""
    length = pick([50, 80, 120])

    def last() -> Task:
        made = first_symbol(length)
        return Task(made.x.flip(1), made.y, made.loss, 4, made.constant)

    data = pick([partial(waves, length), partial(waves, length), last])
    kind, layers = pick(["RNN", "RNN", "LSTM", "GRU"]), pick([1, 2])
    return {"data": data, **training(pick, "adam", "adam", "rmsprop", "momentum"), "steps": 400,
            "build": lambda t: net.Recurrent(kind, t.x.shape[-1], t.outputs, 32,
            layers)}  # fmt: skip


HEALTHY: dict[str, Family] = {
    "usual": usual, "narrow": narrow, "deep-he": deep_he, "linear": linear, "pictures": pictures,
    "summed": summed, "attention": attention, "words": words, "mixing": mixing, "gated": gated,
    "waving": waving, "restored": restored, "in-units": in_units, "uneven": uneven,
    "losses": losses, "sorts": sorts, "long": long,
}  # fmt: skip


def programs(draws: Iterable[int]) -> list[Program]:
    """One of each family for each of the numbers, which say what is drawn."""
    made = []
    for draw in draws:
        for families in (SICK, HEALTHY):
            for place, (name, family) in enumerate(families.items()):
                _, pick = lot(10_000_000 + 1000 * draw + place)
                made.append(program(f"{name}.{draw}", family(pick)))
    return made
