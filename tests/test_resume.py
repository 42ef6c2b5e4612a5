"""A run that goes on from a checkpoint is, bit for bit, the run that never stopped."""

from __future__ import annotations

import errno
import itertools
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer import checkpoints, run_dir
from trainer.__main__ import main
from trainer.checkpoints import checkpoint, listing, state
from trainer.config import load
from trainer.data import Table
from trainer.diagnosis import Diagnosis
from trainer.evaluation import Evaluation, Evaluator
from trainer.events import Events
from trainer.events.reader import records
from trainer.experiment import build, check
from trainer.monitor import step_loss
from trainer.programs import called
from trainer.progress import Progress
from trainer.record import StepRecord
from trainer.wire import encode

CONFIGS = Path(__file__).parent.parent / "configs"
NETWORK = """
name: network
data: {name: digits, batch_size: 64}
model: {name: mlp, depth: 3, width: 16, dropout: 0.2}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 2e-3}
schedule: {name: CosineAnnealingLR, T_max: 60, warmup_steps: 7}
metrics: [accuracy]
validation: {fraction: 0.2, every_steps: 10}
stop: {steps: 60}
monitor: {every_steps: 3, histogram_every_steps: 9, activation_every_steps: 6}
checkpoint: {every_steps: 8}
"""
SICK = NETWORK.replace("depth: 3, width: 16, dropout: 0.2", "depth: 14, width: 16").replace(
    "width: 16", "width: 16, activation: sigmoid"
)
SICK = SICK.replace("adam", "sgd")
WILD = NETWORK.replace("adam, lr: 2e-3", "sgd, lr: 1e30")
TIMES = ("wall_time", "step_ms", "monitor_ms")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def config(text: str, name: str = "config.yaml") -> str:
    Path(name).write_text(text)
    return name


def trained(folder: str, text: str, *arguments: str) -> int:
    return main(["--config", config(text), "--run-dir", folder, *arguments])


def without_times(record: StepRecord) -> bytes:
    """The bytes of a record but for the clock's part."""
    values = {name: 0.0 for name in TIMES}
    return encode([StepRecord(**{**vars(record), **values})])


def said(folder: str) -> dict[str, Any]:
    """All that a run leaves, but for names and times."""

    def refuse(message: str) -> None:
        raise AssertionError(message)

    found = list(records(Path(folder), refuse))
    steps = [record.step for record in found]
    assert steps == sorted(set(steps)), "no step twice"
    diagnosis = Diagnosis()
    last = listing.complete(Path(folder) / "checkpoints")[0]
    journal = Path(folder) / "findings.jsonl"
    for record in found:
        diagnosis.add(record)
    tensors = {}
    for name in ("model", "training"):
        held = load_file(last / f"{name}.safetensors")
        tensors |= {key: (t.dtype, t.numpy().tobytes()) for key, t in held.items()}
    return {
        "records": [without_times(record) for record in found],
        "tensors": tensors,
        "findings": journal.read_text() if journal.exists() else "",
        "result": json.loads((Path(folder) / "result.json").read_text()),
        "found again": list(map(str, diagnosis.findings)),
        "scalars": scalars(folder),
    }


def scalars(folder: str) -> dict[str, list[tuple[int, str]]]:
    """What TensorBoard reads of the curves."""
    read = EventAccumulator(folder, {"scalars": 0}).Reload()
    found = {
        tag: [(point.step, repr(point.value)) for point in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
        if not tag.startswith("time/")
    }
    assert "loss/train" in found
    return found


@pytest.fixture(params=[checkpoint.SMALL_BYTES, 0], ids=["written at once", "copied"])
def small_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SMALL_BYTES", request.param)


@pytest.mark.parametrize("text", [NETWORK, SICK], ids=["healthy", "sick"])
@pytest.mark.parametrize("at", [7, 8, 10, 27])
@pytest.mark.usefixtures("small_bytes")
def test_what_goes_on_is_what_never_stopped(text: str, at: int) -> None:
    status = trained("whole", text)
    assert trained("broken", text, f"stop.steps={at}") in (0, 3)
    assert trained("broken", text, "--resume", "auto") == status
    whole, broken = said("whole"), said("broken")
    for part in whole:
        assert whole[part] == broken[part], part
    assert (text == SICK) == bool(whole["findings"])


CUT = """
import os, sys
from trainer.checkpoints import checkpoint
from trainer.__main__ import main
write, left = checkpoint.write, [int(sys.argv[1])]
def killed(*given, **more):
    if left[0] == 0:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    return write(*given, **more)
checkpoint.write = killed
sys.exit(main(sys.argv[2:]))
"""


def test_killed_before_and_between_checkpoints() -> None:
    assert trained("whole", NETWORK) == 0
    arguments = ["--config", "config.yaml", "--run-dir", "broken", "--resume", "auto"]
    for left in (0, 1, 3):
        process = subprocess.run([sys.executable, "-c", CUT, str(left), *arguments], check=False)
        assert process.returncode == -signal.SIGKILL
    assert main(arguments) == 0
    assert said("whole") == said("broken")


def test_sums_go_on_as_they_were_made() -> None:
    """The kernel is loaded at the first look at layers: a run that goes on has it at once."""
    text = NETWORK.replace("stop: {steps: 60}", "stop: {steps: 16}")
    command = [sys.executable, "-m", "trainer", "--config", config(text), "--resume", "auto"]
    for folder, steps in (
        ("whole", 16),
        ("broken", 9),
        ("broken", 16),
    ):  # looks at 9, not at layers
        subprocess.run([*command, "--run-dir", folder, f"stop.steps={steps}"], check=True)
    assert said("whole") == said("broken")


def test_killed_after_the_last_checkpoint_and_before_the_result() -> None:
    for text in (NETWORK, NETWORK.replace("steps: 60", "steps: 60, patience_steps: 1")):
        assert trained("whole", text) == 0
        assert trained("broken", text) == 0
        Path("broken/result.json").unlink()
        assert trained("broken", text, "--resume", "auto") == 0
        assert said("whole") == said("broken")
        shutil.rmtree("whole")
        shutil.rmtree("broken")


@pytest.mark.parametrize(
    "optimizer",
    ["{name: sgd, lr: 0.05, momentum: 0.9}", "{name: lbfgs, lr: 0.1, max_iter: 2}",
     "{name: adagrad, lr: 0.01}", "{name: adamw, lr: 1e-3, amsgrad: true}"],
)  # fmt: skip
@pytest.mark.parametrize(
    "schedule",
    ["{name: OneCycleLR, max_lr: 0.01, total_steps: 40, cycle_momentum: false}",
     "{name: ReduceLROnPlateau, patience: 0}", "{name: MultiStepLR, milestones: [5, 15]}",
     "{name: CyclicLR, base_lr: 1e-3, max_lr: 0.01, step_size_up: 4, cycle_momentum: false}"],
)  # fmt: skip
def test_optimizers_and_schedules_go_on(optimizer: str, schedule: str) -> None:
    text = NETWORK.replace("{name: adam, lr: 2e-3}", optimizer).replace("steps: 60", "steps: 20")
    text = text.replace("{name: CosineAnnealingLR, T_max: 60, warmup_steps: 7}", schedule)
    assert trained("whole", text) == 0
    assert trained("broken", text, "stop.steps=9") == 0
    assert trained("broken", text, "--resume", "auto") == 0
    assert said("whole") == said("broken")


def test_the_newest_run_of_the_name_is_taken_up(capsys: pytest.CaptureFixture[str]) -> None:
    path = config(NETWORK)
    assert main(["--config", path, "--resume", "auto", "stop.steps=10"]) == 0  # there is none
    assert main(["--config", path, "stop.steps=20"]) == 0  # a new one
    assert len(list(Path("runs/network").iterdir())) == 2
    newest = max(Path("runs/network").iterdir(), key=lambda p: (p / "lock").stat().st_mtime)
    capsys.readouterr()
    assert main(["--config", path, "--resume", str(newest), "stop.steps=30"]) == 0
    told = capsys.readouterr().err
    assert "stop.steps: 20 → 30" in told and "going on at step 20" in told
    assert main(["--config", path, "--resume", str(newest), "stop.steps=30"]) == 0
    assert "all its steps are done" in capsys.readouterr().err


@pytest.mark.parametrize("left", ["", "# This run's conf", "# This run's configuration with every"])
def test_a_run_killed_at_its_first_file(left: str) -> None:
    Path("run").mkdir()
    Path("run/lock").touch()
    Path("run/config.tmp").write_text(left)
    assert trained("run", NETWORK, "--resume", "auto", "stop.steps=7") == 0
    assert not Path("run/config.tmp").exists()
    Path("other").mkdir()
    Path("other/config.tmp").write_text("mine")
    assert trained("other", NETWORK, "--resume", "auto", "stop.steps=7") == 2
    assert Path("other/config.tmp").read_text() == "mine"


def test_another_experiment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("run", NETWORK, "stop.steps=10") == 0
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    for change in ("model.width=17", "seed=1", "optimizer.name=sgd", "data.batch_size=32"):
        assert trained("run", NETWORK, "--resume", "auto", change) == 2
        told = capsys.readouterr().err
        assert (
            f"  {change.split('=')[0]}: " in told
            and f" → {change.split('=')[1]}" in told.replace("'", "")
        )
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before
    assert trained("run", NETWORK, "--resume", "auto", "optimizer.lr=1e-3") == 0
    assert "optimizer.lr: 0.002 → 0.001" in capsys.readouterr().err


def test_a_run_that_ended_within_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Its one checkpoint has a step half done: what would follow is not the unbroken run."""
    linear = ["--config", str(Path(__file__).parents[1] / "configs" / "linear.yaml")]
    assert main(linear) == 0
    (run,) = Path("runs/linear").iterdir()
    assert main([*linear, "--resume", "auto", "model.weight=3"]) == 2
    told = capsys.readouterr().err
    assert "another experiment" in told and "model.weight: 1.6649098 → 3" in told
    assert main([*linear, "--resume", str(run), "stop.cost=0.001"]) == 2
    why = f"{run}: ended by its cost within a step, and no checkpoint before it is left"
    assert f"--resume {why}" in capsys.readouterr().err
    assert [*Path("runs/linear").iterdir()] == [run]
    assert main([*linear, "--resume", "auto", "stop.cost=0.001"]) == 0
    assert f"{why}; starting a new run" in capsys.readouterr().err
    assert len([*Path("runs/linear").iterdir()]) == 2


def test_the_end_names_the_whole_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "a-folder-whose-name-alone-is-as-long-as-a-line-of-a-terminal-that-nobody-looks-at"
    assert trained(folder, NETWORK, "stop.steps=7") == 0
    told = "".join(capsys.readouterr().err.split())
    assert f"checkpoint{folder}/checkpoints/step-000000007" in told


def test_a_named_run_without_a_whole_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("run", NETWORK, "stop.steps=7") == 0
    (Path("run/checkpoints/step-000000007") / "checkpoint.json").write_text("{")
    capsys.readouterr()
    assert main(["--config", config(NETWORK), "--resume", "run"]) == 2
    assert "--resume run: holds no whole checkpoint" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_wanted_folder_without_a_whole_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("run", NETWORK, "stop.steps=7") == 0
    (Path("run/checkpoints/step-000000007") / "checkpoint.json").write_text("{")
    capsys.readouterr()
    assert trained("run", NETWORK, "--resume", "auto") == 2
    told = capsys.readouterr().err
    assert "--run-dir run: holds no whole checkpoint; name a new folder" in told
    assert "starting a new run" not in told
    assert Path("run/result.json").exists(), "what is there stays"


@pytest.mark.parametrize("kept", ["validation={fraction: 0}", "validation={fraction: 0.2}"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_end_is_evaluated(
    number: signal.Signals, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training is over, but who waits for the process waits no longer for what follows."""
    given = (kept, "stop.steps=20", "data.batch_size=16", "checkpoint.every_steps=null")
    assert trained("whole", NETWORK, *given) == 0
    ended, parts, read = checkpoints.Checkpoints.ended, [], Table.parts

    def signalled(kept: checkpoints.Checkpoints, progress: Progress, reason: str) -> None:
        ended(kept, progress, reason)
        signal.raise_signal(number)
        patch.setattr(Table, "parts", counted)

    def counted(rows: Table, order: Any) -> Any:
        for part in read(rows, order):
            parts.append(part)
            yield part

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "ended", signalled)
        assert trained("broken", NETWORK, *given) == 128 + number
        assert len(parts) == 1, "no model is called any more"
        assert not Path("broken/result.json").exists()
    assert trained("broken", NETWORK, *given, "--resume", "auto") == 0
    whole, broken = said("whole"), said("broken")
    for part in whole:
        assert whole[part] == broken[part], part


@pytest.mark.parametrize("every_steps", ["null", "5"])
def test_a_signal_while_a_validation_goes_on(
    every_steps: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a checkpoint of the step is there, which nobody had waited for the disk with."""
    given = ("stop.steps=20", f"checkpoint.every_steps={every_steps}")
    assert trained("whole", NETWORK, *given) == 0
    evaluate, sync, synced = Evaluator._evaluated, checkpoint.sync, list[Path]()
    validations = itertools.count()

    def signalled(*given: Any) -> Evaluation | None:
        if next(validations) == 1:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*given)

    def waited(path: Path) -> None:
        synced.append(path)
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "_evaluated", signalled)
        patch.setattr(checkpoint, "sync", waited)
        patch.setattr(checkpoints, "DURABLE_SECONDS", math.inf)  # after the first one
        assert trained("broken", NETWORK, *given) == 143
    at = listing.complete(Path("broken/checkpoints"))[0]
    assert at.name == "step-000000010" and next(validations) == 2
    assert [path.name for path in synced] == ([] if every_steps == "null" else [at.name])
    assert trained("broken", NETWORK, *given, "--resume", "auto") == 0
    whole, broken = said("whole"), said("broken")
    for part in whole:
        assert whole[part] == broken[part], part


@pytest.mark.parametrize(
    ("schedule", "refused"),
    [
        ("{name: onecyclelr, max_lr: 0.1, total_steps: 60}", True),
        ("{name: cycliclr, base_lr: 1.0e-3, max_lr: 0.1, cycle_momentum: false}", True),
        ("{name: steplr, step_size: 5}", False),
    ],
)
def test_a_rate_that_would_change_nothing_is_refused(
    schedule: str, refused: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (f"schedule={schedule}", "stop.steps=8")
    assert trained("run", NETWORK, *given) == 0
    again = ("optimizer.lr=1e-3", "stop.steps=9", "--resume", "auto")
    assert trained("run", NETWORK, *given, *again) == (2 if refused else 0)
    told = "schedule: has rates of its own; another optimizer.lr changes none"
    assert (told in capsys.readouterr().err) == refused


@pytest.mark.parametrize(
    "optimizer",
    ["sgd, momentum: 0.9", "rmsprop", "adagrad", "adadelta", "adamax", "asgd", "rprop", "adam"],
)
def test_the_state_of_another_parameter_is_refused(
    optimizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the user's own model has its parameters in another order."""
    text = NETWORK.replace("adam,", f"{optimizer},")
    assert trained("run", text, "stop.steps=8") == 0
    made = build(*load(Path(config(text)), [], [check]))
    found = checkpoint.read(listing.complete(Path("run/checkpoints"))[0])
    state.restore(made, Progress(), found.weights, found.tree)
    of_parameter = found.tree["optimizer"]["state"]
    of_parameter[0], of_parameter[1] = of_parameter[1], of_parameter[0]
    with pytest.raises(ValueError, match="the optimizer's state has shape"):
        state.restore(made, Progress(), found.weights, found.tree)


def test_damaged_checkpoints_are_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("whole", NETWORK) == 0
    assert trained("kept", NETWORK, "stop.steps=20") == 0
    files = [path.name for path in Path("kept/checkpoints/step-000000020").iterdir()]
    assert sorted(files) == ["checkpoint.json", "model.safetensors", "training.safetensors"]
    for name in files:
        shutil.copytree("kept", "broken")
        path = Path("broken/checkpoints/step-000000020", name)
        path.write_bytes(path.read_bytes()[:-1])
        capsys.readouterr()
        assert trained("broken", NETWORK, "--resume", "auto") == 0
        told = capsys.readouterr().err
        assert "a damaged checkpoint is passed over" in told and "going on at step 16" in told
        assert said("whole") == said("broken")
        shutil.rmtree("broken")


class Disk:
    """What a power cut leaves: files and the names of checkpoints as they were last waited for.

    Of a file that was written over since then nobody knows which half it has.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[int, bytes] = {}
        self.folders: dict[int, dict[str, int]] = {}
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self.sync)

    def sync(self, descriptor: int) -> None:
        self._sync(descriptor)
        path, number = Path(f"/proc/self/fd/{descriptor}").resolve(), os.fstat(descriptor).st_ino
        if path.is_dir():
            self.folders[number] = {item.name: item.stat().st_ino for item in path.iterdir()}
        else:
            self.files[number] = path.read_bytes()

    def cut(self, run: Path, copy: Path) -> None:
        """Copies the folder of a run as it is found when the machine is started again."""
        files = {path.stat().st_ino: path for path in run.rglob("*") if path.is_file()}
        left = dict(self.files)
        for number in left.keys() & files.keys():
            now = files[number].read_bytes()
            if not now.startswith(left[number]):
                left[number] = now[: len(now) // 2] + left[number][len(now) // 2 :]
        copy.mkdir()
        for path in run.iterdir():
            if path.is_file():
                (copy / path.name).write_bytes(left.get(path.stat().st_ino, b""))
        shutil.copy(run / "config.yaml", copy)  # written long before
        self._copy(copy / "checkpoints", (run / "checkpoints").stat().st_ino, left)

    def _copy(self, to: Path, number: int, left: dict[int, bytes]) -> None:
        to.mkdir()
        for name, item in self.folders.get(number, {}).items():
            if item in self.folders:
                self._copy(to / name, item, left)
            else:
                (to / name).write_bytes(left.get(item, b""))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc tells what a descriptor is")
@pytest.mark.parametrize(("seconds", "newest"), [(0.0, [8, 16, 24]), (math.inf, [8, 8, 8])])
def test_a_power_cut(
    seconds: float,
    newest: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What nobody waited for is lost: the run goes on from the last one that was waited for."""
    text = NETWORK.replace("{every_steps: 8}", "{every_steps: 8, keep: 1}")
    text = text.replace("validation: {fraction: 0.2, every_steps: 10}\n", "")
    monkeypatch.setattr(checkpoints, "DURABLE_SECONDS", seconds)
    write, disk = checkpoint.write, Disk(monkeypatch)

    def cut(folder: Path, snapshot: checkpoint.Snapshot, *more: str) -> Path:
        path = write(folder, snapshot, *more)
        if snapshot.step in (8, 16, 24):
            disk.cut(Path("run"), Path(f"cut-{snapshot.step}"))
        return path

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", cut)
        assert trained("run", text) == 0
    kept = [path.name for path in listing.complete(Path("run/checkpoints"))]
    assert kept == ["step-000000060"]
    whole = said("run")
    for step, from_ in zip((8, 16, 24), newest, strict=True):
        capsys.readouterr()
        assert trained(f"cut-{step}", text, "--resume", "auto") == 0
        assert f"going on at step {from_} " in capsys.readouterr().err
        assert said(f"cut-{step}") == whole


def test_the_best_survives_a_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "DURABLE_SECONDS", math.inf)
    disk = Disk(monkeypatch)
    assert trained("run", NETWORK.replace("{every_steps: 8}", "{every_steps: 10}")) == 0
    disk.cut(Path("run"), Path("cut"))
    folder = Path("cut/checkpoints")
    path, loss = checkpoints.best(folder)
    assert path is not None and math.isfinite(loss)
    assert {p.name for p in listing.complete(folder)} >= {path.name, "step-000000060"}
    assert checkpoint.read(path).step == listing.step_of(path)


OVERFIT = NETWORK.replace("checkpoint: {every_steps: 8}\n", "").replace("lr: 2e-3", "lr: 5e-2")
OVERFIT = OVERFIT.replace("{steps: 60}", "{steps: 600, patience_steps: 50}")


def best_by_the_curve(folder: str) -> tuple[int, float]:
    """The step, and the loss, of the lowest point of a run's validations after step 0."""
    read = EventAccumulator(folder, {"tensors": 0, "scalars": 0}).Reload()
    points = [point for point in read.Scalars("loss/validation") if point.step]
    lowest = min(points, key=lambda point: point.value)
    return lowest.step, lowest.value


@pytest.mark.parametrize("keep", [1, 2])
def test_the_lowest_validation_loss_is_kept_where_no_checkpoint_is_due(keep: int) -> None:
    assert trained("run", OVERFIT, f"checkpoint.keep={keep}") == 0
    step, loss = best_by_the_curve("run")
    result = json.loads(Path("run/result.json").read_text())
    assert result["reason"] == "patience" and result["steps"] == step + 50
    path, named = checkpoints.best(Path("run/checkpoints"))
    assert path is not None and checkpoint.read(path).step == step
    assert named == result["best_validation_loss"] == pytest.approx(loss, rel=1e-6)
    kept = {listing.step_of(p) for p in listing.complete(Path("run/checkpoints"))}
    assert kept == {step, step + 50}
    assert trained("none", OVERFIT, "checkpoint.keep=0") == 0
    assert not Path("none/checkpoints").exists()


def test_the_disk_is_not_waited_for_at_each_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """But every five seconds, and in the end; until then the one before is kept as well."""
    flush, flushed = checkpoint._flush, list[str]()

    def counted(*paths: str) -> None:
        flushed.extend(paths)
        flush(*paths)

    monkeypatch.setattr(checkpoint, "_flush", counted)
    assert trained("run", OVERFIT, "validation.every_steps=1", "stop={steps: 200}") == 0
    path, loss = checkpoints.best(Path("run/checkpoints"))
    assert path is not None and loss < math.inf
    named = [each for each in flushed if "BEST" in each]
    assert 1 <= len(named) <= 3 and "BEST" in named[-1]
    kept = [listing.step_of(each) for each in listing.complete(path.parent)]
    assert len(kept) <= 3 and listing.step_of(path) in kept


def test_no_checkpoint_of_what_has_learnt_nothing() -> None:
    assert trained("run", OVERFIT, "stop={steps: 15}", "checkpoint.keep=9") == 0
    kept = [listing.step_of(p) for p in listing.complete(Path("run/checkpoints"))]
    assert kept == [15, 10]


@pytest.mark.parametrize(
    "schedule", ["{name: ReduceLROnPlateau, patience: 0}", "{name: CosineAnnealingLR, T_max: 60}"]
)
def test_what_goes_on_from_the_best_is_what_never_stopped(schedule: str) -> None:
    """It is written amid a validation, which is made again."""
    text = OVERFIT.replace("{name: CosineAnnealingLR, T_max: 60, warmup_steps: 7}", schedule)
    assert schedule in text and trained("whole", text) == 0
    shutil.copytree("whole", "broken")
    path, _ = checkpoints.best(Path("broken/checkpoints"))
    assert path is not None and checkpoint.read(path).tree["ended"] is None
    assert trained("broken", text, "--resume", str(path)) == 0
    assert said("whole") == said("broken")
    assert checkpoints.best(Path("whole/checkpoints"))[1:] == checkpoints.best(path.parent)[1:]


NOISY = """
import torch

class Noisy(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        return torch.randn(3), torch.tensor([float(index % 3)])
"""


def test_validating_on_random_samples_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("noisy_samples.py").write_text(NOISY)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    text = OVERFIT.replace("{name: digits,", "{name: 'noisy_samples:Noisy', workers: 0,")
    text = text.replace("cross_entropy", "mse").replace("accuracy", "")
    assert trained("whole", text) == 0
    shutil.copytree("whole", "broken")
    path, _ = checkpoints.best(Path("broken/checkpoints"))
    assert trained("broken", text, "--resume", str(path)) == 0
    assert said("whole") == said("broken")


def test_a_best_that_cannot_be_named_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    point, tried = checkpoint.point, list[str]()

    def full(folder: Path, name: str, text: str, durable: bool) -> None:
        if name == "BEST":
            tried.append(text)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        point(folder, name, text, durable)

    monkeypatch.setattr(checkpoint, "point", full)
    assert trained("run", NETWORK.replace("{every_steps: 8}", "{every_steps: 10}")) == 0
    told = capsys.readouterr().err.split("BEST: cannot be written: No space left on device")
    assert len(told) == 2 < len(tried)


@pytest.mark.parametrize("seconds, behind", [(math.inf, False), (math.inf, True), (0.0, False)])
def test_who_writes_a_small_checkpoint(
    seconds: float, behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that trains, unless the disk or the events would have to be waited for."""
    write, writers = checkpoint.write, dict[int, str]()

    def noted(folder: Path, snapshot: checkpoint.Snapshot, *more: str) -> Path:
        writers[snapshot.step] = threading.current_thread().name
        return write(folder, snapshot, *more)

    def mark(events: Events, durable: bool) -> checkpoints.Rest:
        told = real(events, durable)
        told(True)
        return lambda wait: told(True) if wait or not behind else None

    real = Events.mark
    monkeypatch.setattr(checkpoint, "write", noted)
    monkeypatch.setattr(checkpoints, "DURABLE_SECONDS", seconds)
    monkeypatch.setattr(Events, "mark", mark)
    text = NETWORK.replace("validation: {fraction: 0.2, every_steps: 10}\n", "")
    assert trained("run", text) == 0
    at_once = {step for step, name in writers.items() if name == "MainThread"}
    first, last, all_steps = 8, 60, {*range(8, 60, 8), 60}
    assert writers.keys() == all_steps
    assert at_once == (set() if behind or not seconds else all_steps - {first, last})
    assert all(checkpoint.read(path) for path in listing.complete(Path("run/checkpoints")))


def test_a_checkpoint_that_somebody_else_deleted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, text = checkpoint.write, NETWORK.replace("{fraction: 0.2, every_steps: 10}", "{}")

    def deleted(folder: Path, snapshot: checkpoint.Snapshot, *more: str) -> Path:
        if snapshot.step == 32:
            shutil.rmtree(folder / "step-000000016")
        return write(folder, snapshot, *more)

    monkeypatch.setattr(checkpoints, "DURABLE_SECONDS", math.inf)
    monkeypatch.setattr(checkpoint, "write", deleted)
    assert trained("run", text) == 0
    assert "cannot be deleted" not in capsys.readouterr().err
    kept = [listing.step_of(path) for path in listing.complete(Path("run/checkpoints"))]
    assert kept[:2] == [60, 56] and not {16, 24, 32} & {*kept}


def test_checkpoints_that_cannot_be_written_for_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.write

    def full(folder: Path, snapshot: checkpoint.Snapshot, *more: str) -> Path:
        if 16 <= snapshot.step < 40:
            raise OSError(28, "No space left on device")
        return write(folder, snapshot, *more)

    monkeypatch.setattr(checkpoint, "write", full)
    assert trained("run", NETWORK) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "checkpoint at" in line]
    assert told == [
        "no checkpoint at step 16, training goes on without: No space left on device",
        "checkpoint at step 40; they can be written again",
    ]


def test_a_folder_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained("run", NETWORK, "stop.steps=10") == 0

    def refuse(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_dir, "_write", refuse)
    capsys.readouterr()
    assert trained("run", NETWORK, "stop.steps=20", "--resume", "auto") == 1
    assert capsys.readouterr().err.endswith("run: cannot be written: No space left on device\n")
    assert trained("new", NETWORK) == 1
    told = capsys.readouterr().err
    assert told == "new/config.yaml: cannot be written: No space left on device\n"


def test_the_newest_run_is_found_whatever_the_clock_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ahead = Path("runs/network/20991231-235959-abcd")
    assert trained(str(ahead), NETWORK, "stop.steps=8") == 0
    command = ["--config", config(NETWORK), "stop.steps=9"]
    assert main(command) == 0
    (newer,) = (path for path in Path("runs/network").iterdir() if path.name != ahead.name)
    assert newer.name.startswith("21000101-000000-")
    capsys.readouterr()
    assert main([*command, "--resume", "auto"]) == 0
    assert f"{newer}: ended at step 9: all its steps are done" in capsys.readouterr().err


def test_two_processes_do_not_train_in_one_folder() -> None:
    assert trained("run", NETWORK, "stop.steps=10") == 0
    hold = (
        "import fcntl, time; f = open('run/lock', 'ab'); fcntl.lockf(f, fcntl.LOCK_EX);"
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        assert trained("run", NETWORK, "--resume", "auto") == 2
        other.kill()  # and whatever it held is free
    assert trained("run", NETWORK, "--resume", "auto") == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_good_order(number: signal.Signals) -> None:
    text = NETWORK.replace("steps: 60", "steps: 100000")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "--config", config(text), "--run-dir", "run"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    while not Path("run/checkpoints/LAST").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGUSR1)  # a checkpoint, and on
    process.send_signal(number)
    _, told = process.communicate()
    assert process.returncode == 128 + number, told
    assert "Traceback" not in told and f"to go on: {called('python')} -m trainer" in told
    newest = listing.complete(Path("run/checkpoints"))[0]
    steps = listing.step_of(newest)
    assert Path("run/checkpoints/LAST").read_text() == f"{newest.name}\n"
    assert trained("run", text, "--resume", "auto", f"stop.steps={steps + 5}") == 0
    assert trained("whole", text, f"stop.steps={steps + 5}") == 0
    whole, broken = said("whole"), said("run")
    assert whole["records"] == broken["records"] and whole["scalars"] == broken["scalars"]
    assert whole["tensors"] == broken["tensors"]


def test_the_command_to_go_on_works_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = checkpoints.Checkpoints.pause

    def interrupted(kept: checkpoints.Checkpoints, progress: Progress) -> str | None:
        if progress.step == 20:
            signal.raise_signal(signal.SIGINT)
        return pause(kept, progress)

    given = ["model={name: mlp, activation: tanh, dropout: 0.1}", "optimizer.lr=1e-3", "name=tanh",
             "model.width=8", "stop.steps=30", "optimizer.lr=5e-3"]  # fmt: skip
    assert trained("whole", NETWORK, *given) == 0
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "pause", interrupted)
        assert main(["--config", config(NETWORK, "my config.yaml"), *given]) == 130
    (run,) = Path("runs/tanh").iterdir()
    told = capsys.readouterr().err.splitlines()
    *_, cost = (line for line in told if line.startswith("cost "))
    assert cost.rstrip().endswith(" at step 18"), "the latest that was looked at"
    command = shlex.split(told[-1].removeprefix("to go on: "))
    assert command == [called("python"), "-m", "trainer", "--config", "my config.yaml", *given,
                       "--resume", str(run)]  # fmt: skip
    assert main(command[3:]) == 0
    assert said("whole") == said(str(run))


@pytest.mark.usefixtures("small_bytes")
def test_no_checkpoint_of_weights_that_are_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("run", WILD) == 3
    assert not [p for p in Path("run").glob("checkpoints/step-*")
                if not all(torch.isfinite(t).all()
                           for t in load_file(p / "model.safetensors").values())]  # fmt: skip


def test_a_full_disk_and_a_folder_that_is_gone(tmp_path: Path) -> None:
    code = """
import resource, shutil, sys
from trainer import loop
from trainer.__main__ import main
if sys.argv[1] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
else:
    run = loop.run
    def gone(*given):
        shutil.rmtree("gone")
        return run(*given)
    loop.run = gone
sys.exit(main(["--config", "config.yaml", "--run-dir", sys.argv[1]]))
"""
    config(NETWORK)
    for name in ("full", "gone"):
        process = subprocess.run(
            [sys.executable, "-c", code, name], stderr=subprocess.PIPE, text=True, check=False
        )
        assert process.returncode == 1, process.stderr  # nobody has the weights
        assert "Traceback" not in process.stderr
        assert process.stderr.count("training goes on without: ") == 1
        assert process.stderr.count("no checkpoint at step 60, whose weights are lost: ") == 1
        assert not list(Path().glob(f"{name}/checkpoints/step-*")), "nothing half-written"


BAD = """
def squares():
    return lambda prediction, target: (prediction - target).square() / (target != 17)
"""
BAD_CONFIG = f"""
name: bad
data: {{name: points, x: {[[n / 40] for n in range(40)]}, y: {[[n] for n in range(40)]}, batch_size: 4}}
model: {{name: mlp, depth: 2, width: 4}}
loss: {{name: "bad_loss:squares"}}
optimizer: {{name: sgd, lr: 1e-4}}
stop: {{steps: 30}}
monitor: {{every_steps: 1000}}
"""  # noqa: E501


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> str:
    Path("bad_loss.py").write_text(BAD)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(sys.modules, "bad_loss", raising=False)
    return BAD_CONFIG


def test_what_is_not_finite_is_skipped(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained("run", bad, "on_nonfinite=skip") == 0  # 3 passes, one bad batch each
    assert "3 steps, not finite" in capsys.readouterr().err
    found = list(records(Path("run"), print))
    assert sum(not np.isfinite(record.loss) for record in found) == 3
    (last,) = listing.complete(Path("run/checkpoints"))
    held = load_file(last / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in held.values())


def test_what_is_not_finite_is_raised_and_recorded_first(bad: str) -> None:
    with pytest.raises(FloatingPointError, match="not finite at step") as raised:
        trained("run", bad, "on_nonfinite=raise")
    found = list(records(Path("run"), print))
    assert not np.isfinite(found[-1].loss)
    assert str(found[-1].step) in str(raised.value)
    assert np.isnan(found[-1].update_ratio).all() or (found[-1].update_ratio == 0).all()


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(bad: str) -> None:
    rows = ["data.batch_size=1", "data.shuffle=false"]  # step 17 is bad
    assert trained("run", bad, "checkpoint.every_steps=1", "checkpoint.keep=30", *rows) == 3
    assert json.loads(Path("run/result.json").read_text())["steps"] == 17
    assert [record.step for record in records(Path("run"), print)] == [*range(11), 17]
    assert listing.step_of(listing.complete(Path("run/checkpoints"))[0]) == 17


@pytest.mark.usefixtures("small_bytes")
def test_poisoned_weights_are_never_kept(
    bad: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_loss, "told", lambda loss: loss)  # as of a loss on a device
    rows = ["data.batch_size=1", "data.shuffle=false"]  # step 17 is bad, step 20 looked at
    assert trained("run", bad, "checkpoint.every_steps=1", "checkpoint.keep=30", *rows) == 3
    newest = listing.complete(Path("run/checkpoints"))[0]
    assert listing.step_of(newest) == 17
    assert "weights are not finite any more" in capsys.readouterr().err
    for path in listing.complete(Path("run/checkpoints")):
        held = load_file(path / "model.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in held.values())


def test_deterministic_is_torchs_own_switch() -> None:
    assert trained("run", NETWORK, "deterministic=true", "stop.steps=10") == 0
    assert torch.are_deterministic_algorithms_enabled()
    assert trained("other", NETWORK, "stop.steps=10") == 0
    assert not torch.are_deterministic_algorithms_enabled()
