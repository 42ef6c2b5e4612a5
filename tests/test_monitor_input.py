"""The row of the network's input: what the layer that is executed first was given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer import Monitor
from trainer.record import LayerTable, StepRecord


def layers_of(model: nn.Module, *passes: object, **keys: object) -> LayerTable:
    """What a monitor says of the layers in a step with a forward and backward pass of each."""
    records: list[StepRecord] = []
    every = {"every_steps": 1, "activation_every_steps": 1, **keys}
    with Monitor(model, sinks=[records.append], **every) as monitor:
        for given in passes:
            model(given).sum().backward()
        with monitor.step(0):
            pass
    assert records[0].layers is not None
    return records[0].layers


def rms(*values: Tensor) -> float:
    return float(torch.cat([v.detach().double().flatten() for v in values]).square().mean().sqrt())


def test_it_is_measured_before_the_first_layer_changes_it() -> None:
    x = torch.linspace(-1, 3, 24).reshape(4, 6)
    expected = rms(x)
    layers = layers_of(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 2)), x)
    assert layers.names == ("input", "0", "1") and layers.has_input
    assert layers.rms[0] == pytest.approx(expected) and layers.rms[1] == pytest.approx(rms(x))
    assert layers.rms[0] > layers.rms[1]
    assert layers.zero_fraction[:2].tolist() == [0, (x == 0).double().mean()]


def test_tokens_are_no_input() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    layers = layers_of(model, torch.tensor([[1, 2], [3, 4]]))
    assert layers.names == ("0", "1") and not layers.has_input
    assert layers.kinds == ("Embedding", "Linear")


def test_all_micro_batches_of_a_step_count_and_only_their_first_layer() -> None:
    first, second = torch.randn(4, 6), 10 * torch.randn(2, 6)
    layers = layers_of(nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2)), first, second)
    assert layers.rms[0] == pytest.approx(rms(first, second), rel=1e-6)


def test_a_module_named_input_keeps_its_row() -> None:
    model = nn.Sequential()
    model.add_module("input", nn.Linear(6, 3))
    layers = layers_of(model, torch.ones(4, 6))
    assert layers.names == ("input", "input") and layers.kinds == ("Input", "Linear")
    assert layers.rms.tolist() == pytest.approx([1, rms(model(torch.ones(4, 6)))])
    assert layers.gradients.names == ("input",)


def test_the_first_layer_need_not_be_watched_itself() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2))
    x = torch.randn(4, 6)
    layers = layers_of(model, x, include=["1*"])
    assert layers.names == ("input", "1")
    assert layers.rms[0] == pytest.approx(rms(x), rel=1e-6)


class Nested(nn.Module):
    """Its input comes in a dictionary, and the first layer gets it by name."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(3, 2), nn.Linear(6, 3)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return checkpoint(self.last, self.first(input=batch["x"]), use_reentrant=False)


def test_it_is_what_the_first_executed_layer_gets() -> None:
    x = torch.randn(4, 6, dtype=torch.bfloat16)
    layers = layers_of(Nested().to(torch.bfloat16), {"x": x})
    assert layers.names == ("input", "first", "last")
    assert layers.rms[0] == pytest.approx(rms(x), rel=1e-6)
    assert layers.dtypes == ("bfloat16",) * 3


def test_a_model_that_is_one_layer() -> None:
    x = torch.randn(4, 6)
    layers = layers_of(nn.Linear(6, 3), x)
    assert layers.names == ("input", "model")
    assert layers.rms[0] == pytest.approx(rms(x), rel=1e-6)


class Conditional(nn.Module):
    """Looks at a condition first, which may be missing."""

    def __init__(self) -> None:
        super().__init__()
        self.condition, self.first = nn.Identity(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        assert self.condition(None) is None
        made: Tensor = self.first(x)
        return made


def test_a_layer_that_is_given_nothing_is_not_the_first() -> None:
    x = torch.linspace(-1, 3, 24).reshape(4, 6)
    layers = layers_of(Conditional(), x)
    assert layers.names == ("input", "first") and layers.rms[0] == pytest.approx(rms(x))


class Batch:
    """What no monitor can look into."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


class Unpacks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, batch: Batch) -> Tensor:
        return batch.x * self.weight


def test_what_follows_a_layer_that_is_given_something_unknown_is_no_input() -> None:
    x = torch.linspace(-1, 3, 24).reshape(4, 6)
    layers = layers_of(nn.Sequential(Unpacks(), nn.Linear(6, 2)), Batch(x))
    assert layers.names == ("0", "1") and not layers.has_input
