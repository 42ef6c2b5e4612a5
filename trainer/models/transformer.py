"""A small GPT: blocks of attention and two linear layers, over tokens or rows of numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from trainer.config.model_sections import Transformer
from trainer.data.table import Shape
from trainer.models.activations import activation
from trainer.models.initialisation import initialise


class Attention(nn.Module):
    """Multi-head self-attention of (B, T, width); `causal`: no position sees a later one."""

    def __init__(self, section: Transformer) -> None:
        super().__init__()
        self.heads, self.causal, self.dropout = section.heads, section.causal, section.dropout
        self.inward = nn.Linear(section.width, 3 * section.width)  # queries, keys and values
        self.outward = nn.Linear(section.width, section.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        queries, keys, values = (
            part.view(batch, time, self.heads, -1).transpose(1, 2)
            for part in self.inward(x).split(width, dim=2)
        )
        mixed = scaled_dot_product_attention(
            queries,
            keys,
            values,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal,
        )
        return self.outward(mixed.transpose(1, 2).reshape(batch, time, width))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers at each position, four times as wide in between."""

    def __init__(self, section: Transformer) -> None:
        super().__init__()
        self.inward = nn.Linear(section.width, 4 * section.width)
        self.activation = activation(section.activation)
        self.outward = nn.Linear(4 * section.width, section.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.outward(self.activation(self.inward(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Two branches f: x + f(norm(x)) with the norm before, norm(x + f(x)) with the norm after."""

    def __init__(self, section: Transformer) -> None:
        super().__init__()
        self.place = section.norm
        self.attention = Attention(section)
        self.feed_forward = FeedForward(section)
        self.norm_1 = _norm(section)
        self.norm_2 = _norm(section)
        self.dropout = nn.Dropout(section.dropout) if section.dropout else None

    def forward(self, x: Tensor) -> Tensor:
        x = self._branch(self.attention, self.norm_1, x)
        return self._branch(self.feed_forward, self.norm_2, x)

    def _branch(self, inner: nn.Module, norm: nn.Module | None, x: Tensor) -> Tensor:
        added: Tensor = inner(norm(x) if norm is not None and self.place == "pre" else x)
        total = x + (added if self.dropout is None else self.dropout(added))
        return norm(total) if norm is not None and self.place == "post" else total


class GPT(nn.Module):
    """Maps tokens (B, T), or (B, T, features), to (B, T, outputs), or (B, outputs) by the last."""

    def __init__(self, section: Transformer, shape: Shape) -> None:
        super().__init__()
        self.per_position = shape.per_position
        self.embedding: nn.Embedding | nn.Linear
        if shape.vocabulary is None:
            self.embedding = nn.Linear(shape.inputs[-1], section.width)
        else:
            self.embedding = nn.Embedding(shape.vocabulary, section.width)
        self.position = nn.Embedding(shape.inputs[0], section.width)
        self.dropout = nn.Dropout(section.dropout) if section.dropout else None
        self.blocks = nn.Sequential(*(Block(section) for _ in range(section.layers)))
        self.norm = _norm(section) if section.norm == "pre" else None
        self.head = nn.Linear(section.width, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        x = self.embedding(x) + self.position(positions)
        if self.dropout is not None:
            x = self.dropout(x)
        x = self.blocks(x)
        if not self.per_position:
            x = x[:, -1]
        if self.norm is not None:
            x = self.norm(x)
        return self.head(x)  # type: ignore[no-any-return]


def build(section: Transformer, shape: Shape) -> nn.Module:
    """The network with its start values; ValueError where samples are no sequences.

    The blocks are those of Radford et al. 2019 (GPT-2), and with `norm: post` those of Vaswani et
    al. 2017 (arXiv:1706.03762).
    """
    if len(shape.inputs) != (2 if shape.vocabulary is None else 1):
        raise ValueError(
            "name: transformer needs sequences of (time, features) or tokens; the data gives "
            f"samples of shape {shape.inputs}"
        )
    model = GPT(section, shape)
    if section.tie_weights:
        if shape.vocabulary != shape.outputs:
            tokens = "no tokens" if shape.vocabulary is None else f"{shape.vocabulary} tokens"
            message = f"the data has {tokens} and {shape.outputs} outputs"
            raise ValueError(f"tie_weights: {message}; it needs as many outputs as tokens")
        model.head.weight = model.embedding.weight
    output = None if section.tie_weights else model.head
    initialise(model, section.init, section.activation, output)
    if section.zero_init:
        for module in model.modules():
            if isinstance(module, Attention | FeedForward):
                for parameter in module.outward.parameters():
                    nn.init.zeros_(parameter)
    return model


def _norm(section: Transformer) -> nn.Module | None:
    return None if section.norm == "none" else nn.LayerNorm(section.width)
