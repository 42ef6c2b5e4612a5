"""What is said on the terminal, and what of it gets lost without ending the training."""

import os
import sys

import pytest
from test_events import made

from trainer.console import Console


def test_a_full_disk_takes_no_more_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        with pytest.raises(OSError, match="No space left"):
            print("this file takes nothing", file=sys.stderr)
        console = Console()
        console.say("something")
        console.table([("left", "right")])
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # so that it can be closed


def test_nobody_reads_messages_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stderr", pipe)
        Console().say("something")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe.fileno())


def test_what_can_be_written_again_is_written(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", buffering=1) as file:
        monkeypatch.setattr(sys, "stderr", file)
        console = Console()
        console.say("while it is full")
        os.dup2(1, file.fileno())
        console.say("when it is not")
        monkeypatch.undo()
    assert capfd.readouterr().out.splitlines() == ["while it is full", "when it is not"]


@pytest.mark.parametrize(("terminal", "unit"), [(False, ""), (True, ""), (False, " of apples")])
def test_a_cost_is_shown_with_its_own_step(
    terminal: bool, unit: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
    console, record = Console(), made(50)
    console.start(600, unit)
    console.progress(45, None)
    console.progress(75, record)
    console.progress(90, record, skipped=2)
    console.stop()
    said = f"cost {record.loss:.6g}{unit}, gradient norm {record.gradient_norm:.3g} at step 50"
    told = capfd.readouterr().err
    if terminal:
        assert f"{said}  skipped 2" in told
    else:
        assert [line.rstrip() for line in told.splitlines()] == [
            "step 45/600", f"step 75/600  {said}", f"step 90/600  {said}  skipped 2"
        ]  # fmt: skip
