"""What every section of a configuration is made of: strict scalars, frozen models, refused keys."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainValidator,
    Strict,
    StringConstraints,
    WithJsonSchema,
)

Integer = Annotated[int, Strict()]
Boolean = Annotated[bool, Strict()]
# An int is fine for a float; a string or a bool is not.
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[Float, Field(gt=0)]
Count = Annotated[Integer, Field(gt=0, le=10**15)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
_PLAIN_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
_MODULE_THING = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
PlainName = Annotated[str, StringConstraints(pattern=_PLAIN_NAME)]
CustomName = Annotated[str, StringConstraints(pattern=_MODULE_THING)]
PATTERNS = {  # in words
    _PLAIN_NAME: "up to 100 of A-Z a-z 0-9 _ - . (no - or . at the start)",
    _MODULE_THING: "package.module:Thing",
}


def _numbers(value: Any) -> Any:
    """Null, or a number or nested list of numbers, unchanged."""
    if value is None:
        return value
    if isinstance(value, list):
        for item in value:
            _numbers(item)
    elif isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("expected a finite number or nested lists of finite numbers")
    return value


_NUMBERS_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "array"}, {"type": "null"}]}
Numbers = Annotated[
    float | list[Any] | None, PlainValidator(_numbers), WithJsonSchema(_NUMBERS_SCHEMA)
]


class Section(BaseModel):
    """A frozen section that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenSection(Section):
    """A section whose further keys are arguments of the thing it names, checked against it."""

    model_config = ConfigDict(extra="allow")

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beyond those declared."""
        return dict(self.model_extra or {})


def names(section: type[Section]) -> tuple[str, ...]:
    """The names that choose a section class; none for the user's own, `module:Thing`."""
    annotation: Any = section.model_fields["name"].annotation
    return get_args(annotation)


def by_name(sections: tuple[type[Section], ...]) -> Discriminator:
    """Chooses among section classes by the key `name`, each tagged with the name of its class."""

    def tag(value: Any) -> str | None:
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        own = isinstance(name, str) and ":" in name
        fitting = (s for s in sections if (own and not names(s)) or name in names(s))
        return next((section.__name__ for section in fitting), None)

    return Discriminator(tag)
