"""Any optimizer of torch.optim by name, made and stepped without loading the compiler."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from trainer import callables
from trainer.config.problem import Problem, shown
from trainer.config.schema import Optimizer as Section

_BY_NAME: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): thing
    for name, thing in vars(torch.optim).items()
    if inspect.isclass(thing) and issubclass(thing, torch.optim.Optimizer)
    if thing is not torch.optim.Optimizer
}


def check(tree: dict[str, Any], device: torch.device) -> list[Problem]:
    """What is wrong with the section `optimizer` that only torch knows: its name and arguments."""
    section = tree.get("optimizer")
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(section, dict) or not isinstance(name, str):
        return []
    try:
        thing = _named(name)
    except ValueError as error:
        return [Problem(("optimizer", "name"), str(error))]
    arguments = {str(key): value for key, value in section.items() if key not in ("name", "lr")}
    # The schema judges `lr`; here a good one stands in for it.
    problems = callables.argument_problems(
        thing, {**arguments, "lr": 1e-3}, ("optimizer",), given=("params",)
    )
    problems += [
        Problem(("optimizer", key), f"expected a finite number, got {shown(value)}")
        for key, value in arguments.items()
        if isinstance(value, float) and not isfinite(value)
    ]
    if problems:
        return problems
    reason = _refusal(name, arguments, device)
    if reason is None:
        return []
    for key, value in arguments.items():
        if _refusal(name, {key: value}, device) == reason:  # this one alone is at fault
            return [
                Problem(("optimizer", key), f"{_label(thing)} refuses {shown(value)}: {reason}")
            ]
    return [Problem(("optimizer",), f"{_label(thing)} refuses these arguments: {reason}")]


def refuses_sparse(section: Section) -> str | None:
    """What a configuration's optimizer says against sparse gradients; None where it takes them."""
    with warnings.catch_warnings(action="ignore"):  # torch's, of sparse tensors in general
        return _refusal(section.name, section.arguments, torch.device("cpu"), sparse=True)


def _refusal(
    name: str, arguments: dict[str, Any], device: torch.device, sparse: bool = False
) -> str | None:
    """What an optimizer of a stand-in parameter says against its arguments, made or in one step."""
    parameter = nn.Parameter(torch.zeros(2, 2, device=device))
    gradient = torch.ones_like(parameter)
    try:
        optimizer = make(name, [parameter], {"lr": 1e-3, **arguments})
        sparse = sparse or isinstance(optimizer, torch.optim.SparseAdam)
        parameter.grad = gradient.to_sparse(1) if sparse else gradient
        if needs_closure(optimizer):
            closure_step(optimizer, lambda: gradient.sum())
        else:
            step_function(optimizer)()
    except Exception as error:  # whatever torch or the user's class raises
        return str(error).partition("\n")[0] or type(error).__name__
    return None


def build(section: Section, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a configuration that `check` found no fault with."""
    return make(section.name, parameters, {"lr": section.lr, **section.arguments})


def make(
    name: str, parameters: Iterable[nn.Parameter], arguments: dict[str, Any]
) -> torch.optim.Optimizer:
    """The named optimizer over the parameters; raises what its constructor raises."""
    thing = _named(name)
    # `betas: [0.9, 0.99]` comes from YAML as a list.
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    with _compiler_not_loaded():
        optimizer = thing(list(parameters), **values)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"{name} made a {type(optimizer).__name__}, which is no torch Optimizer")
    return optimizer


def step_function(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """A call of the result is one `optimizer.step()`.

    torch wraps `step` so that compiled programs break there; the wrapper imports torch._dynamo,
    which takes as long as importing torch. Nothing here compiles an optimizer, so the function
    inside is called, under no_grad as the wrapper would.
    """
    if type(optimizer).__module__.startswith("torch.optim"):
        inner = inspect.unwrap(type(optimizer).step)
        if not optimizer.defaults.get("differentiable", False):
            step = torch.no_grad()(inner)
            return lambda: step(optimizer)
    return optimizer.step


def state_dict(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's `state_dict`, of the function inside as above."""
    state: dict[str, Any] = inspect.unwrap(type(optimizer).state_dict)(optimizer)
    return state


def load_state_dict(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Puts the optimizer's state back, likewise."""
    inspect.unwrap(type(optimizer).load_state_dict)(optimizer, state)


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `step` evaluates the loss itself, as LBFGS does."""
    parameters = inspect.signature(inspect.unwrap(type(optimizer).step)).parameters
    closure = parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def closure_step(optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> None:
    """One step of an optimizer that evaluates the loss itself."""
    optimizer.step(closure)  # type: ignore[arg-type]


def _label(thing: Callable[..., Any]) -> str:
    return getattr(thing, "__name__", str(thing))


def _named(name: str) -> Callable[..., Any]:
    known = [thing.__name__ for thing in _BY_NAME.values()]
    return callables.named("optimizer", name, _BY_NAME.get(name.lower()), known)


@contextmanager
def _compiler_not_loaded() -> Iterator[None]:
    """While open, the methods that a constructor calls do not import torch._dynamo.

    torch keeps the compiler's version of such a method in an attribute of it, made at the first
    call; here the method itself stands in for it until the constructor is done.
    """
    inner = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    stand_in = not hasattr(inner, "__dynamo_disable")
    if stand_in:
        vars(inner)["__dynamo_disable"] = inner
    try:
        yield
    finally:
        if stand_in:
            del vars(inner)["__dynamo_disable"]
