"""Rectifiers that no module tells of, and sequences whose beginning is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_creeps import said
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor
from trainer.finding import Finding

LENGTH = 10


class Recurrent(nn.Module):
    """The last state of an nn.RNN, read out."""

    def __init__(self, scale: float = 1.0, bias: float = 0.0, kind: str = "tanh") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.RNN(4, 16, batch_first=True, nonlinearity=kind)
        self.out = nn.Linear(16, 4)
        with torch.no_grad():
            nn.init.orthogonal_(self.rnn.weight_hh_l0).mul_(scale)
            self.rnn.bias_ih_l0.add_(bias)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.out(self.rnn(x)[0][:, -1])
        return made


class Rectified(nn.Module):
    """A classifier whose output goes through a rectifier once more."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(4 * LENGTH, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.out.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.out(torch.tanh(self.hidden(x.flatten(1))))).clone()


def trained(
    model: nn.Module, answer: Callable[[Tensor], Tensor], steps: int = 210, lr: float = 3e-3
) -> list[Finding]:
    """What is found where a classifier of one-hot sequences is trained with Adam."""
    made, found = torch.Generator().manual_seed(0), list[Finding]()
    adam = torch.optim.Adam(model.parameters(), lr)
    with Monitor(model, found=found.append) as monitor:
        for step in range(steps):
            tokens = torch.randint(0, 4, (64, LENGTH), generator=made)
            loss = functional.cross_entropy(
                model(functional.one_hot(tokens, 4).float()), answer(tokens)
            )
            adam.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                adam.step()
    return found


def first(tokens: Tensor) -> Tensor:
    return tokens[:, 0]


def last(tokens: Tensor) -> Tensor:
    return tokens[:, -1]


@pytest.mark.parametrize(
    "dead, where",
    [
        (lambda: Recurrent(bias=-9.0, kind="relu"), "rnn"),
        (lambda: Rectified(-9.0), "out"),
    ],
)
def test_rectifiers_that_are_shut(dead: Callable[[], nn.Module], where: str) -> None:
    """They are told as dead, not as a gradient that vanishes on its way."""
    found = [each for each in trained(dead(), last, steps=20) if each.alarm]
    assert [(each.verdict, each.where) for each in found] == [("dead_units", where)]
    assert found[0].level == "critical" and found[0].cause.startswith("initialisation: ")


class Fed(nn.Module):
    """A recurrent network that is fed with what a function leaves of a layer's output."""

    def __init__(self, kind: type[nn.RNNBase], bias: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.rnn = nn.Linear(4, 8), kind(8, 16, batch_first=True)
        self.out = nn.Linear(16, 4)
        with torch.no_grad():
            self.first.bias.fill_(bias)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.out(self.rnn(functional.relu(self.first(x)))[0][:, -1])
        return made


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_rectifier_before_a_sequence(kind: type[nn.RNNBase]) -> None:
    """A state that biases make is no sign of a gate that is shut."""
    found = [each for each in trained(Fed(kind, -9.0), last, steps=20) if each.alarm]
    assert [(each.verdict, each.where) for each in found] == [("dead_units", "first")]
    assert "nothing gets from first to rnn" in found[0].cause
    assert said(trained(Fed(kind, 0.1), last)) == set()


def test_one_that_is_open() -> None:
    assert said(trained(Recurrent(kind="relu"), last)) == set()


def test_what_has_no_derivative_is_no_rectifier() -> None:
    """Though the output is its bias, as of start values that leave little of the input."""
    model = Rectified(-0.5)
    torch.nn.init.zeros_(model.out.weight)
    assert said(trained(model, last, steps=20)) == {"vanishing, blocked"}


def test_a_bias_beside_a_rectifier_that_is_open() -> None:
    assert said(trained(Rectified(3.0), last)) == set()


def test_a_sequence_whose_beginning_is_forgotten() -> None:
    """What has to be remembered decides, not how small the gradient at the first steps is."""
    found = trained(Recurrent(scale=0.3), first)
    assert said(found) == {"vanishing, recurrence"}
    assert "the gradient at the first steps of the sequence was" in found[-1].cause
    assert found[-1].where == "rnn" and found[-1].of_the_end
    assert said(trained(Recurrent(scale=0.3), last)) == set()
    assert said(trained(Recurrent(), first, lr=1e-2)) == set()


class Steep(torch.autograd.Function):
    """What lets next to nothing of the gradient back, as a steep surrogate of a spike does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, left: float) -> Tensor:
        ctx.left = left
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.left * gradient, None


class Surrogates(nn.Module):
    def __init__(self, left: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.out = nn.Linear(40, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.left = left

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.one, self.two):
            x = Steep.apply(torch.tanh(2 * layer(x.flatten(1))), self.left)
        made: Tensor = self.out(x)
        return made


def test_what_the_last_layer_learns_alone_is_no_excuse() -> None:
    """Beside noise: the others have a gradient that is rounding, by which Adam moves them."""
    noise = torch.Generator().manual_seed(1)

    def answer(tokens: Tensor) -> Tensor:
        told = torch.rand(len(tokens), generator=noise) < 0.3
        return torch.where(told, tokens[:, 0], torch.randint(0, 4, (len(tokens),), generator=noise))

    assert "vanishing, " in " ".join(said(trained(Surrogates(1e-6), answer)))
    assert said(trained(Surrogates(1.0), answer)) == set()


def test_a_network_of_zeros_that_waits_for_its_rate() -> None:
    """All of a tanh's states are zero until the weights move."""
    model = Recurrent()
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.zero_()
    assert "dead_units" not in " ".join(said(trained(model, last, steps=20, lr=0.0)))


class Copying(nn.Module):
    """Says the first token of a long sequence, of which all others are the same."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.rnn = nn.Embedding(6, 16), nn.RNN(16, 32, batch_first=True)
        self.out = nn.Linear(32, 8)
        for parameter in self.out.parameters():
            nn.init.normal_(parameter, 0.0, 0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        made: Tensor = self.out(self.rnn(self.table(tokens))[0][:, -1])
        return made


@pytest.mark.parametrize("blanks, told", [(90, True), (3, False)])
def test_a_beginning_that_is_forgotten_in_a_short_run(blanks: int, told: bool) -> None:
    """Its loss fell to that of the classes there are, which is not to have learnt."""
    torch.manual_seed(0)
    model, drawn = Copying(), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    with Monitor(model) as monitor:
        for step in range(120):
            y = torch.randint(0, 6, (32,), generator=drawn)
            x = torch.cat([y[:, None], torch.zeros(32, blanks, dtype=torch.long)], 1)
            loss = functional.cross_entropy(model(x), y)
            adam.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                adam.step()
    assert said(monitor.findings) == ({"vanishing, recurrence"} if told else set())
