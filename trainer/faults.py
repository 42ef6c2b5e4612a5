"""The errors of code that a configuration names, told at the place of its key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from trainer.config import ConfigError, Problem, located
from trainer.config.source import Document

T = TypeVar("T")


def attempt(document: Document, key: str, make: Callable[[], T]) -> T:
    """The result of a call into code that the configuration names; its errors become ours."""
    try:
        return make()
    except ConfigError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise fault(document, (key,), "takes more memory than there is") from error
    except (Exception, SystemExit) as error:  # the user's code or arguments, whatever they raise
        name = f"{type(error).__name__}: " if not isinstance(error, ValueError | TypeError) else ""
        argument = str(error).partition(":")[0]
        path = (key, argument) if argument in document.tree.get(key, {}) else (key,)
        message = str(error).removeprefix(f"{argument}: ") if len(path) == 2 else str(error)
        raise fault(document, path, f"{name}{message}") from error


def fault(document: Document, path: tuple[str | int, ...], message: str) -> ConfigError:
    return located(document, [Problem(path, message)])
