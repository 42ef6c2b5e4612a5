"""Runs of configurations, made once and read by several tests, and the threads of all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from trainer.__main__ import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


# How long an example takes says nothing on a busy machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="module")
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """One: tests run side by side, and small tensors on more threads wait for each other, ten times
    as long as they take. The kernels' own tests have two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2 if request.path.stem.startswith("test_statistics") else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def run_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Runs a configuration with overrides to status 0; the run's folder."""

    def run(name: str, *overrides: str, config: Path | None = None) -> Path:
        folder = tmp_path_factory.mktemp(name) / "run"
        path = config or CONFIGS / f"{name}.yaml"
        assert main(["--config", str(path), "--run-dir", str(folder), *overrides]) == 0
        return folder

    return run
