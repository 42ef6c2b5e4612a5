"""Activations and start values by name are torch's; a wrong one is told at its place."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from trainer import models
from trainer.config import ConfigError, dump, load, resolved
from trainer.config.initialisation_sections import Initialisation
from trainer.config.model_sections import Model
from trainer.data.table import Shape
from trainer.models.activations import activation, gain
from trainer.models.initialisation import FUNCTIONS, fill, initialise

ROWS = Shape((5,), 3, False, None, False)


def made(shape: Shape, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build(TypeAdapter(Model).validate_python(keys), shape)


# --- activations

REQUIRED = {"Threshold": {"threshold": 0.1, "value": -1.0}}
SOFTMAXES = ("Softmax", "Softmin", "LogSoftmax")
TORCHS = [
    thing
    for name, thing in vars(nn.modules.activation).items()
    if inspect.isclass(thing) and thing.__module__ == "torch.nn.modules.activation"
    if name not in ("GLU", "MultiheadAttention", "Module")
]


@pytest.mark.parametrize("thing", TORCHS)
def test_every_activation_of_torch(thing: type[nn.Module]) -> None:
    arguments = REQUIRED.get(thing.__name__, {})
    x = torch.linspace(-3, 3, 48).reshape(2, 2, 3, 4).requires_grad_()
    before = x.detach().clone()
    torch.manual_seed(0)  # RReLU draws
    ours = activation({"name": thing.__name__.lower(), **arguments})(x)
    torch.manual_seed(0)
    dim = {"dim": -1} if thing.__name__ in SOFTMAXES else {}
    theirs = thing(**arguments, **dim)(before)
    assert torch.equal(ours, theirs) and torch.equal(x, before)
    ours.sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


def test_exponential_is_its_own_derivative() -> None:
    x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    out = activation("exponential")(x)
    out.sum().backward()
    torch.testing.assert_close(out, torch.tensor([math.exp(v) for v in (-2, 0, 3)]))
    assert torch.equal(x.grad, out)


@pytest.mark.parametrize("name", ["LeakyReLU", "leakyrelu", "leaky_relu", "LEAKY_RELU"])
def test_upper_and_lower_case_and_arguments(name: str) -> None:
    made = activation({"name": name, "negative_slope": 0.3})
    assert isinstance(made, nn.LeakyReLU) and made.negative_slope == 0.3


def test_ones_own_activation() -> None:
    assert isinstance(activation("torch.nn:Softsign"), nn.Softsign)


# --- inits


def uniform_std(bound: float) -> float:
    return bound / math.sqrt(3)


WIDE, TALL = 300, 200  # fan in and out
STANDARD_DEVIATIONS: list[tuple[dict[str, Any], float]] = [
    ({"name": "uniform_", "a": -1.0, "b": 3.0}, 4 / math.sqrt(12)),
    ({"name": "normal_", "std": 0.3}, 0.3),
    # ±2σ of a normal: variance 1 - 4φ(2)/(2Φ(2)-1)
    ({"name": "trunc_normal_"}, 0.879626),
    ({"name": "constant_", "val": 2.5}, 0.0),
    ({"name": "ones_"}, 0.0),
    ({"name": "zeros_"}, 0.0),
    ({"name": "eye_"}, math.sqrt(1 / WIDE - 1 / WIDE**2)),
    ({"name": "xavier_uniform_", "gain": 2.0}, 2 * math.sqrt(2 / (WIDE + TALL))),
    ({"name": "xavier_normal_"}, math.sqrt(2 / (WIDE + TALL))),
    ({"name": "kaiming_uniform_", "nonlinearity": "relu"}, math.sqrt(2 / WIDE)),
    ({"name": "kaiming_normal_", "mode": "fan_out"}, math.sqrt(2 / TALL)),
    ({"name": "kaiming_normal_", "nonlinearity": "tanh"}, 5 / 3 * math.sqrt(1 / WIDE)),
    ({"name": "orthogonal_", "gain": 3.0}, 3 * math.sqrt(1 / WIDE)),
    ({"name": "sparse_", "sparsity": 0.5, "std": 0.1}, 0.1 * math.sqrt(0.5)),
]


@pytest.mark.parametrize(
    ("value", "deviation"), STANDARD_DEVIATIONS, ids=[v["name"] for v, _ in STANDARD_DEVIATIONS]
)
def test_every_init_has_its_standard_deviation(value: dict[str, Any], deviation: float) -> None:
    torch.manual_seed(0)
    for name in (value["name"], value["name"].removesuffix("_").upper()):
        weight = torch.full((TALL, WIDE), 7.0)
        fill(weight, {**value, "name": name}, "relu")
        assert weight.std().item() == pytest.approx(deviation, rel=0.02, abs=1e-7)


def test_every_init_of_torch_is_named() -> None:
    deprecated = {n for n in vars(nn.init) if n + "_" in vars(nn.init) and not n.startswith("_")}
    assert {f"{name}_" for name in FUNCTIONS} == {f"{name}_" for name in deprecated} | {
        "trunc_normal_",
        "ones_",
        "zeros_",
    } | {value["name"] for value, _ in STANDARD_DEVIATIONS}
    assert FUNCTIONS.keys() == {v["name"][:-1] for v, _ in STANDARD_DEVIATIONS} | {"dirac"}


def test_dirac_passes_channels_on() -> None:
    shape = Shape((3, 8, 8), 10, True, None, False)
    keys = {"channels": [3], "norm": "none", "skip": False, "blocks": 1}
    model = made(shape, name="cnn", init={"hidden": "dirac", "bias": "zeros"}, **keys)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(model[:2](x), x)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("sigmoid", 1.0),
        ("tanh", 5 / 3),
        ("relu", math.sqrt(2)),
        ("leakyrelu", math.sqrt(2 / (1 + 0.01**2))),
        ({"name": "leakyrelu", "negative_slope": 0.5}, math.sqrt(2 / 1.25)),
        ("selu", 0.75),
        ("identity", 1.0),
    ],
)
def test_gain_by_activation(value: Any, expected: float) -> None:
    assert gain(value) == pytest.approx(expected)
    weight = torch.empty(50, 50)
    fill(weight, {"name": "orthogonal_", "gain": "auto"}, value)
    torch.testing.assert_close(weight @ weight.T, expected**2 * torch.eye(50), atol=1e-5, rtol=0)


def test_hidden_output_and_bias_start_apart() -> None:
    init = {"hidden": "ones", "output": {"name": "constant_", "val": 2}, "bias": "zeros"}
    model = made(ROWS, name="mlp", depth=3, norm="layer", init=init)
    for name, parameter in model.named_parameters():
        wanted = 0.0 if name.endswith("bias") else 2.0 if name.startswith("head") else 1.0
        assert bool((parameter == wanted).all()), name  # a norm's weight is one as it is


def test_default_is_torchs_own() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(1, 2, 3), nn.Embedding(5, 6))
    before = [parameter.clone() for parameter in model.parameters()]
    initialise(model, Initialisation(), "relu", model[0])
    assert all(map(torch.equal, before, model.parameters()))


def halves(tensor: Tensor, value: float = 0.5) -> None:
    tensor.fill_(value)


def test_ones_own_init() -> None:
    init = {"hidden": f"{__name__}:halves", "output": {"name": f"{__name__}:halves", "value": 3.0}}
    model = made(ROWS, name="mlp", init=init)
    assert {p.mean().item() for n, p in model.named_parameters() if "weight" in n} == {0.5, 3.0}


# --- what is wrong

CONFIG = """\
name: wrong
data: {{name: points, x: [[2.0], [3.0]], y: [[3.0], [2.0]]}}
model: {{{model}}}
loss: {{name: mse}}
optimizer: {{name: sgd, lr: 0.1}}
"""
NAMED = "expected a name, or a section with a key 'name' and arguments, got"
GAINS = "only for Identity, LeakyReLU, ReLU, SELU, Sigmoid, Tanh; write a number"


@pytest.mark.parametrize(
    ("model", "at", "message"),
    [
        ("name: mlp, activation: rleu", "rleu", "activation: unknown activation 'rleu'; did you "),
        ("name: mlp, activation: glu", "glu", "activation: unknown activation 'glu'; did you mean"),
        ("name: mlp, activation: 3", "3", f"activation: {NAMED} 3"),
        ("name: mlp, activation: {alpha: 1}", "{alpha", f"activation: {NAMED} a section"),
        (
            "name: mlp, activation: {name: elu, alhpa: 1}",
            "alhpa",
            "activation.alhpa: ELU has no such argument; did you mean 'alpha'?",
        ),
        (
            "name: mlp, activation: {name: elu, alpha: x}",
            "x}",
            "activation.alpha: expected float for this argument of ELU, got 'x'",
        ),
        (
            "name: mlp, activation: {name: relu, inplace: true}",
            "inplace",
            "activation.inplace: ReLU has no such argument",
        ),
        (
            "name: mlp, activation: {name: threshold, value: 0}",
            "activation",
            "activation.threshold: missing: an argument of Threshold without a default",
        ),
        (
            "name: mlp, activation: {name: hardtanh, min_val: 3}",
            "{name: hardtanh",
            "activation: hardtanh refuses these arguments: max_val (1.0) must be",
        ),
        (
            "name: mlp, activation: 'torch.nn:Relu'",
            "'torch",
            "activation: module 'torch.nn' has no 'Relu'; did you mean",
        ),
        (
            "name: mlp, init: {hidden: kaiming}",
            "kaiming",
            "init.hidden: unknown init 'kaiming'; did you mean",
        ),
        (
            "name: mlp, init: {output: {name: normal_, sdt: 1.0}}",
            "sdt",
            "init.output.sdt: normal_ has no such argument; did you mean 'std'?",
        ),
        (
            "name: mlp, init: {hidden: {name: normal_, std: -1.0}}",
            "{name: normal_",
            "init.hidden: normal_ refuses: normal expects std >= 0.0",
        ),
        (
            "name: mlp, init: {hidden: {name: normal_, std: .nan}}",
            ".nan",
            "init.hidden.std: expected a finite number, got .nan",
        ),
        (
            "name: mlp, init: {hidden: constant_}",
            "hidden",
            "init.hidden.val: missing: an argument of constant_ without a default",
        ),
        (
            "name: mlp, init: {bias: kaiming_normal_}",
            "kaiming_normal_",
            "init.bias: kaiming_normal_ refuses: Fan in and fan out can not be computed for",
        ),
        (
            "name: mlp, init: {hidden: dirac_}",
            "dirac_",
            "init.hidden: dirac_ refuses: Only tensors with 3, 4, or 5 dimensions are supported",
        ),
        (
            "name: cnn, init: {hidden: eye_}",
            "eye_",
            "init.hidden: eye_ refuses: Only tensors with 2 dimensions are supported",
        ),
        (
            "name: mlp, activation: gelu, init: {hidden: {name: xavier_normal_, gain: auto}}",
            "auto",
            f"init.hidden.gain: torch has no gain for 'gelu', {GAINS}",
        ),
        ("name: mlp, init: {hiden: zeros_}", "hiden", "init.hiden: unknown key; did you mean"),
        (
            "name: rnn, init: {recurrent: orthgonal}",
            "orthgonal",
            "init.recurrent: unknown init 'orthgonal'; did you mean 'orthogonal_'?",
        ),
        ("name: mlp, depth: 0", "0", "depth: expected a number > 0, got 0"),
        ("name: mlp, depth: 99999", "99999", "depth: expected a number <= 1000, got 99999"),
        ("name: mlp, widths: []", "[]", "widths: expected a list of at least 1, got an empty"),
        ("name: mlp, widths: [8, 0]", "0", "widths[1]: expected a number > 0, got 0"),
        (
            "name: mlp, depth: 3, widths: [8]",
            "[8]",
            "widths: this says every hidden layer's width: leave out depth",
        ),
        (
            "name: mlp, widths: [8, 9], residual: true",
            "true",
            "residual: a sum needs equal widths, and widths are 8, 9; make them equal",
        ),
        (
            "name: mlp, zero_init: true",
            "true",
            "zero_init: there are no residual branches; set residual: true",
        ),
        ("name: mlp, norm: group", "group", "norm: unknown value 'group'; known: batch, layer,"),
        ("name: mlp, dropout: 1.0", "1.0", "dropout: expected a number < 1, got 1.0"),
        (
            "name: cnn, kind: lenet, blocks: 3",
            "3",
            "blocks: only a resnet has this key; leave it out or set kind: resnet",
        ),
        (
            "name: cnn, skip: false, zero_init: true",
            "true",
            "zero_init: there are no residual branches; set skip: true",
        ),
        (
            "name: rnn, kind: gru, forget_bias: 1.0",
            "1.0",
            "forget_bias: only kind: lstm has this key; leave it out",
        ),
        (
            "name: rnn, kind: lstm, nonlinearity: relu",
            "relu",
            "nonlinearity: only kind: rnn has this key; leave it out",
        ),
        (
            "name: transformer, width: 30",
            "model",
            "heads: 4 heads do not divide a width of 30; make it a multiple",
        ),
        (
            "name: transformer, width: 30, heads: 4",
            "4}",
            "heads: 4 heads do not divide a width of 30; make it a multiple",
        ),
    ],
)
def test_wrong_keys_are_told_once_at_their_place(
    model: str, at: str, message: str, tmp_path: Path
) -> None:
    text = CONFIG.format(model=model)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path, (), [models.check])
    (told,) = raised.value.messages
    row = text.splitlines()[2]
    column = row.rindex(at) + 1
    assert told.startswith(f"{path}:3:{column}: model.{message}"), told


IMAGES = Shape((1, 8, 8), 10, True, None, False)
TEXT = Shape((7,), 11, True, 11, True)


@pytest.mark.parametrize(
    ("shape", "keys", "message"),
    [
        (TEXT, {"name": "linear"}, "linear needs rows of floating-point numbers; the data gives "),
        (TEXT, {"name": "mlp"}, "name: mlp needs numbers and one target per sample; the data "),
        (ROWS, {"name": "cnn"}, "name: cnn needs images of (channels, height, width); the data "),
        (
            Shape((1, 3, 9), 2, True, None, False),
            {"name": "cnn"},
            "name: cnn needs images of 4x4 or more, and these are 3x9",
        ),
        (
            IMAGES,
            {"name": "cnn", "kind": "lenet", "channels": [6]},
            "channels: a lenet has 2 convolutions, got 1 numbers",
        ),
        (
            IMAGES,
            {"name": "cnn", "channels": [16, 20], "norm": "group"},
            "groups: 8 groups do not divide 20 channels; make every number of channels a multiple",
        ),
        (
            IMAGES,
            {"name": "rnn"},
            "name: rnn needs sequences of (time, features) or tokens; the data gives samples of "
            "shape (1, 8, 8)",
        ),
        (
            ROWS,
            {"name": "transformer"},
            "name: transformer needs sequences of (time, features) or tokens; the data gives ",
        ),
        (
            Shape((6, 2), 1, False, None, False),
            {"name": "transformer", "tie_weights": True},
            "tie_weights: the data has no tokens and 1 outputs; it needs as many outputs as tokens",
        ),
        (
            IMAGES,
            {"name": "autoencoder"},
            "name: an autoencoder gives back the 64 values of an input, and the target has 10 "
            "classes; set data.autoencode: true",
        ),
        (
            ROWS,
            {"name": "linear", "weight": 1e300},
            "weight: not finite in torch.float32",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_told(
    shape: Shape, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as raised:
        made(shape, **keys)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "model",
    [
        "name: mlp, init: {hidden: {name: xavier_normal_, gain: auto}}",
        "name: mlp, widths: [3, 4], activation: {name: elu, alpha: 2.0}",
        "name: cnn",
        "name: cnn, kind: lenet",
        "name: rnn",
        "name: rnn, kind: lstm, forget_bias: 1.0",
        "name: transformer",
        "name: autoencoder",
    ],
)
def test_a_runs_own_config_with_all_defaults_is_read_again(model: str, tmp_path: Path) -> None:
    path, again = tmp_path / "config.yaml", tmp_path / "again.yaml"
    path.write_text(CONFIG.format(model=model))
    config, _ = load(path, (), [models.check])
    again.write_text(dump(resolved(config)))
    assert load(again, (), [models.check])[0] == config
