"""Which weights does a pass use step after step without a layer that is called? The graph tells."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.autograd.graph import Node

from trainer.monitor.time_steps import SHORTEST

# What gives the same values in another shape or type.
VIEWS = frozenset(
    f"{name}Backward0"
    for name in (
        *("T", "Transpose", "Permute", "Unsqueeze", "View", "Reshape", "Expand", "Alias"),
        "ToCopy",
    )
)
# What takes a part of the values, as of a sequence at each of its steps.
PARTS = frozenset(
    f"{name}Backward0"
    for name in ("Select", "Slice", "Split", "SplitWithSizes", "Unbind", "Index", "IndexSelect")
)
GATE = "SigmoidBackward0"


def steps(nodes: Iterable[Node], names: Mapping[int, str]) -> dict[str, tuple[Tensor, list[Node]]]:
    """A weight and the nodes of the operations that use it, in their order, each of which hangs on
    the one before: each matrix that SHORTEST of one kind use, else a vector that they do.

    `names` has those of the parameters by their `id`. {} where there are as many sigmoids: gates
    begin with less of a gradient and open, which nobody would know of these; and where the same
    values are used as often, as they are on the way to a fixed point, which forgets where it began.
    """
    users: dict[tuple[str, str], list[Node]] = defaultdict(list)
    weights, gates, given = dict[str, Tensor](), 0, Counter[tuple[Node, int]]()
    for node in nodes:
        kind = node.name()
        gates += kind == GATE
        if kind in VIEWS:
            continue
        for after, number in node.next_functions:
            weight = _weight(after)
            if weight is None and after is not None and kind not in PARTS:
                given[after, number] += 1
            if weight is not None and (name := names.get(id(weight))) is not None:
                users[name, kind].append(node)
                weights[name] = weight.detach()
    if max(gates, *given.values(), 0) >= SHORTEST:
        return {}
    found: dict[str, tuple[Tensor, list[Node]]] = {}
    order = {name: place for place, name in enumerate(names.values())}
    of_each = sorted(
        users.items(), key=lambda each: (-weights[each[0][0]].dim(), order[each[0][0]])
    )
    for (name, _), uses in of_each:
        if weights[name].dim() < 2 and found or len(uses) < SHORTEST:
            continue
        uses.sort(key=lambda node: node._sequence_nr())
        if _hangs_on(uses[1], uses[0], uses):
            found[name] = weights[name], uses
    return found


def _weight(node: Node | None) -> Tensor | None:
    """The parameter that a node stands for, or for a view of."""
    while node is not None and node.name() in VIEWS:
        node = node.next_functions[0][0]
    return getattr(node, "variable", None)


def _hangs_on(later: Node, earlier: Node, others: list[Node]) -> bool:
    """Whether a way leads from one use to the one before, and through none of the others."""
    seen, ahead = {*others}, [later]
    while ahead:
        for after, _ in ahead.pop().next_functions:
            if after == earlier:
                return True
            if after is not None and after not in seen:
                seen.add(after)
                ahead.append(after)
    return False
