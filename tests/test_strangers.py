"""Parameters that a loss hangs on and nobody trains."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer import Monitor, strangers
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
    monkeypatch.setattr(strangers, "MOST", 3)
    assert math.isnan(strangers.count(model, model(torch.randn(3, 4)).sum()))


@pytest.mark.parametrize("known", [True, False])
def test_are_said_to_be_why_nothing_is_learnt(known: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 4)
    y = ((x[:, 0] * x[:, 1]) > 0).long()
    model = Listed(nn.ModuleList(hidden()) if known else hidden())
    model.last.weight.data *= 0.01
    if not known:
        assert isinstance(model.layers, list)
        for layer in model.layers:  # so that what the last layer is given says nothing
            layer.weight.data *= 0.01
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    records = list[StepRecord]()
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(300):
            i = torch.randint(0, 400, (64,))
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[i]), y[i])
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    told = [record.strangers for record in records]
    assert told[0] == (0 if known else 4) and all(map(math.isnan, told[1:]))
    found = [finding for finding in monitor.findings if finding.cause.startswith("unregistered")]
    assert bool(found) is not known
    if found:
        assert (found[0].verdict, found[0].level) == ("stalled", "warning")
        assert "the loss hangs on 4 parameters that neither the model nor an optimizer has" in (
            found[0].cause
        )
        assert "in a ModuleList in place of a list" in found[0].remedy
