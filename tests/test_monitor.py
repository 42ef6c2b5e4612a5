"""The monitor sees what the optimizer uses, and the training does not notice."""

from __future__ import annotations

import copy
import io
import math
import os
import random
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from trainer import Monitor
from trainer.monitor import update
from trainer.monitor.cadence import FIRST_STEPS
from trainer.record import StepRecord, is_told

EVERYTHING = {"every_steps": 1, "histogram_every_steps": 1, "activation_every_steps": 1}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3)
    )


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x[:, None].expand(-1, 4, -1))[0][:, -1])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.1, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x[:, None].expand(-1, 4, -1))[:, -1])


MODELS: list[Callable[[], nn.Module]] = [mlp, normalised, Recurrent, Transformer]


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(7, 6, generator=generator), torch.randn(7, 3, generator=generator)


def train(
    make: Callable[[], nn.Module], steps: int = 50, watch: bool = True, **keys: Any
) -> tuple[dict[str, Any], list[StepRecord]]:
    """Everything that a training leaves behind, and the records of its monitor."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.1)
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **keys) if watch else None
    gradients = []
    for step in range(steps):
        x, y = batch(step)
        loss = F.mse_loss(model(x), y)
        loss.backward()
        if monitor is None:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        else:
            with monitor.step(step, loss):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
        gradients.append([p.grad.clone() for p in model.parameters()])
        optimizer.zero_grad()
    if monitor is not None:
        monitor.close()
    left = {
        "weights": copy.deepcopy(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1],
        "gradients": gradients,
        "next": torch.rand(3),
    }
    return left, records


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("make", MODELS)
def test_watching_changes_nothing(make: Callable[[], nn.Module]) -> None:
    watched, records = train(make, **EVERYTHING)
    assert same(watched, train(make, watch=False)[0])
    assert len(records) == 50


def test_the_comparison_would_see_a_change() -> None:
    watched, _ = train(mlp, steps=3, **EVERYTHING)
    changed = copy.deepcopy(watched)
    changed["weights"]["0.weight"][0, 0] += 1e-7
    assert not same(watched, changed)


@pytest.mark.parametrize("make", MODELS)
def test_the_records_gradients_are_those_before_clipping(make: Callable[[], nn.Module]) -> None:
    left, records = train(make, steps=5, **EVERYTHING)
    names = tuple(left["weights"][n] is not None and n for n, _ in make().named_parameters())
    for record, gradients in zip(records, left["gradients"], strict=True):
        assert record.gradients.names == record.parameters == names
        clipped = np.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        coefficient = min(1.0, 1 / record.gradient_norm)
        assert record.gradient_norm * coefficient == pytest.approx(clipped, rel=1e-5)
        assert record.clip_coefficient == pytest.approx(coefficient, rel=1e-5)
        for name, gradient in zip(names, gradients, strict=True):
            row = record.gradients[name]
            assert row.count == gradient.numel()
            assert row.norm * coefficient == pytest.approx(float(gradient.norm()), rel=1e-5)
            assert row.histogram is not None
            assert row.histogram.sum() + row.zeros == row.count


def test_updates_are_those_that_really_happened() -> None:
    torch.manual_seed(0)
    model = mlp()
    records: list[StepRecord] = []
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, momentum=0.9)
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    for step in range(4):
        x, y = batch(step)
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        before = [p.detach().double().clone() for p in model.parameters()]
        with monitor.step(step, loss):
            optimizer.step()
        record = records[-1]
        assert record.learning_rate == 0.01 and record.loss == loss.item()
        assert np.isnan(record.clip_coefficient)
        for i, (old, new) in enumerate(zip(before, model.parameters(), strict=True)):
            rms = float(old.square().mean().sqrt())
            change = float((new.detach().double() - old).square().mean().sqrt())
            assert record.parameter_rms[i] == pytest.approx(rms, rel=1e-6)
            assert record.update_ratio[i] == pytest.approx(change / rms, rel=1e-5)
            same = float((new.detach().double() == old).double().mean())
            assert record.unchanged_fraction[i] == same
        assert record.optimizer == "RMSprop"
        assert record.parameters == ("0.weight", "0.bias", "2.weight", "2.bias")
        assert record.shapes == ((8, 6), (8,), (3, 8), (3,)) and record.dtypes == ("float32",) * 4


def naive(output: Tensor) -> tuple[float, float, float, float]:
    values = output.detach().double().reshape(-1, output.shape[-1])
    rms = values.square().mean(0).sqrt()
    fraction = (values.std(0, correction=0) / rms)[rms > 0].median()
    zeros = (values == 0).double().mean()
    return float(values.square().mean().sqrt()), float(zeros), fraction, float((rms == 0).sum())


def test_layers_against_retained_gradients() -> None:
    """The ReLU works in place on the output of the layer before; still each is its own."""
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model[0].bias[3] = -100  # a dead unit of the ReLU
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    x, y = batch(0)
    F.mse_loss(model(x), y).backward()
    with monitor.step(0):
        pass
    layers = records[0].layers
    assert layers is not None and layers.names == ("input", "0", "1", "2")
    assert layers.kinds == ("Input", "Linear", "ReLU", "Linear")
    assert layers.dtypes == ("float32",) * 4
    assert layers.gradients.names == ("0", "1", "2")
    first = model[0](x)
    first.retain_grad()
    second = F.relu(first)
    second.retain_grad()
    third = model[2](second)
    third.retain_grad()
    F.mse_loss(third, y).backward()
    for i, output in enumerate((x, first, second, third)):
        found = (layers.rms[i], layers.zero_fraction[i], layers.signal_fraction[i])
        expected = naive(output)
        assert found[:2] == pytest.approx(expected[:2], rel=1e-5)
        # torch's median of an even number is the lower of the middle two
        assert found[2] == pytest.approx(expected[2], rel=0.5)
        assert layers.dead_fraction[i] == expected[3] / output.shape[-1]
    assert layers.dead_fraction[2] >= 1 / 8
    for i, output in enumerate((first, second, third)):
        row = layers.gradients[str(i)]
        assert row.norm == pytest.approx(float(output.grad.norm()), rel=1e-5)
        assert row.zeros == int((output.grad == 0).sum())
    assert np.isnan(records[0].loss)


def test_the_units_of_a_sequence_that_is_convolved_are_its_channels() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 3, 1))
    with torch.no_grad():
        model[2].weight.zero_()  # so that channels and nothing else tells one value from another
        model[2].bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    records: list[StepRecord] = []
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        model(torch.randn(16, 2, 10)).square().sum().backward()
        with monitor.step(0):
            pass
    assert records[0].layers is not None
    assert records[0].layers.signal_fraction[-1] == 0
    assert records[0].layers.signal_fraction[1] > 0.1


class Masked(nn.Module):
    """Uses the weights of its layers and calls none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.first.weight).tanh(), self.second.weight)


@pytest.mark.parametrize(
    ("make", "names", "kinds"),
    [
        (Masked, ("input", "model"), ("Input", "Masked")),
        (
            lambda: nn.Sequential(Masked(), nn.Linear(6, 3)),
            ("input", "0", "1"),
            ("Input", "Masked", "Linear"),
        ),
        (
            lambda: nn.ModuleDict({"a": Masked()})["a"],
            ("input", "model"),
            ("Input", "Masked"),
        ),
    ],
)
def test_weights_that_are_used_without_a_module(
    make: Callable[[], nn.Module], names: tuple[str, ...], kinds: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model, records = make(), list[StepRecord]()
    x, _ = batch(0)
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        output = model(x)
        output.retain_grad()
        output.square().sum().backward()
        with monitor.step(0):
            pass
        assert not nn.Linear(6, 3)(x).isnan().any()  # another model's
    layers = records[0].layers
    assert layers is not None and (layers.names, layers.kinds) == (names, kinds)
    expected = naive(output.detach())
    assert layers.rms[-1] == pytest.approx(expected[0], rel=1e-5)
    assert layers.rms[0] == pytest.approx(naive(x)[0], rel=1e-5)
    assert layers.gradients.names == names[1:]
    assert layers.gradients[names[-1]].norm == pytest.approx(float(output.grad.norm()), rel=1e-5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_calls_none_of_its_layers_and_is_no_layer() -> None:
    """A block that is dropped, a head that is off; and `exclude` hides a layer, no more."""

    class Aside(nn.Module):
        def __init__(self, gives: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.layer, self.gives = nn.Linear(6, 6), gives

        def forward(self, x: Tensor) -> Tensor:
            return self.gives(x)

    class Wrapper(nn.Module):
        def __init__(self, *parts: nn.Module) -> None:
            super().__init__()
            self.parts = nn.Sequential(*parts)

        def forward(self, x: Tensor) -> Tensor:
            return self.parts(x)

    def names(model: nn.Module, **keys: Any) -> tuple[str, ...]:
        records = list[StepRecord]()
        with Monitor(model, sinks=[records.append], **keys, **EVERYTHING) as monitor:
            (model(batch(0)[0]) * nn.Parameter(torch.ones(1))).sum().backward()
            with monitor.step(0):
                pass
        assert records[0].layers is not None
        return records[0].layers.names

    first = nn.Linear(6, 6)
    assert names(Wrapper(first, Aside(lambda x: x))) == ("input", "parts.0")
    assert names(Wrapper(first, Aside(torch.zeros_like))) == ("input", "parts.0")
    assert names(Wrapper(first, Masked())) == ("input", "parts.0", "parts.1")
    assert names(Wrapper(first, Masked()), exclude=["parts.1"]) == ("input", "parts.0")
    assert names(Wrapper(Masked()), exclude=["parts.0*"]) == ("input",)
    compiled = torch.compile(nn.Linear(6, 6), backend="eager")
    assert names(Wrapper(Wrapper(compiled), first)) == ("input", "parts.1")


@pytest.mark.parametrize("turned", [False, True])
def test_a_gradient_that_vanishes_where_no_module_is_called(turned: bool) -> None:
    """Whichever of the weights is used first."""

    class Deep(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(12))
            for layer in self.layers:
                nn.init.orthogonal_(layer.weight, gain)

        def forward(self, x: Tensor) -> Tensor:
            for layer in reversed(self.layers) if turned else self.layers:
                x = F.linear(x, layer.weight, layer.bias).sigmoid() - 0.5
            return x

    def found(gain: float) -> list[str]:
        torch.manual_seed(0)
        model = Deep(gain)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with Monitor(model) as monitor:
            for step in range(40):
                x = torch.randn(32, 16)
                loss = F.mse_loss(model(x), x / 4)
                loss.backward()
                with monitor.step(step, loss):
                    optimizer.step()
                optimizer.zero_grad()
            return [f.verdict for f in monitor.findings if f.alarm]

    assert found(0.4) == ["vanishing"]
    assert found(4.0) == []


def test_a_layer_called_twice_and_one_not_called() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.shared, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(self.shared(x)))

    torch.manual_seed(0)
    model = Twice()
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    x, y = batch(0)
    F.mse_loss(model(x), y).backward()
    with monitor.step(0):
        pass
    (record,) = records
    assert record.layers is not None and record.layers.names == ("input", "shared", "last")
    one = model.shared(x)
    two = model.shared(one)
    rms = float(torch.stack([one, two]).detach().double().square().mean().sqrt())
    assert record.layers.rms[1] == pytest.approx(rms, rel=1e-6)
    assert record.layers.rms[0] == pytest.approx(naive(x)[0], rel=1e-6)  # its first call's
    assert record.layers.gradients["shared"].count == 2 * one.numel()
    assert "idle.weight" in record.parameters
    assert "idle.weight" not in record.gradients.names  # unused: there is no gradient
    assert record.update_ratio[record.parameters.index("idle.weight")] == 0


def test_accumulation_and_several_optimizers() -> None:
    torch.manual_seed(0)
    model = mlp()
    halves = [torch.optim.SGD(list(model.parameters())[i : i + 2], lr=0.1 + i) for i in (0, 2)]
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    for micro in range(3):
        x, y = batch(micro)
        F.mse_loss(model(x), y).backward()
    accumulated = [p.grad.clone() for p in model.parameters()]
    with monitor.step(0):
        for optimizer in halves:
            optimizer.step()
    (record,) = records
    for name, gradient in zip(record.gradients.names, accumulated, strict=True):
        assert record.gradients[name].norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    assert record.learning_rate == 0.1
    assert (record.update_ratio > 0).all()
    assert record.layers is not None
    assert record.layers.gradients["0"].count == 3 * 7 * 8


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_counted_once(reentrant: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(0)
    model = mlp()
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    x, y = batch(0)
    x.requires_grad_()
    F.mse_loss(checkpoint(model, x, use_reentrant=reentrant), y).backward()
    with monitor.step(0):
        pass
    layers = records[0].layers
    assert layers is not None and layers.names == ("input", "0", "1", "2")
    assert [layers.gradients[n].count for n in layers.names[1:]] == [56, 56, 21]
    assert layers.rms[:2] == pytest.approx([naive(o)[0] for o in (x, model[0](x))], rel=1e-6)


def test_validation_between_steps_is_not_part_of_them() -> None:
    torch.manual_seed(0)
    model = mlp()
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    x, y = batch(0)
    with torch.no_grad():
        model(1000 * x)
    F.mse_loss(model(x), y).backward()
    with monitor.step(0):
        pass
    rms = [naive(output)[0] for output in (x, model[0](x))]
    assert records[0].layers is not None
    assert records[0].layers.rms[:2] == pytest.approx(rms, rel=1e-6)


def vmapped(model: nn.Module, x: Tensor) -> None:
    torch.func.vmap(model)(x)


def differentiated(model: nn.Module, x: Tensor) -> None:
    def one(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (row,)).sum()

    torch.func.vmap(torch.func.grad(one), (None, 0))(dict(model.named_parameters()), x)


def copied(model: nn.Module, x: Tensor) -> None:
    copy.deepcopy(model)(1000 * x).sum().backward()


def saved_and_loaded(model: nn.Module, x: Tensor) -> None:
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    torch.load(file, weights_only=False)(1000 * x).sum().backward()


def faked(model: nn.Module, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(x))


def traced(model: nn.Module, x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of tracing itself
        torch.jit.trace(model, 1000 * x)


def exported(model: nn.Module, x: Tensor) -> None:
    torch.export.export(model, (1000 * x,))


@pytest.mark.parametrize(
    "use", [vmapped, differentiated, copied, saved_and_loaded, faked, traced, exported]
)
def test_other_uses_of_a_watched_model(use: Callable[[nn.Module, Tensor], None]) -> None:
    """They work, and are no part of the step."""
    torch.manual_seed(0)
    model, (x, y) = mlp(), batch(0)
    records: list[StepRecord] = []
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        for step in range(2):
            if step:
                use(model, x)
            model.zero_grad()
            F.mse_loss(model(x), y).backward()
            with monitor.step(step):
                pass
    before, after = [record.layers for record in records]
    assert before is not None and after is not None
    assert before.names == after.names
    assert np.array_equal(before.rms, after.rms)
    assert np.array_equal(before.gradients.moments, after.gradients.moments)
    assert hooks(model) == 0


def hooks(model: nn.Module) -> int:
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def test_it_leaves_no_trace() -> None:
    model = mlp()
    with Monitor(model, **{**EVERYTHING, "activation_every_steps": 30}) as monitor:
        attached = hooks(model)
        assert attached
        F.mse_loss(model(batch(0)[0]), batch(0)[1]).backward()
        with monitor.step(0):
            pass
        assert hooks(model) == attached
        monitor.watch(17)  # not a step that is observed
        assert hooks(model) == 1  # which keeps what the model is given, for a look behind
        monitor.watch(1)
    assert hooks(model) == 0
    assert not update._OPEN


def test_an_exception_in_the_step_passes_through() -> None:
    model = mlp()
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    F.mse_loss(model(batch(0)[0]), batch(0)[1]).backward()
    with pytest.raises(RuntimeError, match="mine"), monitor.step(0):
        raise RuntimeError("mine")
    assert not records
    loss = F.mse_loss(model(batch(1)[0]), batch(1)[1])  # who catches it goes on
    loss.backward()
    with monitor.step(1):
        pass
    assert [record.step for record in records] == [1] and records[0].layers is not None
    monitor.close()
    assert hooks(model) == 0 and not update._OPEN


def test_cadences() -> None:
    keys = {"every_steps": 30, "histogram_every_steps": 60, "activation_every_steps": None}
    _, records = train(mlp, steps=185, **keys)
    assert [r.step for r in records] == sorted({*FIRST_STEPS, *range(0, 185, 30)})
    with_histograms = [r.step for r in records if r.gradients.histograms is not None]
    assert with_histograms == sorted({*FIRST_STEPS, 60, 120, 180})
    assert all(r.layers is None for r in records)
    _, records = train(mlp, steps=160, every_steps=40, activation_every_steps=70)
    assert [r.step for r in records if r.layers is not None] == sorted({*FIRST_STEPS, 70, 140})


def test_a_loss_that_is_no_number_is_looked_at_whenever_it_comes() -> None:
    model, records = mlp(), list[StepRecord]()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    bad = {170: math.nan, 171: math.inf, 173: -math.inf, 250: math.nan}
    with Monitor(model, sinks=[records.append], every_steps=100) as monitor:
        monitor.watch(160)
        for step in range(160, 260):
            loss = model(torch.ones(2, 6)).sum()
            loss.backward()
            told = bad.get(step, 1.0)
            with monitor.step(step, told if step % 2 else loss * told):
                optimizer.step()
            optimizer.zero_grad()
    # 171 follows one that was told of.
    assert [record.step for record in records] == [170, 173, 200, 250]
    assert math.isnan(records[0].loss) and is_told(records[0].loss)
    assert monitor.findings[0].verdict == "non_finite"
    assert monitor.findings[0].steps[0] == 170


def test_layers_are_looked_at_while_something_is_suspected() -> None:
    """That no gradient passes is seen at 250, with the layers from 300 on; a loss that does not
    fall is doubted from 100 on."""

    def looked(falls: float) -> list[int]:
        model, records = mlp(), list[StepRecord]()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with Monitor(model, sinks=[records.append]) as monitor:
            for step in range(460):
                loss = 1 + model(torch.ones(2, 6)).sum().square()
                (loss * (0.0 if 210 <= step else 1.0)).backward()
                with monitor.step(step, loss * (falls if 10 < step < 210 else 1.0)):
                    optimizer.step()
                optimizer.zero_grad()
        assert any(found.verdict == "vanishing" for found in monitor.findings)
        return [record.step for record in records if record.layers is not None]

    assert looked(0.8)[-6:] == [150, 200, 300, 350, 400, 450]
    assert looked(1.0)[-8:] == [100, 150, 200, 250, 300, 350, 400, 450]


def test_patterns() -> None:
    _, records = train(mlp, steps=1, include=["0*", "2*"], exclude=["*bias"], **EVERYTHING)
    assert records[0].parameters == ("0.weight", "2.weight")
    assert records[0].layers is not None and records[0].layers.names == ("input", "0", "2")


def test_a_model_that_is_cast_within_a_step() -> None:
    """What the update was cannot be told then; training goes on."""
    torch.manual_seed(0)
    model = mlp()
    records: list[StepRecord] = []
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        for step in range(3):
            x, y = (part.to(model[0].weight.dtype) for part in batch(step))
            loss = F.mse_loss(model(x), y)
            loss.backward()
            with monitor.step(step, loss):
                torch.optim.SGD(model.parameters(), lr=0.1).step()
                if step == 1:
                    model.double()
            model.zero_grad()
    assert np.isnan([record.update_ratio for record in records]).all(axis=1).tolist() == [0, 1, 0]
    assert monitor.findings == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_and_its_loss_of_another_kind(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, records, losses = mlp().to(dtype), list[StepRecord](), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        for step in range(3):
            x, y = (part.to(dtype) for part in batch(step))
            loss = F.mse_loss(model(x), y)
            loss.backward()
            with monitor.step(step, loss) as observed:
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                observed.clipped(0.1 / norm)
                optimizer.step()
            losses.append(loss.item())
            optimizer.zero_grad()
    assert losses[0] > losses[2]
    assert [record.loss for record in records] == losses
    assert all(0 < record.clip_coefficient < 1 for record in records)


def test_a_parameter_without_values() -> None:
    class Pruned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.empty = nn.Linear(6, 3), nn.Parameter(torch.empty(0, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.empty.sum()

    torch.manual_seed(0)
    model = Pruned()
    records: list[StepRecord] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        for step in range(3):
            loss = F.mse_loss(model(batch(step)[0]), batch(step)[1])
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
            optimizer.zero_grad()
    assert monitor.findings == []
    assert records[-1].parameters[0] == "empty" and records[-1].parameter_rms[0] == 0


SHARDED = """
import os, sys
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from trainer import Monitor

os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
records = []
for shards in (False, True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    if shards:
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    keys = {"every_steps": 1, "histogram_every_steps": 1, "activation_every_steps": 1}
    with Monitor(model, sinks=[seen.append], **keys) as monitor:
        for step in range(3):
            x = torch.randn(5, 6, generator=torch.Generator().manual_seed(step))
            loss = model(x).square().mean()
            loss.backward()
            with monitor.step(step, loss):
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
                optimizer.step()
            optimizer.zero_grad()
    records.append(seen)
for one, two in zip(*records, strict=True):
    assert one.parameters == two.parameters and one.shapes == two.shapes
    np.testing.assert_allclose(two.gradients.moments, one.gradients.moments, rtol=1e-6)
    np.testing.assert_allclose(two.update_ratio, one.update_ratio, rtol=1e-5)
    np.testing.assert_allclose(two.layers.rms, one.layers.rms, rtol=1e-6)
    np.testing.assert_allclose(two.clip_coefficient, one.clip_coefficient, rtol=1e-5)
    assert one.clip_coefficient < 0.5
print("alike")
"""


def test_sharded_parameters() -> None:
    """Of those of FSDP the memory is not where they say: each process sees its own shard."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHARDED],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (ended.returncode, ended.stdout) == (0, "alike\n"), ended.stderr


def test_frozen_shared_and_lazy_parameters() -> None:
    model = nn.Sequential(nn.LazyLinear(6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    model[2].weight = model[1].weight
    model[3].bias.requires_grad_(False)
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    F.mse_loss(model(batch(0)[0]), batch(0)[1]).backward()
    with monitor.step(0):
        pass
    expected = ("0.weight", "0.bias", "1.weight", "1.bias", "2.bias", "3.weight")
    assert records[0].parameters == records[0].gradients.names == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e36])
def test_bad_gradients_are_recorded_not_raised(bad: float) -> None:
    model = mlp()
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    (model(batch(0)[0]) * bad).sum().backward()
    with monitor.step(0, torch.tensor(bad)):
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    row = records[0].gradients["2.bias"]
    assert row.nans + row.infinities == (0 if bad == 1e36 else 3)
    assert np.isfinite(records[0].gradient_norm) == np.isfinite(bad)


def test_the_norm_of_gradients_with_nan_and_infinity_is_none() -> None:
    model, records = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), list[StepRecord]()
    for parameter, bad in zip(model.parameters(), (math.nan, math.inf, 1.0, 1.0), strict=True):
        parameter.grad = torch.full_like(parameter, bad)
    monitor = Monitor(model, sinks=[records.append])
    with monitor.step(0, 1.0):
        pass
    monitor.close()
    norms = records[0].gradients.norms()
    assert math.isnan(norms[0]) and math.isinf(norms[1])
    assert math.isnan(records[0].gradient_norm)


def test_compiled_models() -> None:
    model = torch.compile(mlp(), backend="eager")
    records: list[StepRecord] = []
    monitor = Monitor(model, sinks=[records.append], **EVERYTHING)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        F.mse_loss(model(batch(step)[0]), batch(step)[1]).backward()
        with monitor.step(step):
            optimizer.step()
        optimizer.zero_grad()
    assert records[-1].parameters == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert (records[-1].update_ratio > 0).all()
    assert records[-1].layers is None


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_scripted_part_is_watched_by_its_parameters() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))  # type: ignore[no-untyped-call]
    model, records = nn.Sequential(scripted, nn.Linear(6, 3)), list[StepRecord]()
    with Monitor(model, sinks=[records.append], **EVERYTHING) as monitor:
        model(batch(0)[0]).sum().backward()
        with monitor.step(0):
            pass
    assert records[0].parameters == ("0.0.weight", "0.0.bias", "1.weight", "1.bias")
    assert records[0].layers is not None and records[0].layers.names == ("input", "1")


@pytest.mark.parametrize("make", [mlp, Masked])
def test_a_model_that_is_compiled_afterwards_is_compiled_no_oftener(
    make: Callable[[], nn.Module],
) -> None:
    graphs = []

    def backend(module: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(module)
        return module.forward

    model = make()
    monitor = Monitor(model, **EVERYTHING)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for step in range(12):
        compiled(batch(step)[0]).sum().backward()
        with monitor.step(step):
            pass
    monitor.close()
    assert len(graphs) <= 2  # with hooks and without


def test_wrong_keys() -> None:
    with pytest.raises(ValueError, match="Monitor has no key 'every_step'; did you mean 'every_st"):
        Monitor(mlp(), every_step=3)
    with pytest.raises(ValueError, match="Monitor: every_steps: .* greater than 0, got 0"):
        Monitor(mlp(), every_steps=0)
    with pytest.raises(TypeError, match=r"Monitor watches a torch.nn.Module, got a list of 2"):
        Monitor([1, 2])  # type: ignore[arg-type]
    with Monitor(mlp()) as monitor:
        wrong: list[tuple[Any, str]] = [
            (torch.ones(2), r"a tensor of shape \(2,\), torch.float32"),
            (torch.ones((), dtype=torch.complex64), r"complex \(1\+0j\)"),
            (np.ones(2), r"ndarray array\(\[1., 1.\]\)"),
            ([0.5], r"list \[0.5\]"),
            ("much", "str 'much'"),
        ]
        for loss, told in wrong:
            with pytest.raises(ValueError, match=rf"loss is the cost, one real number; got {told}"):
                monitor.step(0, loss)
        for step, right in enumerate((np.ones(1), np.float32(1), torch.ones(1, 1), 1, None)):
            with monitor.step(step, right):  # type: ignore[arg-type]
                pass


def test_mistakes_in_a_loop_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    with Monitor(model) as monitor:
        for step in (0, 1, 2, 0, 1):
            model.zero_grad()
            model(batch(step)[0]).sum().backward()
            with monitor.step(step):
                pass
    assert [r.getMessage().partition(":")[0] for r in caplog.records] == [
        "step 0 comes after step 2"
    ]
    caplog.clear()
    with Monitor(model) as monitor:
        for step in range(60):
            monitor.step(step)
        with monitor.step(100):
            pass
    assert [r.getMessage() for r in caplog.records] == [
        "step 0 was not entered and is not recorded: write `with monitor.step(...):` around the "
        "update"
    ]


def test_no_gradient_is_kept_alive_by_a_step_that_failed() -> None:
    """Whoever catches an error for want of memory needs what it took."""
    model = mlp()
    with Monitor(model) as monitor:
        model(batch(0)[0]).sum().backward()
        gradients = [weakref.ref(parameter.grad) for parameter in model.parameters()]
        with pytest.raises(RuntimeError, match="mine"), monitor.step(0):
            raise RuntimeError("mine")
        model.zero_grad()
        assert not any(gradient() is not None for gradient in gradients)


def test_a_step_that_was_not_entered_is_told_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with Monitor(mlp()) as monitor:
        monitor.step(0)
    assert "step 0 was not entered" in caplog.text


def test_patterns_that_leave_nothing() -> None:
    named = r"; its parameters are 0.weight, 0.bias, 2.weight, …$"
    with pytest.raises(ValueError, match=r"^include: nothing .* called 'encoder\.\*'" + named):
        Monitor(mlp(), include=["encoder.*"])
    with pytest.raises(ValueError, match=r"^exclude: nothing .* left by '\*'" + named):
        Monitor(mlp(), exclude=["*"])
    with pytest.raises(ValueError, match=r"^include: nothing .* called an empty list" + named):
        Monitor(mlp(), include=[])
    for leaving_nothing in ({"exclude": ["?*"]}, {"include": ["encoder"]}):
        encoder = nn.Sequential()
        encoder.add_module("encoder", mlp())
        with pytest.raises(ValueError, match=r"; its parameters are encoder.0.weight, "):
            Monitor(encoder, **leaving_nothing)  # type: ignore[arg-type]
    Monitor(mlp(), include=["2"]).close()  # a layer
    Monitor(nn.ReLU(), include=["x"]).close()  # there is nothing to leave


class Loop:
    """The example of README, as text, so that what is printed there is what is run."""

    README = Path(__file__).parent.parent / "README.md"

    @classmethod
    def source(cls) -> str:
        text = cls.README.read_text()
        return text.split("```python\nfrom trainer import Monitor", 1)[1].split("```", 1)[0]


def test_the_loop_in_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = mlp()
    names = {
        "model": model,
        "loader": [batch(step) for step in range(12)],
        "criterion": nn.MSELoss(),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    exec("from trainer import Monitor" + Loop.source(), names)
    assert list((tmp_path / "runs" / "mine").glob("events.out.tfevents.*"))


def test_a_record_of_lost_weights_knows_the_loss_of_the_step_before() -> None:
    """Observed or not, if it was a number that nobody had to wait for."""
    model, made = nn.Linear(2, 1), list[StepRecord]()
    model.bias.data[:] = math.inf
    with Monitor(model, sinks=[made.append], every_steps=100) as monitor:
        for step, loss in ((70, 0.5), (99, 0.25), (100, 0.125), (150, None), (200, 0.1)):
            with monitor.step(step, loss):
                pass
        for step in (250, 300):
            with monitor.step(step, torch.tensor(2.0)):
                pass
        model.bias.data[:] = 0.0
        with monitor.step(400, 2.0):
            pass
    before = {record.step: record.loss_before for record in made}
    assert before[100] == 0.25 and math.isnan(before[200]) and before[300] == 2.0
    assert math.isnan(before[400])
