"""`report` reads what a run has logged and says what was said live, whatever befell its files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from standin import ENDED, SPIKE, VANISHING, WORSE, Told, tell
from test_events import made, written
from torch import Tensor, nn

from trainer import Monitor
from trainer.__main__ import main
from trainer.events import Events, about, file
from trainer.events.reader import event_files, records
from trainer.record import StepRecord
from trainer.wire import encode

__all__ = ["tell"]
Tell = Callable[[Told], list[Any]]

ROOT = Path(__file__).parent.parent
TOLD = {3: [VANISHING], 4: [SPIKE], 5: [WORSE], 8: [ENDED]}


def steps(folder: Path) -> list[int]:
    def refuse(message: str) -> None:
        raise AssertionError(message)

    return [record.step for record in records(folder, refuse)]


def content(record: StepRecord) -> bytes:
    return encode([record])


def test_the_same_live_and_afterwards(tell: Tell, tmp_path: Path, capsys: Any) -> None:
    made, folder = tell(TOLD), tmp_path / "run"
    every = "monitor={every_steps: 3, histogram_every_steps: 4, activation_every_steps: 5}"
    model, data = "model={name: mlp, depth: 2, width: 4}", "optimizer.lr=1e-3"
    arguments = ["--config", str(ROOT / "configs" / "linear.yaml"), "--run-dir", str(folder)]
    assert main([*arguments, every, model, data, "stop={steps: 60}"]) == 0
    live = capsys.readouterr().err
    assert main(["report", str(folder)]) == 0
    afterwards = capsys.readouterr()
    assert afterwards.err == ""
    assert live.endswith(afterwards.out) and afterwards.out.startswith("diagnosis: 2 findings (")
    before, after = made
    assert before.configuration == after.configuration
    assert len(before.records) > 25
    assert [*map(content, before.records)] == [*map(content, after.records)], "bit for bit"


def test_of_somebody_elses_loop(tell: Tell, tmp_path: Path, capsys: Any) -> None:
    made = tell({2: [replace(WORSE, where="0.weight")]})
    model, outputs = nn.Sequential(nn.Linear(1, 1), nn.Tanh()), list[Tensor]()
    for layer in model:
        layer.register_forward_hook(
            lambda *given: (given[2].retain_grad(), outputs.append(given[2]))[1]
        )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Monitor(model, tmp_path, found=lambda finding: None) as monitor:
        for step in range(5):
            loss = model(torch.ones(2, 1)).square().mean()
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    assert main(["report", "--json", str(tmp_path)]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert made[1].configuration is None
    assert tree["loss"][0] > tree["loss"][1] > 0
    assert tree == {
        "run": str(tmp_path),
        "records": 5,
        "steps": [0, 4],
        "loss": tree["loss"],
        "findings": [json.loads(replace(WORSE, where="0.weight").to_json())],
        "layers": tree["layers"],
    }
    told = [(each["layer"], each["state"], each["verdicts"]) for each in tree["layers"]]
    assert told == [("0", "critical", ["vanishing"]), ("1", "ok", [])]
    for each, output in zip(tree["layers"], outputs[-2:], strict=True):
        for name, values in (("gradient_rms", output.grad), ("output_rms", output.detach())):
            assert values is not None
            assert each[name] == pytest.approx(float(values.square().mean().sqrt()), rel=1e-5)
        assert each["signal_fraction"] == 0  # both samples are the same


def test_a_file_is_read_up_to_its_last_whole_event(tmp_path: Path) -> None:
    path = written(tmp_path, [made(k) for k in range(3)])
    whole = path.read_bytes()
    events = Events(tmp_path / "more")
    events.write(made(7))
    events.close()
    (more,) = event_files(tmp_path / "more")
    added = more.read_bytes()
    for length in [*range(0, len(added), 37), len(added)]:
        path.write_bytes(whole + added[:length])
        assert steps(tmp_path) == [0, 1, 2] + [7] * (length == len(added))
    path.write_bytes(whole + added[:-1] + b"?")
    assert steps(tmp_path) == [0, 1, 2], "a wrong checksum"


def test_a_killed_run_reports_what_it_had_flushed(tmp_path: Path) -> None:
    code = f"""
import os, sys, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from trainer.events import Events, writer
from test_events import made
writer.POLL_SECONDS, writer.FLUSH_SECONDS = 0.02, 0.1
events = Events(Path(sys.argv[1]))
for step in range(30):
    events.write(made(step, histograms=step % 10 == 0, layers=step % 3 == 0))
time.sleep(2)  # twenty times the interval
os.kill(os.getpid(), 9)
"""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(tmp_path)])
    assert ended.returncode == -9
    found = list(records(tmp_path, print))
    wanted = [made(k, histograms=k % 10 == 0, layers=k % 3 == 0) for k in range(30)]
    assert [*map(content, found)] == [*map(content, wanted)]


def test_later_files_replace_what_they_begin_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1_700_000_000
    for first, last in [(0, 20), (12, 15), (14, 18)]:  # goes on from a checkpoint, twice
        clock += 60
        monkeypatch.setattr(file.time, "time", lambda now=clock: now)
        events = Events(tmp_path)
        for step in range(first, last):
            events.write(made(step, seed=first))
        events.close()
    found = list(records(tmp_path, print))
    wanted = [made(k, seed=0 if k < 12 else 12 if k < 14 else 14) for k in range(18)]
    assert [*map(content, found)] == [*map(content, wanted)]


def test_a_file_without_records_replaces_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, [made(k) for k in range(3)])
    path.rename(path.with_name("a.tfevents"))
    Events(tmp_path).close()
    assert steps(tmp_path) == [0, 1, 2]


def test_blocks_that_cannot_be_read_are_left_out(tmp_path: Path, capsys: Any) -> None:
    events = Events(tmp_path)
    events._writer.put(about.records_event(b"GRAD\x01...", 5, 0.0))
    for step in range(3):
        events.write(made(step))
    events.close()
    assert main(["report", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    (path,) = event_files(tmp_path)
    assert shown.err.startswith(f"{path}: left out what follows step 5: no readable block of ")
    assert "(3 steps looked at, from 0 to 2; loss 0.89 to 0.208)" in shown.out


def test_what_is_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("empty").mkdir()
    Events(Path("bare")).close()
    written(Path("runs/linear/one"), [made(0)])
    written(Path("wrong"), [made(0)])
    Path("wrong/config.yaml").write_text("name: [a\n")
    for run, message in {
        "absent": "absent: no such folder; name the folder of one run",
        "file": "file: is a file; name the folder of one run",
        "file/config.yaml": "file/config.yaml: no such folder; name the folder of one run",
        "empty": "empty: holds no event file; name the folder of one run",
        "runs": "runs: holds no event file; name the folder of one run, such as runs/linear/one",
        "bare": "bare: its event files hold no records, or none yet",
        "wrong": "wrong/config.yaml:1:9: not valid YAML: while parsing a flow sequence, did not "
        "find expected ',' or ']'",
    }.items():
        assert main(["report", run]) == 2
        shown = capsys.readouterr()
        assert (shown.out, shown.err.splitlines()[0]) == ("", message)
    for arguments in ([], ["runs", "more"], ["runs", "--jsn"]):
        with pytest.raises(SystemExit, match="2"):
            main(["report", *arguments])
        assert "usage: python -m trainer report" in capsys.readouterr().err


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    path = written(tmp_path, [made(0)])

    def refuse(*_: object, **__: object) -> None:  # as for a user who may not; root may
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("io.open", refuse)
    assert main(["report", str(tmp_path)]) == 2
    monkeypatch.undo()
    assert capsys.readouterr() == ("", f"{tmp_path}: cannot be read: Permission denied\n")


def test_reporting_loads_no_torch(tmp_path: Path) -> None:
    written(tmp_path, [made(0)])
    code = "import sys; from trainer.__main__ import main; main(['report', sys.argv[1]]);"
    code += "print({'torch', 'numba', 'tensorflow'} & {*sys.modules})"
    command = [sys.executable, "-c", code, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout.endswith("set()\n")


@pytest.mark.parametrize("command", ["report", "diff"])
def test_a_reader_who_has_seen_enough(run_config: Callable[..., Path], command: str) -> None:
    run = run_config("linear", "stop.steps=3")
    others = [str(ROOT / "configs" / "weighted.yaml")] if command == "diff" else []
    line = [sys.executable, "-m", "trainer", command, str(run), *others]
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), error) == (0, "")
