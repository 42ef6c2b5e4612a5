"""The keys of a configuration's section `model.init`, for each kind of model that has one."""

from __future__ import annotations

from trainer.config.named import Named
from trainer.config.section import Section


class Initialisation(Section):
    """Start values of weights and biases: `default` is torch's own for each layer; else a function
    of torch.nn.init, such as `orthogonal_` or `{name: normal_, std: 0.1}`, whose argument `gain`
    may be `auto`: the activation's; or `module:Thing`, called with the tensor to fill."""

    hidden: Named = "default"
    """Of the weights of every layer but the last, embeddings included."""
    output: Named = "default"
    """Of the weights of the last layer."""
    bias: Named = "default"
    """Of the biases of all layers (norms aside)."""


class RecurrentInitialisation(Initialisation):
    """As for the other models; weights and biases of each gate are drawn on their own."""

    recurrent: Named = "default"
    """Of the weights from one step's state to the next, such as `{name: orthogonal_, gain: 1}`."""


class TransformerInitialisation(Initialisation):
    """As for the other models, with the defaults of GPT-2: its scale is `std`."""

    hidden: Named = {"name": "normal_", "std": 0.02}
    """Of the weights of every layer but the last, embeddings included."""
    output: Named = {"name": "normal_", "std": 0.02}
    """Of the weights of the last layer; not used when `tie_weights` makes them the embedding's."""
    bias: Named = "zeros"
    """Of the biases of all layers (norms aside)."""
