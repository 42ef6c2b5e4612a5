"""Which layers lead to which? Branches of a model may meet only in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from torch.autograd.graph import Node

from trainer import graph


def ends(made_by: Mapping[str, Node]) -> dict[str, str]:
    """Of each layer the last one whose output hangs on its own, which may be itself; {} where the
    graph is too large.

    `made_by` are the nodes that made the outputs, in order of execution.
    """
    layers: dict[Node, list[str]] = {}
    for name, node in made_by.items():
        layers.setdefault(node, []).append(name)
    seen, found = set[Node](), dict[str, str]()
    with suppress(OverflowError):
        for end, last in reversed([*made_by.items()]):
            for node in graph.below(last, seen):
                found.update(dict.fromkeys(layers.get(node, ()), end))
        return found
    return {}
