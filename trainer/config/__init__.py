"""Reads a configuration: YAML file and overrides in, a frozen, checked `Config` out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config.loading import load as load
    from trainer.config.loading import resolved as resolved
    from trainer.config.problem import ConfigError as ConfigError
    from trainer.config.problem import Problem as Problem
    from trainer.config.scalars import dump as dump
    from trainer.config.schema import Config as Config
    from trainer.config.validation import located as located

# Name → its module, imported at first use: who only reads YAML or writes a value, as TensorBoard's
# tab does, needs no pydantic and the 10 MB of memory that go with it.
_PUBLIC = {
    "Config": "schema",
    "ConfigError": "problem",
    "Problem": "problem",
    "dump": "scalars",
    "load": "loading",
    "located": "validation",
    "resolved": "loading",
}
__all__ = list(_PUBLIC)  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trainer.config' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(f"trainer.config.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value
