"""What the docstrings under the keys of a configuration say, for messages, schema and README."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from functools import cache
from typing import Any

from pydantic import BaseModel

from trainer.config.schema import Config
from trainer.config.section import Section


@cache
def descriptions(section: type[BaseModel]) -> dict[str, str]:
    """The docstring of each key of a section, its own and inherited.

    pydantic can read them too, but for every section at every start: half the time of importing
    this package.
    """
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if not issubclass(base, Section) or base is Section:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for key, text in itertools.pairwise(body.body):
            match key, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(docstring))),
                ):
                    found[name] = inspect.cleandoc(docstring)
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration, with the description of every key."""
    schema = Config.model_json_schema()
    sections = {section.__name__: section for section in _subclasses(Section)}
    for name, node in {"Config": schema, **schema["$defs"]}.items():
        if name in sections:
            for key, text in descriptions(sections[name]).items():
                node["properties"][key]["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _subclasses(section: type[BaseModel]) -> set[type[BaseModel]]:
    below = set(section.__subclasses__())
    return below.union(*map(_subclasses, below))
