"""Programs with one fault each: what it is, in which layer, and what causes it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diagnosis_zoo import networks as net
from diagnosis_zoo.healthy import Make, fit, mlp
from diagnosis_zoo.program import Program, Run, Task, supervised
from diagnosis_zoo.tasks import task

VANISHING = frozenset({"vanishing"})
COLLAPSE = frozenset({"signal_collapse", "vanishing"})
DEAD = frozenset({"dead_units"})
EXPLODING = frozenset({"exploding", "signal_blow_up"})
NON_FINITE = frozenset({"non_finite"})
RATE = frozenset({"learning_rate_too_high", "diverging", "exploding", "dead_units", "non_finite"})


def faulty(
    name: str, data: str, build: Make, verdicts: frozenset[str], causes: tuple[str, ...],
    optimizer: str = "adam", lr: float = 1e-3, batch: int = 32, steps: int = 300,
    where: tuple[str, ...] = (), one_output: bool = False,
    finish: Callable[[Run], None] | None = None,
) -> Program:  # fmt: skip
    """A model, a task and an optimizer that do not go together."""

    healthy = fit(name, data, build, optimizer, lr, batch, steps, one_output, finish)
    return replace(healthy, verdicts=verdicts, where=where, causes=causes)


def vanishing() -> list[Program]:
    """Gradient and signal die over depth."""
    activation, depth = ("activation",), ("activation", "initialisation", "depth")
    return [
        faulty("vanish/sigmoid6", "digits", mlp(depth=6, activation="sigmoid"), VANISHING,
            activation, "sgd", 0.1),
        faulty("vanish/sigmoid8", "digits", mlp(depth=8, activation="sigmoid"), VANISHING,
            activation),
        faulty("vanish/sigmoid10", "moons", mlp(depth=10, width=16, activation="sigmoid"),
            VANISHING, activation, one_output=True),
        faulty("vanish/sigmoid12-xavier", "blobs", mlp(depth=12, width=32, activation="sigmoid",
            init=net.xavier), VANISHING, activation),
        faulty("vanish/sigmoid9", "cancer", mlp(depth=9, activation="sigmoid"), VANISHING,
            activation, "rmsprop"),
        faulty("vanish/sigmoid10", "diabetes", mlp(depth=10, activation="sigmoid"), VANISHING,
            activation, "momentum", 0.01),
        faulty("vanish/sigmoid7", "words", mlp(depth=7, width=128, activation="sigmoid"), VANISHING,
            activation, "adagrad", 0.01),
        faulty("vanish/sigmoid15-he", "digits", mlp(depth=15, activation="sigmoid", init=net.he),
            VANISHING, activation),
        faulty("vanish/relu12-default", "digits", mlp(depth=12), VANISHING, depth, "sgd", 0.1),
        faulty("vanish/relu20-default", "digits", mlp(depth=20), VANISHING, depth),
        faulty("vanish/relu24-default", "moons", mlp(depth=24, width=32), VANISHING, depth),
        faulty("vanish/tanh16-default", "blobs", mlp(depth=16, activation="tanh"), VANISHING, depth,
            "sgd", 0.05),
        faulty("vanish/gelu16-default", "digits", mlp(depth=16, activation="gelu"), VANISHING,
            depth, "momentum", 0.01),
        faulty("vanish/tanh24-default", "cancer", mlp(depth=24, activation="tanh"), VANISHING,
            depth, "sgd", 0.1),
        faulty("vanish/functional16", "digits", lambda t: net.Functional(t.inputs, t.outputs, 16,
            64, F.relu), VANISHING, (), "sgd", 0.1),
        faulty("vanish/functional-sigmoid9", "digits", lambda t: net.Functional(t.inputs, t.outputs,
            9, 64, torch.sigmoid), VANISHING, ()),
        faulty("vanish/conv-sigmoid6", "digit_images", lambda t: net.cnn(1, 10, 8, 6,
            activation="sigmoid"), VANISHING, activation, steps=250),
        faulty("vanish/conv-sigmoid8", "textures", lambda t: net.cnn(3, 4, 16, 8,
            activation="sigmoid"), VANISHING, activation, "momentum", 0.01, steps=200),
        faulty("vanish/conv-relu14", "textures", lambda t: net.cnn(3, 4, 16, 14), VANISHING, depth,
            "sgd", 0.02, steps=150),
        faulty("vanish/plain-resnet10", "textures", lambda t: net.ResNet(3, 4, 10, skip=False,
            norm=False), VANISHING, (), "sgd", 0.02, steps=150),
        faulty("vanish/post-norm12", "characters", lambda t: net.initialise(net.Gpt(t.outputs,
            t.outputs, layers=12, post=True, std=None), net.xavier), VANISHING, (), "adam", 5e-3,
            steps=150),
        faulty("vanish/rnn80", "first_of_80", lambda t: net.Recurrent("RNN", 5, 4, gain=0.5),
            VANISHING, (), "adam", 2e-3, steps=250),
        faulty("vanish/rnn100", "adding_100", lambda t: net.Recurrent("RNN", 2, 1), VANISHING, (),
            "adam", 2e-3, steps=300),
        faulty("collapse/relu8-small", "digits", mlp(depth=8, width=32, init=net.uniform(0.02)),
            COLLAPSE | DEAD, ("initialisation",)),
        faulty("collapse/relu10-small", "blobs", mlp(depth=10, width=64, init=net.normal(0.02)),
            COLLAPSE | DEAD, ("initialisation",), "sgd", 0.1),
        faulty("collapse/tanh12-small", "cancer", mlp(depth=12, activation="tanh",
            init=net.normal(0.02)), COLLAPSE, ("initialisation",), "momentum", 0.05),
        faulty("collapse/conv6-small", "digit_images", lambda t: net.cnn(1, 10, 8, 8,
            init=net.normal(0.01)), COLLAPSE | DEAD, ("initialisation",), "sgd", 0.1, steps=200),
        faulty("collapse/one-layer", "digits", one_scaled(4, 1e-7), COLLAPSE, (), "sgd", 1e-2,
            where=("7", "8")),
    ]  # fmt: skip


def one_scaled(number: int, factor: float) -> Make:
    """An MLP of six layers, the weights of one multiplied."""

    def build(rows: Task) -> nn.Module:
        model = net.mlp(rows.inputs, rows.outputs, 6, 64, init=net.he)
        linear = [layer for layer in model if isinstance(layer, nn.Linear)][number - 1]
        with torch.no_grad():
            linear.weight.mul_(factor)
        return model

    return build


def dying() -> list[Program]:
    """Units that give nothing but zero."""

    def biased(bias: float, depth: int = 3, only: int | None = None) -> Make:
        def build(rows: Task) -> nn.Module:
            model = net.mlp(rows.inputs, rows.outputs, depth, 64, init=net.he)
            linear = [layer for layer in model if isinstance(layer, nn.Linear)][:-1]
            for number, layer in enumerate(linear, start=1):
                if only in (None, number):
                    nn.init.constant_(layer.bias, bias)
            return model

        return build

    def shifted(rows: Task) -> nn.Module:
        model = net.cnn(1, 10, 8, 3, init=net.he)
        convolutions = [layer for layer in model if isinstance(layer, nn.Conv2d)]
        nn.init.constant_(convolutions[1].bias, -20.0)  # type: ignore[arg-type]
        return model

    return [
        faulty("dead/bias-10", "digits", biased(-10.0), DEAD, ("initialisation",),
            where=("1", "2")),
        faulty("dead/bias-5", "blobs", biased(-50.0, 2), DEAD, ("initialisation",), "sgd", 0.1,
            where=("1", "2")),
        faulty("dead/third", "digits", biased(-30.0, 5, only=3), DEAD, ("initialisation",),
            where=("5", "6")),
        faulty("dead/second", "wine", biased(-30.0, 4, only=2), DEAD, ("initialisation",),
            "momentum", 0.05, where=("3", "4")),
        faulty("dead/conv-second", "digit_images", shifted, DEAD, ("initialisation",),
            where=("3", "4"), steps=200),
        faulty("dead/narrow15", "circles", mlp(depth=15, width=5, init=net.he), DEAD,
            (), "adam", 1e-3, batch=128, steps=600),
        faulty("dead/narrow20", "moons", mlp(depth=20, width=4, init=net.he), DEAD, (), "adam",
            1e-3, batch=64, steps=600),
        faulty("dead/killed-adam", "digits", mlp(depth=4, init=net.he), RATE,
            ("learning rate",), "adam", 1.0),
        faulty("dead/killed-sgd", "blobs", mlp(depth=3, init=net.he), RATE, ("learning rate",),
            "sgd", 30.0),
        faulty("dead/killed-conv", "digit_images", lambda t: net.cnn(1, 10, 8, 3, init=net.he),
            RATE, ("learning rate",), "adam", 0.5, steps=200),
    ]  # fmt: skip


def exploding() -> list[Program]:
    """Gradient or signal grow over depth, time or steps."""
    initial = ("initialisation",)
    return [
        faulty("explode/relu15-large", "digits", mlp(depth=15, width=128, init=net.normal(0.5)),
            EXPLODING, initial, "sgd", 1e-3),
        faulty("explode/relu12-large", "blobs", mlp(depth=12, init=net.normal(0.7)), EXPLODING,
            initial, "adam", 1e-3),
        faulty("explode/relu10-large", "diabetes", mlp(depth=10, init=net.normal(0.8)), EXPLODING,
            initial, "momentum", 1e-3),
        faulty("explode/leaky14-large", "cancer", mlp(depth=14, activation="leaky",
            init=net.normal(0.6)), EXPLODING, initial, "sgd", 0.01),
        faulty("explode/conv8-large", "textures", lambda t: net.cnn(3, 4, 16, 8,
            init=net.normal(0.8)), EXPLODING, initial, "sgd", 1e-2, steps=150),
        faulty("explode/plain-resnet-large", "textures", lambda t: net.initialise(net.ResNet(3, 4,
            10, norm=False), net.normal(0.5)), EXPLODING, initial, "sgd", 1e-2, steps=120),
        faulty("explode/functional12", "digits", lambda t: net.initialise(net.Functional(t.inputs,
            t.outputs, 12, 64, F.relu), net.normal(0.7)), EXPLODING, initial, "sgd", 1e-3),
        faulty("explode/exponential8", "circles", mlp(depth=8, width=5, activation="exponential",
            init=net.he), EXPLODING | NON_FINITE, ("activation",), steps=100),
        faulty("explode/exponential6", "blobs", mlp(depth=6, width=16, activation="exponential",
            init=net.he), EXPLODING | NON_FINITE, ("activation",), "sgd", 0.1, steps=100),
        faulty("explode/rnn-relu", "adding_100", lambda t: net.Recurrent("RNN", 2, 1, gain=1.5,
            nonlinearity="relu"), EXPLODING | NON_FINITE, (), "sgd", 1e-2, steps=150),
        faulty("explode/rate-linear", "diabetes", mlp(depth=0), EXPLODING | RATE,
            ("learning rate",), "sgd", 3.0, batch=442, steps=200),
        faulty("explode/rate-mlp", "diabetes", mlp(depth=3, activation="tanh"), RATE,
            ("learning rate",), "sgd", 50.0),
        faulty("explode/rate-momentum", "teacher", mlp(depth=2), RATE, ("learning rate",),
            "momentum", 5.0),
        faulty("explode/rate-adam", "digits", mlp(depth=6, activation="tanh", init=net.xavier),
            RATE, ("learning rate",), "adam", 0.5),
        faulty("explode/rate-gpt", "characters", lambda t: net.Gpt(t.outputs, t.outputs, layers=3),
            RATE, ("learning rate",), "adam", 0.5, steps=150),
        faulty("explode/rate-lstm", "waves", lambda t: net.Recurrent("LSTM", 1, 3), RATE,
            ("learning rate",), "adam", 5.0, steps=150),
    ]  # fmt: skip


def guarded_root(x: Tensor) -> Tensor:
    """A square root that hides its NaN on the way forward only."""
    return torch.where(x > 0, x.sqrt(), torch.zeros_like(x))


def broken() -> list[Program]:
    """Numbers that are none, and mistakes in the loop."""

    def through(f: Callable[[Tensor], Tensor], at: int = 4, activation: str = "relu") -> Make:
        def build(rows: Task) -> nn.Module:
            layers = list(net.mlp(rows.inputs, rows.outputs, 4, 32, activation, init=net.he))
            layers.insert(at, net.Calculation(f))
            return nn.Sequential(*layers)

        return build

    def poisoned(run: Run) -> None:
        loss, counted = run.loss, itertools.count()

        def later() -> Tensor:
            value = loss()
            return value if next(counted) < 20 else value * torch.tensor(float("nan"))

        run.loss = later

    def kept(run: Run) -> None:
        run.zeroes = False

    def upwards(run: Run) -> None:
        loss = run.loss
        run.loss = lambda: -loss()

    class Detached(nn.Module):
        def __init__(self, rows: Task) -> None:
            super().__init__()
            self.body = net.mlp(rows.inputs, 32, 2, 32)
            self.head = nn.Linear(32, rows.outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).detach())  # type: ignore[no-any-return]

    class Half(nn.Module):
        def __init__(self, rows: Task, dtype: torch.dtype) -> None:
            super().__init__()
            self.dtype = dtype
            self.inner = net.mlp(rows.inputs, rows.outputs, 3, 64, init=net.he).to(dtype)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.to(self.dtype)).float()  # type: ignore[no-any-return]

    def tiny(run: Run) -> None:
        loss = run.loss
        run.loss = lambda: 1e-6 * loss()

    def nan_data(seed: int) -> Run:
        rows = task("wine")
        x = rows.x.clone()
        x[::7, 3] = float("nan")
        model = net.mlp(13, 3, 2, 32)
        spoiled = Task(x, rows.y, rows.loss, 3, rows.constant)
        return supervised(model, spoiled, torch.optim.Adam(model.parameters(), lr=1e-3), seed)

    return [
        faulty("finite/log", "digits", through(torch.log), NON_FINITE, (), where=("4",), steps=60),
        faulty("finite/reciprocal", "blobs", through(torch.reciprocal, 5), NON_FINITE, (),
            where=("5",), steps=60),
        faulty("finite/sqrt-backward", "digits", through(guarded_root), NON_FINITE, (),
            where=("3", "4"), steps=60),
        faulty("finite/exp", "cancer", through(lambda x: torch.exp(100 * x)), NON_FINITE, (),
            where=("4",), steps=60),
        faulty("finite/loss", "iris", mlp(), NON_FINITE, (), steps=60, finish=poisoned),
        Program("finite/data-wine-adam", nan_data, 60, NON_FINITE, ("input",), ("data",)),
        faulty("finite/half", "digits", lambda t: Half(t, torch.float16), NON_FINITE, (),
            "sgd", 0.1, steps=120, finish=lambda run: setattr(run, "loss", (lambda loss=run.loss:
            1e6 * loss()))),
        faulty("loop/no-zero-grad", "digits", mlp(depth=3, init=net.he),
            frozenset({"accumulating_gradients"}), (), "momentum", 0.01, finish=kept),
        faulty("loop/no-zero-grad", "moons", mlp(depth=2, width=32),
            frozenset({"accumulating_gradients"}), (), "adam", 1e-3, finish=kept),
        faulty("loop/ascent", "digits", mlp(), frozenset({"diverging", "exploding",
            "learning_rate_too_high", "non_finite"}), (), "sgd", 0.1, finish=upwards),
        faulty("loop/detached", "digits", lambda t: Detached(t), frozenset({"unused_parameter"}),
            (), where=("body",)),
        faulty("loop/rate-tiny", "digits", mlp(depth=3, init=net.he), frozenset({"starved_update",
            "stalled"}), ("learning rate",), "sgd", 1e-8, steps=400),
        faulty("loop/rate-tiny", "blobs", mlp(depth=3, init=net.he), frozenset({"starved_update",
            "stalled"}), ("learning rate",), "adam", 1e-9, steps=400),
        faulty("loop/underflow", "digits", lambda t: Half(t, torch.float16),
            frozenset({"underflow"}), ("dtype",), "sgd", 0.1, finish=tiny),
        faulty("loop/swallowed", "digits", lambda t: Half(t, torch.bfloat16),
            frozenset({"starved_update", "underflow"}), (), "sgd", 1e-5),
        faulty("saturate/tanh10", "digits", mlp(depth=10, width=128, activation="tanh",
            init=net.normal(3.0)), frozenset({"saturated", "exploding"}), ("initialisation",)),
        faulty("saturate/tanh4", "cancer", mlp(depth=4, activation="tanh", init=net.normal(5.0)),
            frozenset({"saturated", "exploding"}), ("initialisation",), "sgd", 0.01),
        faulty("saturate/sigmoid4", "blobs", mlp(depth=4, activation="sigmoid",
            init=net.normal(20.0)), frozenset({"saturated", "vanishing", "exploding"}),
            ("initialisation",)),
    ]  # fmt: skip


def programs() -> list[Program]:
    """All programs with a fault that is known."""
    return [*vanishing(), *dying(), *exploding(), *broken()]
