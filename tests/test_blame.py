"""Whose fault it is: causes that look alike, told apart on hand-made records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from records_by_hand import Layer, deep, linear, record
from torch import nn

from trainer import Monitor
from trainer.diagnosis import Diagnosis, blame
from trainer.diagnosis.view import view
from trainer.finding import Finding
from trainer.record import BINS, StepRecord

STEPS = (*range(11), 20, 30, 40, 50, 100, 150, 200)


def found(records: Iterable[StepRecord]) -> dict[str, Finding]:
    """The last alarm of each verdict."""
    diagnosis = Diagnosis()
    for one in records:
        diagnosis.add(one)
    return {finding.verdict: finding for finding in diagnosis.findings if finding.alarm}


def run(layers: list[Layer], **keys: object) -> list[StepRecord]:
    return [record(step, layers, **keys) for step in STEPS]  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "category"), [(1.0, "activation"), (8.0, "initialisation")])
def test_activations_that_are_given_too_much_are_not_to_blame(given: float, category: str) -> None:
    layers = deep(12, "Tanh", backward=0.2, signal=0.2)
    gradients = [0.2 ** (12 - n // 2) * (0.3 if n % 2 else 1.0) for n in range(24)]
    layers[:24] = [
        replace(k, gradient=g, rms=0.9 if k.kind == "Tanh" else given)
        for k, g in zip(layers[:24], gradients, strict=True)
    ]
    # What comes back through the weights grows, through the activations it shrinks.
    layers[:24] = [
        replace(k, gradient=(k.gradient or 0) * (8.0 if k.kind == "Tanh" else 1.0))
        for k in layers[:24]
    ]
    assert found(run(layers)[:2])["vanishing"].cause.startswith(f"{category}: ")


class Between(nn.Module):
    """A deep network with a function between its layers that no module tells of."""

    def __init__(self, function: object, gain: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(24))
        self.function = function
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0.0, gain / 8)
            nn.init.normal_(layer.bias, 0.0, 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            x = self.function(layer(x))  # type: ignore[operator]
        return self.layers[-1](x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "gain", "category"),
    [
        (torch.relu, 0.577, "initialisation"),  # which He's would make up for
        (torch.sigmoid, 1.0, "activation"),
    ],
)
def test_functions_that_no_module_tells_of(function: object, gain: float, category: str) -> None:
    torch.manual_seed(0)
    model, x, y = Between(function, gain), torch.randn(64, 64), torch.randint(10, (64,))
    cause = trained(model, lambda: nn.functional.cross_entropy(model(x), y), steps=60)
    assert cause.startswith(f"{category}: ")


def trained(model: nn.Module, loss: Callable[[], torch.Tensor], steps: int) -> str:
    """The cause why signal and gradient vanish in it."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    with Monitor(model) as monitor:
        for step in range(steps):
            now = loss()
            now.backward()
            with monitor.step(step, now):
                optimizer.step()
            optimizer.zero_grad()
        (vanishing,) = [f for f in monitor.findings if f.verdict == "vanishing" and f.alarm]
    return vanishing.cause


def test_weights_that_no_module_has() -> None:
    """As of a memory that is read by attention."""
    layers = [linear(signal=1e-9, gradient=1e-14), linear(signal=1e-9, weight=0.2)]
    made = []
    for one in run(layers):
        sizes = np.append(one.parameter_rms, 1e-8)
        more = {"parameters": (*one.parameters, "memory"), "parameter_rms": sizes}
        for name in ("update_ratio", "unchanged_fraction"):
            more[name] = np.append(getattr(one, name), 0.0)
        shapes, dtypes = (*one.shapes, (30, 30)), (*one.dtypes, "float32")
        made.append(replace(one, shapes=shapes, dtypes=dtypes, **more))  # type: ignore[arg-type]
    assert found(made[:5])["vanishing"].cause.startswith("initialisation: ")
    assert found(run(layers)[:5])["vanishing"].cause.startswith("activation: ")


class Recurrent(nn.Module):
    """Reads tokens and says one."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(10, 24), kind(24, 24, batch_first=True)
        self.head = nn.Linear(24, 10)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embedding(tokens))[0][:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "gates", "bias"),
    [
        (nn.GRU, slice(24, 48), 30.0),  # keeps nothing but what it began with
        (nn.LSTM, slice(0, 24), -25.0),  # takes nothing in
    ],
)
def test_gates_that_are_shut(kind: type[nn.RNNBase], gates: slice, bias: float) -> None:
    """A gated network is no cure for one; nor is there a step function in it."""
    torch.manual_seed(1)
    model = Recurrent(kind)
    with torch.no_grad():
        model.layer.bias_ih_l0[gates] = bias
    tokens = torch.randint(10, (32, 12))
    cause = trained(model, lambda: nn.functional.cross_entropy(model(tokens), tokens[:, 0]), 210)
    assert cause.startswith("memory: ") and cause.endswith(": the gates of layer are shut")


@pytest.mark.parametrize(("weight", "category"), [(1e-3, "initialisation"), (0.1, "memory")])
def test_gates_of_weights_that_make_nothing_are_not_shut(weight: float, category: str) -> None:
    layers = [
        linear(kind="Embedding", gradient=1e-12),
        linear(kind="LSTM", signal=1e-9, weight=weight),
        linear(signal=1e-9, update=5e-3),
    ]
    cause = found(run(layers, input_rms=None))["vanishing"].cause
    assert cause.startswith(f"{category}: ")
    assert cause.endswith("the gates of 1 are shut") == (category == "memory")


def test_gates_are_not_to_blame_for_what_comes_after_them() -> None:
    torch.manual_seed(1)
    model, after = Recurrent(nn.LSTM), Between(torch.sigmoid, 0.577)
    model.head = nn.Linear(24, 64)
    model.add_module("after", after)
    tokens = torch.randint(10, (32, 3))
    cause = trained(
        model, lambda: nn.functional.cross_entropy(after(model(tokens)), tokens[:, 0]), 60
    )
    assert cause.startswith("activation: ")


def test_gated_layers_that_follow_each_other() -> None:
    """They are at fault together, whatever comes before them."""

    def category(count: int, kind: str) -> str:
        rows = [linear(kind=kind, gradient=0.1 ** (count - k)) for k in range(count)]
        made = record(0, [linear(gradient=0.1**count), *rows, linear(gradient=1.0)])
        seen = view(made)
        assert seen is not None
        return blame.attenuation(seen, made, seen).category

    assert category(6, "LSTM") == category(6, "GRU") == "memory"
    assert category(6, "RNN") == "recurrence"


def test_updates_that_starve_for_small_weights() -> None:
    small = run([replace(k, weight=1e-3, update=1e-9) for k in [*deep(3), linear()] if k])
    cause = found(small)["starved_update"].cause
    assert cause.startswith("initialisation: in 50 steps no weight matrix has moved by more than ")
    assert cause.endswith("of its size: the weights make 0.005 of what they are given at first")
    usual = run(deep(3, update=1e-9))
    assert found(usual)["starved_update"].cause.startswith("learning rate: ")
    # Those of Adam do not go by sizes.
    adaptive = [replace(one, optimizer="Adam") for one in small]
    assert found(adaptive)["starved_update"].cause.startswith("learning rate: ")


def test_units_that_die_where_the_signal_was_lost_at_first() -> None:
    """Small updates did no more than end it."""

    def dead(signal: float) -> str:
        layers = deep(4, backward=signal, signal=signal, update=5e-2)
        end = [
            replace(k, dead=1.0 if n == 3 else 0.0, gradient=0.0 if n < 3 else k.gradient,
                    rms=0.0 if n == 3 else k.rms)
            for n, k in enumerate(layers)
        ]  # fmt: skip
        steps = (0, 1, 2, 3, 20, 30, 40)
        return found(record(s, end if s >= 20 else layers) for s in steps)["dead_units"].cause

    assert dead(0.1).startswith("initialisation: ") and dead(1.0).startswith("learning rate: ")


def test_gradients_that_pile_up_in_weights_that_are_zero() -> None:
    """No update is a share of those; that none has changed tells that no optimizer has them."""
    still = [replace(k, weight=1e-30, update=float("nan")) for k in [linear(), linear()]]
    made = [record(s, still, carried=2.0, unchanged=1.0) for s in range(5)]
    assert found(made)["accumulating_gradients"].cause.startswith("optimizer: ")
    moved = [record(s, still, carried=2.0, unchanged=0.5) for s in range(5)]
    assert found(moved)["accumulating_gradients"].cause.startswith("loop: ")


def test_inputs_that_are_the_same_for_all_though_their_places_differ() -> None:
    """As in a network over the places of an image, whose layers tell those apart."""

    def cause(first: float) -> str:
        layers = [linear(signal=first, update=5e-3), *deep(3, update=5e-3)[1:-1]]
        made = run([*layers, linear(signal=1e-8, update=5e-3)])
        for one in made:
            assert one.layers is not None
            one.layers.signal_fraction[0] = 0.0
        return found(made)["constant_output"].cause

    assert cause(0.0).startswith("data: the inputs are the same for every sample; ")
    assert not cause(0.8).startswith("data: ")  # another input is not: this one may be a mask


def test_a_factor_that_is_zero_and_stays_so() -> None:
    """Each of two factors waits for the other."""

    def said(zeros: float, size: float, loss: float = 1.0) -> list[str]:
        made = []
        for step in STEPS:
            one = record(step, [linear()], loss=loss if step > 20 else 1.0)
            one.gradients.moments[0, 4] = zeros
            object.__setattr__(one.gradients, "histograms", np.zeros((1, BINS), np.int64))
            made.append(replace(one, parameter_rms=np.array([size]), shapes=((10, 100),)))
        return [f.cause for v, f in found(made).items() if v == "symmetric_units"]

    assert said(1000, 0.0) == ["initialisation: 0.weight is zero and gets no gradient"]
    # What has been learnt so far is no matter of it: it may be meant to begin later.
    assert said(1000, 0.1) == said(999, 0.0) == said(1000, 0.0, loss=0.7) == []
