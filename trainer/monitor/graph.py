"""The nodes of autograd's graph, those on which others hang after them."""

from __future__ import annotations

from collections.abc import Iterator

from torch.autograd.graph import Node

# Nodes that are looked at: each then has an object of Python's, and those that follow each other
# are freed one inside the other, which is more than a stack holds of some thousands.
MOST = 1000


def below(node: Node, seen: set[Node]) -> Iterator[Node]:
    """The node and all that it hangs on which are not in `seen`, where they are put.

    OverflowError where they are more than MOST with those that were there.
    """
    ahead = [] if node in seen else [node]
    seen.update(ahead)
    while ahead:
        node = ahead.pop()
        yield node
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                ahead.append(after)
        if len(seen) > MOST:
            raise OverflowError(f"a graph of more than {MOST} nodes")
