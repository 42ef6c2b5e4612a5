"""The short form of scripts/torture.py: runs killed anywhere go on, damage is always refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "torture.py"


def tortured(tmp_path: Path, *arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), *arguments, "--folder", str(tmp_path)]
    paths = os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_damage_is_refused(tmp_path: Path) -> None:
    assert "150 ways, 0 wrong" in tortured(tmp_path, "damage", "--ways", "150", "--seed", "1")


def test_hostile_files_and_arguments_are_told(tmp_path: Path) -> None:
    assert "200 cases, 0 wrong" in tortured(tmp_path, "fuzz", "--cases", "200", "--seed", "1")


def test_killed_runs_go_on(tmp_path: Path) -> None:
    told = tortured(tmp_path, "kills", "--runs", "3", "--seed", "1")
    assert told.count("1 identical") == 3, told


def test_faults_end_as_promised(tmp_path: Path) -> None:
    names = "removed_folder", "lost_messages", "hanging_disk"
    assert "3 faults, 0 wrong" in tortured(tmp_path, "faults", "--only", *names)


def test_a_difference_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from torture_suites import kills

    assert kills.different({"records": [b"a"]}, {"records": [b"a", b"b"]}) == ["records"]
