"""Trees of plain values and tensors as JSON and named tensors, and back: reading runs no code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

PLAIN = (bool, int, float, str)  # as JSON holds them


def packed(tree: Any, tensors: dict[str, Tensor], path: str = "") -> Any:
    """The tree as values of JSON; its tensors are added to `tensors`.

    TypeError where something is neither a tensor nor None, a bool, a number, a text, a list, a
    tuple or a dict of such.
    """
    if tree is None or isinstance(tree, PLAIN):
        return tree
    if isinstance(tree, Tensor):
        name = path
        while name in tensors:
            name += "'"
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, dict):
        kind = "counter" if isinstance(tree, Counter) else "dict"
        both = [
            [packed(key, tensors, path), packed(value, tensors, f"{path}.{key}" if path else key)]
            for key, value in tree.items()
        ]
        return {kind: both}
    if isinstance(tree, list | tuple):
        items = [packed(item, tensors, f"{path}.{number}") for number, item in enumerate(tree)]
        return {"tuple": items} if isinstance(tree, tuple) else items
    raise TypeError(f"{path} is a {type(tree).__name__}, which a checkpoint cannot hold")


def pairs(tree: Any) -> str:
    """The JSON of what a packed dict holds."""
    return json.dumps(tree["dict"])[1:-1]


def joined(*texts: str) -> str:
    """The JSON of a packed dict of what several dicts hold, of each its `pairs`."""
    return f'{{"dict": [{", ".join(filter(None, texts))}]}}'


def unpacked(values: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree of which `packed` made the values; KeyError or ValueError where they are none."""
    if isinstance(values, list):
        return [unpacked(item, tensors) for item in values]
    if not isinstance(values, dict):
        return values
    ((kind, content),) = values.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(unpacked(item, tensors) for item in content)
    if kind in ("dict", "counter"):
        tree = {unpacked(key, tensors): unpacked(value, tensors) for key, value in content}
        return Counter(tree) if kind == "counter" else tree
    raise ValueError(f"holds an unknown kind of value, {kind!r:.40}")
