"""The forward passes of a step, made again on a copy where nobody looked and the loss broke."""

from __future__ import annotations

import copy
import logging
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainer import random_numbers
from trainer.monitor.activations import Activations
from trainer.monitor.breaking import Breaking
from trainer.monitor.hook import Hook, is_blank
from trainer.monitor.layers import is_compiled, is_in_memory, tensors
from trainer.monitor.measured import Measured
from trainer.monitor.phase import in_backward, is_training

logger = logging.getLogger("trainer")

MOST_PASSES = 4  # of a step: what more of them were given is not kept
MOST_LOOKS = 3  # of a run
MOST_BYTES = 1 << 30  # of a model that is copied
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_TENSOR = {Tensor}
_FAILED = "the forward pass of step %d could not be made again; training goes on"


class _Given(NamedTuple):
    """What a pass was given, and what else it depends on."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    versions: list[int]  # of the tensors among them
    random_state: Tensor  # of torch on the host
    autocast: dict[str, torch.dtype]  # of the kinds of devices that had it
    training: bool


class LastPass:
    """Keeps what a model was given in the passes of a step, by a hook on it; no copies.

    Nothing is kept of passes without a graph, of those whose arguments belong to another's graph,
    or where there are too many; then no pass of the step is made again.
    """

    def __init__(self, model: nn.Module, wanted: bool) -> None:
        self._model = model
        self._given: list[_Given] = []
        self._passes = 0  # since `forget`
        self._looks = 0
        self._hook: RemovableHandle | None = None
        if wanted and not is_compiled(model):
            add = model.register_forward_pre_hook
            self._hook = add(Hook(self._begin), prepend=True, with_kwargs=True)

    def _begin(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Takes down a pass that begins."""
        if not is_training() or in_backward():
            return
        self._passes += 1
        if self._passes > MOST_PASSES:
            self._given.clear()
            return
        try:
            given = self._taken(module, args, kwargs)
        except Exception:  # whatever somebody's tensors are, their model is to get them
            given = None
        if given is None:
            self._given.clear()
        else:
            self._given.append(given)

    def _taken(self, module: nn.Module, args: Any, kwargs: Any) -> _Given | None:
        are_all = not kwargs and _TENSOR.issuperset(map(type, args))  # as in most models
        found = args if are_all else [*tensors((args, kwargs))]
        for tensor in found:
            if tensor.grad_fn is not None or not is_in_memory(tensor):
                return None
        autocast = {}
        if torch._C._is_any_autocast_enabled():
            kinds = {"cpu", *(tensor.device.type for tensor in found)}
            on = filter(torch.is_autocast_enabled, kinds)
            autocast = {kind: torch.get_autocast_dtype(kind) for kind in on}
        versions = [tensor._version for tensor in found]
        return _Given(
            args, kwargs, versions, torch.default_generator.get_state(), autocast, module.training
        )

    def forget(self) -> None:
        """Lets go of the passes of a step."""
        self._given.clear()
        self._passes = 0

    def look_again(self, step: int) -> Measured | None:
        """What the layers put out in the passes of this step, and the module that broke the values
        if it is none.

        The passes are made on a copy of the model, without hooks of others, with arguments that are
        copied and the random numbers that they had on the host: nothing of it is the loop's. None
        where they cannot be made, where they may not be what happened (something has changed since,
        or all is finite without the hooks of others), or where several processes train the model.
        """
        shared = torch.distributed.is_available() and torch.distributed.is_initialized()
        if shared or not self._given or len(self._given) < self._passes:
            return None
        try:
            if self._looks == MOST_LOOKS or _bytes(self._model) > MOST_BYTES:
                return None
            self._looks += 1
            with self._random_numbers(), torch.inference_mode(False), torch.enable_grad():
                return self._made_again()
        except Exception:  # what a model is made of may not be copied
            logger.debug(_FAILED, step, exc_info=True)
            return None

    def _random_numbers(self) -> AbstractContextManager[None]:
        cpu = torch.device("cpu")
        return random_numbers.same(next((p.device for p in self._model.parameters()), cpu))

    def _made_again(self) -> Measured | None:
        for given in self._given:
            found = tensors((given.arguments, given.keywords))
            changed = [tensor._version for tensor in found] != given.versions
            if changed or self._model.training != given.training:
                return None
            _check_plain((given.arguments, given.keywords))
        twin, others = _twin(self._model), 0
        for module in twin.modules():
            others += sum(_drop_those_of_others(getattr(module, kind)) for kind in HOOKS)
        activations = Activations(twin, lambda name: True)
        activations.watch(False)
        with Breaking(twin, activations.measured.output) as breaking:
            for given in self._given:
                torch.set_rng_state(given.random_state)
                with ExitStack() as stack:
                    for kind, dtype in given.autocast.items():
                        stack.enter_context(torch.autocast(kind, dtype))
                    arguments, keywords = copy.deepcopy((given.arguments, given.keywords))
                    twin(*arguments, **keywords)
        # Hooks of others may be what broke the values.
        told = breaking.found or not others
        return activations.measured if told and activations.pause() else None

    def release(self) -> None:
        """Removes the hook."""
        self.forget()
        if self._hook is not None:
            self._hook.remove()


def _twin(model: nn.Module) -> nn.Module:
    """A copy of a model, which may keep what an earlier pass has computed."""
    held = tensors([[*vars(module).values()] for module in model.modules()])
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in held if not t.is_leaf})


def _check_plain(given: Any) -> None:
    """TypeError for what is more than a value: a copy of it may not stand for it."""
    if isinstance(given, dict):
        given = (*given.keys(), *given.values())
    if isinstance(given, list | tuple):
        for part in given:
            _check_plain(part)
    elif not isinstance(given, Tensor | bool | int | float | complex | str | None):
        raise TypeError(f"a {type(given).__name__} among the arguments")


def _drop_those_of_others(hooks: dict[int, Any]) -> int:
    """Leaves torch's, which compute weights; how many there were besides ours, which do nothing in
    a copy."""
    dropped = 0
    for key, hook in [*hooks.items()]:
        owner = getattr(hook, "__module__", None) or type(hook).__module__
        if not owner.startswith("torch."):
            del hooks[key]
            dropped += not is_blank(hook)
    return dropped


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.itemsize for t in (*model.parameters(), *model.buffers()))
