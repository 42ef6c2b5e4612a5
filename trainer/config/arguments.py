"""A section of a configuration that is given as the arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from trainer.config.problem import did_you_mean, shown
from trainer.config.section import Section

T = TypeVar("T", bound=Section)


def section(kind: type[T], called: str, keys: Mapping[str, Any]) -> T:
    """The section with these keys, checked as a configuration's; ValueError, which names what was
    called, where one is wrong."""
    try:
        return kind(**keys)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise ValueError(
                f"{called} has no key '{key}'{did_you_mean(key, kind.model_fields)}"
            ) from None
        got = shown(first["input"])
        raise ValueError(f"{called}: {key}: {first['msg'].lower()}, got {got}") from None
