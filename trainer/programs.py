"""How a program of this environment is called from the folder that a person is in."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def called(name: str) -> str:
    """The program's name where a shell finds this environment's, else its path.

    The name as well where this environment has none.
    """
    own = Path(sys.executable).with_name(name)
    found = shutil.which(name)
    if not own.exists() or found is not None and Path(found).absolute() == own:
        return name
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)
