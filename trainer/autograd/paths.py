"""Which nodes of the recorded graph lead from ys to xs, and how to close some for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge


def node_of(tensor: Tensor) -> Node:
    """The node that receives the gradient of `tensor`, which must require grad."""
    return get_gradient_edge(tensor).node if tensor.grad_fn is None else tensor.grad_fn


def followers(node: Node) -> set[Node]:
    """The nodes that the gradients computed by `node` go to."""
    return {following for following, _ in node.next_functions if following is not None}


def reachable(start: Iterable[Node], stopped: Set[Node] = frozenset()) -> set[Node]:
    """`start` and all nodes that its gradients arrive at, going through none of `stopped`."""
    found = set(start)
    pending = list(found)
    while pending:
        node = pending.pop()
        if node not in stopped:
            new = followers(node) - found
            found |= new
            pending += new
    return found


class Paths:
    """The ways from ys against the direction of computation that do not lead through stops.

    A node is to autograd what an operation is to TensorFlow; like TensorFlow's, a stop closes all
    outputs of its operation.
    """

    def __init__(self, ys: Iterable[Tensor], stops: Iterable[Tensor]) -> None:
        self.stopped = {node_of(tensor) for tensor in stops if tensor.requires_grad}
        self.open = reachable((node_of(y) for y in ys), self.stopped)

    def lead_to(self, x: Tensor) -> bool:
        return node_of(x) in self.open

    def to_close(self) -> set[Node]:
        """The nodes whose results must be dropped for gradients to flow on open ways only.

        Empty if no stop lies between. Nodes behind a stop get no gradient, but some (custom
        functions) make zeros of that, or nan, so the last ones before an open way are closed too.
        """
        stopped = self.stopped & self.open
        behind = reachable(stopped) - self.open
        last = {node for node in stopped | behind if not self.open.isdisjoint(followers(node))}
        return stopped | last if last else set()


def unused_outputs(
    missing: Sequence[int], xs: Sequence[Tensor], ys: Sequence[Tensor], stops: Sequence[Tensor]
) -> list[int]:
    """The positions, of those where xs have no gradient, where TensorFlow has zeros, not None.

    To differentiate an operation with several outputs it fills in zeros for those that no y uses;
    it does so where another output is used and another x lies upstream of the operation.
    """
    several = [
        position
        for position in missing
        if (node := xs[position].grad_fn) is not None and len(node._input_metadata) > 1
    ]
    if not several:
        return []
    paths = Paths([y for y in ys if y.requires_grad], stops)
    of_xs = {node_of(x) for x in xs if x.requires_grad}
    return [
        position
        for position in several
        if (node := node_of(xs[position])) in paths.open - paths.stopped
        and of_xs & reachable(followers(node))
    ]


@contextmanager
def closed(nodes: Set[Node], ys: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Stand-ins for ys: what is differentiated from them within goes through none of `nodes`.

    Without nodes, ys themselves. Other passes through the same graph, from other threads, are left
    alone: the first node of every stand-in is ours only, and tells which pass is.
    """
    if not nodes:
        yield list(ys)
        return
    our_pass = -1

    def note(_gradients: tuple[Tensor, ...]) -> None:
        nonlocal our_pass
        our_pass = torch._C._current_graph_task_id()

    def drop(results: tuple[Tensor, ...], _gradients: tuple[Tensor, ...]) -> object:
        ours = torch._C._current_graph_task_id() == our_pass
        return (None,) * len(results) if ours else None

    with ExitStack() as hooks:
        with torch.enable_grad():
            stand_ins = [y.view_as(y) for y in ys]
        for stand_in in stand_ins:
            hooks.callback(node_of(stand_in).register_prehook(note).remove)
        for node in nodes:
            hooks.callback(node.register_hook(drop).remove)
        yield stand_ins
