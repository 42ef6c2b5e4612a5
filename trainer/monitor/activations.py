"""What the layers of a model put out, and what gradient comes back to them, in chosen steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.utils.hooks import RemovableHandle

from trainer.monitor import last_activation, time_steps
from trainer.monitor.hook import Hook
from trainer.monitor.layers import first_tensor, is_in_memory, kind, layers, of_none
from trainer.monitor.measured import Measured
from trainer.monitor.phase import in_backward, is_traced, is_training
from trainer.record import ENDS, TIME_STEPS

logger = logging.getLogger("trainer")
_FAILED = "looking at the layers failed and is off from here on; training goes on"


class Activations:
    """Measures every call of every layer from `watch` to `release`; nothing is left attached after.

    What a layer is `layers` says; its output is the first floating-point tensor it returns. What a
    model does to its own output at last counts as one, too, as `last_activation` says. The gradient
    is taken by a hook on the edge that the output has when it is made, whatever is done to it in
    place. The input is the first such tensor that the layer executed first is given. What goes
    wrong in here ends the measuring.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        self._model, self._wanted = model, wanted
        self._entered = 0  # layers so far
        self._hooks: list[RemovableHandle] = []  # on the modules
        self._edges: list[RemovableHandle] = []  # on the graph of a step
        self.measured = Measured(False)
        self._begins = False  # whether the next layer is the first of a pass that is given anything
        self._inside = False  # whether a forward pass of the model, which trains, goes on
        self._pass = 0  # its number
        self._ahead: Tensor | None = None  # what the first layer without a graph was given
        self._given: Tensor | None = None  # and after it the first one with
        self.watching, self.seconds = False, 0.0  # spent measuring since `watch`
        self.probes: list[Tensor] = []  # inputs that have a gradient only to be looked at
        self.learn()

    def learn(self) -> None:
        """Finds out which layers the model has now; ends what was attached to those before."""
        self.release()
        self._all, holders = layers(self._model)
        self._layers = [(n, m) for n, m in self._all if self._wanted(n)]
        self._weights = of_none(self._model, self._all, self._wanted)
        self._holders = [(n, m, self._wanted(n)) for n, m in holders]

    def watch(self, histograms: bool) -> None:
        """Attaches the hooks; `histograms` adds those of the gradients."""
        if not (self._layers or self._holders):
            self.release()
            return
        self._end()
        self._begins, self._inside, self._pass = True, False, 0
        self.measured, self.watching, self.seconds = Measured(histograms, self._weights), True, 0.0
        if not self._hooks:
            self._attach()

    def pause(self) -> bool:
        """Ends the measuring of a step, and says whether there was one; hooks on modules stay, as
        it may go on with the next."""
        if self.watching:
            self._guarded(self.measured.end, self._given)
        is_whole = self.watching  # still
        self._end()
        return is_whole

    def release(self) -> None:
        """Removes every hook; what was measured is lost."""
        if self._hooks or self.watching:
            self._end()
            self.measured = Measured(False)
            for handle in self._hooks:
                handle.remove()
            self._hooks = []

    def _end(self) -> None:
        for handle in (*self._edges, *self.measured.edges):
            handle.remove()
        self._edges, self.probes, self.watching = [], [], False
        self._ahead = self._given = None

    def _attach(self) -> None:
        def add(register: Callable[..., RemovableHandle], hook: Callable[..., Any]) -> None:
            self._hooks.append(register(Hook(self._guarded, hook), with_kwargs=True))

        add(self._model.register_forward_pre_hook, self._model_called)
        add(self._model.register_forward_hook, self._model_left)
        for _, module in self._all:
            add(module.register_forward_pre_hook, self._calling)
        for name, module in self._layers:
            if isinstance(module, nn.RNNBase):
                add(module.register_forward_pre_hook, partial(self._sequence_enters, name))
            what = name, kind(module), bool(module._parameters)
            add(module.register_forward_hook, partial(self._called, *what))
        for name, module, wanted in self._holders:
            entered: list[int] = []  # layers, where this one was entered
            add(module.register_forward_pre_hook, partial(self._entering, entered))
            add(module.register_forward_hook, partial(self._left, name, wanted, entered))

    def _guarded(self, hook: Callable[..., Any], *given: Any) -> Any:
        try:
            return hook(*given)
        except Exception:  # hooks stay, where torch goes through them, until the next step
            self._layers, self._holders, self.watching = [], [], False
            logger.warning(_FAILED, exc_info=True)
            return None

    def _model_called(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.watching and is_training() and not in_backward():
            self._begins = self._inside = True
            self._pass += 1

    def _model_left(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not self.watching or is_traced():
            return
        own = last_activation.of(first_tensor(output), (each for _, each in self._all))
        if own is not None and self._wanted(name := last_activation.name(own)):
            self._called(name, kind(own), False, own, args, kwargs, output)
        self._inside = False

    def _entering(self, entered: list[int], module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.watching and is_training():
            entered[:] = [self._entered]

    def _left(
        self, name: str, wanted: bool, entered: list[int],
        module: nn.Module, args: Any, kwargs: Any, output: Any,
    ) -> None:  # fmt: skip
        """Of a module that has called none of its layers and still made something new."""
        self._note(name)
        if not (self.watching and is_training()) or entered != [self._entered]:
            return
        made, given = first_tensor(output), first_tensor((args, kwargs))
        if made is None or made is given or not made.requires_grad:
            return  # it was skipped
        self._calling(module, args, kwargs)
        if wanted:
            self._called(name, kind(module), True, module, args, kwargs, output)

    def _note(self, name: str) -> None:
        """Takes down where a layer stands that is executed without a graph in a forward pass."""
        if self.watching and self._inside and not torch.is_grad_enabled() and not is_traced():
            self.measured.note(name)

    def _calling(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        # A number that changes while a model is compiled would have it compiled anew. Checkpointing
        # may call layers without a graph, and again for the backward pass.
        counts = self.watching and not is_traced() and (self._inside or torch.is_grad_enabled())
        if not counts:
            return
        self._entered += 1
        if not self._begins or in_backward() and self._pass:
            return
        started = time.perf_counter()
        tensor = first_tensor((args, kwargs))
        if not torch.is_grad_enabled():
            if self._ahead is None and tensor is not None:
                self._ahead = tensor.detach().clone()
        else:
            self._begins = all(each is None for each in (*args, *kwargs.values()))
            is_first = not self.measured.outputs or self.measured.has_input
            if tensor is not None and is_first:
                if self._ahead is None:
                    self.measured.input(tensor)
                else:  # which of them it is shows when layers are computed again, or are not
                    self._given = tensor.detach().clone()
        self.seconds += time.perf_counter() - started

    def _sequence_enters(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Has the gradient of a sequence, or of a copy that wants one, measured at both ends."""
        if not (self.watching and is_training()) or in_backward():
            return None
        sequence = args[0] if args else None
        places, values = time_steps.ends(module, sequence), first_tensor(sequence)
        if not places or values is None:
            return None
        started = time.perf_counter()
        if not values.requires_grad:
            if not any(parameter.requires_grad for parameter in module.parameters()):
                return None  # what it puts out has no gradient either
            values = values.detach().requires_grad_()
            self.probes.append(values)
        rows = [
            (self.measured.output(f"{name}.{end}", TIME_STEPS, values[place])[0], place)
            for end, place in places.items()
        ]

        def received(gradient: Tensor) -> None:
            if is_in_memory(gradient):
                for row, place in rows:
                    self.measured.gradient(row, gradient[place], copy=True)

        hook = values.register_hook(partial(self._guarded, received))  # type: ignore[no-untyped-call]
        self._edges.append(hook)
        self.seconds += time.perf_counter() - started
        return (time_steps.with_values(sequence, values), *args[1:]), kwargs

    def _called(
        self, name: str, class_name: str, weighted: bool,
        module: nn.Module, args: Any, kwargs: Any, output: Any,
    ) -> None:  # fmt: skip
        if not (self.watching and is_training()):
            self._note(name)
            return
        started = time.perf_counter()
        tensor = first_tensor(output)
        if tensor is None:
            return
        row, call, again = self.measured.row(name), -1, in_backward()
        # Checkpointing calls the layer again during the backward pass: the same output.
        if row is None or not again:
            in_loop = weighted and self.measured.row(f"{name}.{ENDS[0]}") is None
            forward = self._pass if in_loop else -1
            if again and self._ahead is not None:
                self.measured.input(self._ahead)
                self._ahead = self._given = None
            row, call = self.measured.output(name, class_name, tensor, forward, again)
        node, number = tensor.grad_fn, tensor.output_nr
        if node is None and tensor.requires_grad:
            node, number = get_gradient_edge(tensor)[:2]  # of a leaf
        if node is not None:
            received = partial(self._guarded, self._received, row, number, call)
            self._edges.append(node.register_prehook(received))
            self.measured.made(name, node, self._pass, again)
        self.seconds += time.perf_counter() - started

    def _received(
        self, row: int, number: int, call: int, gradients: tuple[Tensor | None, ...]
    ) -> None:
        gradient = gradients[number]
        # While it is held autograd does not use its memory again.
        if gradient is not None and is_in_memory(gradient):
            self.measured.gradient(row, gradient, call)
