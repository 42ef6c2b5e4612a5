"""What is the configuration of a file and overrides, and what are all its keys with defaults?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.config.file import read
from trainer.config.schema import Config
from trainer.config.source import Document
from trainer.config.validation import Check, validate


def load(
    path: Path, overrides: Sequence[str] = (), checks: Sequence[Check] = ()
) -> tuple[Config, Document]:
    """The configuration of a file with overrides applied, and where its keys stand.

    Raises ConfigError that lists every problem as `file:line:column: path: what is wrong`.
    """
    document = read(path, overrides)
    data = document.tree.get("data")
    if isinstance(data, dict) and data.get("name") in ("csv", "text"):
        file = data.get("file")
        if isinstance(file, str) and file:
            # A file beside the configuration is found from anywhere, also from the copy in a run.
            overridden = any(o.startswith(("data.file=", "data=")) for o in overrides)
            data["file"] = os.path.abspath((Path.cwd() if overridden else path.parent) / file)
    return validate(document, checks), document


def resolved(config: Config) -> dict[str, Any]:
    """All keys with their values and defaults, as plain values that `dump` writes."""
    tree = config.model_dump()
    for key, section in tree.items():
        if isinstance(section, dict) and "name" in section:
            tree[key] = {"name": section["name"], **section}
    return tree
