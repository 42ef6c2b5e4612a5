"""Networks drawn by lot: nobody says what is wrong with which, the outcome does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from diagnosis_zoo import networks as net
from diagnosis_zoo.healthy import Make, mlp
from diagnosis_zoo.program import Program
from diagnosis_zoo.sick import faulty

Pick = Callable[[list[Any]], Any]


def lot(seed: int) -> tuple[torch.Generator, Pick]:
    """A generator, and what picks one of several by it."""
    generator = torch.Generator().manual_seed(seed)

    def pick(options: list[Any]) -> Any:
        return options[int(torch.randint(len(options), (), generator=generator))]

    return generator, pick


def networks(numbers: Iterable[int]) -> list[Program]:
    """Multilayer perceptrons: depth, width, activation, init, norm, optimizer and rate."""
    made = []
    for number in numbers:
        generator, pick = lot(1000 + number)
        data = pick(["digits", "moons", "blobs", "cancer", "diabetes", "wine", "words", "teacher"])
        activation = pick(["relu", "relu", "tanh", "sigmoid", "gelu", "leaky", "elu", "selu"])
        depth = pick([1, 2, 3, 4, 6, 8, 10, 12, 16])
        width = pick([8, 16, 32, 64, 128])
        init = pick(
            [None, None, net.he, net.xavier, net.normal(0.05), net.normal(0.3), net.normal(1.0)]
        )
        norm = pick([None, None, None, nn.BatchNorm1d, nn.LayerNorm])
        optimizer = pick(["sgd", "momentum", "adam", "adam", "rmsprop", "adamw"])
        exponent = float(torch.rand((), generator=generator)) * 4
        lr = 10 ** (-exponent if optimizer in ("sgd", "momentum") else -exponent - 0.5)
        built = mlp(depth=depth, width=width, activation=activation, init=init, norm=norm)
        program = faulty(f"drawn/{number}", str(data), built, frozenset(), (), str(optimizer), lr,
            steps=500)  # fmt: skip
        made.append(program)
    return made


def convolutional(pick: Pick) -> tuple[str, Make]:
    data = pick(["digit_images", "textures"])
    channels, outputs, size = {"digit_images": (1, 10, 8), "textures": (3, 4, 16)}[data]
    if pick([False, True]):
        keys = {"blocks": pick([2, 4, 6]), "width": pick([8, 12]), "zero": pick([False, True]),
                "skip": pick([True, True, False]), "norm": pick([True, False])}  # fmt: skip
        return data, lambda _: net.ResNet(channels, outputs, **keys)
    init = pick([None, None, net.he, net.xavier, net.normal(0.02), net.normal(0.3)])
    keys = {"depth": pick([2, 3, 4, 6, 8]), "width": pick([4, 8, 16]),
            "activation": pick(["relu", "relu", "tanh", "sigmoid", "gelu", "elu"]),
            "norm": pick([False, False, True]), "init": init}  # fmt: skip
    return data, lambda _: net.cnn(channels, outputs, size, **keys)


def recurrent(pick: Pick) -> tuple[str, Make]:
    data, kind = pick(["waves", "digit_rows", "first_of_10"]), pick(["RNN", "LSTM", "GRU"])
    keys = {"hidden": pick([16, 32, 64]), "layers": pick([1, 1, 2, 3]),
            "gain": pick([None, None, 1.0, 0.3, 2.0])}  # fmt: skip
    if kind == "RNN":
        keys["nonlinearity"] = pick(["tanh", "tanh", "relu"])
    return data, lambda rows: net.Recurrent(kind, rows.x.shape[-1], rows.outputs, **keys)


def attentive(pick: Pick) -> tuple[str, Make]:
    data = pick(["characters", "digit_rows"])
    keys = {"layers": pick([1, 2, 4, 6]), "width": pick([16, 32]), "post": pick([False, True]),
            "std": pick([0.02, 0.02, None, 0.002, 0.2])}  # fmt: skip
    if data == "digit_rows":
        return data, lambda _: net.Gpt(10, inputs=8, average=True, **keys)
    tied = pick([False, False, True])
    return data, lambda rows: net.Gpt(rows.outputs, rows.outputs, tied=tied, **keys)


def architectures(numbers: Iterable[int]) -> list[Program]:
    """Convolutional, residual, recurrent and attention networks, and how they are trained."""
    made = []
    for number in numbers:
        generator, pick = lot(500_000 + number)
        data, build = pick([convolutional, recurrent, attentive])(pick)
        optimizer = pick(["sgd", "momentum", "adam", "adam", "rmsprop", "adamw"])
        exponent = float(torch.rand((), generator=generator)) * 3
        lr = 10 ** (-exponent if optimizer in ("sgd", "momentum") else -exponent - 1)
        made.append(faulty(f"architecture/{number}", data, build, frozenset(), (), optimizer, lr,
            steps=300))  # fmt: skip
    return made
