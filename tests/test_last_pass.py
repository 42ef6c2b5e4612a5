"""Where a loss is no number and nobody looked, the forward pass is made again, and nothing else."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import math
import queue
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from trainer import Monitor
from trainer.finding import Finding
from trainer.monitor.last_pass import MOST_LOOKS, MOST_PASSES
from trainer.record import StepRecord

BAD_STEP = 137  # at which no cadence looks


class Net(nn.Module):
    """With all that a pass draws and changes; `broken` says what goes wrong in the next ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.middle, self.last = nn.Linear(16, 16), nn.Linear(16, 3)
        self.broken: Callable[[Tensor], Tensor] | None = None
        self.put_out: list[Tensor] = []  # by `first`'s dropout, in each pass

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.norm(self.first(x)))
        self.put_out.append(hidden.detach())
        hidden = torch.relu(self.middle(torch.relu(hidden)))
        if self.broken is not None:
            hidden = self.broken(hidden)
        return self.last(hidden)


def logarithm(hidden: Tensor) -> Tensor:
    return torch.log(hidden - hidden.max() - 1)


def train(
    watch: bool = True,
    broken: Callable[[Tensor], Tensor] | None = logarithm,
    passes: int = 1,
    given: float = 1.0,
    autocast: bool = False,
    lasts: int = 1,
    **keys: Any,
) -> tuple[Net, list[StepRecord], list[Finding], list[Any]]:
    """150 steps, of which one is broken and skipped; the model, what was told and all states."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    net, records = Net(), list[StepRecord]()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    monitor = Monitor(net, sinks=[records.append], found=lambda finding: None, **keys)
    if not watch:
        monitor.close()
    for step in range(150):
        is_bad = BAD_STEP <= step < BAD_STEP + lasts
        net.put_out.clear()
        loss = torch.zeros(())
        for number in range(passes):
            is_middle = number == passes // 2
            net.broken = broken if is_bad else None
            x, y = torch.randn(32, 6), torch.randint(3, (32,))
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                part = F.cross_entropy(net(x * (given if is_bad and is_middle else 1.0)), y)
            part.backward()
            loss = loss + part.detach()
        with monitor.step(step, loss):
            if math.isfinite(loss):
                optimizer.step()
        optimizer.zero_grad()
    states = [*net.state_dict().values(), torch.get_rng_state(), np.random.get_state()[1]]
    states += [v for s in optimizer.state.values() for v in s.values()]
    findings = monitor.findings
    monitor.close()
    return net, records, findings, [*states, random.getstate()]


def of_the_bad_step(records: list[StepRecord]) -> StepRecord:
    return next(record for record in records if record.step == BAD_STEP)


def test_it_names_the_layer() -> None:
    _, records, findings, _ = train()
    table = of_the_bad_step(records).layers
    assert table is not None
    assert table.names == ("input", "first", "norm", "drop", "middle", "model", "last")
    assert np.isfinite(table.rms[:5]).all() and np.isnan(table.rms[5:]).all()
    (found,) = findings
    assert (found.verdict, found.where, found.steps[0]) == ("non_finite", "model", BAD_STEP)
    assert found.cause.startswith(
        "operation: Net itself, between middle and last, makes values that are not finite of"
    )


def test_all_is_bit_for_bit_as_if_nobody_had_watched() -> None:
    watched, bare = train()[3], train(watch=False)[3]
    assert len(watched) == len(bare)
    for a, b in zip(watched, bare, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else np.array_equal(a, b) \
            if isinstance(a, np.ndarray) else a == b  # fmt: skip


def test_the_pass_is_the_same_one() -> None:
    """With the random numbers that it had: dropout leaves the same values."""
    seen: list[Tensor] = []
    net = Net()

    def keep(hidden: Tensor) -> Tensor:
        seen.append(net.put_out[-1] if net.put_out else hidden)
        return hidden * math.nan

    with Monitor(net, every_steps=1000, activation_every_steps=1000) as monitor:
        monitor.watch(500)
        net.broken = keep
        loss = net(torch.randn(32, 6)).sum()
        torch.rand(7)  # the loop draws on
        loss.backward()
        with monitor.step(501, loss):
            pass
    assert len(seen) == 2 and torch.equal(seen[0], seen[1])


def test_every_pass_of_accumulated_gradients() -> None:
    """Whichever of them it was in; none where they are more than are kept."""
    _, records, findings, _ = train(passes=3, broken=None, given=math.nan)
    assert of_the_bad_step(records).layers is not None
    assert findings[0].where == "input"
    _, records, findings, _ = train(passes=MOST_PASSES + 1)
    assert of_the_bad_step(records).layers is None
    assert findings[0].where is None and "were not looked at" in findings[0].cause


def test_a_layer_that_has_no_weights_yet() -> None:
    """Of which nobody knows how large a copy is: nothing is looked at, and training goes on."""
    net = nn.Linear(2, 1)
    net.later = nn.LazyLinear(1)
    records: list[StepRecord] = []
    with Monitor(net, sinks=[records.append]) as monitor:
        for step in range(30):
            loss = net(torch.randn(4, 2)).mean()
            if step == 25:
                loss = loss * math.nan
            loss.backward()
            with monitor.step(step, loss):
                pass
    (broken,) = (record for record in records if record.step == 25)
    assert math.isnan(broken.loss) and broken.layers is None


def test_data_that_are_not_finite() -> None:
    _, _, findings, _ = train(broken=None, given=math.inf)
    assert (findings[0].verdict, findings[0].where) == ("non_finite", "input")
    assert findings[0].cause.startswith("data: the data that the network is given are not finite, ")


def test_in_the_arithmetic_that_it_was_made_in() -> None:
    _, records, findings, _ = train(autocast=True)
    table = of_the_bad_step(records).layers
    assert table is not None and "bfloat16" in table.dtypes
    assert findings[0].where == "model"


def test_tokens() -> None:
    """Whose numbers are no floating-point ones."""

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(10, 6), nn.Linear(6, 10)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(logarithm(self.embedding(tokens)))

    table = broken_step(Reader(), torch.randint(10, (4, 5))).layers
    assert table is not None and table.names == ("embedding", "model", "head")


def test_no_argument_stops_a_pass() -> None:
    """Not even a tensor that nothing is known of: it is the model's business."""
    net = Net()
    with Monitor(net, found=lambda finding: None) as monitor, torch.inference_mode():
        unknown = torch.randn(8, 6)
        with torch.inference_mode(False), torch.enable_grad():
            monitor._last_pass._begin(net, (unknown,), {})
        assert not monitor._last_pass._given


def test_a_loss_that_breaks_behind_the_layers() -> None:
    """All layers are finite, so it is the loss."""
    net, records = Net(), list[StepRecord]()
    with Monitor(net, sinks=[records.append], found=lambda finding: None) as monitor:
        monitor.watch(BAD_STEP - 1)
        for step in (BAD_STEP - 1, BAD_STEP):
            loss = net(torch.randn(8, 6)).square().mean()
            loss = loss * (math.nan if step == BAD_STEP else 1.0)
            loss.backward()
            with monitor.step(step, loss):
                pass
    assert [record.step for record in records] == [BAD_STEP]
    assert monitor.findings[0].cause.startswith("loss: the outputs of all layers are finite")


def test_once_until_the_loss_is_finite_again() -> None:
    net, _, _, _ = train(lasts=3)
    calls = Net.forward
    count = 0

    def counted(self: Net, x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return calls(self, x)

    Net.forward = counted  # type: ignore[method-assign]
    try:
        train(lasts=3)
    finally:
        Net.forward = calls  # type: ignore[method-assign]
    assert count == 150 + 1


def test_a_step_that_was_looked_at_keeps_its_gradients() -> None:
    """Which no pass that is made again has; its rows are those of that pass."""
    _, records, findings, _ = train(every_steps=1, activation_every_steps=1)
    table = of_the_bad_step(records).layers
    assert table is not None and "model" in [finding.where for finding in findings]
    assert table.names == ("input", "first", "norm", "drop", "middle", "model", "last")
    assert table.gradients.names == ("first", "norm", "drop", "middle", "last")
    assert not np.isfinite(table.gradients.norms()[:4]).any()
    assert not of_the_bad_step(train()[1]).layers.gradients.names  # type: ignore[union-attr]


def test_not_where_layers_are_never_looked_at() -> None:
    net, records, findings, _ = train(activation_every_steps=None)
    assert of_the_bad_step(records).layers is None
    assert findings[0].where is None and "were not looked at" in findings[0].cause
    assert not net._forward_pre_hooks


def test_not_while_several_processes_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    _, records, _, _ = train()
    assert of_the_bad_step(records).layers is None


def test_no_more_than_a_few_times() -> None:
    """Of a loss that is none now and then."""
    net, looked = Net(), 0
    with Monitor(net, every_steps=1000, found=lambda finding: None) as monitor:
        monitor.watch(201)
        for step in range(201, 221):
            loss = net(torch.randn(8, 6)).sum() * (math.nan if step % 2 else 1.0)
            loss.backward()
            with monitor.step(step, loss) as seen:
                pass
            looked += seen.record is not None and seen.record.layers is not None
    assert looked == MOST_LOOKS


def broken_step(
    model: nn.Module, *given: Any, spoil: Callable[[], Any] = lambda: None
) -> StepRecord:
    """One step, at which no cadence looks, whose loss is no number."""
    seen: list[StepRecord] = []
    keys: dict[str, Any] = {"found": lambda finding: None, "every_steps": 1000}
    with Monitor(model, sinks=[seen.append], **keys) as monitor:
        monitor.watch(500)
        loss = model(*given).sum() * math.nan
        loss.backward()
        spoil()
        with monitor.step(501, loss):
            pass
    return seen[0]


class Stateful(nn.Module):
    """Changes all that a forward pass can: its weights, gradients, attributes and arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.slow = nn.Linear(6, 6), nn.Linear(6, 6)
        self.calls, self.state, self.memory = 0, torch.zeros(6), list[Tensor]()
        self.register_buffer("graph", torch.eye(6).to_sparse())
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        self.calls += 1
        with torch.no_grad():  # as in MoCo
            self.slow.weight.data = self.slow.weight.data * 0.9 + self.linear.weight.data * 0.1
        self.seen = self.seen + x.detach().mean(0)
        self.state = torch.tanh(self.state + x.detach().mean(0))
        if memory is not None:
            memory += 1
        out = self.linear(torch.sparse.mm(self.graph, x.T).T + self.state)  # type: ignore[operator]
        self.memory.append(out.detach())
        self.slow(x).sum().backward()  # as where each layer has a loss of its own
        return out


def test_nothing_of_the_model_changes() -> None:
    def trained(watch: bool) -> list[Any]:
        torch.manual_seed(0)
        model, x, memory = Stateful(), torch.randn(4, 6), torch.zeros(2)
        features: list[Tensor] = []
        model.linear.register_forward_hook(lambda m, a, o: features.append(o.detach()))
        if watch:
            record = broken_step(model, x, memory)
            assert record.layers is None, "others' hooks may have done it"
        else:
            (model(x, memory).sum() * math.nan).backward()
        grads = [torch.zeros(1) if p.grad is None else p.grad for p in model.parameters()]
        return [
            *model.parameters(), *grads, model.seen, model.state, *model.memory, *features,
            memory, torch.tensor(model.calls), torch.rand(3),
        ]  # fmt: skip

    watched, bare = trained(True), trained(False)
    assert len(watched) == len(bare)
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7))
               for a, b in zip(watched, bare, strict=True))  # fmt: skip


def test_not_with_arguments_that_are_more_than_values() -> None:
    """What is taken from a queue, or an iterator, is gone."""

    class FromQueue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(6, 2)

        def forward(self, source: Any, x: Tensor) -> Tensor:
            got = source.get() if isinstance(source, queue.Queue) else next(source)
            return self.linear(x + got)

    filled: queue.Queue[float] = queue.Queue()
    filled.put(1.0)  # one: a second pass would wait for ever
    assert broken_step(FromQueue(), filled, torch.randn(3, 6)).layers is None
    numbers = iter([1.0, 2.0])
    assert broken_step(FromQueue(), numbers, torch.randn(3, 6)).layers is None
    assert next(numbers) == 2.0


def test_not_where_things_are_others_by_now() -> None:
    x = torch.randn(8, 6)
    assert broken_step(Net(), x).layers is not None
    assert broken_step(Net(), x, spoil=x.zero_).layers is None
    net = Net()
    assert broken_step(net, x, spoil=net.eval).layers is None
    outside = torch.randn(8, 6, requires_grad=True) * 2  # of somebody's graph, which it would hold
    assert broken_step(Net(), outside).layers is None


def test_a_backward_pass_that_comes_later() -> None:
    """Of a graph that is kept: what it was made of must not be touched."""
    net = Net()
    with Monitor(net, every_steps=1000, found=lambda finding: None) as monitor:
        monitor.watch(500)
        first, second = net(torch.randn(8, 6)).sum(), net(torch.randn(8, 6)).square().sum()
        first.backward(retain_graph=True)
        with monitor.step(501, math.nan) as seen:
            pass
        second.backward()
    assert seen.record is not None and seen.record.layers is not None


def test_a_step_within_no_grad() -> None:
    net = Net()
    with Monitor(net, every_steps=1000, found=lambda finding: None) as monitor:
        monitor.watch(500)
        net.broken = logarithm
        loss = net(torch.randn(8, 6)).sum()
        loss.backward()
        with torch.no_grad(), monitor.step(501, loss) as seen:
            pass
    assert seen.record is not None and seen.record.layers is not None
    assert monitor.findings[0].where == "model"


def test_under_checkpointing() -> None:
    """Whose layers are not measured before a backward pass comes for them."""

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.log(self.a(x) - 1e9))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(6, 6), Inner(), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            hidden = checkpoint(self.inner, self.first(x), use_reentrant=True)
            assert isinstance(hidden, Tensor)
            return self.last(hidden)

    found = broken_step(Outer(), torch.randn(8, 6))
    assert found.layers is not None
    bad = [n for n, rms in zip(found.layers.names, found.layers.rms, strict=True) if rms != rms]
    assert bad[0] == "inner"


@pytest.mark.parametrize("step", [17, 20])  # at which layers are not looked at, and are
def test_a_copy_and_a_file_of_the_model_know_nothing_of_it(step: int) -> None:
    net = Net()
    with Monitor(net, found=lambda finding: None) as monitor:
        monitor.watch(step)
        twin = copy.deepcopy(net)
        kept = io.BytesIO()
        torch.save(net, kept)
    twin(torch.randn(8, 6))
    hooks = [h for m in twin.modules() for h in (*m._forward_pre_hooks.values(),
                                                 *m._forward_hooks.values())]  # fmt: skip
    assert len(hooks) == 1 if step == 17 else len(hooks) > 5
    for hook in hooks:
        assert isinstance(hook.__self__, contextlib.nullcontext)  # type: ignore[attr-defined]
    assert b"trainer" not in kept.getvalue()


def test_what_cannot_be_copied_is_not_made_again_and_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    net = Net()
    net.lock = threading.Lock()  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, "trainer"):
        assert broken_step(net, torch.randn(8, 6)).layers is None
    assert not caplog.records


def test_it_keeps_no_batch_after_the_step() -> None:
    net = Net()
    with Monitor(net, found=lambda finding: None) as monitor:
        for step in range(3):
            net(torch.randn(8, 6)).sum().backward()
            assert len(monitor._last_pass._given) == 1
            with monitor.step(step):
                pass
            assert not monitor._last_pass._given
        with torch.no_grad():  # an evaluation is nothing to look back at
            net(torch.randn(8, 6))
        assert not monitor._last_pass._given
