"""An autoencoder: linear layers down to a code and, mirrored, back to the input."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from trainer.config.model_sections import Autoencoder
from trainer.data.table import Shape
from trainer.models.initialisation import initialise
from trainer.models.mlp import between, flat_features


def build(section: Autoencoder, shape: Shape) -> nn.Module:
    """Maps (B, *inputs) to (B, features), features being the values of one input.

    ValueError where the target is not the input.
    """
    features = flat_features("autoencoder", shape)
    if shape.classes or shape.outputs != features:
        target = f"{shape.outputs} {'classes' if shape.classes else 'values'}"
        raise ValueError(
            f"name: an autoencoder gives back the {features} values of an input, and the target "
            f"has {target}; set data.autoencode: true"
        )
    widths = [features, *section.widths]
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()} if len(shape.inputs) > 1 else {}
    layers["encoder"], decoder = _chain(section, widths), _chain(section, widths[::-1])
    layers["decoder"] = decoder
    model = nn.Sequential(OrderedDict(layers))
    initialise(model, section.init, section.activation, decoder[-1])
    return model


def _chain(section: Autoencoder, widths: list[int]) -> nn.Sequential:
    """Linear layers of these widths; norm, activation and dropout between them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        if index:
            for key, layer in between(section, inputs).items():
                layers[f"{key}_{index}"] = layer
        layers[f"linear_{index + 1}"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)
