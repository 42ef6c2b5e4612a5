"""The folder of one run, and what it says about where its numbers come from."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import platform
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from trainer.checkpoints.listing import FOLDER, NAME, complete, step_of
from trainer.config import Config, ConfigError, dump, resolved

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "lock"
WRITTEN = ("config.yaml", "config.tmp", "environment.json", "environment.tmp", "findings.jsonl",
           "result.json", "result.tmp")  # fmt: skip
PACKAGES = ("torch", "numpy", "tensorboard", "numba", "pydantic", "pyyaml")


TIME = "%Y%m%d-%H%M%S"
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO)  # no mistake of anybody's
COMMENT = "# This run's configuration with every default; to run it again:"


def create(
    config: Config, wanted: Path | None, again: bool, hold: Callable[[IO[bytes]], object]
) -> Path:
    """A new folder `runs/<name>/<time>-<id>/`, or the wanted one if it is empty or not there.

    Holds `config.yaml` (every key; a run of it is this run again) and `environment.json`. `again`:
    what a run without a checkpoint has left in the wanted folder is deleted first. `hold` is given
    the folder's lock. ConfigError where it cannot be made, OSError where the disk is full.
    """
    if wanted is None:
        runs = Path("runs") / config.name
        wanted = runs / f"{_time(runs)}-{secrets.token_hex(2)}"
    if not str(wanted).isprintable():  # such a name would also break out of the comment below
        raise ConfigError([f"--run-dir {str(wanted)!r}: not a printable name"])
    try:
        wanted.mkdir(parents=True, exist_ok=True)
        if not (again and _is_run(wanted)):
            _refuse_files(wanted)
        hold(claim(wanted))
        if again and _is_run(wanted):
            for path in [*wanted.glob("*tfevents*"), *(wanted / name for name in WRITTEN)]:
                path.unlink(missing_ok=True)
            shutil.rmtree(wanted / FOLDER, ignore_errors=True)
        _refuse_files(wanted)  # another process may have been through meanwhile
        _write_config(wanted, config)
        write_json(wanted / "environment.json", environment())
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ConfigError([f"{wanted}: cannot make the run's folder: {error.strerror}"]) from None
    return wanted


def _time(runs: Path) -> str:
    """The time for the name of a run, later than those of all others whatever the clock says."""
    times = [datetime.now()]
    for path in runs.glob("*/"):
        if found := re.match(r"\d{8}-\d{6}(?=-)", path.name):
            with suppress(ValueError, OverflowError):
                times.append(datetime.strptime(found[0], TIME) + timedelta(seconds=1))
    return max(times).strftime(TIME)


def _refuse_files(folder: Path) -> None:
    if any(path.name != LOCK for path in folder.iterdir()):
        raise ConfigError([f"--run-dir {folder}: is not empty; name a new folder"])


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
    (folder / "result.json").unlink(missing_ok=True)
    for path in (folder / FOLDER).glob("step-*"):
        if not NAME.fullmatch(path.name) or step_of(path) > step:
            shutil.rmtree(path)
    _write_config(folder, config)


def _is_run(folder: Path) -> bool:
    """Whether a run has begun there, were it only to write its first file, and has left no
    checkpoint."""
    whole = (folder / "config.yaml").exists()
    try:
        with (folder / ("config.yaml" if whole else "config.tmp")).open(encoding="utf-8") as file:
            line = file.readline().strip()
    except (OSError, UnicodeError):
        return False
    ours = line == COMMENT or not whole and COMMENT.startswith(line)
    return ours and not complete(folder / FOLDER)


def _write_config(folder: Path, config: Config) -> None:
    path = folder / "config.yaml"
    command = f"python -m trainer --config {shlex.quote(str(path))}"
    _write(path, f"{COMMENT}\n#   {command}\n{dump(resolved(config))}")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file of JSON (NaN and infinity as null) that is there whole or not at all."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    _write(path, json.dumps(plain(content), indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


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
