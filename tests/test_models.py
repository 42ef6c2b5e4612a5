"""Feed-forward models compute what their formulas say, with the layers that the keys name."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from trainer import models
from trainer.config.model_sections import Model
from trainer.data.table import Shape
from trainer.monitor import activations

ROWS = Shape((5,), 3, False, None, False)
DIGITS = Shape((1, 8, 8), 10, True, None, False)
COLOUR = Shape((3, 32, 32), 10, True, None, False)


def made(shape: Shape, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build(TypeAdapter(Model).validate_python(keys), shape)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def drawn(model: nn.Module) -> nn.Module:
    """The model with all parameters and statistics drawn anew, so that none is 0 or 1."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.detach().uniform_(0.2, 0.9).mul_(0.5)
    return model


# --- mlp


def naive_norm(kind: str, x: Tensor, parameters: list[Tensor]) -> Tensor:
    if kind == "none":
        return x
    weight = parameters.pop(0)
    if kind == "rms":
        epsilon = torch.finfo(x.dtype).eps
        return x / (x.square().mean(1, keepdim=True) + epsilon).sqrt() * weight
    over = 0 if kind == "batch" else 1
    centred = x - x.mean(over, keepdim=True)
    variance = centred.square().mean(over, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * weight + parameters.pop(0)


def naive_linear(x: Tensor, parameters: list[Tensor]) -> Tensor:
    return x @ parameters.pop(0).T + parameters.pop(0)


@settings(max_examples=40, deadline=None)
@given(
    depth=st.integers(1, 4),
    width=st.integers(2, 6),
    norm=st.sampled_from(["none", "batch", "layer", "rms"]),
    residual=st.booleans(),
)
def test_mlp_is_its_formula(depth: int, width: int, norm: str, residual: bool) -> None:
    keys = {"depth": depth, "width": width, "norm": norm, "residual": residual}
    model = made(ROWS, name="mlp", activation="tanh", **keys)
    x = torch.randn(8, 5)
    parameters = [p.detach() for p in drawn(model).parameters()]
    state = naive_linear(x, parameters)
    for _ in range(depth - 1):
        inner = naive_linear(torch.tanh(naive_norm(norm, state, parameters)), parameters)
        state = state + inner if residual else inner
    expected = naive_linear(torch.tanh(naive_norm(norm, state, parameters)), parameters)
    assert parameters == []
    torch.testing.assert_close(model(x), expected)


def test_mlp_has_the_layers_of_a_plain_sequence() -> None:
    """784, ten hidden layers of 256, 10: the sum of (inputs + 1)·outputs, written out."""
    model = made(Shape((28, 28), 10, True, None, False), name="mlp", depth=10, width=256)
    assert count(model) == 785 * 256 + 9 * 257 * 256 + 257 * 10 == 795_658
    assert model(torch.zeros(2, 28, 28)).shape == (2, 10)


def test_mlp_of_different_widths() -> None:
    model = made(ROWS, name="mlp", widths=[7, 4])
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(7, 5), (7,), (4, 7), (4,), (3, 4), (3,)]


def test_mlp_that_starts_with_branches_of_zero() -> None:
    keys = {"depth": 5, "residual": True, "norm": "layer"}
    model = made(ROWS, name="mlp", zero_init=True, **keys)
    x = torch.randn(4, 5)
    stem, last, head = (model.get_submodule(name) for name in ("stem", "last", "head"))
    assert torch.equal(model(x), head(last(stem(x))))
    model(x).sum().backward()  # what is zero has a gradient, so it does not stay so
    assert all(model.get_submodule(f"block_{i}.linear").weight.grad.any() for i in range(2, 6))


def test_dropout_drops_in_training_only() -> None:
    model = made(ROWS, name="mlp", depth=3, width=1000, dropout=0.25, activation="sigmoid")
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    zeros: list[float] = []
    for layer in layers:
        layer.register_forward_hook(lambda m, args, out: zeros.append((out == 0).double().mean()))
    model(torch.randn(50, 5))
    model.eval()(torch.randn(50, 5))
    assert zeros == [*[pytest.approx(0.25, abs=0.01)] * 3, *[0.0] * 3]


# --- cnn


def test_lenet_has_the_classic_number_of_parameters() -> None:
    """LeNet-5 with all maps connected: 156 + 2416 + 48,120 + 10,164 + 850."""
    for size in (28, 32):
        shape = Shape((1, size, size), 10, True, None, False)
        assert count(made(shape, name="cnn", kind="lenet", norm="none")) == 61_706


@pytest.mark.parametrize("size", [28, 32])
def test_lenet_is_the_sequence_of_torchs_layers(size: int) -> None:
    shape = Shape((1, size, size), 10, True, None, False)
    model = made(shape, name="cnn", kind="lenet", norm="none", activation="tanh")
    same = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2 if size == 28 else 0),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        *[nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)],
    )
    for mine, other in zip(model.parameters(), same.parameters(), strict=True):
        other.data.copy_(mine)
    x = torch.randn(3, 1, size, size)
    torch.testing.assert_close(model(x), same(x))


def test_resnet20_has_its_number_of_parameters() -> None:
    """He et al. 2015 tell 0.27 million for 20 layers: 269,722, and 2,752 for the projections."""
    shape = Shape((3, 32, 32), 10, True, None, False)
    resnet = made(shape, name="cnn", blocks=3)
    assert count(resnet) == 269_722 + (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert count(made(shape, name="cnn", blocks=3, skip=False)) == 269_722
    convolutions = [m for m in resnet.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(getattr(m, "kernel_size", None) != (1, 1) for m in convolutions) == 20


NORMS = ["none", "batch", "group", "layer"]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [DIGITS, COLOUR], ids=["digits", "colour"])
def test_resnet_is_its_formula(shape: Shape, norm: str, skip: bool) -> None:
    keys = {"blocks": 2, "channels": [4, 6], "norm": norm, "groups": 2, "skip": skip}
    model = drawn(made(shape, name="cnn", **keys))
    parameters = [p.detach() for p in model.parameters()]

    def convolved(x: Tensor, stride: int = 1) -> Tensor:
        weight = parameters.pop(0)
        bias = parameters.pop(0) if norm == "none" else None
        x = F.conv2d(x, weight, bias, stride, weight.shape[2] // 2)
        if norm == "none":
            return x
        scale, shift = (parameters.pop(0)[None, :, None, None] for _ in range(2))
        groups = {"batch": x.shape[1], "group": 2, "layer": 1}[norm]
        split = x.unflatten(1, (groups, -1))
        over = (0, 2, 3, 4) if norm == "batch" else (2, 3, 4)
        variance, mean = torch.var_mean(split, over, correction=0, keepdim=True)
        return ((split - mean) / (variance + 1e-5).sqrt()).flatten(1, 2) * scale + shift

    x = torch.randn(4, *shape.inputs)
    state = convolved(x).relu()
    for block in range(4):
        stride = 2 if block == 2 else 1
        inner = convolved(convolved(state, stride).relu())
        if skip:
            inner = inner + (convolved(state, stride) if block == 2 else state)
        state = inner.relu()
    expected = naive_linear(state.mean((2, 3)), parameters)
    assert parameters == []
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("norm", ["none", "group"])
def test_resnet_that_starts_with_branches_of_zero(norm: str) -> None:
    model = made(COLOUR, name="cnn", channels=[8], norm=norm, zero_init=True)
    x = torch.randn(2, 3, 32, 32)
    expected = model.get_submodule("head")(model.get_submodule("stem")(x).mean((2, 3)))
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 5), (28, 28), (33, 40)])
@pytest.mark.parametrize("kind", ["lenet", "resnet"])
def test_cnn_takes_images_of_any_size(kind: str, size: tuple[int, int]) -> None:
    shape = Shape((2, *size), 7, True, None, False)
    model = made(shape, name="cnn", kind=kind)
    assert model(torch.randn(3, 2, *size)).shape == (3, 7)


# --- autoencoder


def test_autoencoder_is_its_formula() -> None:
    shape = Shape((2, 3), 6, False, None, False)
    model = drawn(made(shape, name="autoencoder", widths=[5, 2], activation="tanh"))
    parameters = [p.detach() for p in model.parameters()]
    shapes = [tuple(p.shape) for p in parameters[::2]]
    assert shapes == [(5, 6), (2, 5), (5, 2), (6, 5)]
    x = torch.randn(4, 2, 3)
    state = naive_linear(torch.tanh(naive_linear(x.reshape(4, 6), parameters)), parameters)
    expected = naive_linear(torch.tanh(naive_linear(state, parameters)), parameters)
    torch.testing.assert_close(model(x), expected)


# --- all


def record(called: list[str], name: str, *_: Any) -> None:
    called.append(name)


def test_the_monitor_sees_every_layer() -> None:
    """Linear layers, convolutions, norms and activations are modules that are called."""
    for shape, keys in [
        (ROWS, {"name": "mlp", "depth": 3, "norm": "layer", "residual": True}),
        (COLOUR, {"name": "cnn", "kind": "lenet"}),
        (COLOUR, {"name": "cnn", "blocks": 1}),
        (Shape((5,), 5, False, None, False), {"name": "autoencoder"}),
        (Shape((6, 2), 1, False, None, False), {"name": "rnn", "layers": 3}),
        (Shape((7,), 11, True, 11, True), {"name": "transformer", "tie_weights": True}),
    ]:
        model = made(shape, **keys)
        called: list[str] = []
        for name, layer in activations.layers(model)[0]:
            layer.register_forward_hook(partial(record, called, name))
        size = (2, *shape.inputs)
        model(torch.randn(size) if shape.vocabulary is None else torch.randint(11, size))
        assert sorted(called) == sorted(name for name, _ in activations.layers(model)[0])
        owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
        assert owners <= set(called)


def test_linear_tells_classes_apart_too() -> None:
    model = made(Shape((4,), 10, True, None, False), name="linear")
    assert [tuple(p.shape) for p in model.parameters()] == [(4, 10), (10,)]


class Own(nn.Linear):
    pass


def test_ones_own_model() -> None:
    model = made(ROWS, name=f"{__name__}:Own", in_features=5, out_features=3)
    assert type(model) is Own
    with pytest.raises(TypeError, match="it made a dict, which is no torch.nn.Module"):
        made(ROWS, name="builtins:dict")
