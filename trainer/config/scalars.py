"""What a plain YAML word means (1.2 core schema), and how values are written so that it is kept."""

from __future__ import annotations

import re
from typing import Any

import yaml

# YAML 1.2.2, chapter 10.3.2 (core schema): the plain scalars that are not strings.
NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
INTEGER = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
FLOAT_TAG = "tag:yaml.org,2002:float"


def plain_scalar(text: str) -> str | int | float | bool | None:
    """A plain scalar's value by the YAML 1.2 core schema: `1e-3` is a float, `no` is a string.

    ValueError for a number that is neither finite nor written as `.inf` or `.nan`.
    """
    if NULL.match(text):
        return None
    if BOOL.match(text):
        return text.lower() == "true"
    if INTEGER.match(text):
        try:
            value = int(text, 0 if text[:2] in ("0o", "0x") else 10)
            float(value)
        except (ValueError, OverflowError):  # Python reads no decimal number of 5,000 digits
            raise ValueError("the number is too large") from None
        return value
    if FLOAT.match(text):
        if text[-1].isalpha():  # .inf and .nan
            return float(text.replace(".", ""))
        number = float(text)
        if abs(number) == float("inf"):
            raise ValueError("the number is too large")
        return number
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes a string that this module or a YAML 1.1 reader would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver(FLOAT_TAG, FLOAT, None)
for _kind, _pattern in (("null", NULL), ("bool", BOOL), ("int", INTEGER)):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _pattern, None)
_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:str",
        value,
        # PyYAML writes these unescaped unless told to quote.
        style='"' if re.search("[\x85\u2028\u2029\ufeff]", value) else None,
    ),
)
_Dumper.add_representer(
    float, lambda dumper, value: dumper.represent_scalar(FLOAT_TAG, _float_text(value))
)


def _float_text(value: float) -> str:
    if value != value or abs(value) == float("inf"):
        return str(value).replace("inf", ".inf").replace("nan", ".nan")
    return repr(value)


def dump(tree: dict[str, Any]) -> str:
    """The tree as YAML that is read back unchanged."""
    return yaml.dump(
        tree,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,  # sections and lists that hold only scalars stand on one line
    )


def inline(value: Any) -> str:
    """The value (without line breaks) on one line, as the command line understands it."""
    flow = yaml.dump(
        [value],
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=float("inf"),
        default_flow_style=True,
    )
    return flow.strip()[1:-1]
