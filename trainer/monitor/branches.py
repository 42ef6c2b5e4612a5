"""Which layers lead to which? Branches of a model may meet only in the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from torch.autograd.graph import Node

from trainer.monitor import graph


def ends(made_by: Mapping[str, Sequence[Node]], seen: set[Node]) -> dict[str, str]:
    """Of each layer the last one of which some output hangs on some of its own, which may be
    itself; {} where the graph is too large.

    `made_by` are the nodes that made their outputs, layer by layer in order of execution; all of
    the graph goes into `seen`.
    """
    layers: dict[Node, list[str]] = {}
    for name, nodes in made_by.items():
        for node in nodes:
            layers.setdefault(node, []).append(name)
    found = dict[str, str]()
    with suppress(OverflowError):
        for end, nodes in reversed([*made_by.items()]):
            for node in (each for last in nodes for each in graph.below(last, seen)):
                for name in layers.get(node, ()):
                    found.setdefault(name, end)
        return found
    return {}
