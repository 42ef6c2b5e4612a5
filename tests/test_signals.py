"""Signals before training starts: there is nothing to keep, and nothing is said."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.signals import Signals

LINEAR = Path(__file__).parent.parent / "configs" / "linear.yaml"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs to see what a process ignores")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_training(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "trainer", "--config", str(LINEAR)]
    paths = os.pathsep.join([str(LINEAR.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` ignores it
    ) as process:  # fmt: skip
        while not _ignores(process.pid, signal.SIGUSR1):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGUSR1)  # would end a process that had not heard of it
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(number)
        _, told = process.communicate()
    assert (process.returncode, told) == (-number, "")
    assert not (tmp_path / "runs").exists()


def test_an_interrupt_amid_a_callback_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises nothing from there; the compiler of the kernels calls such ones."""
    told, callback = list[object](), ctypes.CFUNCTYPE(None)
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(lost.exc_type))
    before = sys.unraisablehook
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            callback(lambda: signal.raise_signal(signal.SIGINT))()
            time.sleep(5)
            pytest.fail("it was lost")
        callback(lambda: 1 / 0)()
    assert told == [ZeroDivisionError]
    assert sys.unraisablehook is before


def test_the_second_interrupt_raises_whatever_came_between() -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def _ignores(process: int, number: int) -> bool:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (mask,) = (line.split()[1] for line in lines if line.startswith("SigIgn"))
    return bool(int(mask, 16) >> (number - 1) & 1)
