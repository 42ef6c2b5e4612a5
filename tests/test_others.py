"""Parameters that a loss hangs on and nobody trains, or another optimizer does."""

from __future__ import annotations

import math
import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from records_by_hand import deep, record
from test_diagnosis import alarms
from torch import Tensor, nn

from trainer import Monitor
from trainer.monitor import graph, step_loss
from trainer.monitor.others import UNKNOWN, count
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
    assert [count(model, model(x).sum()) for model in kept] == [(4, 0), (0, 0), (2, 0)]
    assert count(kept[0], torch.tensor(1.0)) is UNKNOWN


def test_what_others_train_or_nobody_does_is_none() -> None:
    """The parameters of another model that an optimizer has, frozen ones, inputs with gradients."""
    generator, critic, scale = nn.Linear(4, 3), nn.Linear(3, 1), nn.Linear(1, 1)
    given = torch.randn(5, 4, requires_grad=True)
    scale.requires_grad_(False)
    loss = scale(critic(generator(given))).mean()
    assert count(generator, loss) == (2, 0)
    optimizer = torch.optim.SGD(critic.parameters(), 0.1)
    assert count(generator, loss) == (0, 2)
    both = torch.optim.SGD([*generator.parameters(), *critic.parameters()], 0.1)
    assert count(generator, loss) == (0, 0)  # they are trained together, whatever else is done
    del optimizer, both
    frozen = nn.Linear(4, 3).requires_grad_(False)
    assert count(frozen, frozen(torch.ones(1, 4)).sum()) is UNKNOWN


def test_a_graph_that_is_too_large_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Listed(hidden())
    monkeypatch.setattr(graph, "MOST", 3)
    assert count(model, model(torch.randn(3, 4)).sum()) is UNKNOWN


def test_the_first_record_tells_of_them() -> None:
    for layers, strangers in ((hidden(), 4), (nn.ModuleList(hidden()), 0)):
        model, records = Listed(layers), list[StepRecord]()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with Monitor(model, sinks=[records.append]) as monitor:
            for step in range(3):
                optimizer.zero_grad()
                loss = model(torch.randn(8, 4)).square().mean()
                loss.backward()
                with monitor.step(step, loss):
                    optimizer.step()
        told = [(record.strangers, record.opponents) for record in records]
        assert told[0] == (strangers, 0) and all(map(math.isnan, sum(told[1:], ())))


def test_a_long_graph_is_freed_as_if_nobody_had_looked() -> None:
    """In a thread, whose stack is small."""
    model = nn.Linear(2, 1)

    def train() -> None:
        loss = model(torch.ones(1, 2)).sum()
        for _ in range(20_000):
            loss = loss * 1.0
        assert count(model, loss) is UNKNOWN
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
    assert count(model, model(torch.randn(3, 4)).sum()) == (4, 0)
    kept.param_groups = [{}]
    losses = step_loss.Losses(model)
    assert losses.take(model(torch.randn(3, 4)).sum()) is not None
    assert losses.others() is UNKNOWN


def test_a_loss_that_another_network_raises() -> None:
    """Is no reason to blame the rate, below thirty times that at the start."""

    def said(last: float, opponents: float) -> set[str]:
        steps = (*range(11), *range(20, 160, 10))
        losses = np.geomspace(1.0, last, len(steps))
        made = [record(s, deep(3, update=0.2 if s < 3 else 0.02, weight_gradient=x**3), loss=x,
                       optimizer="Adam")
                for s, x in zip(steps, losses.tolist(), strict=True)]  # fmt: skip
        return alarms([replace(made[0], opponents=opponents), *made[1:]])

    assert said(25.0, 0.0) == said(25.0, math.nan)
    assert said(25.0, 0.0) == {"exploding", "learning_rate_too_high", "diverging"}
    assert said(25.0, 6.0) == set()
    assert {"learning_rate_too_high", "diverging"} <= said(500.0, 6.0)


@pytest.mark.parametrize("own", [False, True])
def test_a_critic_that_is_made_to_guess(own: bool) -> None:
    """Which is what domains that are made alike (Ganin et al. 2016, arXiv:1505.07818) are to do;
    of a classifier with nobody on the other side it is a fault."""
    torch.manual_seed(0)
    features = nn.Linear(8, 16)
    critic = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    adam = torch.optim.Adam(critic.parameters(), 1e-3)
    other = torch.optim.Adam(features.parameters(), 1e-4)
    with Monitor(critic) as monitor:
        for step in range(300):
            y = (torch.rand(64, 1) < 0.5).float()
            made = features(torch.randn(64, 8))
            told = critic(made if own else made.detach())
            loss = nn.functional.binary_cross_entropy_with_logits(told, y)
            adam.zero_grad()
            other.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                adam.step()
            if own:
                other.step()
    told = {found.verdict for found in monitor.findings if found.alarm}
    assert told == (set() if own else {"stalled"})


@pytest.mark.parametrize("is_critic", [False, True])
@pytest.mark.parametrize("loss", ["cross-entropy", "distance"])
def test_two_networks_that_contend(loss: str, is_critic: bool) -> None:
    """With the small start values that are usual for them (Radford et al. 2015, arXiv:1511.06434),
    and critics whose weights are kept small (Arjovsky et al. 2017, arXiv:1701.07875)."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                              nn.Linear(64, 2))  # fmt: skip
    critic = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64),
                           nn.LeakyReLU(0.2), nn.Linear(64, 1))  # fmt: skip
    for parameter in (*generator.parameters(), *critic.parameters()):
        nn.init.normal_(parameter, 0.0, 0.02 if parameter.dim() > 1 else 0.0)
    rate = 2e-3 if loss == "cross-entropy" else 2e-4
    of_both = [torch.optim.Adam(each.parameters(), rate, betas=(0.5, 0.999))
               for each in (generator, critic)]  # fmt: skip
    at = 2 * torch.pi * torch.rand(4096)
    data = 2 * torch.stack([at.cos(), at.sin()], 1) + 0.1 * torch.randn(4096, 2)

    def asked(told: Tensor, real: bool) -> Tensor:
        if loss == "distance":
            return (1 - 2 * real) * told.mean()
        said = torch.full_like(told, float(real))
        return nn.functional.binary_cross_entropy_with_logits(told, said)

    with Monitor(critic if is_critic else generator) as monitor:
        for step in range(400):
            real, fake = data[torch.randint(0, 4096, (64,))], generator(torch.randn(64, 8))
            of_both[1].zero_grad()
            cost = asked(critic(real), True) + asked(critic(fake.detach()), False)
            cost.backward()
            with monitor.step(step, cost) if is_critic else nullcontext():
                of_both[1].step()
            if loss == "distance":
                for parameter in critic.parameters():
                    parameter.data.clamp_(-0.1, 0.1)
            of_both[0].zero_grad()
            cost = asked(critic(fake), True)
            cost.backward()
            with nullcontext() if is_critic else monitor.step(step, cost):
                of_both[0].step()
    assert not [found for found in monitor.findings if found.alarm]


class Probe(nn.Module):
    """A head on the features of layers that may be cut off from the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)
        self.is_cut = True

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        out: Tensor = self.head(features.detach() if self.is_cut else features)
        return out


def probed(of_all: bool, steps: int = 30, cut_until: int = 30) -> tuple[Monitor, list[StepRecord]]:
    torch.manual_seed(0)
    model, records = Probe(), list[StepRecord]()
    trained = model.parameters() if of_all else model.head.parameters()
    optimizer = torch.optim.SGD(trained, 0.1)
    monitor = Monitor(model, sinks=[records.append])
    x = torch.randn(40, 6)
    y = x[:, :3].argmax(1)
    for step in range(steps):
        model.is_cut = step < cut_until
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        with monitor.step(step, loss):
            optimizer.step()
    monitor.close()
    return monitor, records


def test_layers_that_are_cut_off_and_that_no_optimizer_has_are_frozen() -> None:
    monitor, records = probed(of_all=False)
    assert monitor.findings == []
    assert {record.parameters for record in records} == {("head.weight", "head.bias")}
    (found,) = probed(of_all=True)[0].findings
    assert (found.verdict, found.level, found.where) == (
        "unused_parameter",
        "warning",
        "features.2",
    )


def test_they_are_looked_at_from_their_first_gradient_on() -> None:
    _, records = probed(of_all=False, cut_until=4)
    assert [len(record.parameters) for record in records[:6]] == [2, 2, 2, 2, 6, 6]
    assert len(records[5].gradients.names) == 6


def test_where_nobody_has_an_optimizer_all_are_looked_at() -> None:
    model, records = Probe(), list[StepRecord]()
    with Monitor(model, sinks=[records.append]) as monitor:
        model(torch.randn(5, 6)).sum().backward()
        with monitor.step(0), torch.no_grad():
            for parameter in model.head.parameters():
                parameter -= 0.1 * torch.as_tensor(parameter.grad)
    assert len(records[0].parameters) == 6
