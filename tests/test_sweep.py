"""Sweeps as a user runs them: each trial a process, through kills and failures, to one table."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard_server import serve, session_groups

from trainer.__main__ import main

pytest.importorskip("optuna")
WAIT_SECONDS = 300  # for what takes seconds on a machine that is not crowded
GONE_SECONDS = 5.0  # less than a trial that goes on would take

# The user's own data, which note in a file each run's start and that it came to its end.
TALLY = """
import atexit, os
def rows(note=None):
    with open("tally", "a") as file: print("start", note, file=file)
    def end():
        with open("tally", "a") as file: print("end", note, file=file)
    atexit.register(end)
    if note == "broken": raise RuntimeError("this one breaks")
    return [[i / 8] for i in range(8)], [[1 + i / 4] for i in range(8)]
"""
CONFIG = """
name: tally
data: {name: "tally_rows:rows"}
model: {name: linear}
loss: {name: mse}
optimizer: {name: sgd, lr: 0.1}
metrics: [r2]
validation: {fraction: 0.25}
stop: {steps: 10}
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    return furnished(tmp_path)


def furnished(folder: Path) -> Path:
    (folder / "tally_rows.py").write_text(TALLY)
    (folder / "tally.yaml").write_text(CONFIG)
    return folder


def sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    command = [sys.executable, "-m", "trainer", "sweep", "--config", "tally.yaml", *arguments]
    return subprocess.Popen(
        command, cwd=folder, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def noted(folder: Path, what: str) -> list[str]:
    tally = folder / "tally"
    lines = tally.read_text().splitlines() if tally.exists() else []
    return sorted(line.split()[1] for line in lines if line.startswith(what))


def results(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of the results by trial: the same file means the same run."""
    found = folder.glob("runs/tally/sweep-*/*/result.json")
    return {p.parent.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


RATES = ("1e-3", "1e-2", "1e9")
NOTES = ("a", "b")
TRIALS = len(RATES) * len(NOTES)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a sweep was killed in the middle, and its table at the end."""
    folder = furnished(tmp_path_factory.mktemp("killed"))
    arguments = [f"optimizer.lr={','.join(RATES)}", f"data.note={','.join(NOTES)}", "--jobs=2"]
    first = sweep(folder, *arguments)
    wait_for(lambda: len(noted(folder, "start")) > max(3, len(noted(folder, "end"))), first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = results(folder)
    assert 2 <= len(before) < TRIALS
    second = sweep(folder, *arguments)
    out, err = second.communicate(timeout=WAIT_SECONDS)
    assert second.returncode == 0, err
    after = results(folder)
    assert len(after) == TRIALS
    assert {name: after[name] for name in before} == before, "a finished trial was run again"
    return folder, out


def test_a_killed_sweep_goes_on(killed: tuple[Path, str]) -> None:
    folder, out = killed
    # One end may be missing: of a run that was killed between its result and its last word.
    assert len(noted(folder, "start")) > TRIALS >= len(noted(folder, "end")) >= TRIALS - 1
    header, *rows = [line.split() for line in out.replace("best validation", "best").splitlines()]
    results = ["best", "loss", "r2", "steps", "ended", "alarms"]
    assert header == ["trial", "optimizer.lr", "data.note", *results]
    assert sorted(row[0] for row in rows) == [f"{i:04d}" for i in range(TRIALS)]
    assert {(row[1], row[2]) for row in rows} == set(itertools.product(RATES, NOTES))
    losses = [float(row[3]) for row in rows[:-2]]
    assert losses == sorted(losses) and len(set(losses)) == 2  # the notes change nothing
    for row in rows[-2:]:
        assert row[1] == "1e9" and row[3] == "–" and row[6] == "diverged"
        assert row[-1] == "non_finite"
    for row in rows[:-2]:
        (run,) = folder.glob(f"runs/tally/sweep-*/{row[0]}")
        result = json.loads((run / "result.json").read_text())
        assert float(row[3]) == pytest.approx(result["best_validation_loss"], rel=1e-7)
        assert float(row[4]) == pytest.approx(result["metrics"]["r2"], rel=1e-3)
        config = (run / "config.yaml").read_text()
        assert f"lr: {float(row[1])!r}" in config and f"note: {row[2]}" in config


def test_its_trials_are_in_the_hparams_tab(killed: tuple[Path, str]) -> None:
    folder, out = killed
    tags = ("loss/train", "loss/validation", "r2/validation")
    with serve(folder / "runs", "--load_fast=false") as server:
        asked = "plugin/hparams/session_groups", session_groups(*tags)
        answer = server.until(lambda a: len(a["sessionGroups"]) == TRIALS, *asked)
        experiment = server.get("plugin/hparams/experiment", {"experimentName": ""})
    names = [info["name"] for info in experiment["hparamInfos"]]
    assert names[:2] == ["data.note", "optimizer.lr"], "what is varied stands in the first columns"
    sessions = [(g["hparams"], s) for g in answer["sessionGroups"] for s in g["sessions"]]
    seen = {(values["optimizer.lr"], values["data.note"]) for values, _ in sessions}
    assert seen == {(float(rate), note) for rate, note in itertools.product(RATES, NOTES)}
    for values, session in sessions:
        diverged = values["optimizer.lr"] == 1e9
        assert session["status"] == ("STATUS_FAILURE" if diverged else "STATUS_SUCCESS")
        last = {m["name"]["tag"]: m["value"] for m in session["metricValues"]}
        if not diverged:
            (run,) = folder.glob(f"runs/tally/sweep-*/{Path(session['name']).name}")
            result = json.loads((run / "result.json").read_text())
            assert last["loss/validation"] == pytest.approx(result["validation_loss"], rel=1e-6)
            assert last["r2/validation"] == pytest.approx(result["metrics"]["r2"], rel=1e-5)
            assert last["loss/train"] > 0


def test_a_failing_trial_stops_no_other_and_two_sweeps_share_them(workplace: Path) -> None:
    both = [sweep(workplace, "data.note=broken,b") for _ in range(2)]
    try:
        ended = [(p.communicate(timeout=WAIT_SECONDS), p.returncode) for p in both]
    finally:
        for process in both:
            process.kill()
    (out, err), status = ended[0]
    assert status == ended[1][1] == 1, err
    assert out == ended[1][0][0], "both end with the table of all"
    assert noted(workplace, "start") == ["b", "broken"]
    rows = [line.split(maxsplit=5) for line in out.splitlines()[1:]]
    assert rows[0][:2] == ["0001", "b"]
    assert rows[1][:5] == ["0000", "broken", "–", "–", "–"]
    assert rows[1][5].startswith("failed (status ") and "this one breaks" in rows[1][5]


def test_a_trial_that_a_finding_ended_has_not_diverged(workplace: Path) -> None:
    (workplace / "tally.yaml").write_text(CONFIG.replace("steps: 10", "steps: 200"))
    given = ("stop_on=warning", "optimizer.lr=1e-9,2e-9", "monitor.every_steps=10")
    out, err = sweep(workplace, *given).communicate(timeout=WAIT_SECONDS)
    rows = out.splitlines()[1:]
    assert len(rows) == 2, err
    for row in rows:
        assert "warning finding: " in row and "diverged" not in row
        assert float(row.split()[2]) > 0


def test_nobody_reads_what_a_sweep_says(workplace: Path) -> None:
    with sweep(workplace, "optimizer.lr=1e-3,1e-2") as process:
        assert process.stderr is not None and process.stdout is not None
        process.stderr.close()
        out = process.stdout.read()
    assert process.returncode == 0
    assert len(results(workplace)) == 2 and len(out.splitlines()) == 3


def test_a_signal_ends_the_trials_too(workplace: Path) -> None:
    process = sweep(workplace, "optimizer.lr=1e-9,2e-9", "stop.steps=1000000000")
    wait_for(lambda: noted(workplace, "start") == ["None"], process)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (128 + signal.SIGTERM, ""), err
    end = time.monotonic() + GONE_SECONDS
    with pytest.raises(ProcessLookupError):  # no trial goes on, nor what it had just started
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.02)
    assert results(workplace) == {}


def test_sampled_trials(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    drawn = ["optimizer.lr=log(1e-3,1e-1)", "accumulate_steps=int(1,2)", "--sampler=random"]
    assert main(["sweep", "--config", "tally.yaml", *drawn, "--trials=1"]) == 0
    _, row = capsys.readouterr().out.splitlines()
    number, rate, accumulated, *_ = row.split()
    (path,) = workplace.glob(f"runs/tally/sweep-*/{number}/config.yaml")
    config = path.read_text()
    assert 1e-3 <= float(rate) <= 1e-1 and f"lr: {rate}" in config
    assert accumulated in ("1", "2") and f"accumulate_steps: {accumulated}" in config
