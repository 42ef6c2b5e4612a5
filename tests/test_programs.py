"""A command that is shown works where it is pasted."""

import os
import sys
from pathlib import Path

import pytest

from trainer.programs import called


def test_by_its_name_or_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = tmp_path / "env" / "bin", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir(parents=True)
        for name in ("python", "tensorboard"):
            (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}{other}")
    assert called("tensorboard") == "tensorboard"
    monkeypatch.setenv("PATH", f"{other}{os.pathsep}{own}")  # which is another environment's
    assert called("tensorboard") == os.path.join("env", "bin", "tensorboard")
    monkeypatch.setenv("PATH", "")
    assert called("python") == os.path.join("env", "bin", "python")
    monkeypatch.chdir(other)
    assert called("python") == str(own / "python")
    assert called("wanting") == "wanting"
