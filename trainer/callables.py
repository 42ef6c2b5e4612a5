"""Things a configuration names as `module:Thing`, and whether a call with given arguments fits."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch

from trainer.config.problem import MAX_FOUND, Path, Problem, did_you_mean, shown, unknown_key
from trainer.faults import raised

MAX_REASON = 1000  # characters


def load(name: str) -> Callable[..., Any]:
    """The callable behind `package.module:Thing`; ValueError says what is missing."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises is theirs to read
        reason = raised(error, str(error))[:MAX_REASON]
        raise ValueError(f"cannot import {shown(module_name)} ({reason})") from error
    if not hasattr(module, attribute):
        hint = did_you_mean(attribute, [n for n in vars(module) if not n.startswith("_")])
        raise ValueError(f"module '{module_name}' has no '{attribute}'{hint}")
    thing = getattr(module, attribute)
    if not callable(thing):
        raise ValueError(f"'{name}' is a {type(thing).__name__}, which cannot be called")
    return thing  # type: ignore[no-any-return]


def named(
    what: str, name: str, thing: Callable[..., Any] | None, known: Iterable[str]
) -> Callable[..., Any]:
    """The callable behind `module:Thing`, or else this one, which a table has for the name;
    ValueError where it has none, with what it knows that is like it."""
    if ":" in name:
        return load(name)
    if thing is None:
        raise ValueError(f"unknown {what} {shown(name)}{did_you_mean(name, known)}")
    return thing


def argument_problems(
    thing: Callable[..., Any], arguments: Mapping[str, Any], path: Path, given: Collection[str] = ()
) -> list[Problem]:
    """What is wrong with calling `thing(**arguments)`, each argument at `path` + its name.

    `given` are the names of parameters that the program itself fills.
    """
    name = getattr(thing, "__name__", str(thing))
    try:
        parameters = _parameters(thing)
    except (TypeError, ValueError):  # built in, without a signature: the call itself will tell
        return []
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = {
        n: p
        for n, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in given
    }
    problems = []
    for key, value in islice(arguments.items(), MAX_FOUND):
        if key in known:
            annotation = known[key].annotation
            if annotation is not inspect.Parameter.empty and not _fits(value, annotation):
                wanted = inspect.formatannotation(annotation).replace(" | torch.Tensor", "")
                wanted = wanted.replace("torch.Tensor", "a list of numbers")
                message = f"expected {wanted} for this argument of {name}, got {shown(value)}"
                problems.append(Problem((*path, key), message))
        elif not takes_any:
            problems.append(unknown_key((*path, key), f"{name} has no such argument", known))
    return problems + [
        Problem((*path, key), f"missing: an argument of {name} without a default", True)
        for key, parameter in known.items()
        if key not in arguments and parameter.default is parameter.empty
    ]


def _parameters(thing: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(thing, eval_str=True).parameters
    except Exception:  # an annotation that cannot be evaluated: it stays text and is not judged
        return inspect.signature(thing).parameters


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value from YAML, or a tensor made of it, is of an annotated type; True where that
    cannot be told."""
    kind, inner = get_origin(annotation) or annotation, get_args(annotation)
    if kind in (Union, UnionType):
        return any(_fits(value, member) for member in inner)
    if kind is Literal:
        return value in inner
    if kind in (list, tuple):
        if not isinstance(value, list):
            return False
        if kind is list or Ellipsis in inner:
            return all(_fits(item, member) for item in value for member in inner[:1])
        same = len(inner) == len(value)
        return not inner or same and all(map(_fits, value, inner))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (bool, int, str, dict, None, NoneType):
        return value is None if kind in (None, NoneType) else type(value) is kind
    return isinstance(value, torch.Tensor) if kind is torch.Tensor else True
