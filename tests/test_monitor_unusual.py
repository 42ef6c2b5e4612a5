"""Models and loops that are not the usual ones: what they are told is right, or nothing breaks."""

import gc
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from trainer import Monitor, autograd, statistics
from trainer.monitor import measured
from trainer.record import StepRecord, owner

Loop = Callable[[nn.Module, torch.optim.Optimizer], Tensor]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def descend(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    loss: Tensor = model(torch.ones(5, 3)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    return loss


def watched(
    model: nn.Module, loop: Loop = descend, steps: int = 3, **keys: Any
) -> list[StepRecord]:
    """The records of some steps of SGD; no hook is left."""
    records: list[StepRecord] = []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model, sinks=[records.append], **keys) as monitor:
        for step in range(steps):
            loss = loop(model, optimizer)
            with monitor.step(step, loss):
                optimizer.step()
    assert hooks(model) == 0
    return records


def hooks(model: nn.Module) -> int:
    """How many are on its modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Blocks(nn.Module):
    """Blocks that keep no graph, and are computed again for the backward pass."""

    def __init__(self, recomputed: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(3, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()) for _ in range(4))
        self.recomputed = recomputed

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=True) if self.recomputed else block(x)
        return x


def test_blocks_that_are_computed_again_are_looked_at_as_if_they_were_not() -> None:
    plain, again = (watched(Blocks(recomputed)) for recomputed in (False, True))
    for one, other in zip(plain, again, strict=True):
        assert one.layers is not None and other.layers is not None
        assert other.layers.names == one.layers.names
        assert other.layers.kinds == one.layers.kinds
        assert other.layers.gradients.names == one.layers.gradients.names
        np.testing.assert_allclose(other.layers.rms, one.layers.rms, rtol=1e-6)
        np.testing.assert_allclose(
            other.layers.gradients.moments, one.layers.gradients.moments, rtol=1e-5
        )


def test_a_validation_inside_a_step_does_not_order_the_layers() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.b(x)
            return self.a(x) + self.b(x)

    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        with torch.no_grad():
            model.get_submodule("b")(torch.full((5, 3), 7.0))
        return descend(model, optimizer)

    for record in watched(Heads(), loop):
        assert record.layers is not None and {*record.layers.names} == {"input", "a", "b"}
        assert record.layers.rms[0] == 1.0  # of the input


def test_experts_that_no_sample_is_given_to_and_batches_without_samples() -> None:
    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(3, 2) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            chosen = x[:, 0] > 5  # none
            return torch.cat([self.experts[0](x[chosen]), self.experts[1](x[~chosen])])

    found: list[Any] = []
    model = Mixture()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model, found=found.append) as monitor:
        for step in range(6):
            loss = descend(model, optimizer)
            with monitor.step(step, loss):
                optimizer.step()
        loss = model(torch.ones(0, 3)).sum()
        loss.backward()
        with monitor.step(6, loss):
            pass
    assert all(finding.verdict != "non_finite" for finding in found)


def test_weights_that_are_computed_are_no_layers() -> None:
    """Whether a norm and a direction make them, or an orthogonal matrix."""
    for computed in (parametrizations.weight_norm, parametrizations.orthogonal):
        model = small()
        computed(model[0], "weight")
        for record in watched(model):
            assert record.layers is not None
            assert record.layers.names == ("input", "0", "1", "2")
            assert record.layers.kinds == ("Input", "Linear", "Tanh", "Linear")
        assert {owner(name) for name, _ in model.named_parameters()} == {"0", "2"}
    assert owner("weight") == owner("parametrizations.weight.original0") == ""
    assert owner("a.b.weight") == owner("a.b.parametrizations.weight.original1") == "a.b"


def test_a_layer_that_is_called_model() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.model = nn.Parameter(torch.tensor(100.0)), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.model(x)

    layers = watched(Root(), steps=1)[0].layers
    assert layers is not None and layers.names == ("input", "model", "(model)")
    assert layers.rms[2] == pytest.approx(100 * layers.rms[1], rel=1e-6)


@pytest.mark.parametrize("change", ["assign", "prune", "head"])
def test_a_model_that_changes_is_looked_at_anew(change: str) -> None:
    model, records = small(), list[StepRecord]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, sinks=[records.append])
    for step in range(8):
        if step == 4:
            if change == "assign":
                kept = {name: value.clone() for name, value in model.state_dict().items()}
                model.load_state_dict(kept, assign=True)
            elif change == "prune":
                prune.l1_unstructured(model[0], "weight", amount=0.5)
            else:
                model[2] = nn.Linear(4, 7)
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
        loss = descend(model, optimizer)
        with monitor.step(step, loss):
            optimizer.step()
    monitor.close()
    last = records[-1]
    assert last.step == 7 and (last.update_ratio > 0).all()
    assert last.parameters == tuple(name for name, _ in model.named_parameters())
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert last.gradient_norm == pytest.approx(float(norm), rel=1e-5)
    assert last.layers is not None and last.layers.names == ("input", "0", "1", "2")
    assert (7,) in last.shapes or change != "head"
    assert hooks(model) == (1 if change == "prune" else 0)  # which is its own


def test_only_clipping_is_told_as_clipping() -> None:
    def coefficients(inside: Callable[[nn.Module], object], least: bool = False) -> list[float]:
        model, records = small(), list[StepRecord]()
        optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), 0.1)
        if least:
            optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
        with Monitor(model, sinks=[records.append]) as monitor:
            for step in range(3):
                loss = descend(model, optimizer)
                with monitor.step(step, loss):
                    inside(model)

                    def closure() -> float:
                        optimizer.zero_grad(set_to_none=False)
                        loss = model(torch.ones(5, 3)).square().mean()
                        loss.backward()
                        return loss.item()

                    optimizer.step(closure if least else None)  # type: ignore[call-overload]
                    descend_again(model)
        return [record.clip_coefficient for record in records]

    def descend_again(model: nn.Module) -> None:
        model(torch.ones(5, 3)).square().mean().backward()

    clipped = coefficients(lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
    assert all(0 < each < 1 for each in clipped)
    assert np.isnan(coefficients(lambda model: None)).all()
    assert np.isnan(coefficients(lambda model: None, least=True)).all()
    assert np.isnan(coefficients(descend_again)).all()  # which adds up


def test_the_optimizer_is_that_of_the_model_that_is_watched() -> None:
    generator, critic, records = small(), small(), list[StepRecord]()
    mine = torch.optim.Adam(generator.parameters(), 1e-4)
    other = torch.optim.SGD(critic.parameters(), 9.0)
    with Monitor(generator, sinks=[records.append]) as monitor:
        for step, order in enumerate(((other, mine), (mine, other), (other,))):
            loss = descend(generator, mine)
            descend(critic, other)
            with monitor.step(step, loss):
                for optimizer in order:
                    optimizer.step()
    told = [(record.optimizer, record.learning_rate) for record in records]
    assert told == [("Adam", 1e-4), ("Adam", 1e-4), ("SGD", 9.0)]  # there was no other


def test_an_optimizer_without_a_rate() -> None:
    class Still(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})

        def step(self, closure: Any = None) -> None:
            pass

    model, records = small(), list[StepRecord]()
    optimizer = Still(model.parameters())
    with Monitor(model, sinks=[records.append]) as monitor:
        loss = descend(model, optimizer)
        with monitor.step(0, loss):
            optimizer.step()
    assert records[0].optimizer == "Still" and np.isnan(records[0].learning_rate)


def test_batched_derivatives_are_the_same_in_a_watched_model() -> None:
    x = torch.randn(4, 3)

    def derivatives(model: nn.Module) -> list[Tensor]:
        losses = model(x).square().sum(1)
        return [*autograd.per_sample_gradients(losses, [*model.parameters()])]

    model = small()
    expected = derivatives(model)
    with Monitor(model) as monitor:
        found = derivatives(model)
        jacobian = torch.autograd.functional.jacobian(model, x, vectorize=True)
        with monitor.step(0):
            pass
    assert jacobian.shape == (4, 2, 4, 3)
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)


def test_a_frozen_recurrent_layer_stays_without_a_gradient() -> None:
    model = nn.LSTM(3, 4, batch_first=True)
    model.requires_grad_(False)
    with Monitor(model):
        output, _ = model(torch.randn(2, 10, 3))
        assert output.numpy().shape == (2, 10, 4)


def test_nested_tensors_are_left_alone() -> None:
    model = nn.Linear(3, 2)
    rows = torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged)
    with Monitor(model):
        assert model(rows).shape[0] == 2


@pytest.mark.parametrize("width", [3, 300])
def test_what_goes_wrong_with_the_layers_ends_looking_at_them_and_nothing_else(
    width: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where they are measured together, when the step begins, and where each is at once."""

    def broken(tensors: Any) -> Any:
        raise RuntimeError("no kernel")

    weights = []
    for breaks in (False, True):
        if breaks:
            monkeypatch.setattr(statistics, "signals", broken)
        model = nn.Sequential(*[nn.Linear(width, width) for _ in range(3)])
        for number, parameter in enumerate(model.parameters()):
            nn.init.constant_(parameter, 1e-4 * number)

        def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
            loss: Tensor = model(torch.ones(200, width)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            return loss

        records = watched(model, loop, diagnose=False)
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
        assert [record.layers is None for record in records] == [breaks] * 3
        assert all(record.gradient_norm > 0 for record in records)
    assert all(map(torch.equal, *weights))
    said = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
    assert said == ["looking at the layers failed and is off from here on; training goes on"]


def test_what_goes_wrong_with_the_rest_ends_the_monitor_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for place in ("summarize", "fetch"):
        with monkeypatch.context() as patched:
            patched.setattr(statistics, place, lambda *_: 1 / 0)
            model = small()
            before = model[0].weight.detach().clone()
            assert watched(model, activation_every_steps=None) == []
            assert not torch.equal(before, model[0].weight)
        said = [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG]
        assert said == ["the monitor failed at step 0 and is off from here on; training goes on"]
        caplog.clear()


def test_forward_passes_that_no_step_follows(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(measured, "MOST_OUTPUTS", 50)
    model = small()
    with Monitor(model):
        for _ in range(30):
            model(torch.ones(5, 3))
    assert "belong under torch.no_grad()" in caplog.text


def test_a_monitor_that_nobody_has_any_more_leaves_no_hook() -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model)
    loss = descend(model, optimizer)
    with monitor.step(0, loss):
        optimizer.step()
    first = model[0].weight
    assert hooks(model) > 0 and first._backward_hooks and first._post_accumulate_grad_hooks
    del monitor
    gc.collect()
    assert hooks(model) == 0
    assert not first._backward_hooks and not first._post_accumulate_grad_hooks


def test_nothing_is_looked_at_after_the_end() -> None:
    model, records = small(), list[StepRecord]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, sinks=[records.append])
    monitor.close()
    loss = descend(model, optimizer)
    with monitor.step(0, loss):
        optimizer.step()
    assert records == [] and hooks(model) == 0


@pytest.mark.parametrize("kind", [np.int64, torch.tensor])
def test_steps_of_other_kinds_of_integers(kind: Callable[[int], Any], tmp_path: Path) -> None:
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), 1e4)
    with Monitor(model, tmp_path, found=lambda finding: None) as monitor:
        for step in range(4):
            loss = descend(model, optimizer)
            with monitor.step(kind(step), loss):
                optimizer.step()
    lines = (tmp_path / "findings.jsonl").read_text().splitlines()
    assert lines and all(type(s) is int for line in lines for s in json.loads(line)["steps"])


def test_loops_in_several_threads() -> None:
    """None changes what torch goes through in the optimizers of the others."""
    errors: list[BaseException] = []

    def train(number: int) -> None:
        model = nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.01 * (1 + number))
        records: list[StepRecord] = []
        try:
            with Monitor(model, sinks=[records.append], every_steps=1) as monitor:
                for step in range(400):
                    model.zero_grad()
                    model(torch.ones(2, 4)).sum().backward()
                    with monitor.step(step):
                        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                        optimizer.step()
            assert {record.learning_rate for record in records} == {0.01 * (1 + number)}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=train, args=(number,)) for number in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors


def test_layers_that_several_threads_call_at_once() -> None:
    """As nn.DataParallel does: nothing of one gets into the row of another."""
    torch.manual_seed(0)
    model = nn.ModuleList(nn.Linear(4, 4) for _ in range(8))
    for number, layer in enumerate(model):
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.constant_(layer.bias, number + 1)  # type: ignore[arg-type]
    records: list[StepRecord] = []
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(11):

            def work() -> None:
                for layer in model:
                    layer(torch.ones(2, 4)).sum().backward()

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with monitor.step(step):
                optimizer.step()
    for record in records:
        assert record.layers is not None
        found = dict(zip(record.layers.names, record.layers.rms.tolist(), strict=True))
        assert {name: found[name] for name in map(str, range(8))} == {
            str(n): n + 1 for n in range(8)
        }


def test_a_module_with_parameters_and_children_stands_where_it_puts_out() -> None:
    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(4))
            self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x) + self.position)

    layers = watched(Root(), steps=1)[0].layers
    assert layers is not None and layers.names == ("input", "stem", "head", "model")


def test_what_runs_without_a_graph_is_neither_input_nor_order() -> None:
    """A frozen backbone, and layers that are called in another order first."""

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.back, self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.back(100 * x)
                self.a(self.b(features))
            return self.b(self.a(features / features.norm()))

    layers = watched(Frozen(), steps=1)[0].layers
    assert layers is not None and layers.names == ("input", "a", "b")
    assert layers.rms[0] < 1  # what `a` was given


def test_blocks_computed_again_have_the_networks_input() -> None:
    class All(Blocks):
        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.stem, x, use_reentrant=True) if self.recomputed else self.stem(x)
            for block in list(self.blocks)[:-1]:
                x = checkpoint(block, x, use_reentrant=True) if self.recomputed else block(x)
            return self.blocks[-1](x)

    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        x = torch.full((5, 3), 7.0, requires_grad=True)
        loss: Tensor = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        return loss

    plain, again = (watched(All(recomputed), loop)[0].layers for recomputed in (False, True))
    assert plain is not None and again is not None
    assert again.names == plain.names and again.rms[0] == 7.0
    np.testing.assert_allclose(again.rms, plain.rms, rtol=1e-6)


def test_a_parameter_that_gets_another_shape_through_data() -> None:
    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        head = model.get_submodule("2")
        assert isinstance(head, nn.Linear)
        head.weight.data, head.bias.data = head.weight.data[:1], head.bias.data[:1]
        return descend(model, optimizer)

    assert len(watched(small(), loop)) == 3


def test_a_parameter_that_is_another_at_every_step_leaves_the_layers() -> None:
    def loop(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(state, assign=True)
        return descend(model, optimizer)

    assert all(record.layers is not None for record in watched(small(), loop))


def test_clipping_is_seen_without_an_optimizer_and_by_several() -> None:
    def coefficients(optimizers: int) -> list[float]:
        model, records = small(), list[StepRecord]()
        parts = [model[0], model[2]]
        steppers = [torch.optim.SGD(part.parameters(), 0.1) for part in parts[:optimizers]]
        with Monitor(model, sinks=[records.append]) as monitor:
            for step in range(2):
                model.zero_grad()
                model(torch.ones(5, 3)).square().mean().backward()
                with monitor.step(step):
                    for part in parts:
                        nn.utils.clip_grad_norm_(part.parameters(), 1e-4)
                        if steppers:
                            steppers[parts.index(part)].step()
        return [record.clip_coefficient for record in records]

    for count in (0, 2):
        assert all(each < 0.01 for each in coefficients(count))


def test_lazy_layers_that_get_their_shape_one_after_the_other() -> None:
    model = nn.ModuleList([nn.LazyLinear(2), nn.LazyLinear(2)])
    records: list[StepRecord] = []
    with Monitor(model, sinks=[records.append]) as monitor:
        for step in range(4):
            called = [*model][: 1 if step < 2 else 2]
            sum(layer(torch.ones(5, 3)).sum() for layer in called).backward()  # type: ignore[union-attr]
            with monitor.step(step):
                pass
    assert [len(record.parameters) for record in records] == [2, 2, 4, 4]


def test_nothing_is_held_or_attached_after_the_end() -> None:
    model = small()
    monitor = Monitor(model)
    model(torch.ones(5, 3)).sum().backward()
    monitor.close()
    assert monitor._activations.measured.outputs == 0
    monitor.watch(3)
    assert hooks(model) == 0
