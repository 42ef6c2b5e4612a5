"""What does a model do to its output at last for which it has no module?"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

# Nodes of the graph, which tell what was done, and the modules that do the same.
MODULES: dict[str, type[nn.Module]] = {
    "SoftmaxBackward0": nn.Softmax,
    "LogSoftmaxBackward0": nn.LogSoftmax,
    "ReluBackward0": nn.ReLU,
    "SigmoidBackward0": nn.Sigmoid,
    "TanhBackward0": nn.Tanh,
}
RESHAPES = (
    "View",
    "UnsafeView",
    "ReshapeAlias",
    "Squeeze",
    "Unsqueeze",
    "Select",
    "Transpose",
    "T",
)
AT_MOST = 4  # of them, one after the other


def of(output: Tensor | None, layers: Iterable[nn.Module]) -> nn.Module | None:
    """A module of the activation whose result the output is, whatever its shape is since; None
    where there is none, or one of the layers is of its kind and may have made it."""
    node = None if output is None else output.grad_fn
    for _ in range(AT_MOST):
        if node is None:
            return None
        made = MODULES.get(node.name())
        if made is not None:
            return None if any(type(layer) is made for layer in layers) else made()
        if node.name().removesuffix("Backward0").rstrip("0123456789") not in RESHAPES:
            return None
        node = node.next_functions[0][0]
    return None


def name(activation: nn.Module) -> str:
    """What it is called among the layers: no module of a model has this name."""
    return f"forward.{type(activation).__name__.lower()}"
