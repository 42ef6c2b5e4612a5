"""Parameters that a loss hangs on and nobody trains."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import Tensor, nn

from trainer import Monitor, graph, step_loss, strangers
from trainer.record import StepRecord


class Listed(nn.Module):
    """Hidden layers in a plain list, or one that is made in every forward pass."""

    def __init__(self, layers: list[nn.Linear] | nn.ModuleList | None) -> None:
        super().__init__()
        self.layers, self.last = layers, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        layers = [nn.Linear(4, 8)] if self.layers is None else self.layers
        for layer in layers:
            x = torch.relu(layer(x))
        out: Tensor = self.last(x)
        return out


def hidden() -> list[nn.Linear]:
    return [nn.Linear(4, 8), nn.Linear(8, 8)]


def test_layers_that_no_module_knows_are_counted() -> None:
    x = torch.randn(3, 4)
    kept = [Listed(layers) for layers in (hidden(), nn.ModuleList(hidden()), None)]
    assert [strangers.count(model, model(x).sum()) for model in kept] == [4, 0, 2]
    assert math.isnan(strangers.count(kept[0], torch.tensor(1.0)))


def test_what_others_train_or_nobody_does_is_none() -> None:
    """The parameters of another model that an optimizer has, frozen ones, inputs with gradients."""
    generator, critic, scale = nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(1, 1)
    given = torch.randn(5, 4, requires_grad=True)
    scale.requires_grad_(False)
    loss = scale(critic(generator(given))).mean()
    assert strangers.count(generator, loss) == 2
    optimizer = torch.optim.SGD(critic.parameters(), 0.1)
    assert strangers.count(generator, loss) == 0
    del optimizer
    frozen = nn.Linear(4, 3).requires_grad_(False)
    assert math.isnan(strangers.count(frozen, frozen(torch.ones(1, 4)).sum()))


def test_a_graph_that_is_too_large_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Listed(hidden())
    monkeypatch.setattr(graph, "MOST", 3)
    assert math.isnan(strangers.count(model, model(torch.randn(3, 4)).sum()))


def test_the_first_record_tells_of_them() -> None:
    for layers, count in ((hidden(), 4), (nn.ModuleList(hidden()), 0)):
        model, records = Listed(layers), list[StepRecord]()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with Monitor(model, sinks=[records.append]) as monitor:
            for step in range(3):
                optimizer.zero_grad()
                loss = model(torch.randn(8, 4)).square().mean()
                loss.backward()
                with monitor.step(step, loss):
                    optimizer.step()
        told = [record.strangers for record in records]
        assert told[0] == count and all(map(math.isnan, told[1:]))


def test_a_long_graph_is_freed_as_if_nobody_had_looked() -> None:
    """In a thread, whose stack is small."""
    model = nn.Linear(2, 1)

    def train() -> None:
        loss = model(torch.ones(1, 2)).sum()
        for _ in range(20_000):
            loss = loss * 1.0
        assert math.isnan(strangers.count(model, loss))
        loss.backward()

    before = threading.stack_size(512 << 10)
    try:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert model.weight.grad is not None


def test_what_goes_wrong_while_they_are_counted_is_nothing_to_the_loop() -> None:
    class Unfinished(torch.optim.Optimizer):
        def __init__(self) -> None:
            pass

    kept, model = Unfinished(), Listed(hidden())
    assert strangers.count(model, model(torch.randn(3, 4)).sum()) == 4
    kept.param_groups = [{}]
    losses = step_loss.Losses(model)
    assert losses.take(model(torch.randn(3, 4)).sum()) is not None and math.isnan(
        losses.strangers()
    )
