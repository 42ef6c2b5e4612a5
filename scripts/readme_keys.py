"""Writes the reference of all configuration keys into README.md, from the schema.

python scripts/readme_keys.py
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trainer.config.description import json_schema

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- keys: .*? -->\n).*(<!-- end of keys -->)", re.DOTALL)


def rows(schema: dict[str, Any], node: dict[str, Any], prefix: str) -> list[str]:
    """A table row for each key of a section, and of the sections below it."""
    found = []
    for key, value in node.get("properties", {}).items():
        target = resolve(schema, value)
        name = f"{prefix}{key}"
        members = target.get("oneOf") or target.get("anyOf") or []
        sections = [s for m in members if "properties" in (s := resolve(schema, m))]
        if "properties" in target:
            sections = [target]
        if not sections:
            required = key in node.get("required", [])
            default = "required" if required else f"`{yaml_value(value.get('default'))}`"
            if "const" in target:
                default = f"required: `{target['const']}`"
            description = " ".join(value.get("description", "").split())
            found.append(f"| `{name}` | {default} | {description} |")
        for section in sections:
            if len(sections) > 1:
                title = " ".join(section.get("description", "").split())
                found.append(f"| **`{name}`** | | **{title}** |")
            found += rows(schema, section, f"{name}.")
            if section.get("additionalProperties") is True:
                found.append(f"| `{name}.…` | | further arguments of what `name` says |")
    return found


def resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The node that a `$ref` stands for."""
    if "$ref" in node:
        return resolve(schema, schema["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    return node


def yaml_value(value: Any) -> str:
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def written(readme: str) -> str:
    """The README with its reference up to date."""
    schema = json_schema()
    table = ["| key | default | meaning |", "|---|---|---|", *rows(schema, schema, "")]
    return MARKED.sub(lambda m: m[1] + "\n".join(table) + "\n" + m[2], readme)


if __name__ == "__main__":
    README.write_text(written(README.read_text()))
