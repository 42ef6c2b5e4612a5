"""A hook on somebody's module, which the module's copies and files are to have nothing of."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any


class Hook(partial[Any]):
    """A function with its first arguments. In a copy of the module, or in a file of it, stands for
    it what does nothing and can be loaded where this package is not."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (nullcontext(), "__exit__")


def is_blank(hook: object) -> bool:
    """Whether it is what stands for one in a copy."""
    return isinstance(getattr(hook, "__self__", None), nullcontext)
