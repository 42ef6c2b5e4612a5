"""Recurrent networks for sequences: torch's RNN, LSTM and GRU, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.config.model_sections import Rnn
from trainer.data.table import Shape
from trainer.models.initialisation import fill, initialise

GATES = {"rnn": 1, "gru": 3, "lstm": 4}
FORGET = 1  # torch's order of an LSTM's gates: input, forget, cell, output


class Recurrent(nn.Module):
    """Maps (B, T, features), or tokens (B, T), to (B, outputs) or (B, T, outputs).

    Each layer is a module of its own, so that its output and gradient can be watched. One
    prediction per sample is made from the last step, in the direction of reading.
    """

    def __init__(self, section: Rnn, shape: Shape) -> None:
        super().__init__()
        size, directions = section.hidden_size, 1 + section.bidirectional
        self.size, self.per_position = size, shape.per_position
        self.embedding: nn.Embedding | None = None
        inputs = shape.inputs[-1]
        if shape.vocabulary is not None:
            self.embedding, inputs = nn.Embedding(shape.vocabulary, size), size
        self.layers = nn.ModuleList()
        for _ in range(section.layers):
            self.layers.append(_layer(section, inputs))
            inputs = size * directions
        self.dropout = nn.Dropout(section.dropout) if section.dropout else None
        self.head = nn.Linear(inputs, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            x = self.embedding(x)
        for index, layer in enumerate(self.layers):
            if index and self.dropout is not None:
                x = self.dropout(x)
            x, _ = layer(x)
        if not self.per_position:
            ends = x[:, -1, : self.size], x[:, 0, self.size :]  # what was read last, both ways
            x = ends[0] if x.shape[2] == self.size else torch.cat(ends, dim=1)
        return self.head(x)  # type: ignore[no-any-return]


def build(section: Rnn, shape: Shape) -> nn.Module:
    """The network with its start values; ValueError where samples are no sequences."""
    if len(shape.inputs) != (2 if shape.vocabulary is None else 1):
        raise ValueError(
            "name: rnn needs sequences of (time, features) or tokens; the data gives samples of "
            f"shape {shape.inputs}"
        )
    model = Recurrent(section, shape)
    activation = section.nonlinearity if section.kind == "rnn" else "tanh"
    init = section.init
    initialise(model, init, activation, model.head)
    for layer in model.layers:
        for name, parameter in layer.named_parameters():
            value = init.bias if name.startswith("bias") else init.hidden
            value = init.recurrent if name.startswith("weight_hh") else value
            for gate in parameter.chunk(GATES[section.kind]):
                fill(gate, value, activation)
            if section.forget_bias is not None and name.startswith("bias"):
                # The two biases of a gate are added: one carries the value.
                carried = section.forget_bias if name.startswith("bias_ih") else 0.0
                nn.init.constant_(parameter.detach().chunk(GATES["lstm"])[FORGET], carried)
    return model


def _layer(section: Rnn, inputs: int) -> nn.RNNBase:
    size, both = section.hidden_size, section.bidirectional
    match section.kind:
        case "lstm":
            return nn.LSTM(inputs, size, batch_first=True, bidirectional=both)
        case "gru":
            return nn.GRU(inputs, size, batch_first=True, bidirectional=both)
    nonlinearity = section.nonlinearity
    return nn.RNN(inputs, size, nonlinearity=nonlinearity, batch_first=True, bidirectional=both)
