"""Layers that give zeros for all samples, where no rectifier says so: networks, near misses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from records_by_hand import Layer, linear, record
from test_diagnosis import diagnosed
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor
from trainer.finding import Finding

STEPS = (*range(12), 20, 50, 80, 100, 120, 150)
SHUT = -50.0  # a bias that nothing gets over


def dead(model: nn.Module, shape: tuple[int, ...] = (32, 6), steps: int = 60) -> Finding | None:
    """What is said of units that are, of a network that is to tell the signs of sums."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with Monitor(model) as monitor:
        for step in range(steps):
            x = torch.randn(shape)
            loss = functional.cross_entropy(model(x), (x.flatten(1).sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    return next((found for found in monitor.findings if found.verdict == "dead_units"), None)


class Functions(nn.Module):
    """A function between two of its layers, modules between others."""

    def __init__(self, function: Callable[[Tensor], Tensor], bias: float, between: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16))
        self.function = function
        rows = [nn.Linear(16, 16, bias=False) for _ in range(between)]
        self.last = nn.Sequential(*rows, nn.ReLU(), nn.Linear(16, 2))
        nn.init.constant_(self.first[2].bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(self.function(self.first(x)))
        return made


def test_a_function_that_is_shut_beside_modules_that_are_not() -> None:
    """What it makes zero the layers behind it make zero again, if they have no biases."""
    for between in (1, 2):
        found = dead(Functions(functional.relu, SHUT, between))
        assert found is not None and (found.level, found.where) == ("critical", "first.2")
        assert found.steps[0] == 0 and found.confidence == 0.99
        assert found.cause.startswith(
            "initialisation: nothing gets from first.2 to last.0 (a rectifier or a factor of zero?)"
        )
    assert dead(Functions(functional.relu, 0.0)) is None
    assert dead(Functions(functional.softplus, SHUT)) is None  # which gives next to nothing


def test_layers_that_begin_at_zero_are_not_dead() -> None:
    """They let nothing back until the next one has moved them."""
    model = Functions(functional.relu, 0.0)
    nn.init.zeros_(model.last[2].weight)  # type: ignore[arg-type]
    nn.init.zeros_(model.last[2].bias)  # type: ignore[arg-type]
    assert dead(model) is None


KINDS = {nn.Hardsigmoid: True, nn.Hardswish: True, nn.Hardshrink: False, nn.Sigmoid: False}


@pytest.mark.parametrize(("activation", "told"), KINDS.items())
def test_an_activation_that_is_shut(activation: type[nn.Module], told: bool) -> None:
    """Others give zeros of what is too near to zero, which larger weights are not."""
    model = nn.Sequential(nn.Linear(6, 16), activation(), nn.Linear(16, 2))
    with torch.no_grad():
        if told or activation is nn.Sigmoid:
            model[0].bias.fill_(SHUT)  # type: ignore[operator, union-attr]
        else:
            model[0].weight.mul_(1e-3)  # type: ignore[operator, union-attr]
            model[0].bias.zero_()  # type: ignore[operator, union-attr]
    found = dead(model)
    assert (found is not None) is told
    assert found is None or found.where == "1"


class Drawn(nn.Module):
    """Whose first weights functions use, so that no layer is called before the last."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 1)
        self.last = nn.Linear(48, 2)
        nn.init.constant_(self.second.bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.second):
            x = functional.conv1d(x, layer.weight, layer.bias).relu()
        made: Tensor = self.last(x.flatten(1))
        return made


def test_the_only_layer_that_is_called_is_given_nothing() -> None:
    found = dead(Drawn(SHUT), (32, 1, 6))
    assert found is not None and found.where == "last"
    assert "nothing gets to last (a rectifier or a factor of zero?)" in found.cause
    assert "data" not in found.cause and dead(Drawn(0.0), (32, 1, 6)) is None


def test_what_functions_make_is_no_data() -> None:
    """Nor is it to blame for a derivative that is not finite behind the only called layer."""
    torch.manual_seed(0)
    model = Drawn(0.0)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model) as monitor:
        loss = model(torch.randn(8, 1, 6)).mul(0).sum().sqrt()
        loss.backward()
        with monitor.step(0, loss):
            optimizer.step()
    [found] = [each for each in monitor.findings if each.verdict == "non_finite"]
    assert not found.cause.startswith("data: ")


@pytest.mark.parametrize("how", ["hook", "zeroed"])
def test_weights_whose_gradients_somebody_makes_zero(how: str) -> None:
    """Which tells nothing of what the layer is given."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
    weight = model[0].weight
    assert isinstance(weight, nn.Parameter)
    if how == "hook":
        weight.register_hook(torch.zeros_like)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model) as monitor:
        for step in range(160):
            x = torch.randn(32, 6)
            loss = functional.cross_entropy(model(x), (x.sum(1) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            if how == "zeroed" and weight.grad is not None:
                weight.grad.zero_()
            with monitor.step(step, loss):
                optimizer.step()
    assert not [found for found in monitor.findings if found.alarm]


class Gated(nn.Module):
    """A branch that a factor of zero shuts, beside another one."""

    def __init__(self) -> None:
        super().__init__()
        self.shut, self.open = nn.Linear(6, 16), nn.Linear(6, 16)
        self.join, self.last, self.gate = nn.Linear(16, 16), nn.Linear(16, 2), 0.0

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(self.shut(x) * self.gate) + self.open(x)
        made: Tensor = self.last(joined.relu())
        return made


def test_a_branch_that_is_not_used_yet() -> None:
    assert dead(Gated()) is None


def test_data_that_are_zero_are_no_dead_layer() -> None:
    model = nn.Sequential(nn.Linear(6, 2))
    with Monitor(model) as monitor:
        for step in range(60):
            loss = functional.cross_entropy(model(torch.zeros(8, 6)), torch.arange(8) % 2)
            loss.backward()
            with monitor.step(step, loss):
                pass
            model.zero_grad()
    assert "dead_units" not in {found.verdict for found in monitor.findings}


class Code(nn.Module):
    """A loss asks something of its code as well as of what is made of it."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 6))
        nn.init.constant_(self.decoder[0].bias, bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [SHUT, 0.0])
def test_a_decoder_that_is_dead_beside_a_code_that_is_asked_for(bias: float) -> None:
    torch.manual_seed(0)
    model = Code(bias)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with Monitor(model) as monitor:
        for step in range(60):
            x = torch.randn(32, 6)
            code = model.encoder(x)
            loss = functional.mse_loss(model.decoder(code), x) + 0.1 * code.square().mean()
            optimizer.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    found = [(each.verdict, each.where) for each in monitor.findings if each.alarm]
    assert found == ([("dead_units", "decoder.1")] if bias else [])


def test_a_rectifier_beside_a_skip_is_not_dead() -> None:
    """The output depends on the sample all the same."""

    def found(signal: float) -> bool:
        rows = [
            linear(), linear(rms=3.0, gradient=0.0, weight_gradient=0.0),
            Layer("ReLU", rms=0.0, signal=0.0, gradient=1.0, dead=1.0), linear(signal=signal),
        ]  # fmt: skip
        made = (record(step, rows, loss=1 + 0.02 * (step % 3)) for step in STEPS)
        return "dead_units" in diagnosed(made)

    assert found(0.0) and not found(0.5)


class Shared(nn.Module):
    """One activation after all of its layers, maybe with a dropout at the end."""

    def __init__(self, bias: float, drop: float = 0.0) -> None:
        super().__init__()
        self.rows = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 16)])
        self.relu, self.drop, self.last = nn.ReLU(), nn.Dropout(drop), nn.Linear(16, 2)
        nn.init.constant_(self.rows[0].bias, bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for row in self.rows:
            x = self.relu(row(x))
        made: Tensor = self.last(self.drop(x))
        return made


def test_an_activation_that_is_called_after_other_layers_too() -> None:
    """A gradient comes to it from those; of the layer before the first call it comes to none."""
    for drop in (0.0, 0.5):  # which makes the output differ from sample to sample
        found = dead(Shared(SHUT, drop), steps=160)
        assert found is not None and (found.level, found.where) == ("critical", "rows.0")
        assert found.cause.startswith("initialisation: nothing gets from rows.0 to ")
        assert dead(Shared(0.0, drop)) is None


class Coded(nn.Module):
    """A code that is asked to be small, and what is made of it."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.code, self.hidden, self.last = nn.Linear(6, 4), nn.Linear(4, 16), nn.Linear(16, 2)
        nn.init.constant_(self.hidden.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        code = self.code(x)
        made: Tensor = self.last(self.hidden(code).relu())
        return made + 1e-3 * code.square().mean()


def test_what_is_made_of_a_code_that_a_loss_asks_something_of() -> None:
    """Which then has a gradient of its own, before the units that are dead."""
    torch.manual_seed(0)

    def said(bias: float) -> list[str]:
        model = Coded(bias)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        with Monitor(model) as monitor:
            for step in range(30):
                x = torch.randn(32, 6)
                out, code = model(x), model.code(x)
                loss = functional.cross_entropy(out, (x.sum(1) > 0).long()) + code.square().mean()
                optimizer.zero_grad()
                loss.backward()
                with monitor.step(step, loss):
                    optimizer.step()
        return [f"{f.verdict} {f.where}" for f in monitor.findings if f.alarm]

    assert said(SHUT) == ["dead_units hidden"] and said(0.0) == []


class Experts(nn.Module):
    """Two, of which one is given nothing, for any sample."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16))
        self.idle = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16))
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(16, 2)
        self.share = 0.0

    def forward(self, x: Tensor) -> Tensor:
        idle = self.idle[2](self.share * self.idle[:2](x))
        made: Tensor = self.last(self.drop(self.used(x) + idle))
        return made


class Faded(nn.Module):
    """A condition that fades in, and a dropout that is called for it before anything else."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16)])
        self.drop, self.share = nn.Dropout(0.1), 0.0
        self.rows = nn.ModuleList([nn.Linear(6, 16), nn.Linear(16, 16)])
        self.last = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        made = self.condition[1](self.share * self.condition[0](x).relu())
        hidden = self.rows[0](x).relu() + self.drop(made)
        out: Tensor = self.last(self.rows[1](hidden).relu())
        return out


def test_a_condition_that_is_not_faded_in_yet() -> None:
    """What is made beside it learns, which nothing would that hangs on dropout alone."""
    assert dead(Faded(), steps=320) is None


def test_an_expert_that_is_not_asked() -> None:
    assert dead(Experts()) is None


@pytest.mark.parametrize("size", [1e3, 1.0])
def test_a_sigmoid_that_start_values_bring_to_its_limit(size: float) -> None:
    """Which lets nothing at all back: no layer is dead, and nothing has vanished over depth."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(size)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with Monitor(model) as monitor:
        for step in range(30):
            x = torch.randn(32, 6)
            loss = functional.binary_cross_entropy(model(x)[:, 0], (x.sum(1) > 0).float())
            optimizer.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    told = [
        f"{f.verdict} {f.where} {f.cause.partition(':')[0]}" for f in monitor.findings if f.alarm
    ]
    large = {"saturated 3 initialisation", "signal_blow_up 2 initialisation"}
    assert {*told} == (large if size > 1 else set())


def test_samples_that_are_sure_have_no_gradient_and_the_others_no_input() -> None:
    """So that no weight gets any, though the layer is fed."""

    def said(size: float) -> set[str]:
        lost = linear(gradient=0.0, weight_gradient=0.0, update=0.0)
        rows = [lost, Layer("ReLU", gradient=0.0), lost, Layer("ReLU", dead=0.9)]
        last = linear(rms=size, weight_gradient=0.0, update=0.0)
        made = [record(s, [*rows, last], loss=1 + s % 2) for s in STEPS]
        return {f.verdict for f in diagnosed(made).values() if f.alarm}

    assert "dead_units" not in said(1e3) and "dead_units" in said(1.0)
