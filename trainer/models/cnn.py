"""Convolutional networks for images: LeNet, and ResNet with or without norm and skip."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from trainer.config.model_sections import Cnn
from trainer.data.table import Shape
from trainer.models.activations import activation
from trainer.models.initialisation import initialise


class Block(nn.Module):
    """Two convolutions of 3x3 and what skips them: act(norm(conv(act(norm(conv(x))))) + skip(x)).

    He et al. 2015 (arXiv:1512.03385), the basic block; `skip` is x itself, or a convolution of 1x1
    with norm where the shape changes. Without `section.skip` nothing is added.
    """

    def __init__(self, section: Cnn, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = convolution(section, inputs, outputs, 3, stride, padding=1)
        second = convolution(section, outputs, outputs, 3, 1, padding=1)
        first["activation"] = activation(section.activation)
        self.first, self.second = nn.Sequential(first), nn.Sequential(second)
        self.skip: nn.Module | None = None
        if section.skip and (stride, inputs) != (1, outputs):
            self.skip = nn.Sequential(convolution(section, inputs, outputs, 1, stride, padding=0))
        self.adds = section.skip
        self.activation = activation(section.activation)

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.second(self.first(x))
        if self.adds:
            inner = inner + (x if self.skip is None else self.skip(x))
        return self.activation(inner)  # type: ignore[no-any-return]


def build(section: Cnn, shape: Shape) -> nn.Module:
    """Maps images (B, channels, height, width) to (B, outputs); ValueError for other samples."""
    if len(shape.inputs) != 3 or shape.per_position:
        raise ValueError(
            "name: cnn needs images of (channels, height, width); the data gives samples of shape "
            f"{shape.inputs}"
        )
    if min(shape.inputs[1:]) < 4:
        size = f"{shape.inputs[1]}x{shape.inputs[2]}"
        raise ValueError(f"name: cnn needs images of 4x4 or more, and these are {size}")
    layers = _lenet(section, shape) if section.kind == "lenet" else _resnet(section, shape)
    model = nn.Sequential(OrderedDict(layers))
    initialise(model, section.init, section.activation, layers["head"])
    if section.zero_init:
        for block in model.modules():
            if isinstance(block, Block):
                for parameter in block.second[-1].parameters():  # the norm's, or else all
                    nn.init.zeros_(parameter)
    return model


def convolution(
    section: Cnn, inputs: int, outputs: int, kernel: int, stride: int, padding: int
) -> OrderedDict[str, nn.Module]:
    """A convolution and its norm, which makes a bias of the convolution needless."""
    plain = section.norm == "none"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["convolution"] = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=plain)
    if section.norm == "batch":
        layers["norm"] = nn.BatchNorm2d(outputs)
    elif not plain:
        groups = section.groups if section.norm == "group" else 1
        if outputs % groups:
            message = f"groups: {groups} groups do not divide {outputs} channels"
            raise ValueError(f"{message}; make every number of channels a multiple of it")
        layers["norm"] = nn.GroupNorm(groups, outputs)
    return layers


def _lenet(section: Cnn, shape: Shape) -> dict[str, nn.Module]:
    """LeNet-5 (LeCun et al. 1998) with the linear layers and the activation of today.

    An image or map smaller than its own (32 and 14) is padded, so that it keeps its size.
    """
    if section.channels and len(section.channels) != 2:
        raise ValueError(
            f"channels: a lenet has 2 convolutions, got {len(section.channels)} numbers"
        )
    channels, *size = shape.inputs
    layers: dict[str, nn.Module] = {}
    for index, (outputs, usual) in enumerate(
        zip(section.channels or [6, 16], (32, 14), strict=True), start=1
    ):
        padding = 2 if min(size) < usual else 0
        inside = convolution(section, channels, outputs, 5, 1, padding)
        inside["activation"] = activation(section.activation)
        inside["pool"] = nn.AvgPool2d(2)
        layers[f"stage_{index}"] = nn.Sequential(inside)
        channels, size = outputs, [(length - 4 + 2 * padding) // 2 for length in size]
    layers["flatten"] = nn.Flatten()
    widths = (channels * size[0] * size[1], 120, 84)
    for index, (inputs, width) in enumerate(pairwise(widths), start=1):
        inside = OrderedDict(linear=nn.Linear(inputs, width))
        inside["activation"] = activation(section.activation)
        if section.dropout:
            inside["dropout"] = nn.Dropout(section.dropout)
        layers[f"hidden_{index}"] = nn.Sequential(inside)
    layers["head"] = nn.Linear(widths[-1], shape.outputs)
    return layers


def _resnet(section: Cnn, shape: Shape) -> dict[str, nn.Module]:
    """The ResNet for small images of section 4.2 of the paper, with any stages."""
    stages = section.channels or [16, 32, 64]
    stem = convolution(section, shape.inputs[0], stages[0], 3, 1, padding=1)
    stem["activation"] = activation(section.activation)
    layers: dict[str, nn.Module] = {"stem": nn.Sequential(stem)}
    inputs = stages[0]
    for number, outputs in enumerate(stages, start=1):
        for index in range(1, section.blocks + 1):
            stride = 2 if number > 1 and index == 1 else 1
            layers[f"stage_{number}_block_{index}"] = Block(section, inputs, outputs, stride)
            inputs = outputs
    layers["pool"], layers["flatten"] = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    if section.dropout:
        layers["dropout"] = nn.Dropout(section.dropout)
    layers["head"] = nn.Linear(inputs, shape.outputs)
    return layers
