"""Gradients that reach the two ends of a sequence, in the loops of others and in ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from trainer import Monitor, experiment, loop
from trainer.config import load
from trainer.console import Console
from trainer.record import TIME_STEPS, StepRecord

EVERY = {"every_steps": 1, "activation_every_steps": 1}


class Last(nn.Module):
    """A recurrent network that is read at its last step."""

    def __init__(self, kind: str, batch_first: bool) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 5, batch_first=batch_first)
        self.time = 1 if batch_first else 0

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.rnn(x)[0]
        return states.select(self.time, -1)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_ends_are_those_of_the_whole_gradient(kind: str, batch_first: bool) -> None:
    model, records = Last(kind, batch_first), list[StepRecord]()
    x = torch.randn(4, 12, 3) if batch_first else torch.randn(12, 4, 3)
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        loss = model(x).square().sum()
        loss.backward()
        with monitor.step(0, loss):
            pass
    watched = x.clone().requires_grad_()
    (whole,) = torch.autograd.grad(model(watched).square().sum(), watched)
    whole = whole if batch_first else whole.transpose(0, 1)
    layers = records[0].layers
    assert layers is not None
    assert layers.names == ("input", "rnn.first_steps", "rnn.last_steps", "rnn")
    assert layers.kinds[1:3] == (TIME_STEPS, TIME_STEPS)
    for end, part in (("first", whole[:, :3]), ("last", whole[:, -3:])):
        found = layers.gradients[f"rnn.{end}_steps"]
        assert found.count == part.numel()
        assert found.norm == pytest.approx(float(part.double().norm()), rel=1e-6)
    assert not x.requires_grad and x.grad is None


@pytest.mark.parametrize("wants_gradient", [True, False])
def test_the_ends_of_packed_sequences_are_those_of_each(wants_gradient: bool) -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 5)

        def forward(self, sequences: list[Tensor]) -> Tensor:
            last: Tensor = self.rnn(pack_sequence(sequences, enforce_sorted=False))[1][0]
            return last.square().sum()

    model, records = Packed(), list[StepRecord]()
    lengths = (9, 3, 21, 12, 7, 21)  # those below 8 steps have no ends
    sequences = [torch.randn(length, 3, requires_grad=wants_gradient) for length in lengths]
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        loss = model(sequences)
        loss.backward()
        with monitor.step(0, loss):
            pass
    assert all((each.grad is not None) == wants_gradient for each in sequences)
    watched = [each.detach().requires_grad_() for each in sequences]
    alone = torch.autograd.grad(sum((model([each]) for each in watched), torch.zeros(())), watched)
    first = [each[: len(each) // 4] for each in alone if len(each) >= 8]
    last = [each[-(len(each) // 4) :] for each in alone if len(each) >= 8]
    layers = records[0].layers
    assert layers is not None
    assert layers.names == ("input", "rnn.first_steps", "rnn.last_steps", "rnn")
    for end, parts in (("first", first), ("last", last)):
        found = layers.gradients[f"rnn.{end}_steps"]
        assert found.count == sum(part.numel() for part in parts)
        assert found.norm == pytest.approx(float(torch.cat(parts).double().norm()), rel=1e-5)


def test_short_sequences_and_validation_have_no_ends() -> None:
    model, records = Last("GRU", True), list[StepRecord]()
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        for step, x in enumerate((torch.randn(2, 7, 3), torch.randn(2, 12, 3))):
            if step == 1:
                with torch.no_grad():
                    model(x)
                x = x[:, :5]
            loss = model(x).sum()
            loss.backward()
            with monitor.step(step, loss):
                pass
    for record in records:
        assert record.layers is not None and record.layers.names == ("input", "rnn")


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_our_loop_sees_them_and_trains_the_same(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "adding.yaml"
    path.write_text(
        "name: adding\n"
        "data: {name: adding_problem, length: 20, samples: 64, batch_size: 16}\n"
        f"model: {{name: rnn, kind: {kind}, hidden_size: 8}}\n"
        "loss: {name: mse}\noptimizer: {name: adam, lr: 1e-2}\nstop: {steps: 12}\n"
    )
    weights, records = [], list[StepRecord]()
    for keys in (EVERY, {"every_steps": 1000, "activation_every_steps": None}):
        built = experiment.build(*load(path, [], [experiment.check]))
        loop.run(built, Monitor(built.model, sinks=[records.append], **keys), Console(quiet=True))
        weights.append([p.detach().clone() for p in built.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    layers = records[0].layers
    assert layers is not None
    ends = [name for name, k in zip(layers.names, layers.kinds, strict=True) if k == TIME_STEPS]
    assert len(ends) == 2 and {*ends} <= {*layers.gradients.names}
    assert layers.gradients[ends[0]].norm < layers.gradients[ends[1]].norm


class ByHand(nn.Module):
    """A recurrence that calls one layer for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.tanh, self.head = nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1)
        self.states: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        state, self.states = x.new_zeros(len(x), 5), []
        for step in x.unbind(1):
            made = self.cell(torch.cat([step, state], 1))
            self.states.append(made)
            state = self.tanh(made)
        return self.head(state)  # type: ignore[no-any-return]


@pytest.mark.parametrize("passes", [1, 3])
def test_the_ends_of_a_loop_are_its_first_and_last_calls(passes: int) -> None:
    model, records = ByHand(), list[StepRecord]()
    batches, expected = [torch.randn(4, 13, 3) for _ in range(passes)], list[list[Tensor]]()
    for x in batches:
        loss = model(x).square().sum()
        expected.append(list(torch.autograd.grad(loss, model.states)))
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        for x in batches:
            loss = model(x).square().sum()
            loss.backward()
        with monitor.step(0, loss):
            pass
    layers = records[0].layers
    assert layers is not None
    names = ("input", "cell.first_steps", "cell.last_steps", "cell", "tanh", "head")
    assert layers.names == names
    assert layers.kinds == ("Input", TIME_STEPS, TIME_STEPS, "Linear", "Tanh", "Linear")
    parts = {
        "cell.first_steps": slice(3), "cell.last_steps": slice(10, None), "cell": slice(None),
    }  # fmt: skip
    for name, part in parts.items():
        whole = torch.cat([gradient for each in expected for gradient in each[part]])
        found = layers.gradients[name]
        assert found.count == whole.numel()
        assert found.norm == pytest.approx(float(whole.double().norm()), rel=1e-6)
        assert found.max_abs == pytest.approx(float(whole.abs().max()))
        counts = layers.gradients.histograms
        assert counts is not None
        assert counts[layers.gradients.names.index(name)].sum() == whole.numel()


def test_a_few_calls_have_no_ends() -> None:
    model, records = ByHand(), list[StepRecord]()
    with Monitor(model, sinks=[records.append], **EVERY) as monitor:
        loss = model(torch.randn(4, 7, 3)).sum()
        loss.backward()
        with monitor.step(0, loss):
            pass
    assert records[0].layers is not None
    assert records[0].layers.names == ("input", "cell", "tanh", "head")
