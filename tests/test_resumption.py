"""A run that was ended goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer import checkpoint, resumption
from trainer.__main__ import main
from trainer.loop import Patience

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import torture  # noqa: E402

DIGITS = [
    *("--config", str(ROOT / "configs" / "digits_mlp.yaml"), "model.dropout=0.2", "stop.steps=60"),
    "schedule={name: CosineAnnealingLR, T_max: 60, warmup_steps: 15}",
    *("validation.every_steps=20", "checkpoint.every_steps=10", "monitor.every_steps=5"),
]


class KilledError(BaseException):
    """Ends a run where it stands."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Ends a run before the step `killed_at["step"]`, after what is due there."""
    at, after = {"step": -1}, resumption.Keeper.after

    def kill(self: resumption.Keeper, step: int, best: Patience, ends: bool) -> bool:
        ending = after(self, step, best, ends)
        if step == at["step"]:
            at["step"] = -1
            raise KilledError
        return ending

    monkeypatch.setattr(resumption.Keeper, "after", kill)
    yield at


def the_run(name: str = "digits_mlp") -> Path:
    (run,) = Path("runs", name).iterdir()
    return run


def points(run: Path, tag: str) -> list[tuple[int, float]]:
    """The points of a curve as TensorBoard's own reader shows them."""
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0})
    accumulator.Reload()
    return [(point.step, point.value) for point in accumulator.Scalars(tag)]


@pytest.mark.parametrize("steps", [[37], [12, 13, 55], [30], [4]])
def test_it_ends_as_one_that_was_never_ended(
    steps: list[int], killed_at: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = []
    for name, kills in (("whole", []), ("killed", steps)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for step in kills:
            killed_at["step"] = step
            with pytest.raises(KilledError):
                main([*DIGITS, "--resume", "auto"])
        if kills == [4]:  # before the first checkpoint there is nothing to go on from
            next(Path("runs/digits_mlp").iterdir()).rename("left")
        assert main([*DIGITS, "--resume", "auto"]) == 0
        ends.append((torture.end(Path()), points(the_run(), "loss/train"),
                     points(the_run(), "loss/validation"),
                     json.loads((the_run() / "result.json").read_text())))  # fmt: skip
    whole, killed = ends
    assert torture.differences(whole[0], killed[0]) == []
    assert [step for step, _ in whole[1]] == sorted({step for step, _ in whole[1]})
    assert whole[1:] == killed[1:]


def test_differences_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for seed in (0, 1):
        (tmp_path / str(seed)).mkdir()
        monkeypatch.chdir(tmp_path / str(seed))
        assert main([*DIGITS, f"seed={seed}"]) == 0
        ends.append(torture.end(Path()))
    assert {"weights", "state", "records"} <= set(torture.differences(*ends))


def test_more_steps_and_another_rate_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    linear = ["--config", str(ROOT / "configs" / "linear.yaml"), "stop.cost=null"]
    assert main([*linear, "stop.steps=10"]) == 0
    capsys.readouterr()
    changed = [*linear, "stop.steps=20", "optimizer.lr=0.01", "--resume", "auto"]
    assert main(changed) == 0
    said = capsys.readouterr().err
    assert "at step 10" in said and "stop.steps: 10 so far, 20 from here on" in said
    assert "optimizer.lr: 0.1 so far, 0.01 from here on" in said
    run = the_run("linear")
    assert [step for step, _ in points(run, "loss/train")] == [*range(20)]
    rates = dict(points(run, "learning_rate"))
    assert rates[9] == pytest.approx(0.1) and rates[10] == pytest.approx(0.01)
    assert main(changed[:-2] + ["--resume", str(run)]) == 0  # nothing is left to do


def test_another_configuration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*DIGITS, "stop.steps=20"]) == 0
    before = {path: path.read_bytes() for path in the_run().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*DIGITS, "model.width=7", "seed=3", "--resume", "auto"]) == 2
    said = capsys.readouterr().err
    assert "the run is of another configuration; start a new one, or:" in said
    assert "seed: 0 in the run, 3 now" in said and "model.width: " in said
    assert before == {path: path.read_bytes() for path in the_run().rglob("*") if path.is_file()}


def test_what_cannot_be_resumed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    linear = ["--config", str(ROOT / "configs" / "linear.yaml"), "stop.steps=5"]
    assert main([*linear, "--resume", "nowhere"]) == 2
    assert "--resume nowhere: holds no whole checkpoint" in capsys.readouterr().err
    assert main([*linear, "--resume", "auto", "--run-dir", "x"]) == 2
    assert "--resume and --run-dir: a run goes on in its own folder" in capsys.readouterr().err
    assert main([*linear, "--resume", "auto"]) == 0
    assert "linear has no checkpoint; starting" in capsys.readouterr().err
    path = next(the_run("linear").glob("checkpoints/step-*"))
    (path / checkpoint.STATE).write_bytes(b"")
    assert main([*linear, "--resume", str(path)]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_run_has_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trainer import run_dir

    monkeypatch.chdir(tmp_path)
    linear = ["--config", str(ROOT / "configs" / "linear.yaml"), "stop.steps=5"]
    assert main(linear) == 0
    with run_dir.locked(the_run("linear")):
        assert main([*linear, "--resume", "auto"]) == 2
    assert "another process is writing to this run" in capsys.readouterr().err
    assert main([*linear, "--resume", "auto"]) == 0  # a lock that nobody holds is none


def test_weights_that_are_not_finite_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    linear = ["--config", str(ROOT / "configs" / "linear.yaml"), "stop={cost: null, steps: 400}"]
    keys = ["optimizer.lr=1e3", "monitor.every_steps=1000", "checkpoint.every_steps=1"]
    assert main([*linear, *keys]) in (0, 3)
    assert "is not finite" in capsys.readouterr().err
    found = checkpoint.newest(the_run("linear"), pytest.fail)
    assert found is not None and all(torch.isfinite(v).all() for v in found.weights.values())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_good_order(number: int, status: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", *DIGITS, "stop.steps=1000000"]
    child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    while not [*tmp_path.glob("runs/*/*/checkpoints/step-*")]:
        assert child.poll() is None
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGUSR1)
    time.sleep(0.2)
    assert child.poll() is None  # only writes one and goes on
    os.kill(child.pid, number)
    _, said = child.communicate(timeout=60)
    assert child.returncode == status, said
    assert f"{signal.Signals(number).name}: stopped before step" in said and "Traceback" not in said
    saved = checkpoint.newest(next(tmp_path.glob("runs/*/*")), pytest.fail)
    assert saved is not None and f"stopped before step {saved.step}; checkpoint" in said


def test_random_numbers_go_on() -> None:
    import random

    from trainer import training_state

    state = training_state.random_state()

    def drawn() -> list[object]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(),
                torch.rand(3).tolist()]  # fmt: skip

    first = drawn()
    assert drawn() != first
    training_state.set_random_state(state)
    assert drawn() == first
