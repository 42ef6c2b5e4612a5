"""A multilayer perceptron: linear layers with norm, activation and dropout in between."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from trainer.config.model_sections import Autoencoder, Mlp
from trainer.data.table import Shape
from trainer.models.activations import activation
from trainer.models.initialisation import initialise

NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm}


class Residual(nn.Sequential):
    """x + f(x), f being the modules in their order."""

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + inner


def build(section: Mlp, shape: Shape) -> nn.Module:
    """Maps (B, *inputs) to (B, outputs): flatten, stem, block_2 … block_<depth>, last, head.

    A block is norm, activation, dropout, linear: a skip goes around exactly these (pre-activation,
    He et al. 2016, arXiv:1603.05027), so that networks with and without have the same layers.
    """
    features = flat_features("mlp", shape)
    widths = section.widths or [section.width] * section.depth
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()} if len(shape.inputs) > 1 else {}
    layers["stem"] = nn.Linear(features, widths[0])
    for depth, (inputs, outputs) in enumerate(pairwise(widths), start=2):
        inside = OrderedDict(between(section, inputs), linear=nn.Linear(inputs, outputs))
        layers[f"block_{depth}"] = Residual(inside) if section.residual else nn.Sequential(inside)
    layers["last"] = nn.Sequential(OrderedDict(between(section, widths[-1])))
    layers["head"] = nn.Linear(widths[-1], shape.outputs)
    model = nn.Sequential(OrderedDict(layers))
    initialise(model, section.init, section.activation, layers["head"])
    if section.zero_init:
        for block in model:
            if isinstance(block, Residual):
                for parameter in block[-1].parameters():
                    nn.init.zeros_(parameter)
    return model


def between(section: Mlp | Autoencoder, width: int) -> dict[str, nn.Module]:
    """What stands between two linear layers: norm, activation and dropout, where configured."""
    layers: dict[str, nn.Module] = {}
    if section.norm != "none":
        layers["norm"] = NORMS[section.norm](width)
    layers["activation"] = activation(section.activation)
    if section.dropout:
        layers["dropout"] = nn.Dropout(section.dropout)
    return layers


def flat_features(name: str, shape: Shape) -> int:
    """The number of values of a sample; ValueError where they are tokens or no sample is one."""
    if shape.vocabulary is not None or shape.per_position:
        raise ValueError(
            f"name: {name} needs numbers and one target per sample; the data gives "
            f"{'tokens' if shape.vocabulary is not None else 'one target per position'}; "
            "use rnn or transformer"
        )
    return prod(shape.inputs)
