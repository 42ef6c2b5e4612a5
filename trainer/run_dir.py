"""The folder of one run, and what it says about where its numbers come from."""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer.config import Config, ConfigError, dump, resolved

PACKAGES = ("torch", "numpy", "tensorboard", "numba", "pydantic", "pyyaml")


def create(config: Config, wanted: Path | None) -> Path:
    """A new folder `runs/<name>/<time>-<id>/`, or the wanted one if it is empty or not there.

    Holds `config.yaml` (every key; a run of it is this run again) and `environment.json`.
    """
    if wanted is None:
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        wanted = Path("runs") / config.name / stamp
    if not str(wanted).isprintable():  # such a name would also break out of the comment below
        raise ConfigError([f"--run-dir {str(wanted)!r}: not a printable name"])
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if any(wanted.iterdir()):
            raise ConfigError([f"--run-dir {wanted}: is not empty; name a new folder"])
        command = f"python -m trainer --config {shlex.quote(str(wanted / 'config.yaml'))}"
        comment = (
            f"# This run's configuration with every default; to run it again:\n#   {command}\n"
        )
        text = comment + dump(resolved(config))
        (wanted / "config.yaml").write_text(text, encoding="utf-8")
        (wanted / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
    except OSError as error:
        raise ConfigError([f"{wanted}: cannot make the run's folder: {error.strerror}"]) from None
    return wanted


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file of JSON (NaN and infinity as null) that is there whole or not at all."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(plain(content), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def environment() -> dict[str, Any]:
    """Versions, machine, command line and source revision."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "working_directory": os.getcwd(),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    """The revision of the working folder, and whether it has uncommitted changes."""
    try:
        result = subprocess.run(
            ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    lines = result.stdout.splitlines()
    revision = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), None)
    return {"revision": revision, "changed": any(not line.startswith("#") for line in lines)}
