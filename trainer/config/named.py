"""A thing that a key names, with or without arguments: `relu`, or `{name: elu, alpha: 2.0}`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema


def _named(value: Any) -> Any:
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name:
        raise ValueError("expected a name, or a section with a key 'name' and arguments")
    return value


_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}
Named = Annotated[str | dict[str, Any], PlainValidator(_named), WithJsonSchema(_SCHEMA)]


def name_and_arguments(value: str | dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """`relu` as ("relu", {}), and `{name: elu, alpha: 2.0}` as ("elu", {"alpha": 2.0})."""
    if isinstance(value, str):
        return value, {}
    return value["name"], {str(key): item for key, item in value.items() if key != "name"}
