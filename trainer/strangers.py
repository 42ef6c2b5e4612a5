"""How many parameters does a loss hang on that are neither the model's nor any optimizer's?"""

from __future__ import annotations

import gc
import math

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer import graph


def count(model: nn.Module, loss: Tensor) -> float:
    """Their number; NaN for a loss without a graph or with too large a one.

    So are those of layers in a plain list, which no module knows, or that are made anew in every
    forward pass.
    """
    if loss.grad_fn is None:
        return math.nan
    own, found = {*map(id, model.parameters())}, dict[int, nn.Parameter]()
    try:
        for node in graph.below(loss.grad_fn, set()):
            leaf = getattr(node, "variable", None)  # of those that add up gradients
            if isinstance(leaf, nn.Parameter) and id(leaf) not in own:
                found[id(leaf)] = leaf
    except OverflowError:
        return math.nan
    if found:  # a search through all objects, of which some do things when asked for their class
        everything = gc.get_objects()
        optimizers = [thing for thing in everything if issubclass(type(thing), Optimizer)]
        held = {
            id(parameter)
            for optimizer in optimizers
            for group in getattr(optimizer, "param_groups", ())  # some have failed to be made
            for parameter in group["params"]
        }
        found = {key: leaf for key, leaf in found.items() if key not in held}
    return float(len(found))
