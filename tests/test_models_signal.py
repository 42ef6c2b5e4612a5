"""Each classic cause of vanishing and exploding gradients, and its cure, is one key of a model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn.functional import cross_entropy

from trainer import models
from trainer.config.model_sections import Model
from trainer.data.table import Shape

CLASSES = Shape((64,), 10, True, None, False)
LONG = Shape((100, 2), 1, False, None, False)
TEXT = Shape((32,), 20, True, 20, True)
SCALED = {"hidden": {"name": "kaiming_normal_", "nonlinearity": "relu"}}


def made(shape: Shape, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build(TypeAdapter(Model).validate_python(keys), shape)


def weight_gradients(**keys: Any) -> list[float]:
    """Norms, from the first linear layer of an mlp to the last, for 64 drawn samples."""
    model = made(CLASSES, name="mlp", **keys)
    cross_entropy(model(torch.randn(64, 64)), torch.randint(10, (64,))).backward()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return [layer.weight.grad.norm().item() for layer in linear]


def test_deep_sigmoids_vanish_and_a_residual_or_relu_cures_it() -> None:
    first, *_, last = weight_gradients(depth=10, activation="sigmoid")
    assert first < 1e-7 * last
    first, *_, last = weight_gradients(depth=10, activation="sigmoid", residual=True)
    assert first > 1e-2 * last
    first, *_, last = weight_gradients(depth=10, activation="relu", init=SCALED)
    assert first > 1e-1 * last


def test_large_start_values_explode_and_the_right_scale_cures_it() -> None:
    keys: dict[str, Any] = {"depth": 20, "width": 128}
    gradients = weight_gradients(init={"hidden": {"name": "normal_", "std": 0.5}}, **keys)
    assert gradients[0] > 1e6
    gradients = weight_gradients(init=SCALED, **keys)
    assert 0.01 < min(gradients) and max(gradients) < 10


def test_exponentials_are_soon_not_finite() -> None:
    assert math.isfinite(weight_gradients(depth=1, activation="exponential")[0])
    assert not math.isfinite(weight_gradients(depth=5, activation="exponential")[0])


def test_negative_biases_kill_relu_and_not_leaky_relu() -> None:
    init = {"bias": {"name": "constant_", "val": -10.0}}
    assert weight_gradients(depth=3, init=init) == [0.0] * 4
    assert all(weight_gradients(depth=3, init=init, activation="leakyrelu"))


@pytest.mark.parametrize(("deviation", "low", "high"), [(3.0, 0.85, 1.0), (0.1, 0.0, 0.05)])
def test_large_start_values_saturate_tanh(deviation: float, low: float, high: float) -> None:
    init = {"hidden": {"name": "normal_", "std": deviation}}
    model = made(CLASSES, name="mlp", activation="tanh", depth=4, init=init)
    saturated: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.Tanh):
            module.register_forward_hook(
                lambda module, args, out: saturated.append((out.abs() > 0.97).double().mean())
            )
    model(torch.randn(64, 64))
    assert len(saturated) == 4 and low <= min(saturated) and max(saturated) <= high


def test_residual_branches_of_zero_let_the_gradient_pass_undiminished() -> None:
    first, *inner, last = weight_gradients(depth=50, residual=True, zero_init=True)
    assert first == pytest.approx(last, rel=1)
    assert max(inner) == pytest.approx(min(inner), rel=1e-4)  # each branch sees the same


def reach(**keys: Any) -> float:
    """How much less of the gradient the first of 100 steps receives than the last."""
    model = made(LONG, name="rnn", **keys)
    x = torch.rand(32, 100, 2, requires_grad=True)
    model(x).sum().backward()
    first, last = x.grad[:, 0].norm().item(), x.grad[:, -1].norm().item()
    return first / last


def recurrent(gain: float) -> dict[str, Any]:
    return {"recurrent": {"name": "orthogonal_", "gain": gain}}


def test_recurrence_vanishes_or_explodes_by_the_scale_of_its_weights() -> None:
    assert reach() < 1e-15
    assert reach(init=recurrent(0.5)) < 1e-15
    assert 1e-3 < reach(init=recurrent(1.0)) < 1
    assert reach(nonlinearity="relu", init=recurrent(2.0)) > 1e12


def test_a_forget_bias_makes_an_lstm_remember() -> None:
    assert reach(kind="lstm") < 1e-15
    assert reach(kind="lstm", forget_bias=3.0) > 0.1


def last_block_gradient(norm: str, layers: int) -> float:
    model = made(TEXT, name="transformer", norm=norm, layers=layers)
    tokens = torch.randint(20, (16, 32))
    cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    return float(model.blocks[-1].feed_forward.outward.weight.grad.norm())


def test_depth_shrinks_the_last_gradients_before_a_norm_and_not_after() -> None:
    """Xiong et al. 2020 (arXiv:2002.04745), theorem 1: as 1/√layers with pre-norm; the size that
    post-norm keeps is why it needs a warm-up."""
    pre = last_block_gradient("pre", 24) / last_block_gradient("pre", 4)
    post = last_block_gradient("post", 24) / last_block_gradient("post", 4)
    assert pre == pytest.approx(1 / math.sqrt(6), rel=0.3)
    assert post == pytest.approx(1, rel=0.1)
