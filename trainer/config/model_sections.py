"""The keys of a configuration's section `model`, for each kind of model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, ValidationInfo, field_validator

from trainer.config.initialisation_sections import (
    Initialisation,
    RecurrentInitialisation,
    TransformerInitialisation,
)
from trainer.config.named import Named
from trainer.config.section import (
    Boolean,
    CustomName,
    Float,
    Integer,
    Numbers,
    OpenSection,
    Section,
    by_name,
)

Layers = Annotated[Integer, Field(gt=0, le=1000)]
Width = Annotated[Integer, Field(gt=0, le=1_000_000)]
Widths = Annotated[list[Width], Field(min_length=1, max_length=1000)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]


class Linear(Section):
    """Y = X·W + b, with scalar W and b when there is one input and one output."""

    name: Literal["linear"]
    """A linear model of any number of inputs and outputs."""
    weight: Numbers = None
    """Start value of W: a number (used throughout) or a list of inputs lists of outputs numbers;
    null to draw it from a standard normal distribution."""
    bias: Numbers = None
    """Start value of b: a number or a list with one number per output; null as for `weight`."""


class Mlp(Section):
    """Hidden layers, each with all of the layer before."""

    name: Literal["mlp"]
    """A multilayer perceptron: linear layers with an activation in between."""
    depth: Layers = 2
    """Number of hidden layers."""
    width: Width = 64
    """Width of each hidden layer."""
    widths: Widths | None = None
    """The width of every hidden layer, in place of `depth` and `width`."""
    activation: Named = "relu"
    """A class of torch.nn, `exponential`, or `module:Thing`; arguments as in
    `{name: leakyrelu, negative_slope: 0.1}`."""
    norm: Literal["none", "batch", "layer", "rms"] = "none"
    """What normalises a hidden layer before its activation."""
    residual: Boolean = False
    """Whether norm, activation and linear layer are added to what enters them."""
    zero_init: Boolean = False
    """Whether the linear layer of each residual branch starts at zero: the branch adds nothing."""
    dropout: Fraction = 0.0
    """Fraction of the values dropped after each activation."""
    init: Initialisation = Initialisation()
    """How weights and biases start."""

    @field_validator("widths")
    @classmethod
    def _widths_alone(cls, widths: list[int] | None, info: ValidationInfo) -> list[int] | None:
        for key in ("depth", "width"):
            if widths and info.data.get(key) not in (None, cls.model_fields[key].default):
                raise ValueError(f"this says every hidden layer's width: leave out {key}")
        return widths

    @field_validator("residual")
    @classmethod
    def _widths_equal(cls, residual: bool, info: ValidationInfo) -> bool:
        widths = info.data.get("widths") or [0]
        if residual and len(set(widths)) > 1:
            listed = ", ".join(map(str, widths))
            raise ValueError(f"a sum needs equal widths, and widths are {listed}; make them equal")
        return residual

    @field_validator("zero_init")
    @classmethod
    def _has_branches(cls, zero_init: bool, info: ValidationInfo) -> bool:
        if zero_init and not info.data.get("residual"):
            raise ValueError("there are no residual branches; set residual: true")
        return zero_init


class Cnn(Section):
    """Convolutions over images."""

    name: Literal["cnn"]
    """A convolutional network for images of any size from 4x4."""
    kind: Literal["lenet", "resnet"] = "resnet"
    """`lenet`: two convolutions of 5x5, each halved, and two hidden linear layers of 120 and 84;
    `resnet`: stages of residual blocks of two convolutions of 3x3, halved between stages."""
    channels: Widths | None = None
    """Channels of each convolution (lenet) or stage (resnet); null for 6, 16 and 16, 32, 64."""
    blocks: Layers = 2
    """Blocks in each stage (resnet)."""
    skip: Boolean = True
    """Whether a block is added to what enters it (resnet); false makes the network plain."""
    zero_init: Boolean = False
    """Whether the last layer of each residual branch starts at zero (resnet): its norm's weight, or
    its convolution without a norm."""
    activation: Named = "relu"
    """As for `mlp`."""
    norm: Literal["none", "batch", "group", "layer"] = "batch"
    """What normalises after each convolution; `layer` is one group of all channels."""
    groups: Width = 8
    """Number of groups of the norm `group`; it divides every number of channels."""
    dropout: Fraction = 0.0
    """Fraction of the values dropped before each linear layer but the first of lenet."""
    init: Initialisation = Initialisation()
    """How weights and biases start."""

    @field_validator("blocks", "skip", "zero_init")
    @classmethod
    def _of_resnet(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[info.field_name or ""].default
        if info.data.get("kind") == "lenet" and value != default:
            raise ValueError("only a resnet has this key; leave it out or set kind: resnet")
        return value

    @field_validator("zero_init")
    @classmethod
    def _has_branches(cls, zero_init: bool, info: ValidationInfo) -> bool:
        if zero_init and info.data.get("skip") is False:
            raise ValueError("there are no residual branches; set skip: true")
        return zero_init


class Rnn(Section):
    """A state carried along a sequence."""

    name: Literal["rnn"]
    """A recurrent network for sequences of numbers or tokens."""
    kind: Literal["rnn", "lstm", "gru"] = "rnn"
    """torch.nn.RNN, LSTM or GRU."""
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    """Activation of the state (rnn; the others have their own)."""
    layers: Layers = 1
    """Number of recurrent layers, each reading the one before."""
    hidden_size: Width = 64
    """Values of the state (per direction), and of the embedding of tokens."""
    bidirectional: Boolean = False
    """Whether each layer also reads from the end."""
    forget_bias: Float | None = None
    """Start value of the bias of the forget gate (lstm), such as 1.0 for states that last; null to
    start as the other biases."""
    dropout: Fraction = 0.0
    """Fraction of the values dropped between layers."""
    init: RecurrentInitialisation = RecurrentInitialisation()
    """How weights and biases start."""

    @field_validator("nonlinearity", "forget_bias")
    @classmethod
    def _of_kind(cls, value: Any, info: ValidationInfo) -> Any:
        owner = {"nonlinearity": "rnn", "forget_bias": "lstm"}[info.field_name or ""]
        default = cls.model_fields[info.field_name or ""].default
        if info.data.get("kind") not in (owner, None) and value != default:
            raise ValueError(f"only kind: {owner} has this key; leave it out")
        return value


class Transformer(Section):
    """Attention over a sequence."""

    name: Literal["transformer"]
    """A small GPT for sequences of tokens or numbers; positions are learnt."""
    layers: Layers = 4
    """Number of blocks of attention and two linear layers."""
    width: Width = 64
    """Values per position; four times as many inside the two linear layers."""
    heads: Annotated[Width, Field(validate_default=True)] = 4
    """Heads of attention, each with its part of the width."""
    norm: Literal["pre", "post", "none"] = "pre"
    """Whether layer norms stand at the start of each branch (and before the output), or after each
    sum, as in the first transformers."""
    causal: Boolean = True
    """Whether a position sees only itself and those before it."""
    tie_weights: Boolean = False
    """Whether the output layer has the weights of the embedding of tokens."""
    zero_init: Boolean = False
    """Whether the last linear layer of each residual branch starts at zero."""
    activation: Named = "gelu"
    """As for `mlp`."""
    dropout: Fraction = 0.0
    """Fraction of the values dropped after the embedding, in attention and at a branch's end."""
    init: TransformerInitialisation = TransformerInitialisation()
    """How weights and biases start."""

    @field_validator("heads")
    @classmethod
    def _divide(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", heads)
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}; make it a multiple")
        return heads


class Autoencoder(Section):
    """The way through a narrow code and back."""

    name: Literal["autoencoder"]
    """An encoder of linear layers and its mirror image; the target is the input, flattened."""
    widths: Widths = [128, 32]
    """Widths of the encoder's layers, the last of them the code's."""
    activation: Named = "relu"
    """As for `mlp`; after every layer but the code and the output."""
    norm: Literal["none", "batch", "layer", "rms"] = "none"
    """What normalises a layer before its activation."""
    dropout: Fraction = 0.0
    """Fraction of the values dropped after each activation."""
    init: Initialisation = Initialisation()
    """How weights and biases start."""


class CustomModel(OpenSection):
    """The user's own model: a class or function called with the other keys of its section."""

    name: CustomName
    """`package.module:Thing`; calling it gives a torch.nn.Module."""


MODEL_KINDS: tuple[type[Section], ...] = (
    Linear,
    Mlp,
    Cnn,
    Rnn,
    Transformer,
    Autoencoder,
    CustomModel,
)

Model = Annotated[
    Annotated[Linear, Tag("Linear")]
    | Annotated[Mlp, Tag("Mlp")]
    | Annotated[Cnn, Tag("Cnn")]
    | Annotated[Rnn, Tag("Rnn")]
    | Annotated[Transformer, Tag("Transformer")]
    | Annotated[Autoencoder, Tag("Autoencoder")]
    | Annotated[CustomModel, Tag("CustomModel")],
    by_name(MODEL_KINDS),
]
