"""The errors of code that a configuration names, told at the place of its key."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from trainer.config import ConfigError, Problem, located
from trainer.config.source import Document

T = TypeVar("T")
OURS, STANDARD = Path(__file__).parent, Path(sysconfig.get_path("stdlib"))
INSTALLED = {"site-packages", "dist-packages"}


def attempt(document: Document, key: str, make: Callable[[], T]) -> T:
    """The result of a call into code that the configuration names; its errors become ours."""
    try:
        return make()
    except ConfigError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise fault(document, (key,), "takes more memory than there is") from error
    except (Exception, SystemExit) as error:  # the user's code or arguments, whatever they raise
        argument = str(error).partition(":")[0]
        path = (key, argument) if argument in document.tree.get(key, {}) else (key,)
        message = str(error).removeprefix(f"{argument}: ") if len(path) == 2 else str(error)
        ours = isinstance(error, ValueError | TypeError) and _place(error) is None
        raise fault(document, path, message if ours else raised(error, message)) from error


def raised(error: BaseException, message: str) -> str:
    """`file:line: class: message`, with the last place in code of the user's own, if any."""
    told = [_place(error), type(error).__name__, message]
    return ": ".join(filter(None, told))


def _place(error: BaseException) -> str | None:
    frames = traceback.walk_tb(error.__traceback__)
    places = [(Path(frame.f_code.co_filename), line) for frame, line in frames]
    file, line = next((place for place in reversed(places) if _is_own(place[0])), (None, 0))
    if file is None:
        return None
    here = Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{line}"


def _is_own(file: Path) -> bool:
    """Whether a file of code is neither ours nor installed with Python or into it."""
    installed = file.is_relative_to(STANDARD) or not INSTALLED.isdisjoint(file.parts)
    return file.is_absolute() and not installed and not file.is_relative_to(OURS)


def fault(document: Document, path: tuple[str | int, ...], message: str) -> ConfigError:
    """The error of one mistake at a path of the document."""
    return located(document, [Problem(path, message)])
