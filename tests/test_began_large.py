"""Runs that began with values that were far too large, and learnt little since."""

from __future__ import annotations

import torch
from test_creeps import mlp, said, trained, waves
from test_diagnosis import TestInputs as Inputs
from test_ending import STEPS, ended
from torch import Tensor, nn
from torch.nn import functional


class Reservoir(nn.Module):
    """A read-out of a state that nobody trains."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("w", gain * torch.linalg.qr(torch.randn(16, 16))[0])
        self.register_buffer("u", torch.randn(8, 16))
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 16)
        for _ in range(12):
            state = state @ self.w + x @ self.u
        made: Tensor = self.out(state)
        return made


class Towers(nn.Module):
    """Two that are added, of which one is deep."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.deep, self.wide = mlp(1), nn.Linear(8, 1)
        with torch.no_grad():
            for parameter in self.deep.parameters():
                parameter.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.deep(x) + self.wide(x)
        return made


def test_an_output_that_is_its_own_error() -> None:
    found = trained(Reservoir(4.0), functional.mse_loss, waves, lr=0.01)
    assert said(found) == {"signal_blow_up, data"}
    assert "its errors are still as large as itself" in found[-1].cause
    assert "the inputs have an RMS of" in found[-1].cause
    assert said(trained(Reservoir(0.5), functional.mse_loss, waves, lr=0.01)) == set()


def test_an_output_that_is_its_own_error_shrinks_and_is_large() -> None:
    def found(half: float, unit: float = 1.0) -> list[str]:
        sizes = [600.0 if k < 12 else half if k < 150 else 60.0 for k in STEPS]
        made = [Inputs.squared(k, 0.8 * unit * size, unit * size, update=0.01)
                for k, size in zip(STEPS, sizes, strict=True)]  # fmt: skip
        return [each.cause for each in ended(made) if "its errors" in each.cause]

    assert len(found(100.0)) == 1
    assert found(60.0) == found(100.0, unit=0.3) == []


def logistic(out: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(out, y)


def positive(x: Tensor) -> Tensor:
    return (x[:, :1] > 0).float()


def test_a_layer_inside_that_began_too_large() -> None:
    found = trained(Towers(30.0), logistic, positive, lr=1e-3)
    assert said(found) == {"signal_blow_up, initialisation"}
    assert found[-1].where == "deep.5" and "deep.5 started at" in found[-1].cause
    assert said(trained(Towers(1.0), logistic, positive)) == set()


def test_beside_noise_as_large_as_what_is_learnt() -> None:
    """Then errors are as large as the output, however small it has become."""
    noise = torch.Generator().manual_seed(1)

    def targets(x: Tensor) -> Tensor:
        return waves(x) + 1.2 * torch.randn(len(x), 1, generator=noise)

    for size in (1.0, 100.0):
        found = trained(
            mlp(1),
            functional.mse_loss,
            lambda x: size * targets(x),  # noqa: B023
            scale=300.0,
            steps=500,
            lr=1e-2,
        )
        assert not [each for each in found if each.alarm and "its errors" in each.cause]


class Fixed(nn.Module):
    """Features of fixed size, which the next layer standardises."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * x


def test_a_layer_whose_weights_are_not_large() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fixed, self.one, self.out = Fixed(), nn.Linear(8, 16), nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            made = self.one(self.fixed(x))
            out: Tensor = self.out(functional.layer_norm(made, (16,)))
            return out

    noise = torch.Generator().manual_seed(1)

    def flipped(x: Tensor) -> Tensor:
        flips = torch.rand(len(x), 1, generator=noise) < 0.2
        return torch.where(flips, 1 - positive(x), positive(x))

    assert said(trained(Inside(), logistic, flipped, steps=400)) == set()
