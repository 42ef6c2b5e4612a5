"""Branches of a model that meet only in the loss: what leads where, and what is said of each."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer import Monitor
from trainer.diagnosis import Diagnosis
from trainer.diagnosis.view import view
from trainer.monitor import graph
from trainer.record import LayerTable, StepRecord
from trainer.wire import Block, decode

EVERY = {"every_steps": 1, "activation_every_steps": 1}


class ActorCritic(nn.Module):
    """Two networks in one module, as reinforcement learning has them."""

    def __init__(self, trunk: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(4, 4) if trunk else None
        self.actor = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x if self.trunk is None else self.trunk(x)
        return self.actor(x), self.critic(x)


def looked_at(model: nn.Module, *given: Tensor) -> LayerTable:
    records = list[StepRecord]()
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        made = model(*given)
        made = made if isinstance(made, tuple) else (made,)
        loss = torch.stack([each.square().mean() for each in made]).sum()
        loss.backward()
        with monitor.step(0, loss):
            pass
    assert records[0].layers is not None
    return records[0].layers


def test_layers_lead_to_the_last_one_that_hangs_on_them() -> None:
    table = looked_at(ActorCritic(), torch.randn(5, 4))
    actor, critic = ["actor.2"] * 3, ["critic.2"] * 3
    assert table.leads_to == ("", *actor, *critic) and table.names[0] == "input"
    # What both hang on leads to the one that is executed last.
    table = looked_at(ActorCritic(trunk=True), torch.randn(5, 4))
    assert table.leads_to == ("", "critic.2", *actor, *critic)


class Coder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.encoder(2 * x).square().mean()  # a penalty, ahead of the pass itself
        made: Tensor = self.decoder(self.encoder(x)) + beside
        return made


def test_all_calls_of_a_layer_count() -> None:
    assert looked_at(Coder(), torch.randn(5, 4)).leads_to == ()


def test_frozen_layers_are_of_no_branch() -> None:
    model = ActorCritic(trunk=True)
    assert model.trunk is not None
    model.trunk.requires_grad_(False)
    table = looked_at(model, torch.randn(5, 4))
    assert table.leads_to == ("", "", *["actor.2"] * 3, *["critic.2"] * 3)
    seen = view(_with(table))
    assert seen is not None
    assert [[*branch] for branch in seen.order.branches] == [[1, 2, 3], [4, 5, 6]]
    assert seen.order.outputs == [3, 6]


def test_nothing_of_the_graph_is_kept_after_its_backward_pass() -> None:
    model, kept = ActorCritic(), list[weakref.ref[Tensor]]()

    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.kept = torch.ones(3)
            kept.append(weakref.ref(ctx.kept))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    with Monitor(model, **EVERY) as monitor:
        for _ in range(3):
            actor, critic = model(Keeps.apply(torch.randn(5, 4, requires_grad=True)))
            (actor.sum() + critic.sum()).backward()
            del actor, critic
            gc.collect()
            assert not any(each() is not None for each in kept)
        for _ in range(3):  # one that nothing is differentiated of goes with the next
            model(Keeps.apply(torch.randn(5, 4, requires_grad=True)))
            gc.collect()
            assert sum(each() is not None for each in kept) <= 1
        with monitor.step(0):
            pass


class Split(nn.Module):
    """Whose second part computes again for the backward pass what it has not kept."""

    def __init__(self, reentrant: bool, head: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.head = nn.Linear(4, 1) if head else None
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        shared = self.first(x)
        aside = () if self.head is None else (self.head(shared),)
        return checkpoint(self.second, shared, use_reentrant=self.reentrant), *aside


@pytest.mark.parametrize("reentrant", [True, False])
def test_one_branch_is_none(reentrant: bool) -> None:
    x = torch.randn(5, 4)
    assert looked_at(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), x).leads_to == ()
    assert looked_at(Split(reentrant), x).leads_to == ()


def test_branches_beside_what_is_computed_again() -> None:
    """Of a part whose graph begins anew there nobody knows; of one that kept its own, all."""
    x = torch.randn(5, 4)
    assert looked_at(Split(reentrant=True, head=True), x).leads_to == ()
    table = looked_at(Split(reentrant=False, head=True), x)
    last = "second.1"
    assert dict(zip(table.names, table.leads_to, strict=True)) == {
        "input": "", "first": last, "head": "head", "second.0": last, last: last
    }  # fmt: skip


def test_of_a_large_graph_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST", 5)
    assert looked_at(ActorCritic(), torch.randn(5, 4)).leads_to == ()


def test_a_block_keeps_them() -> None:
    table = looked_at(ActorCritic(), torch.randn(5, 4))
    records = list[StepRecord]()
    with Monitor(ActorCritic(), sinks=[records.append], **EVERY) as monitor:
        with monitor.step(0):
            pass
    made = replace(records[0], layers=table)
    block = Block()
    for one in (made, records[0]):
        block.add(one)
    back = decode(block.encoded())[0].layers
    assert back is not None and back.leads_to == table.leads_to
    with pytest.raises(ValueError, match="its branches are not those of its layers"):
        Block().add(replace(made, layers=replace(table, leads_to=("critic.2",))))


def test_each_branch_has_its_flow_and_its_output() -> None:
    x = torch.randn(64, 4)
    table = looked_at(ActorCritic(), x)
    seen = view(_with(table))
    assert seen is not None
    flow = table.rms[1:] * np.array([_rms(table, n) * _count(table, n) for n in table.names[1:]])
    ratios = [flow[0] / flow[2], flow[3] / flow[5]]
    assert seen.flow_ratio == pytest.approx(max(ratios, key=lambda ratio: abs(np.log(ratio))))
    assert seen.output_signal == max(table.signal_fraction[[3, 6]])
    alone = view(_with(replace(table, leads_to=())))
    assert alone is not None
    assert alone.flow_ratio == pytest.approx(flow[0] / flow[5])
    assert alone.output_signal == table.signal_fraction[6]


def _with(table: LayerTable) -> StepRecord:
    records = list[StepRecord]()
    with Monitor(nn.Linear(2, 2), sinks=[records.append], **EVERY) as monitor:
        with monitor.step(0):
            pass
    return replace(records[0], layers=table)


def _rms(table: LayerTable, name: str) -> float:
    return table.gradients[name].norm / np.sqrt(_count(table, name))


def _count(table: LayerTable, name: str) -> float:
    return table.gradients[name].count


def test_a_critic_of_large_returns_beside_its_actor() -> None:
    """The actor gets a hundredth of the critic's gradient, whose answers are much the same for all;
    taken for one network they are one that has lost its gradient and its signal."""
    torch.manual_seed(0)
    model, records = ActorCritic(), list[StepRecord]()
    nn.init.orthogonal_(model.actor[-1].weight, 0.01)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(300):
            x = torch.randn(64, 4)
            logits, value = model(x)
            right = nn.functional.cross_entropy(logits, (x[:, 0] > 0).long())
            returns = 60 + 0.03 * step + 6 * torch.randn(64, 1)
            loss = right + 0.5 * (value - returns).square().mean()
            loss.backward()
            with monitor.step(step, loss):
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
            optimizer.zero_grad()
        assert not [found for found in monitor.findings if found.alarm]
    assert right.item() < 0.2
    taken_for_one = Diagnosis()
    for one in records:
        layers = one.layers and replace(one.layers, leads_to=())
        taken_for_one.add(replace(one, layers=layers))
    assert any(found.verdict == "vanishing" for found in taken_for_one.findings)
