"""Which checkpoints lie in a run's folder?"""

from __future__ import annotations

import os
import re
from pathlib import Path

FOLDER = "checkpoints"  # of a run's folder
BEST = "BEST"  # a file that names one of them
NAME = re.compile(r"step-(\d{1,15})")


def complete(folder: Path) -> list[Path]:
    """The checkpoints in a folder that were written to the end, the newest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted((folder / n for n in names if NAME.fullmatch(n)), key=step_of, reverse=True)


def name_of(step: int) -> str:
    """The name of the checkpoint of a step."""
    return f"step-{step:09d}"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(path.name.removeprefix("step-"))
