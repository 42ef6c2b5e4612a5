"""Says everything that is wrong with a configuration's tree, each mistake at its place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from trainer.config import schema
from trainer.config.description import descriptions
from trainer.config.problem import (
    MAX_FOUND,
    ConfigError,
    Path,
    Place,
    Problem,
    did_you_mean,
    nearest,
    shown,
    unknown_key,
)
from trainer.config.section import PATTERNS, names
from trainer.config.source import Document

Check = Callable[[dict[str, Any]], list[Problem]]
MAX_TOLD = 20
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

_TAGS = {section.__name__: section for kind in schema.KINDS.values() for section in kind}
_EXPECTED = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "greater_than": "a number > {gt:.17g}",
    "greater_than_equal": "a number >= {ge:.17g}",
    "less_than": "a number < {lt:.17g}",
    "less_than_equal": "a number <= {le:.17g}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length:,}",
    "string_too_short": "at least {min_length} character",
    "string_too_long": "at most {max_length:,} characters",
}


def validate(document: Document, checks: Sequence[Check]) -> schema.Config:
    """The configuration of a document; raises ConfigError with every problem in source order.

    `checks` look at the plain tree and find what the schema cannot know, such as the arguments of
    an optimizer; they must put up with any tree. Of several problems at one path the first counts.
    """
    problems: list[Problem] = []
    try:
        config = schema.Config.model_validate(document.tree)
    except ValidationError as error:
        found = islice(error.errors(include_url=False), MAX_FOUND)
        problems = [_problem(details) for details in found]
    for check in checks:
        known = {problem.path for problem in problems}
        problems += [problem for problem in check(document.tree) if problem.path not in known]
    meant = {(*problem.path[:-1], problem.meant) for problem in problems if problem.meant}
    problems = [p for p in problems if not (p.at_key and p.path in meant)]
    if problems or document.faults:
        raise located(document, problems)
    return config


def located(document: Document, problems: Iterable[Problem]) -> ConfigError:
    """The problems, each with its place, and the faults of the document itself, as one error."""
    told = list(document.faults)
    for problem in problems:
        above = [problem.path[:length] for length in range(1, len(problem.path) + 1)]
        if not any(fault.path in above for _, fault in document.faults):
            told.append((document.place(problem.path, problem.at_key), problem))

    def order(item: tuple[Place, Problem]) -> tuple[bool, int, int]:
        place, _ = item
        return place.source != document.name, place.row, place.column

    messages = [place.show(p.path, p.message) for place, p in sorted(told, key=order)[:MAX_TOLD]]
    if len(told) > MAX_TOLD:
        more = len(told) - MAX_TOLD
        messages.append(f"... and {more if len(told) < MAX_FOUND else 'many'} more")
    return ConfigError(messages)


def _problem(details: ErrorDetails) -> Problem:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    path, section = _path(details["loc"], ends_in_key=kind in ("extra_forbidden", "missing"))
    key = str(path[-1]) if path else ""
    field = section.model_fields.get(key)
    if kind == "extra_forbidden":
        places = _places(key) if section is schema.Config else []
        if places:
            return Problem(path, f"unknown key; did you mean {' or '.join(places)}?", True)
        return unknown_key(path, "unknown key", section.model_fields)
    if kind == "missing":
        description = " ".join(descriptions(section).get(key, "").split())
        return Problem(path, f"missing: {description.partition(';')[0].rstrip('.')}", True)
    if kind == "model_type":
        return Problem(path, f"expected a section with {_listed(section)}, got {shown(value)}")
    if kind == "union_tag_not_found":
        known = [name for kind in schema.KINDS[key] for name in names(kind)]
        return _name_problem(path, value, known)
    if kind == "value_error":
        own = str(context["error"])
        return Problem(path, f"{own}, got {shown(value)}" if own.startswith("expected") else own)
    if kind == "literal_error" and field:
        return Problem(path, f"unknown value {shown(value)}{_known(value, field.annotation)}")
    if kind in _EXPECTED:
        expected = _EXPECTED[kind].format(**context)
        return Problem(path, f"expected {expected}, got {shown(value)}{_remedy(kind, value)}")
    if kind == "string_pattern_mismatch":
        expected = PATTERNS[context["pattern"]]
        return Problem(path, f"expected {expected}, got {shown(value)}")
    return Problem(path, f"{details['msg'][:1].lower()}{details['msg'][1:]}, got {shown(value)}")


def _places(key: str) -> list[str]:
    """The sections that have a key of this name, with it."""
    places = []
    for name, field in schema.Config.model_fields.items():
        sections = schema.KINDS.get(name, (field.annotation,))
        if any(key in getattr(section, "model_fields", ()) for section in sections):
            places.append(f"{name}.{key}")
    return places


def _known(value: Any, annotation: Any) -> str:
    """The value of a `Literal`, or of one or null, that was probably meant; else all of them."""
    members = get_args(annotation)
    null = ["null"] if NoneType in members else []
    words = sorted(word for member in members for word in (get_args(member) if null else [member]))
    # Where all are like it, as float32 and float64 are like float16, each may be meant.
    told = isinstance(value, str) and not all(nearest(value, [word]) for word in words)
    if told and nearest(value, words):
        return did_you_mean(value, words)
    return f"; known: {', '.join(words + null)}"


def _name_problem(path: Path, section: Any, known: list[str]) -> Problem:
    """What is wrong with a section whose kind is not known by its name."""
    if not isinstance(section, dict):
        return Problem(path, f"expected a section with a key 'name', got {shown(section)}")
    path = (*path, "name")
    if "name" not in section:
        return Problem(path, f"missing: one of {', '.join(known)} or your own module:Thing", True)
    name = section["name"]
    if not isinstance(name, str):
        return Problem(path, f"expected a string, got {shown(name)}")
    hint = did_you_mean(name, known)
    return Problem(path, f"unknown name {shown(name)}{hint} (or your own module:Thing)")


def _remedy(kind: str, value: Any) -> str:
    """How to write a number that was meant: nothing is converted silently."""
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}" if abs(value) < 1e15 else ""
    if kind in ("int_type", "float_type") and isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return "; remove the quotes"
        written = value.replace("_", "")  # as Python writes it, and much of Europe
        written = written.replace(",", ".") if kind == "float_type" else written
        if _NUMBER.fullmatch(written):
            return f"; write {written}"
    return ""


def _path(location: tuple[int | str, ...], ends_in_key: bool) -> tuple[Path, type[BaseModel]]:
    """A pydantic location without the tags of section classes, and the section it lies in or is."""
    section: type[BaseModel] = schema.Config
    path: list[str | int] = []
    for depth, part in enumerate(location):
        if ends_in_key and depth == len(location) - 1:
            path.append(part)
        elif part in _TAGS:
            section = _TAGS[str(part)]
        else:
            path.append(part)
            field = section.model_fields.get(str(part))
            if field and inspect.isclass(field.annotation):
                if issubclass(field.annotation, BaseModel):
                    section = field.annotation
    return tuple(path), section


def _listed(section: type[BaseModel]) -> str:
    return f"key{'s' if len(section.model_fields) > 1 else ''} {', '.join(section.model_fields)}"
