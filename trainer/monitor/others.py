"""How many parameters does a loss hang on that are not the model's, and whose are they?"""

from __future__ import annotations

import gc
import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.monitor import graph


class Others(NamedTuple):
    """The numbers of parameters that are not the model's; NaN where nobody knows."""

    strangers: float  # that no optimizer has
    opponents: float  # that one has which has none of the model's, as a critic's


UNKNOWN = Others(math.nan, math.nan)


def count(model: nn.Module, loss: Tensor) -> Others:
    """Of what the loss hangs on; unknown for one without a graph or with too large a one.

    Strangers are also those of layers in a plain list, which no module knows, or that are made anew
    in every forward pass.
    """
    if loss.grad_fn is None:
        return UNKNOWN
    own, found = {*map(id, model.parameters())}, set[int]()
    try:
        for node in graph.below(loss.grad_fn, set()):
            leaf = getattr(node, "variable", None)  # of those that add up gradients
            if isinstance(leaf, nn.Parameter) and id(leaf) not in own:
                found.add(id(leaf))
    except OverflowError:
        return UNKNOWN
    together, apart = set[int](), set[int]()
    for held in held_by_optimizers() if found else ():
        (apart if own.isdisjoint(held) else together).update(held)
    found -= together
    return Others(float(len(found - apart)), float(len(found & apart)))


def held_by_optimizers() -> list[set[int]]:
    """The parameters, by their `id`, of each optimizer that there is in this process."""
    # A search through all objects, of which some do things when asked for their class.
    optimizers = [thing for thing in gc.get_objects() if issubclass(type(thing), Optimizer)]
    every = [getattr(each, "param_groups", ()) for each in optimizers]  # some failed to be made
    return [{id(each) for group in groups for each in group["params"]} for groups in every]
