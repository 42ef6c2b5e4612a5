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

HELD_BYTES = 4 << 20  # of tensors that wait to be measured together
SMALL_BYTES = 1 << 17  # of a tensor that waits: fresh memory for more costs more than another call


class Held:
    """Tensors that are measured together, since a call for many small ones costs little more than
    one for a single one; what is measured stays on the device."""

    def __init__(self, measure: Callable[[list[Tensor]], tuple[Tensor | None, ...]]) -> None:
        self.layers: list[int] = []  # the layer of each tensor, in order of arrival
        self.measured: list[tuple[Tensor | None, ...]] = []  # with one row for each tensor
        self._measure = measure
        self._tensors: list[Tensor] = []
        self._bytes = 0

    def add(self, layer: int, tensor: Tensor, copy: bool) -> None:
        """Takes a tensor that may change afterwards (copy) or will not."""
        self.layers.append(layer)
        size = tensor.nbytes if tensor.layout is torch.strided else SMALL_BYTES
        if size >= SMALL_BYTES:
            self.measure()  # in order of arrival
            self.measured.append(self._measure([tensor]))
            return
        self._tensors.append(tensor.clone() if copy else tensor)
        self._bytes += size
        if self._bytes > HELD_BYTES:
            self.measure()

    def measure(self) -> None:
        """Measures what is held, and lets it go."""
        if self._tensors:
            self.measured.append(self._measure(self._tensors))
            self._tensors, self._bytes = [], 0


class Activations:
    """Measures every call of every layer from `watch` to `release`; nothing is left attached after.

    A layer is a module without children or with parameters of its own, and its output the first
    floating-point tensor it returns. The gradient is taken by a hook on the edge that the output
    has when it is made: a later operation in place does not change what is measured.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        self._layers = [(n, m) for n, m in layers(model) if wanted(n)]
        self._hooks: list[RemovableHandle] = []  # on the modules
        self._edges: list[RemovableHandle] = []  # on the graph of a step
        self._order: dict[str, int] = {}  # of first execution
        self._sizes: list[int] = []  # of each output
        self._histograms = False
        self.watching = False
        self.seconds = 0.0  # spent measuring since `watch`

    def watch(self, histograms: bool) -> None:
        """Attaches the hooks; `histograms` adds those of the gradients."""
        self.pause()
        self._order, self._sizes, self._histograms = {}, [], histograms
        self._outputs = Held(lambda outputs: (statistics.signals(outputs),))
        self._gradients = Held(lambda gradients: statistics.summarize(gradients, histograms))
        self.watching, self.seconds = bool(self._layers), 0.0
        if not self._hooks:
            for name, module in self._layers:
                hook = partial(self._called, name)
                self._hooks.append(module.register_forward_hook(hook))

    def pause(self) -> None:
        """Ends the measuring of a step; hooks on modules stay, as it may go on with the next."""
        if self.watching:
            self.watching = False
            for handle in self._edges:
                handle.remove()
            self._edges = []
            self._outputs.measure()
            self._gradients.measure()

    def release(self) -> None:
        """Removes every hook."""
        self.pause()
        for handle in self._hooks:
            handle.remove()
        self._hooks = []

    def results(self) -> list[Tensor]:
        """What was measured, on its devices; `table` takes the same back as arrays."""
        groups = [*zip(*self._outputs.measured, strict=True)]
        groups += zip(*self._gradients.measured, strict=True)
        return [part for group in groups for part in group if part is not None]

    def table(self, results: list[NDArray[Any]]) -> LayerTable:
        """The statistics by layer; those of a layer that was called several times are merged."""
        names = tuple(self._order)
        outputs, gradients = len(self._outputs.measured), len(self._gradients.measured)
        signals = _joined(results[:outputs], 3, np.float64)
        moments = _joined(results[outputs : outputs + gradients], MOMENTS, np.float64)
        counts = None
        if self._histograms:
            counts = _joined(results[outputs + gradients :], BINS, np.int64)
        called = np.array(self._outputs.layers, dtype=np.intp)
        if len(called) > len(names):
            signals = _mean(signals, np.array(self._sizes, np.float64), called, len(names))
        rms, zeros, fraction = signals.T
        reached = np.array(self._gradients.layers, dtype=np.intp)
        table = _merged(names, reached, moments, counts)
        return LayerTable(names, rms, zeros, fraction, table)

    def _called(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not (self.watching and torch.is_grad_enabled()):
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
            self._sizes.append(values.numel())
            self._outputs.add(index, values, copy=True)  # what follows may work in place
        if tensor.requires_grad:
            edge = get_gradient_edge(tensor)
            received = partial(self._received, index, edge.output_nr)
            self._edges.append(edge.node.register_prehook(received))
        self.seconds += time.perf_counter() - started

    def _received(self, index: int, output_nr: int, gradients: tuple[Tensor | None, ...]) -> None:
        gradient = gradients[output_nr]
        if gradient is not None:  # while it is held autograd does not use its memory again
            self._gradients.add(index, gradient.detach(), copy=False)


def _joined(groups: list[NDArray[Any]], columns: int, dtype: Any) -> NDArray[Any]:
    return (
        groups[0] if len(groups) == 1 else np.concatenate([np.zeros((0, columns), dtype), *groups])
    )


def _mean(
    signals: NDArray[Any], sizes: NDArray[Any], layer: NDArray[np.intp], layers: int
) -> NDArray[Any]:
    """(layers, 3) of all calls together: root mean square of RMS, means of the fractions."""
    squares, zeros, fraction = signals[:, 0] ** 2, signals[:, 1], signals[:, 2]
    parts = np.stack([squares, zeros, fraction], axis=1) * sizes[:, None]
    total, weight = np.zeros((layers, 3)), np.zeros((layers, 1))
    np.add.at(total, layer, parts)
    np.add.at(weight, layer, sizes[:, None])
    with np.errstate(invalid="ignore"):
        total /= weight
    total[:, 0] **= 0.5
    return total


def _merged(
    names: tuple[str, ...],
    reached: NDArray[np.intp],
    moments: NDArray[Any],
    counts: NDArray[Any] | None,
) -> TensorTable:
    """The rows of each layer that a gradient reached, those of several calls added together."""
    once = len(set(reached.tolist())) == len(reached)
    if once:
        order = np.argsort(reached)
        rows = reached[order]
        moments, counts = moments[order], None if counts is None else counts[order]
        return TensorTable(tuple(names[row] for row in rows), moments, counts)
    rows, place = np.unique(reached, return_inverse=True)
    merged = np.zeros((len(rows), MOMENTS))
    np.add.at(merged, place, moments)
    for column, merge in ((statistics.NORM, np.hypot), (statistics.MAX_ABS, np.maximum)):
        merged[:, column] = 0
        merge.at(merged[:, column], place, moments[:, column])
    total = None
    if counts is not None:
        total = np.zeros((len(rows), BINS), np.int64)
        np.add.at(total, place, counts)
    return TensorTable(tuple(names[row] for row in rows), merged, total)


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
