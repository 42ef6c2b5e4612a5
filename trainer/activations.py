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

from trainer import statistics, time_steps
from trainer.held import Held
from trainer.layer_calls import answers, ends, joined, mean, merged, spread, with_ends
from trainer.layers import dtype_name, first_tensor, layers
from trainer.record import BINS, INPUT, MOMENTS, SIGNALS, TIME_STEPS, LayerTable
from trainer.time_steps import ENDS

_INPUT = ""  # where layers have their names: no module inside another has this one


class Activations:
    """Measures every call of every layer from `watch` to `release`; nothing is left attached after.

    What a layer is `layers` says; its output is the first floating-point tensor it returns. The
    gradient is taken by a hook on the edge that the output has when it is made: a later operation
    in place does not change what is measured. The input is the first such tensor among the
    arguments of the layer that is executed first.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        self._model = model
        self._all, holders = layers(model)
        self._layers = [(n, m) for n, m in self._all if wanted(n)]
        self._holders = [(n, m, wanted(n)) for n, m in holders]
        self._entered = 0  # layers so far
        self._hooks: list[RemovableHandle] = []  # on the modules
        self._edges: list[RemovableHandle] = []  # on the graph of a step
        self._order: dict[str, int] = {}  # of first execution; the input is _INPUT
        self._kinds: list[str] = []  # in that order
        self._dtypes: list[str] = []
        self._begins = False  # whether the next layer is the first of a forward pass
        self._pass = 0  # the number of the forward pass
        self._passes: list[int] = []  # of each output of a layer with weights; else -1
        self._calls: list[int] = []  # of each gradient, the number of the output that it is of
        self._histograms = False
        self.watching = False
        self.seconds = 0.0  # spent measuring since `watch`
        self.probes: list[Tensor] = []  # inputs that have a gradient only to be looked at

    def __reduce__(self) -> tuple[Any, ...]:
        """What hooks belong to in a copy of the model, or in a file of it: nobody looks there."""
        return Activations, (nn.Identity(), str.isspace)

    def watch(self, histograms: bool) -> None:
        """Attaches the hooks; `histograms` adds those of the gradients."""
        self.pause()
        self.probes = []
        self._order, self._kinds, self._dtypes = {}, [], []
        self._histograms, self._begins = histograms, True
        self._pass, self._passes, self._calls = 0, [], []
        self._outputs = Held(lambda outputs: (statistics.signals(outputs),))
        self._gradients = Held(lambda gradients: statistics.summarize(gradients, histograms))
        self.watching, self.seconds = bool(self._layers or self._holders), 0.0
        if self.watching and not self._hooks:
            self._hooks.append(self._model.register_forward_pre_hook(self._model_called))
            for _, module in self._all:
                hook = module.register_forward_pre_hook(self._calling, with_kwargs=True)
                self._hooks.append(hook)
            for name, module in self._layers:
                if isinstance(module, nn.RNNBase):
                    ahead = partial(self._sequence_enters, name)
                    self._hooks.append(module.register_forward_pre_hook(ahead))
                hook = module.register_forward_hook(
                    partial(self._called, name, bool(module._parameters))
                )
                self._hooks.append(hook)
            for name, module, wanted in self._holders:
                before: list[int] = []  # layers entered, where this one was
                entering = partial(self._entering, before)
                left = partial(self._left, name if wanted else None, before)
                self._hooks.append(module.register_forward_pre_hook(entering))
                self._hooks.append(module.register_forward_hook(left, with_kwargs=True))

    def pause(self) -> None:
        """Ends the measuring of a step; hooks on modules stay, as it may go on with the next."""
        if self.watching:
            self.watching = False
            for handle in self._edges:
                handle.remove()
            self._edges, self.probes = [], []
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
        outputs, gradients = len(self._outputs.measured), len(self._gradients.measured)
        signals = joined(results[:outputs], SIGNALS, np.float64)
        moments = joined(results[outputs : outputs + gradients], MOMENTS, np.float64)
        counts = None
        if self._histograms:
            counts = joined(results[outputs + gradients :], BINS, np.int64)
        called, reached = self._outputs.layers, np.array(self._gradients.layers, np.intp)
        rows = [*zip((n or "input" for n in self._order), self._kinds, self._dtypes, strict=True)]
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
        return LayerTable(names, kinds, dtypes, rms, zeros, fraction, dead, table)

    def _model_called(self, module: nn.Module, args: Any) -> None:
        if self.watching and _is_training() and not _in_backward():
            self._begins = True
            self._pass += 1

    def _entering(self, before: list[int], module: nn.Module, args: Any) -> None:
        if self.watching and _is_training():
            before[:] = [self._entered]

    def _left(
        self, name: str | None, before: list[int],
        module: nn.Module, args: Any, kwargs: Any, output: Any,
    ) -> None:  # fmt: skip
        """Of a module that has called none of its layers and still made something new."""
        if not (self.watching and _is_training()) or before != [self._entered]:
            return
        made, given = first_tensor(output), first_tensor((args, kwargs))
        if made is None or made is given or not made.requires_grad:
            return  # it was skipped
        self._calling(module, args, kwargs)
        if name is not None:
            self._called(name, True, module, args, output)

    def _calling(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        # A number that changes while a model is compiled would have it compiled anew.
        if not (self.watching and _is_training()):
            return
        self._entered += 1
        if self._begins:
            started = time.perf_counter()
            self._begins = False
            tensor = first_tensor((args, kwargs))
            if tensor is not None and (not self._order or _INPUT in self._order):
                self._add(_INPUT, INPUT, tensor)
            self.seconds += time.perf_counter() - started

    def _sequence_enters(self, name: str, module: nn.Module, args: Any) -> Any:
        """Has the gradient of a sequence, or of a copy that wants one, measured at both ends."""
        places = time_steps.ends(module, args[0] if args else None)
        if not places or not (self.watching and _is_training()) or _in_backward():
            return None
        started = time.perf_counter()
        sequence: Tensor = args[0]
        if not sequence.requires_grad:
            sequence = sequence.detach().requires_grad_()
            self.probes.append(sequence)
        rows = [
            (self._add(f"{name}.{end}", TIME_STEPS, sequence[place]), place)
            for end, place in places.items()
        ]

        def received(gradient: Tensor) -> None:
            for row, place in rows:
                self._gradients.add(row, gradient[place].detach(), copy=True)
                self._calls.append(-1)

        self._edges.append(sequence.register_hook(received))  # type: ignore[no-untyped-call]
        self.seconds += time.perf_counter() - started
        return (sequence, *args[1:])

    def _called(self, name: str, weighted: bool, module: nn.Module, args: Any, output: Any) -> None:
        if not (self.watching and _is_training()):
            return
        started = time.perf_counter()
        tensor = first_tensor(output)
        if tensor is None:
            return
        row, call = self._order.get(name), -1
        # Checkpointing calls the layer again during the backward pass: the same output.
        if row is None or not _in_backward():
            steps = weighted and f"{name}.{ENDS[0]}" not in self._order
            call = len(self._passes)
            row = self._add(name, type(module).__name__, tensor, self._pass if steps else -1)
        node, number = tensor.grad_fn, tensor.output_nr
        if node is None and tensor.requires_grad:  # of a leaf
            node, number = get_gradient_edge(tensor)[:2]
        if node is not None:
            self._edges.append(node.register_prehook(partial(self._received, row, number, call)))
        self.seconds += time.perf_counter() - started

    def _add(self, name: str, kind: str, tensor: Tensor, forward: int = -1) -> int:
        """Takes what a layer puts out now, since what follows may work in place; its row."""
        row = self._order.get(name)
        if row is None:
            row = self._order[name] = len(self._order)
            self._kinds.append(kind)
            self._dtypes.append(dtype_name(tensor.dtype))
        seen = tensor.detach()
        if kind.endswith("1d") and seen.dim() == 3:  # (batch, channels, length), as images are
            seen = seen.unsqueeze(-1)
        self._outputs.add(row, seen, copy=True)
        self._passes.append(forward)
        return row

    def _received(
        self, row: int, number: int, call: int, gradients: tuple[Tensor | None, ...]
    ) -> None:
        gradient = gradients[number]
        if gradient is not None:  # while it is held autograd does not use its memory again
            self._gradients.add(row, gradient.detach(), copy=False)
            self._calls.append(call)


def _is_training() -> bool:
    """Whether what runs now belongs to a step: a validation pass does not, nor does what only asks
    for the model's code."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
    return torch.is_grad_enabled() and not (torch.compiler.is_compiling() or tracing)


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)
