"""What a model does to its output at last is looked at as if it had a module for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer import Monitor
from trainer.monitor import last_activation
from trainer.record import LayerTable, StepRecord

MODULES: dict[str, tuple[Callable[[Tensor], Tensor], nn.Module]] = {
    "softmax": (lambda x: F.softmax(x, -1), nn.Softmax(-1)),
    "logsoftmax": (lambda x: F.log_softmax(x, -1), nn.LogSoftmax(-1)),
    "relu": (F.relu, nn.ReLU()),
    "sigmoid": (torch.sigmoid, nn.Sigmoid()),
    "tanh": (torch.tanh, nn.Tanh()),
}


class Own(nn.Module):
    """Two layers, and something that has no module."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 3), last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(torch.tanh(self.first(x))))


class WithModule(Own):
    """The same with a module."""

    def __init__(self, last: nn.Module) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 3), last


def seen(model: nn.Module, **options: object) -> LayerTable:
    made = list[StepRecord]()
    torch.manual_seed(1)
    with Monitor(model, sinks=[made.append], histogram_every_steps=1, **options) as monitor:  # type: ignore[arg-type]
        out = model(torch.randn(16, 4))
        loss = (out - torch.randn(out.shape)).square().mean()
        loss.backward()
        with monitor.step(0, loss):
            pass
    assert made[0].layers is not None
    return made[0].layers


@pytest.mark.parametrize("name", MODULES)
def test_is_what_a_module_of_it_would_be(name: str) -> None:
    own, module = MODULES[name]
    ours, theirs = seen(Own(own)), seen(WithModule(module))
    assert ours.names == ("input", "first", "second", f"forward.{name}")
    assert theirs.names == ("input", "first", "second", "last")
    assert ours.kinds == theirs.kinds
    for column in ("rms", "zero_fraction", "signal_fraction", "dead_fraction"):
        np.testing.assert_array_equal(getattr(ours, column), getattr(theirs, column))
    np.testing.assert_array_equal(ours.gradients.moments, theirs.gradients.moments)
    assert ours.gradients.histograms is not None and theirs.gradients.histograms is not None
    np.testing.assert_array_equal(ours.gradients.histograms, theirs.gradients.histograms)


@pytest.mark.parametrize(
    "reshaped",
    [lambda x: x.view(-1), lambda x: x.reshape(2, -1).transpose(0, 1).unsqueeze(0), lambda x: x[0]],
)
def test_whatever_its_shape_is_since(reshaped: Callable[[Tensor], Tensor]) -> None:
    table = seen(Own(lambda x: reshaped(torch.sigmoid(x))))
    assert (table.names[-1], table.kinds[-1]) == ("forward.sigmoid", "Sigmoid")
    assert "forward.sigmoid" in table.gradients.names


def test_only_what_it_does_at_last_and_has_no_layer_for() -> None:
    def layers(last: Callable[[Tensor], Tensor]) -> tuple[str, ...]:
        return seen(Own(last)).names[1:]

    assert layers(lambda x: x) == layers(lambda x: 2 * torch.sigmoid(x)) == ("first", "second")
    module = WithModule(nn.Sequential(nn.Softmax(-1), nn.Flatten(0)))
    assert "forward.softmax" not in seen(module).names
    both = WithModule(nn.Softmax(-1))
    both.forward = lambda x: torch.softmax(both.last(both.second(both.first(x))), -1)  # type: ignore[method-assign]
    assert "forward.softmax" not in seen(both).names  # which of the two made it, nobody knows
    excluded = seen(Own(torch.tanh), exclude=["forward.*"])
    assert excluded.names[1:] == ("first", "second")
    assert last_activation.of(None, []) is last_activation.of(torch.ones(2), []) is None


def test_a_softmax_before_a_cross_entropy_is_found() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    y = x.abs().argmax(1) % 3
    model = Own(lambda x: F.softmax(x, -1))
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    with Monitor(model) as monitor:
        for step in range(200):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    [found] = [finding for finding in monitor.findings if finding.alarm]
    assert (found.verdict, found.steps[0]) == ("stalled", 150)
    assert "a Softmax comes before a loss that has its own" in found.cause
