"""Recurrent networks and transformers compute what torch's own, and the formulas, compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from trainer import models
from trainer.config.model_sections import Model
from trainer.data.table import Shape

ADDING = Shape((6, 2), 1, False, None, False)
ROWS_OUT = Shape((6, 2), 3, False, None, True)
TEXT = Shape((7,), 11, True, 11, True)
CLASSES_OF_TEXT = Shape((7,), 4, True, 11, False)


def made(shape: Shape, **keys: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.build(TypeAdapter(Model).validate_python(keys), shape)


def inputs(shape: Shape, rows: int = 3) -> Tensor:
    size = (rows, *shape.inputs)
    return torch.randn(size) if shape.vocabulary is None else torch.randint(shape.vocabulary, size)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- rnn


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", ["rnn", "relu", "lstm", "gru"])
def test_rnn_is_its_recurrence(kind: str) -> None:
    """Elman 1990, Hochreiter & Schmidhuber 1997 (with forget gates), Cho et al. 2014."""
    keys = {"nonlinearity": "relu"} if kind == "relu" else {}
    name = "rnn" if kind == "relu" else kind
    model = made(ADDING, name="rnn", kind=name, hidden_size=5, **keys)
    x = inputs(ADDING)
    w_in, w_state, b_in, b_state, w_out, b_out = (p.detach().numpy() for p in model.parameters())
    hidden, cell = np.zeros((3, 5)), np.zeros((3, 5))
    for step in range(6):
        inward = x[:, step].numpy() @ w_in.T + b_in
        back = hidden @ w_state.T + b_state
        if kind == "lstm":
            i, f, g, o = np.split(inward + back, 4, axis=1)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
        elif kind == "gru":
            (r_in, z_in, n_in), (r, z, n) = np.split(inward, 3, axis=1), np.split(back, 3, axis=1)
            new = np.tanh(n_in + sigmoid(r_in + r) * n)
            update = sigmoid(z_in + z)
            hidden = (1 - update) * new + update * hidden
        else:
            hidden = np.maximum(inward + back, 0) if kind == "relu" else np.tanh(inward + back)
    expected = hidden @ w_out.T + b_out
    np.testing.assert_allclose(model(x).detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [ADDING, ROWS_OUT, TEXT, CLASSES_OF_TEXT])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_rnn_of_several_layers_is_torchs(kind: str, bidirectional: bool, shape: Shape) -> None:
    keys = {"kind": kind, "hidden_size": 5, "bidirectional": bidirectional}
    model = made(shape, name="rnn", layers=3, **keys)
    features = 2 if shape.vocabulary is None else 5
    same = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[kind](
        features, 5, num_layers=3, batch_first=True, bidirectional=bidirectional
    )
    weights = dict(model.named_parameters())
    recurrent = [weights[name] for name in weights if name.startswith("layers.")]
    for mine, other in zip(recurrent, same.parameters(), strict=True):
        other.data.copy_(mine)
    x = inputs(shape)
    values = x if shape.vocabulary is None else weights["embedding.weight"][x]
    outputs, state = same(values)
    if not shape.per_position:
        last = state[0] if kind == "lstm" else state
        outputs = last[-2:].transpose(0, 1).flatten(1) if bidirectional else last[-1]
    expected = outputs @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(x), expected)
    assert expected.shape == ((3, *shape.inputs[:1]) if shape.per_position else (3,)) + (
        shape.outputs,
    )


def test_rnn_dropout_stands_between_layers() -> None:
    model = made(ADDING, name="rnn", layers=3, dropout=0.5)
    calls: list[int] = []
    assert isinstance(model.dropout, nn.Dropout)
    model.dropout.register_forward_hook(lambda *_: calls.append(1))
    model(inputs(ADDING))
    assert len(calls) == 2


def test_each_gate_is_drawn_on_its_own() -> None:
    init = {"recurrent": {"name": "orthogonal_", "gain": 0.5}, "hidden": "eye", "bias": "ones"}
    model = made(ADDING, name="rnn", kind="lstm", hidden_size=6, layers=2, init=init)
    for index in range(2):
        layer = model.get_submodule(f"layers.{index}")
        for gate in layer.weight_hh_l0.chunk(4):
            torch.testing.assert_close(gate @ gate.T, 0.25 * torch.eye(6))
        for gate in layer.weight_ih_l0.chunk(4):
            assert torch.equal(gate, torch.eye(*gate.shape))
        assert bool((layer.bias_ih_l0 == 1).all() and (layer.bias_hh_l0 == 1).all())


def test_forget_bias_is_that_of_the_forget_gate() -> None:
    model = made(
        ADDING, name="rnn", kind="lstm", hidden_size=3, forget_bias=2.0, bidirectional=True
    )
    plain = made(ADDING, name="rnn", kind="lstm", hidden_size=3, bidirectional=True)
    for end in ("l0", "l0_reverse"):
        layer, other = model.get_submodule("layers.0"), plain.get_submodule("layers.0")
        total = getattr(layer, f"bias_ih_{end}") + getattr(layer, f"bias_hh_{end}")
        usual = getattr(other, f"bias_ih_{end}") + getattr(other, f"bias_hh_{end}")
        assert total[3:6].tolist() == [2.0] * 3
        assert torch.equal(total[:3], usual[:3]) and torch.equal(total[6:], usual[6:])


# --- transformer


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformer_is_torchs_encoder(norm: str, causal: bool) -> None:
    keys = {"layers": 3, "width": 8, "heads": 2, "norm": norm, "causal": causal}
    init = dict.fromkeys(("hidden", "output", "bias"), {"name": "normal_", "std": 0.5})
    model = made(TEXT, name="transformer", init=init, **keys)
    weights = dict(model.named_parameters())
    x = inputs(TEXT)
    state = weights["embedding.weight"][x] + weights["position.weight"]
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    theirs = {
        "attention.inward": "self_attn.in_proj_",
        "attention.outward": "self_attn.out_proj.",
        "feed_forward.inward": "linear1.",
        "feed_forward.outward": "linear2.",
        "norm_1": "norm1.",
        "norm_2": "norm2.",
    }
    for index in range(3):
        block = nn.TransformerEncoderLayer(
            8, 2, 32, 0.0, nn.functional.gelu, batch_first=True, norm_first=norm == "pre"
        )
        copied = {
            name + kind: weights[f"blocks.{index}.{mine}.{kind}"]
            for mine, name in theirs.items()
            for kind in ("weight", "bias")
        }
        block.load_state_dict(copied)
        state = block(state, src_mask=mask, is_causal=causal)
    if norm == "pre":
        state = nn.functional.layer_norm(state, (8,), weights["norm.weight"], weights["norm.bias"])
    expected = state @ weights["head.weight"].T + weights["head.bias"]
    torch.testing.assert_close(model(x), expected)


def test_transformer_of_numbers_predicts_from_the_last_position() -> None:
    model = made(ADDING, name="transformer", width=8, heads=4, layers=1, causal=False)
    each = made(Shape((6, 2), 1, False, None, True), name="transformer", width=8, heads=4, layers=1)
    each.load_state_dict(model.state_dict())
    x = inputs(ADDING)
    torch.testing.assert_close(model(x), each(x)[:, -1])  # the last position sees all either way
    assert model(x).shape == (3, 1)


def test_transformer_sees_no_later_token() -> None:
    model = made(TEXT, name="transformer")
    x = inputs(TEXT)
    changed = x.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    same = (model(x) == model(changed)).all(2).all(0)
    assert same.tolist() == [True] * 4 + [False] * 3
    whole = made(TEXT, name="transformer", causal=False)
    assert not (whole(x) == whole(changed)).all(2).any()


@pytest.mark.parametrize(("norm", "norms"), [("pre", 9), ("post", 8), ("none", 0)])
def test_transformer_has_the_formulas_number_of_parameters(norm: str, norms: int) -> None:
    """Each block: 12·width² weights and 9·width biases; norms of 2·width."""
    model = made(TEXT, name="transformer", norm=norm, layers=4, width=64)
    blocks = 4 * (12 * 64**2 + 9 * 64)
    assert count(model) == 11 * 64 + 7 * 64 + blocks + norms * 2 * 64 + 64 * 11 + 11


def test_tied_weights_are_one_tensor() -> None:
    model = made(TEXT, name="transformer", tie_weights=True)
    free = made(TEXT, name="transformer")
    assert count(free) - count(model) == 11 * 64
    assert model.head.weight is model.embedding.weight
    model.double()
    assert model.head.weight is model.embedding.weight


def test_transformer_starts_as_gpt_2() -> None:
    model = made(Shape((50,), 500, True, 500, True), name="transformer")
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert bool((parameter == 1).all()), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name


def test_transformer_that_starts_with_branches_of_zero() -> None:
    model = made(TEXT, name="transformer", zero_init=True)
    x = inputs(TEXT)
    state = model.embedding(x) + model.position.weight
    torch.testing.assert_close(model(x), model.head(model.norm(state)))


def test_transformer_drops_in_training_only() -> None:
    model = made(TEXT, name="transformer", dropout=0.5)
    x = inputs(TEXT)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    torch.testing.assert_close(model(x), made(TEXT, name="transformer")(x))
