"""The module whose own work makes values that are not finite, in models of every build."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.monitor.breaking import Breaking


class Part(nn.Module):
    """A linear layer and an activation, and what is done before, between and after them."""

    def __init__(self, **does: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.relu, self.does = nn.Linear(4, 4), nn.ReLU(), does

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.linear(self.does.get("before", nn.Identity())(x))
        x = self.relu(self.does.get("between", nn.Identity())(x))
        return self.does.get("after", nn.Identity())(x if mask is None else x + mask.exp())


def broken(x: Tensor) -> Tensor:
    return torch.log(x - x.max() - 1)


def noted(model: nn.Module, x: Tensor, *others: Tensor) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with Breaking(model, lambda name, kind, tensor: found.append((name, kind))):
        model(x, *others)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return found


@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_the_module_around_it(place: str) -> None:
    model = nn.Sequential(Part(), nn.Sequential(Part(**{place: broken})), Part())
    assert noted(model, torch.randn(8, 4)) == [("1.0", "Part")]


def test_the_model_itself() -> None:
    assert noted(Part(after=broken), torch.randn(8, 4)) == [("model", "Part")]


def test_not_what_a_layer_does() -> None:
    """Whose output is measured anyway."""
    model = nn.Sequential(Part(), Part(), Part())
    with torch.no_grad():
        model[1].linear.weight.fill_(math.inf)  # type: ignore[union-attr, operator]
    assert noted(model, torch.randn(8, 4)) == []


def test_not_what_it_was_given() -> None:
    """But that, as the input."""
    assert noted(nn.Sequential(Part(), Part()), torch.full((8, 4), math.nan)) == [("", "Input")]
    assert noted(nn.Sequential(Part()), torch.randn(8, 4)) == []


def test_not_what_it_knows_how_to_handle() -> None:
    """A NaN that stands for what is missing; what breaks then is told by what measures layers."""
    x = torch.randn(8, 4)
    x[0, 0] = math.nan
    model = nn.Sequential(Part(before=torch.nan_to_num), Part(before=broken))
    assert noted(model, x) == [("1", "Part")]
    assert noted(Part(before=torch.nan_to_num, after=broken), x) == []
    missing = torch.full((4,), math.nan)
    assert noted(Part(after=broken), torch.randn(8, 4), missing.nan_to_num()) == [("model", "Part")]


def test_what_it_was_given_in_a_column_that_no_layer_is_given() -> None:
    """As in a coupling of halves, or where a head is a formula."""

    class Coupled(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            self.parts = nn.ModuleList(parts)

        def forward(self, x: Tensor) -> Tensor:
            half, other = x[:, :4], x[:, 4:]
            for part in self.parts:
                half, other = other + part(half), half
            return torch.cat([half, other], 1)

    x = torch.randn(8, 8)
    x[2, 6] = math.nan
    assert noted(Coupled(Part()), x) == noted(Coupled(Part(), Part()), x) == [("", "Input")]
    x[:, 6] = math.nan
    assert noted(Coupled(Part(), Part()), x) == [], "of all samples it may be a mark"
    assert noted(Coupled(Part(after=broken)), x.nan_to_num()) == [("parts.0", "Part")]


def test_a_mask_of_infinities_is_no_fault() -> None:
    mask = torch.tensor([0.0, -math.inf, -math.inf, 0.0])
    assert noted(Part(), torch.randn(8, 4), mask) == []
    assert noted(Part(after=broken), torch.randn(8, 4), mask) == [("model", "Part")]
    weights = nn.Softmax(-1)  # of scores that a mask has made infinite: its work is sound
    assert noted(nn.Sequential(weights, Part()), torch.randn(8, 4) + mask) == []
