"""What is found is told: on the console, in files, in TensorBoard, to callbacks, by the end."""

from __future__ import annotations

import json
import logging
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from standin import ENDED, SPIKE, VANISHING, WORSE, Told, tell
from test_events import values
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from trainer import Monitor
from trainer.__main__ import main
from trainer.events import Events
from trainer.finding import Finding
from trainer.monitor.journal import Journal
from trainer.summary import markdown

__all__ = ["tell"]
Tell = Callable[[Told], list[Any]]

LINEAR = Path(__file__).parent.parent / "configs" / "linear.yaml"
TOLD = {3: [VANISHING], 4: [SPIKE], 5: [WORSE], 8: [ENDED]}
EVENTS = [VANISHING, SPIKE, WORSE, ENDED]


def texts(folder: Path) -> list[tuple[int, str]]:
    """Steps and contents of the text `findings` in the one event file of the folder."""
    (path,) = folder.glob("events*")
    return [
        (event.step, value.tensor.string_val[0].decode())
        for event, value in values(path)
        if value.tag == "findings"
    ]


def written(folder: Path) -> list[str]:
    return (folder / "findings.jsonl").read_text().splitlines()


def train(monitor: Monitor, model: nn.Module, steps: int = 10) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        loss = model(torch.ones(2, 1)).square().mean()
        loss.backward()
        with monitor.step(step, loss):
            optimizer.step()
        optimizer.zero_grad()


def run(folder: Path, *overrides: str) -> int:
    arguments = ["--config", str(LINEAR), "--run-dir", str(folder), "stop={steps: 10}"]
    return main([*arguments, *overrides])


def test_in_somebody_elses_loop(
    tell: Tell, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tell(TOLD)
    model = nn.Linear(1, 1)
    caplog.set_level(logging.INFO, "trainer")
    with Monitor(model, tmp_path, every_steps=1, configuration={"name": "x"}) as monitor:
        train(monitor, model, 5)
        assert monitor.findings == [VANISHING, SPIKE]
        assert written(tmp_path) == [VANISHING.to_json(), SPIKE.to_json()], "at once"
        train(monitor, model)
    assert made[0].configuration == {"name": "x"}
    assert monitor.findings == [ENDED, SPIKE]
    assert texts(tmp_path)[:2] == [(3, markdown([VANISHING])), (4, markdown([VANISHING, SPIKE]))]
    assert texts(tmp_path)[-1] == (7, markdown([ENDED, SPIKE]))
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told[0] == (
        "WARNING",
        "warning: vanishing in weight (step 3): initialisation: each layer passes on a quarter of "
        "the gradient; start from weights that keep its size",
    )
    assert told[-2:] == [("WARNING", str(WORSE)), ("INFO", str(ENDED))]
    assert all("loss_spike" not in message for _, message in told), "info is no alarm"
    assert capsys.readouterr() == ("", "")


def test_a_second_run_in_one_folder_is_warned_of_and_deletes_nothing(
    tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell({3: [VANISHING]})
    model, earlier = nn.Linear(1, 1), [VANISHING.to_json()]
    with Monitor(model, tmp_path, found=lambda finding: None) as monitor:
        train(monitor, model)
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    tell({4: [SPIKE]})
    message = (
        f"{tmp_path} holds what another run has written, which stays there: TensorBoard shows both "
        "as one, findings.jsonl has the findings of both; give each run a new folder"
    )
    with pytest.warns(UserWarning) as warned:
        monitor = Monitor(model, tmp_path, found=lambda finding: None)
    assert [(str(w.message), w.filename) for w in warned] == [(message, __file__)]
    with monitor:
        train(monitor, model, 5)
    assert written(tmp_path) == [*earlier, SPIKE.to_json()]
    for path, content in files.items():
        assert path.name == "findings.jsonl" or path.read_bytes() == content
    assert main(["report", "--json", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == [0, 4], "of the newer run"
    assert [found["verdict"] for found in report["findings"]] == ["loss_spike"]


@pytest.mark.parametrize("left", ["findings.jsonl", "events"])
def test_either_of_what_a_run_has_written_is_warned_of(tmp_path: Path, left: str) -> None:
    if left == "events":
        Monitor(nn.Linear(1, 1), tmp_path).close()
    else:
        (tmp_path / left).write_text("")
    with pytest.warns(UserWarning, match="holds what another run has written"):
        Monitor(nn.Linear(1, 1), tmp_path).close()


def test_event_files_of_others_are_not_warned_of(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer, warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.add_scalar("mine", 1.0, 0)
        Monitor(nn.Linear(1, 1), tmp_path).close()


def test_a_callback_takes_the_place_of_logging(tell: Tell, caplog: Any) -> None:
    tell(TOLD)
    model, found = nn.Linear(1, 1), []
    train(Monitor(model, found=found.append, every_steps=1), model)
    assert found == EVENTS
    assert caplog.records == []


def test_a_callback_may_end_the_training(tell: Tell) -> None:
    tell(TOLD)

    def give_up(finding: Finding) -> None:
        raise StopIteration(finding.verdict)

    model = nn.Linear(1, 1)
    with pytest.raises(StopIteration, match="vanishing"):
        train(Monitor(model, found=give_up), model)


def test_the_diagnosis_comes_after_the_sinks(tell: Tell) -> None:
    tell(TOLD)
    model, order = nn.Linear(1, 1), []
    sinks = [lambda record: order.append(record.step)]
    train(Monitor(model, sinks=sinks, found=lambda f: order.append(f.verdict)), model, 5)
    assert order == [0, 1, 2, 3, "vanishing", 4, "loss_spike"]


def test_it_can_be_turned_off(tell: Tell, tmp_path: Path, capsys: Any) -> None:
    made = tell(TOLD)
    model = nn.Linear(1, 1)
    monitor = Monitor(model, diagnose=False)
    train(monitor, model)
    assert monitor.findings == [] and made[0].records == []
    assert run(tmp_path / "run", "monitor.diagnose=false") == 0
    assert not (tmp_path / "run" / "findings.jsonl").exists()
    assert "diagnosis" not in capsys.readouterr().err


def test_a_diagnosis_that_fails_does_not_end_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        findings: list[Finding] = []
        suspects = False

        def __init__(self, configuration: object) -> None:
            pass

        def add(self, record: object) -> list[Finding]:
            raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("trainer.monitor.checkup.Diagnosis", Broken)
    model = nn.Linear(1, 1)
    train(Monitor(model), model)
    (record,) = caplog.records
    message = "the diagnosis failed at step 0 and is off from here on; training goes on"
    assert record.getMessage() == message
    assert "ZeroDivisionError: division by zero" in caplog.text


def test_a_file_that_cannot_be_written_does_not_end_the_training(
    tell: Tell, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tell({3: [SPIKE]})
    (tmp_path / "findings.jsonl").mkdir()
    model = nn.Linear(1, 1)
    with Monitor(model, tmp_path) as monitor:
        train(monitor, model)
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/findings.jsonl: cannot be written: Is a directory"
    ]
    assert texts(tmp_path) == [(4, markdown([SPIKE]))]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = Events(tmp_path)
    journal, path = Journal(tmp_path, events), tmp_path / "findings.jsonl"
    journal.write(SPIKE)
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
    try:
        journal.write(SPIKE)
        journal.write(SPIKE)
        assert path.read_bytes() == whole
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: cannot be written: File too large"
    ]
    journal.write(SPIKE)
    assert path.read_bytes() == whole + whole
    events.close()


def test_a_run_tells_live_and_at_its_end(tell: Tell, tmp_path: Path, capsys: Any) -> None:
    made = tell(TOLD)
    folder = tmp_path / "run"
    assert run(folder) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    change = "  try model.init.hidden='{name: kaiming_uniform_, nonlinearity: relu}'"
    live, end = shown.err.split("weight   ", 1)
    assert live.splitlines()[2:] == [str(VANISHING), change, str(WORSE), change, str(ENDED)]
    report = end[end.index("diagnosis: ") :].splitlines()
    assert report[:4] == [
        "diagnosis: 2 findings (10 steps looked at, from 0 to 9; loss 6.65 to 0.798)",
        "  (whole model)  loss_spike (info)",
        "  model          vanishing (resolved); gradient 0.9",
        "",
    ]
    assert report[-1] == "  try   model.init.hidden='{name: kaiming_uniform_, nonlinearity: relu}'"
    assert written(folder) == [finding.to_json() for finding in EVENTS]
    assert texts(folder)[-1] == (7, markdown([ENDED, SPIKE]))
    assert made[0].configuration["optimizer"] == {"name": "sgd", "lr": 0.1}
    assert made[0].configuration["monitor"]["diagnose"] is True, "defaults are there"
    result = json.loads((folder / "result.json").read_text())
    assert (result["reason"], result["status"]) == ("steps", 0)
    assert result["findings"] == [
        {"verdict": "vanishing", "level": "critical", "where": "weight", "steps": [3, 7],
         "resolved": True},
        {"verdict": "loss_spike", "level": "info", "where": None, "steps": [4, 4],
         "resolved": False},
    ]  # fmt: skip


def test_a_run_that_is_well_says_so_in_one_line(tell: Tell, tmp_path: Path, capsys: Any) -> None:
    tell({})
    assert run(tmp_path / "run") == 0
    shown = capsys.readouterr().err
    assert shown.splitlines()[-1] == (
        "diagnosis: nothing is wrong (10 steps looked at, from 0 to 9; loss 6.65 to 0.798)"
    )
    assert shown.count("diagnosis") == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["findings"] == []
    assert not (tmp_path / "run" / "findings.jsonl").exists()


@pytest.mark.parametrize(
    ("stop_on", "steps", "stopped"),
    [
        ("null", 10, None),
        ("warning", 4, "warning finding: vanishing in weight (step 3)"),
        ("critical", 6, "critical finding: vanishing in weight (steps 3 to 5)"),
    ],
)
def test_a_finding_can_end_the_run(
    tell: Tell, tmp_path: Path, capsys: Any, stop_on: str, steps: int, stopped: str | None
) -> None:
    (made, folder) = (tell(TOLD), tmp_path / "run")
    assert run(folder, f"stop_on={stop_on}") == (0 if stopped is None else 3)
    result = json.loads((folder / "result.json").read_text())
    assert (result["reason"], result["steps"]) == (stopped or "steps", steps)
    assert result["status"] == (0 if stopped is None else 3)
    assert len(made[0].records) == steps, "the step after the finding is not made"
    said = " ".join(capsys.readouterr().err.split())
    assert f"stopped {stopped or 'all 10 steps are done'}" in said


def test_what_is_resolved_or_info_ends_no_run(tell: Tell, tmp_path: Path) -> None:
    tell({3: [SPIKE], 4: [ENDED]})
    assert run(tmp_path / "run", "stop_on=warning") == 0


def test_stopping_on_findings_needs_a_diagnosis(tmp_path: Path, capsys: Any) -> None:
    assert run(tmp_path / "run", "stop_on=critical", "monitor.diagnose=false") == 2
    assert capsys.readouterr().err == (
        "command line: stop_on=critical: stop_on: nothing is found while monitor.diagnose is "
        "false\n"
    )
    assert not (tmp_path / "run").exists()


def test_levels_are_coloured_where_the_terminal_has_it(monkeypatch: Any, capsys: Any) -> None:
    from trainer.console import Console

    Console().found(["warning: vanishing in [a]", "  a  vanishing (critical)"])
    plain = capsys.readouterr().err
    assert plain == "warning: vanishing in [a]\n  a  vanishing (critical)\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    Console().found(["warning: vanishing in [a]", "  a  vanishing (critical)"])
    coloured = capsys.readouterr().err
    assert "\x1b[33mwarning\x1b[0m: vanishing in [a]" in coloured
    assert "vanishing (\x1b[1;31mcritical\x1b[0m)" in coloured
