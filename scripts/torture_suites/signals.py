"""Signals runs at random moments, and asks whether each one ends, or goes on, in good order."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture_suites.kills import different, said
from torture_suites.remains import half_written
from torture_suites.runs import EVERY, WORKLOADS, ended, log_of, start, train, unbroken
from trainer import signals as taken
from trainer.checkpoints import Checkpoints

KINDS = {
    "SIGINT": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGUSR1": (signal.SIGUSR1,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
}
IMPORT_SECONDS = 2.5
BETWEEN_SECONDS = 0.1
AT_ONCE_SECONDS = 2.0
WORKERS_GO_SECONDS = 10.0  # those whose trainer was killed look for it every 5 seconds
NOT_BEGUN = "a signal before or after training"
SAMPLES = """
import torch

class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 256
    def __getitem__(self, index):
        x = torch.tensor([index / 256, (7 * index % 256) / 256])
        return x, torch.tensor([float(index % 3)])
"""
WITH_WORKERS = """
name: workers
data: {name: "samples:Samples", batch_size: 16, workers: 2}
model: {name: mlp, depth: 2, width: 8}
loss: {name: mse}
optimizer: {name: sgd, lr: 1e-3}
stop: {steps: 300}
checkpoint: {every_steps: 50}
"""


def signals(work: Path, moments: int, seed: int) -> int:
    """Signals runs `moments` times in each way; how many did anything that is not promised."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    drawn, wrong = random.Random(seed), 0
    work.mkdir()
    config, whole = work / "mlp.yaml", work / "whole"
    config.write_text(WORKLOADS["mlp"] + EVERY)
    seconds = unbroken(config, whole)
    expected = said(whole)
    for kind, numbers in KINDS.items():
        counts: Counter[str] = Counter()
        for moment in range(moments):
            folder = work / f"{kind.replace(' ', '-')}-{moment}"
            begins = _begin if moment % 10 else _start  # a whole process, with all its imports
            outcome, complaints = _signalled(begins, config, folder, numbers, seconds, drawn)
            if begins is _start:
                counts["from the start of the process"] += 1
            counts[outcome] += 1
            if outcome != "ended at once":  # what that leaves is deleted when the run goes on
                complaints += half_written(folder)
            if (status := ended(train(config, folder))) != 0:
                complaints.append(f"going on: status {status}")
            else:
                complaints += [f"differs in {part}" for part in different(expected, said(folder))]
                complaints += half_written(folder)
            if complaints:
                wrong += 1
                print(f"{folder}: {'; '.join(complaints)}")
            else:
                counts["identical in the end"] += 1
                shutil.rmtree(folder)
        told = ", ".join(f"{number} {what}" for what, number in counts.items())
        print(f"{kind}: {told}", flush=True)
    return wrong + _workers(work, -(-moments // 5), drawn)


def _signalled(
    begins: Callable[[Path, Path], tuple[int, Callable[[], int]]],
    config: Path,
    folder: Path,
    numbers: tuple[int, ...],
    seconds: float,
    drawn: random.Random,
) -> tuple[str, list[str]]:
    """Sends the signals to a run; what came of it, and what is wrong with that."""
    process, wait = begins(config, folder)
    longest = seconds if begins is _begin else seconds + IMPORT_SECONDS
    early = late = False
    for number in numbers:
        time.sleep(drawn.uniform(0.0, longest))
        longest = BETWEEN_SECONDS
        os.kill(process, signal.SIGSTOP)  # so that it does not end between the look and the signal
        os.waitid(os.P_PID, process, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        told = log_of(folder).read_text()
        early, late = early or "writing to" not in told, late or "\nstopped" in told
        os.kill(process, number)  # one that has ended is there until it is waited for
        os.kill(process, signal.SIGCONT)
    sent = time.monotonic()
    status, took, told = wait(), time.monotonic() - sent, log_of(folder).read_text()
    complaints = ["a traceback"] if "Traceback" in told else []
    if status not in (0, 128 + numbers[0]) or (numbers[0] == signal.SIGUSR1 and status):
        complaints.append(f"status {status}")
    if "interrupted at once" in told:
        outcome = "ended at once"
        if len(numbers) < 2 or took > AT_ONCE_SECONDS:
            complaints.append(f"ended at once, after {took:.1f} s")
    elif "to go on: python -m trainer" in told:
        outcome = "interrupted"
    elif "; training goes on" in told:
        outcome = "a checkpoint more"
    elif status == 0:
        outcome = "too late" if late or NOT_BEGUN in told or begins is _start else "IN VAIN"
        if early and (numbers == (signal.SIGUSR1,) or begins is _begin):
            outcome = "too early"  # SIGUSR1 then does nothing, and amid a fork Python drops others
        complaints += [outcome] if outcome.isupper() else []
    else:
        outcome = "before training"
        if "writing to" in told and "stopped" not in told and len(numbers) < 2:
            complaints.append("ended without a word")
    return outcome, complaints


def _begin(config: Path, folder: Path) -> tuple[int, Callable[[], int]]:
    process = train(config, folder, _notes)
    return process, lambda: ended(process)


def _start(config: Path, folder: Path) -> tuple[int, Callable[[], int]]:
    process = _started(config, folder)

    def wait() -> int:
        status = process.wait()
        return status if status >= 0 else 128 - status

    return process.pid, wait


def _started(config: Path, folder: Path, **keys: Any) -> subprocess.Popen[bytes]:
    """A whole process, from the moment on that it is ours and no longer an empty interpreter."""
    process = start(config, folder, **keys)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        (ignored,) = (line.split()[1] for line in status.splitlines() if "SigIgn" in line)
        if int(ignored, 16) >> (signal.SIGUSR1 - 1) & 1:
            break
        time.sleep(0.005)
    return process


def _notes() -> None:
    """In a process that will train: has it say where a signal finds no step that it could end."""
    taken.outside_training()
    pause, receive, going = Checkpoints.pause, taken.Signals._receive, [False]

    def paused(self: Checkpoints, progress: Any) -> str | None:
        going[0] = progress.step < self._experiment.config.stop.steps - 1
        return pause(self, progress)

    def received(self: taken.Signals, number: int, frame: Any) -> None:
        if not going[0]:
            print(NOT_BEGUN, file=open(2, "w", closefd=False))
        receive(self, number, frame)

    Checkpoints.pause, taken.Signals._receive = paused, received  # type: ignore[method-assign]


def _workers(work: Path, times: int, drawn: random.Random) -> int:
    """Signals whole process groups of a run with data workers; how many left one, or worse."""
    (work / "samples.py").write_text(SAMPLES)
    config, wrong, counts = work / "workers.yaml", 0, Counter[str]()
    config.write_text(WITH_WORKERS)
    whole = work / "workers-whole"
    seconds = -time.monotonic()
    assert start(config, whole, cwd=work).wait() == 0, log_of(whole).read_text()
    seconds += time.monotonic()
    expected = said(whole)
    for moment in range(times):
        kind, numbers = drawn.choice([*KINDS.items(), ("SIGKILL", (signal.SIGKILL,))])
        folder = work / f"workers-{moment}"
        process = _started(config, folder, start_new_session=True, cwd=work)
        longest = seconds
        for number in numbers:
            time.sleep(drawn.uniform(0.0, longest))
            longest = BETWEEN_SECONDS
            if process.poll() is None:
                send = os.kill if number == signal.SIGKILL else os.killpg
                send(process.pid, number)
        status = process.wait()
        told = log_of(folder).read_text()
        # A worker whose trainer was killed may say so in multiprocessing's own words.
        complaints = ["a traceback"] if "Traceback" in told and kind != "SIGKILL" else []
        if status not in (0, -numbers[0], 128 + numbers[0]):
            complaints.append(f"status {status}")
        if kind in ("SIGINT", "SIGTERM", "SIGUSR1"):
            complaints += half_written(folder)
        complaints += _orphans(process.pid)
        if (again := start(config, folder, cwd=work).wait()) != 0:
            complaints.append(f"going on: status {again}")
        else:
            complaints += [f"differs in {part}" for part in different(expected, said(folder))]
        counts[kind] += 1
        if complaints:
            wrong += 1
            print(f"{folder}, {kind}: {'; '.join(complaints)}")
        else:
            counts["without an orphan, and identical in the end"] += 1
            shutil.rmtree(folder)
    print("groups with workers: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    return wrong


def _orphans(group: int) -> Iterator[str]:
    """Says so where processes of a group are still there after a while."""
    end = time.monotonic() + WORKERS_GO_SECONDS
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    yield "orphans are left"
    os.killpg(group, signal.SIGKILL)
