"""What memory is free is known of the machine, of a container and of a limit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import memory

GB = 10**9
CODE = """
import resource, sys
from trainer import memory
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 10**8, -1))
print(memory.available())
"""


def test_of_the_machine() -> None:
    free = memory.available()
    assert 10**7 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_of_a_limit() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60
    )
    assert 9 * 10**7 < int(ended.stdout) <= 10**8


def test_of_the_narrowest_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups, inner = tmp_path / "groups", tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("3:cpu:/other\n0::/outer/inner\n")
    monkeypatch.setattr(memory, "GROUP", tmp_path / "cgroup")
    assert memory._of_group(groups) > 10**6 * GB
    for folder, limit, taken in ((inner.parent, "100000", 90_000), (inner, "max", 5)):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text(str(taken))
        (folder / "memory.stat").write_text("file 9\ninactive_file 3000\nanon 1\n")
    assert memory._of_group(groups) == 13_000
    (inner / "memory.max").write_text("4000")
    assert memory._of_group(groups) == 6_995


def test_what_is_needed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2 * GB)
    memory.need(2 * GB, "two rows")
    with pytest.raises(ValueError, match="^two rows take 36.0 GB of memory, and 2.0 GB are free$"):
        memory.need(36 * GB, "two rows")
    assert memory.told(1_500_000) == "1.5 MB"
