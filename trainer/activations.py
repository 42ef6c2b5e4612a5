"""What the layers of a model put out, and what gradient comes back to them, in chosen steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.hooks import RemovableHandle

from trainer import statistics
from trainer.record import BINS, LayerTable, TensorTable


class Activations:
    """Measures every call of every layer from `watch` to `release`; nothing is left attached after.

    A layer is a module without children or with parameters of its own, and its output the first
    floating-point tensor it returns. The gradient is taken by a hook on the edge that the output
    has when it is made: a later operation in place does not change what is measured.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        self._layers = [(n, m) for n, m in layers(model) if wanted(n)]
        self._handles: list[RemovableHandle] = []
        self._order: dict[str, int] = {}  # of first execution
        self._outputs: list[tuple[int, int, Tensor]] = []  # layer, values, (3,) of `signal`
        self._gradients: list[tuple[int, Tensor, Tensor | None]] = []  # layer, moments, histogram
        self._histograms = False
        self.seconds = 0.0  # spent measuring since `watch`

    @property
    def watching(self) -> bool:
        """Whether hooks are attached."""
        return bool(self._handles)

    def watch(self, histograms: bool) -> None:
        """Attaches the hooks; `histograms` adds those of the gradients."""
        self.release()
        self._order, self._outputs, self._gradients = {}, [], []
        self._histograms, self.seconds = histograms, 0.0
        for name, module in self._layers:
            self._handles.append(module.register_forward_hook(partial(self._called, name)))

    def release(self) -> None:
        """Removes every hook, also those on the graph of a step."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def results(self) -> list[Tensor]:
        """What was measured, on its devices; `table` takes the same back as arrays."""
        found = [signal for _, _, signal in self._outputs]
        found += [moments for _, moments, _ in self._gradients]
        return found + [counts for _, _, counts in self._gradients if counts is not None]

    def table(self, results: list[NDArray[Any]]) -> LayerTable:
        """The statistics by layer; those of a layer that was called several times are merged."""
        names = tuple(self._order)
        outputs, gradients = len(self._outputs), len(self._gradients)
        signals = np.array(results[:outputs]).reshape(outputs, 3)
        moments = np.array(results[outputs : outputs + gradients]).reshape(gradients, 7)
        size = np.array([values for _, values, _ in self._outputs], dtype=np.float64)
        layer = np.array([index for index, _, _ in self._outputs], dtype=np.intp)

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            total, weight = np.zeros(len(names)), np.zeros(len(names))
            np.add.at(total, layer, values * size)
            np.add.at(weight, layer, size)
            with np.errstate(invalid="ignore"):
                return total / weight

        rms, zeros, fraction = signals.T
        reached = np.array([index for index, _, _ in self._gradients], dtype=np.intp)
        rows = np.unique(reached)
        merged = np.zeros((len(names), 7))
        moments[:, statistics.NORM] **= 2
        np.add.at(merged, reached, moments)
        merged[:, statistics.NORM] **= 0.5
        merged[:, statistics.MAX_ABS] = 0
        np.maximum.at(merged[:, statistics.MAX_ABS], reached, moments[:, statistics.MAX_ABS])
        histograms = None
        if self._histograms:
            counts = np.array(results[outputs + gradients :]).reshape(gradients, BINS)
            total = np.zeros((len(names), BINS), np.int64)
            np.add.at(total, reached, counts)
            histograms = total[rows]
        table = TensorTable(tuple(names[row] for row in rows), merged[rows], histograms)
        return LayerTable(names, np.sqrt(mean(rms**2)), mean(zeros), mean(fraction), table)

    def _called(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return  # a validation pass is not part of the step
        started = time.perf_counter()
        tensor = first_tensor(output)
        if tensor is None:
            return
        # Checkpointing calls the layer again during the backward pass: the same output.
        again = torch._C._current_graph_task_id() != -1 and name in self._order
        index = self._order.setdefault(name, len(self._order))
        if not again:
            values = tensor.detach()
            self._outputs.append((index, values.numel(), statistics.signal(values)))
        if tensor.requires_grad:
            edge = get_gradient_edge(tensor)
            received = partial(self._received, index, edge.output_nr)
            self._handles.append(edge.node.register_prehook(received))
        self.seconds += time.perf_counter() - started

    def _received(self, index: int, output_nr: int, gradients: tuple[Tensor | None, ...]) -> None:
        started = time.perf_counter()
        gradient = gradients[output_nr]
        if gradient is not None:
            moments, counts = statistics.summarize([gradient.detach()], self._histograms)
            self._gradients.append((index, moments[0], None if counts is None else counts[0]))
        self.seconds += time.perf_counter() - started


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The (name, module) pairs that count as layers; a model that is one itself is `model`.

    What is inside a compiled module is left out: compiled code calls no hooks.
    """
    found: list[tuple[str, nn.Module]] = []

    def visit(name: str, module: nn.Module) -> None:
        if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
            return
        children = list(module.named_children())
        if not children or any(True for _ in module.parameters(recurse=False)):
            found.append((name or "model", module))
        for child_name, child in children:
            if all(child is not other for _, other in found):  # one module under two names
                visit(f"{name}.{child_name}" if name else child_name, child)

    visit("", model)
    return found


def first_tensor(output: Any) -> Tensor | None:
    """The first floating-point tensor of an output: itself, or inside tuples, lists and dicts."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() or output.is_complex() else None
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        for part in output:
            tensor = first_tensor(part)
            if tensor is not None:
                return tensor
    return None
