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
from trainer.record import BINS, MOMENTS, LayerTable, TensorTable

MAX_HELD_BYTES = 8 << 20


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
        self._reached: list[int] = []  # the layer of each gradient, in order of arrival
        self._held: list[Tensor] = []  # gradients that wait to be measured together
        self._held_bytes = 0
        self._measured: list[tuple[Tensor, Tensor | None]] = []  # moments and histograms
        self._histograms = False
        self.seconds = 0.0  # spent measuring since `watch`

    @property
    def watching(self) -> bool:
        """Whether hooks are attached."""
        return bool(self._handles)

    def watch(self, histograms: bool) -> None:
        """Attaches the hooks; `histograms` adds those of the gradients."""
        self.release()
        self._order, self._outputs, self._reached, self._measured = {}, [], [], []
        self._histograms, self.seconds = histograms, 0.0
        for name, module in self._layers:
            self._handles.append(module.register_forward_hook(partial(self._called, name)))

    def release(self) -> None:
        """Removes every hook, also those on the graph of a step, and what only they needed."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._measure()

    def results(self) -> list[Tensor]:
        """What was measured, on its devices; `table` takes the same back as arrays."""
        found = [signal for _, _, signal in self._outputs]
        found += [moments for moments, _ in self._measured]
        return found + [counts for _, counts in self._measured if counts is not None]

    def table(self, results: list[NDArray[Any]]) -> LayerTable:
        """The statistics by layer; those of a layer that was called several times are merged."""
        names = tuple(self._order)
        outputs, groups = len(self._outputs), len(self._measured)
        signals = np.array(results[:outputs]).reshape(outputs, 3)
        moments = _joined(results[outputs : outputs + groups], MOMENTS, np.float64)
        size = np.array([values for _, values, _ in self._outputs], dtype=np.float64)
        layer = np.array([index for index, _, _ in self._outputs], dtype=np.intp)

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            total, weight = np.zeros(len(names)), np.zeros(len(names))
            np.add.at(total, layer, values * size)
            np.add.at(weight, layer, size)
            with np.errstate(invalid="ignore"):
                return total / weight

        rms, zeros, fraction = signals.T
        gradients = self._gradient_table(names, moments, results[outputs + groups :])
        return LayerTable(names, np.sqrt(mean(rms**2)), mean(zeros), mean(fraction), gradients)

    def _gradient_table(
        self, names: tuple[str, ...], moments: NDArray[Any], histograms: list[NDArray[Any]]
    ) -> TensorTable:
        reached = np.array(self._reached, dtype=np.intp)
        rows, first, place = np.unique(reached, return_index=True, return_inverse=True)
        reached_names = tuple(names[row] for row in rows)
        counts = _joined(histograms, BINS, np.int64) if self._histograms else None
        if len(rows) == len(reached):  # each layer was called once
            return TensorTable(
                reached_names, moments[first], None if counts is None else counts[first]
            )
        merged = np.zeros((len(rows), moments.shape[1]))
        np.add.at(merged, place, moments)
        for column, merge in ((statistics.NORM, np.hypot), (statistics.MAX_ABS, np.maximum)):
            merged[:, column] = 0
            merge.at(merged[:, column], place, moments[:, column])
        total = None
        if counts is not None:
            total = np.zeros((len(rows), BINS), np.int64)
            np.add.at(total, place, counts)
        return TensorTable(reached_names, merged, total)

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
            # One call for many small tensors costs a fraction of a call for each. While it is held
            # here autograd does not use its memory again.
            self._reached.append(index)
            self._held.append(gradient.detach())
            self._held_bytes += gradient.nbytes if gradient.layout is torch.strided else 0
            if self._held_bytes > MAX_HELD_BYTES:
                self._measure()
        self.seconds += time.perf_counter() - started

    def _measure(self) -> None:
        """Measures the gradients that are held, and lets them go."""
        if self._held:
            self._measured.append(statistics.summarize(self._held, self._histograms))
            self._held, self._held_bytes = [], 0


def _joined(groups: list[NDArray[Any]], columns: int, dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.zeros((0, columns), dtype), *groups])


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
