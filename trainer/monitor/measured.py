"""What was measured of the layers in one step, and the table that it makes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from trainer import statistics
from trainer.monitor import branches, recurrence
from trainer.monitor.held import Held
from trainer.monitor.layer_calls import answers, ends, joined, mean, merged, spread, with_ends
from trainer.monitor.layers import dtype_name, is_in_memory
from trainer.record import BINS, ENDS, INPUT, MOMENTS, SIGNALS, TIME_STEPS, LayerTable

_INPUT = ""  # where layers have their names: no module inside another has this one
MOST_OUTPUTS = 1 << 17  # of one step
_TOO_MANY = (
    f"more than {MOST_OUTPUTS:,} outputs of layers since the last step: forward passes that no "
    "step follows belong under torch.no_grad()"
)


class Measured:
    """The outputs of layers and the gradients that came back to them, as they arrive.

    From several threads, as nn.DataParallel makes them, they may arrive at once.
    """

    def __init__(self, histograms: bool, weights: Mapping[int, str] | None = None) -> None:
        self._histograms = histograms  # whether the gradients get one
        self._weights = weights or {}  # names of those that no layer has, by their `id`
        self.edges: list[RemovableHandle] = []  # on the graph, where such are used step after step
        self._rows: dict[str, int] = {}  # of each layer, in order of arrival
        self._kinds: list[str] = []  # in that order
        self._dtypes: list[str] = []
        self._places: list[int] = []  # of each row, in order of execution
        self._noted: dict[str, int] = {}  # places of what was executed without a graph
        self._next = 0
        self._passes: list[int] = []  # of each output the forward pass; -1 for no such call
        self._made_by: dict[str, list[Node]] = {}  # the outputs of each layer that have a graph
        self._pass = 0  # the forward pass of the newest of them
        self._leads = True  # whether these tell which layer leads where
        self._ends: dict[str, str] = {}  # of each layer, as `branches` says
        self._calls: list[int] = []  # of each gradient, the number of the output that it is of
        self._outputs = Held(lambda outputs: (statistics.signals(outputs),))
        self._gradients = Held(lambda gradients: statistics.summarize(gradients, histograms))
        self._lock = threading.RLock()

    @property
    def outputs(self) -> int:
        """How many there are so far."""
        return len(self._passes)

    def row(self, name: str) -> int | None:
        """The row of a layer; None as long as nothing of it was measured."""
        return self._rows.get(name)

    @property
    def has_input(self) -> bool:
        """Whether there is what a first layer was given."""
        return _INPUT in self._rows

    def input(self, tensor: Tensor) -> None:
        """Takes what the first layer is given."""
        self.output(_INPUT, INPUT, tensor)

    def note(self, name: str) -> None:
        """A layer was executed without a graph: its place, should it be computed again."""
        self._noted.setdefault(name, self._place())

    def output(
        self, name: str, kind: str, tensor: Tensor, forward: int = -1, again: bool = False
    ) -> tuple[int, int]:
        """Takes what a layer puts out now, since what follows may work in place; its row and the
        number of the output. OverflowError where they are too many.

        What is computed `again` for the backward pass has the place that was noted.
        """
        seen = tensor.detach()
        if kind.endswith("1d") and seen.dim() == 3:  # (batch, channels, length), as images are
            seen = seen.unsqueeze(-1)
        if len(self._passes) >= MOST_OUTPUTS:
            raise OverflowError(_TOO_MANY)
        with self._lock:
            if (row := self._rows.get(name)) is None:
                row = self._rows[name] = len(self._rows)
                place = -1 if kind == INPUT else self._place()
                self._places.append(self._noted.get(name, place) if again else place)
                self._kinds.append(kind)
                self._dtypes.append(dtype_name(tensor.dtype))
            self._outputs.add(row, seen, copy=True)
            self._passes.append(forward)
            return row, len(self._passes) - 1

    def made(self, name: str, node: Node, forward: int, again: bool) -> None:
        """Takes the node of the graph that made an output of this layer in a forward pass.

        A node keeps all that its pass has saved: it goes when the first gradient comes back, or
        with the next pass where none does. The graph of what is computed `again` ends where that
        begins, and tells nothing of layers that had none before.
        """
        with self._lock:
            if forward != self._pass:
                self._pass, self._made_by = forward, {}
            if name in self._ends or (again and name in self._made_by):
                return
            self._leads &= not again
            if self._leads:
                self._made_by.setdefault(name, []).append(node)

    def gradient(self, row: int, gradient: Tensor, call: int = -1, copy: bool = False) -> None:
        """Takes the gradient of an output of this row, which is the output of this number."""
        with self._lock:
            if self._made_by:
                seen = set[Node]()
                found = branches.ends(self._made_by, seen)
                self._ends, self._made_by = self._ends | found, {}
                self._leads = self._leads and bool(found)
                if found and self._weights:
                    self._listen(recurrence.steps(seen, self._weights))
            self._gradients.add(row, gradient.detach(), copy)
            self._calls.append(call)

    def _listen(self, loops: Mapping[str, tuple[Tensor, list[Node]]]) -> None:
        """Takes the gradients that come to the first and to the last uses of weights in a loop,
        and for the outputs there the weights."""
        for name, (weight, nodes) in loops.items():
            if f"{name}.{ENDS[0]}" in self._rows:
                continue
            quarter = len(nodes) // 4
            for end, part in zip(ENDS, (nodes[:quarter], nodes[-quarter:]), strict=True):
                row, call = self.output(f"{name}.{end}", TIME_STEPS, weight)
                for node in part:
                    self.edges.append(node.register_prehook(partial(self._stepped, row, call)))

    def _stepped(self, row: int, call: int, gradients: tuple[Tensor | None, ...]) -> None:
        gradient = gradients[0]
        with suppress(Exception):  # which is no reason to stop training
            if gradient is not None and is_in_memory(gradient):
                self.gradient(row, gradient, call)

    def end(self, given: Tensor | None) -> None:
        """Measures what is held, and what the first layer was given if that shows only now; the
        graph is not held any longer."""
        if given is not None:
            self.input(given)
        with self._lock:
            self._outputs.measure()
            self._gradients.measure()
            self._made_by = {}

    def results(self) -> list[Tensor]:
        """What was measured, on its devices; `table` takes the same back as arrays."""
        groups = [*zip(*self._outputs.measured, strict=True)]
        groups += zip(*self._gradients.measured, strict=True)
        return [part for group in groups for part in group if part is not None]

    def table(self, results: list[NDArray[Any]]) -> LayerTable:
        """The statistics by layer; those of a layer that was called several times are merged."""
        outputs, gradients = len(self._outputs.measured), len(self._gradients.measured)
        signals = joined(results[:outputs], SIGNALS, np.float64)
        moments = joined(results[outputs : outputs + gradients], MOMENTS, np.float64)
        counts = None
        if self._histograms:
            counts = joined(results[outputs + gradients :], BINS, np.int64)
        called, reached = self._outputs.layers, np.array(self._gradients.layers, np.intp)
        rows = [*zip((n or "input" for n in self._rows), self._kinds, self._dtypes, strict=True)]
        order = sorted(range(len(rows)), key=self._places.__getitem__)
        if order != [*range(len(rows))]:
            place = np.argsort(order)  # of each row
            rows = [rows[row] for row in order]
            reached, called = place[reached], place[called].tolist()
            if len(called) == len(rows):
                signals = signals[np.argsort(called)]
        if len(called) > len(rows):
            loops, layers = ends(called, self._passes), len(rows)
            rows = with_ends(rows, loops)
            numbers, row = spread(called, layers, loops)
            sizes = np.array(self._outputs.sizes, np.float64)[numbers]
            signals = mean(signals[numbers], sizes, row, len(rows))
            numbers, reached = spread(reached.tolist(), layers, answers(loops, self._calls))
            moments, counts = moments[numbers], None if counts is None else counts[numbers]
        names, kinds, dtypes = zip(*rows, strict=True) if rows else ((), (), ())
        table = merged(names, reached, moments, counts)
        rms, zeros, fraction, dead = signals.T
        last = {name: self._ends[name] for name in table.names if name in self._ends}
        several = self._leads and len({*last.values()}) > 1
        leads_to = tuple(last.get(name, "") for name in names) if several else ()
        return LayerTable(names, kinds, dtypes, rms, zeros, fraction, dead, table, leads_to)

    def _place(self) -> int:
        self._next += 1
        return self._next
