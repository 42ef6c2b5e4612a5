"""The folder of one run, and what it says about where its numbers come from."""

from __future__ import annotations

import io
import json
import math
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from trainer.config import Config, ConfigError, dump, resolved

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
WRITTEN = ("config.yaml", "config.tmp", "environment.json", "findings.jsonl", "result.json",
           "result.tmp")  # fmt: skip
PACKAGES = ("torch", "numpy", "tensorboard", "numba", "pydantic", "pyyaml")


COMMENT = "# This run's configuration with every default; to run it again:"


def create(config: Config, wanted: Path | None, again: bool = False) -> Path:
    """A new folder `runs/<name>/<time>-<id>/`, or the wanted one if it is empty or not there.

    Holds `config.yaml` (every key; a run of it is this run again) and `environment.json`. `again`:
    what a run without a checkpoint has left in the wanted folder is deleted first.
    """
    if wanted is None:
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        wanted = Path("runs") / config.name / stamp
    if not str(wanted).isprintable():  # such a name would also break out of the comment below
        raise ConfigError([f"--run-dir {str(wanted)!r}: not a printable name"])
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if again and _is_run(wanted):
            for path in [*wanted.glob("*tfevents*"), *(wanted / name for name in WRITTEN)]:
                path.unlink(missing_ok=True)
            shutil.rmtree(wanted / "checkpoints", ignore_errors=True)
        if any(path.name != LOCK for path in wanted.iterdir()):
            raise ConfigError([f"--run-dir {wanted}: is not empty; name a new folder"])
        _write_config(wanted, config)
        (wanted / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
    except OSError as error:
        raise ConfigError([f"{wanted}: cannot make the run's folder: {error.strerror}"]) from None
    return wanted


def claim(folder: Path) -> IO[bytes]:
    """The lock of a run's folder, held until it is closed or the process ends, however it ends.

    ConfigError where another process trains in the folder. Where the file system has no locks, or
    cannot be written to, nobody is kept out.
    """
    try:
        file = (folder / LOCK).open("ab")
    except OSError:
        return io.BytesIO()
    if fcntl is None:
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which child processes do not hold
    except (BlockingIOError, PermissionError):
        file.close()
        raise ConfigError([f"{folder}: another process trains here; end it first"]) from None
    except OSError:
        pass
    return file


def go_on(folder: Path, config: Config, step: int) -> None:
    """Makes a run's folder that of a run which stands at a step: what is later is deleted."""
    try:
        (folder / "result.json").unlink(missing_ok=True)
        for path in (folder / "checkpoints").glob("step-*"):
            late = not path.name[5:].isdigit() or int(path.name[5:]) > step
            if late:
                shutil.rmtree(path)
        _write_config(folder, config)
    except OSError as error:
        raise ConfigError([f"{folder}: cannot go on there: {error.strerror}"]) from None


def _is_run(folder: Path) -> bool:
    """Whether a run has begun there and has left no checkpoint."""
    try:
        with (folder / "config.yaml").open(encoding="utf-8") as file:
            ours = file.readline().strip() == COMMENT
    except (OSError, UnicodeError):
        return False
    return ours and not any((folder / "checkpoints").glob("step-*[0-9]"))


def _write_config(folder: Path, config: Config) -> None:
    path = folder / "config.yaml"
    command = f"python -m trainer --config {shlex.quote(str(path))}"
    temporary = path.with_suffix(".tmp")
    text = f"{COMMENT}\n#   {command}\n{dump(resolved(config))}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


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
