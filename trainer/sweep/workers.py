"""The processes of a sweep: as many trials at a time as asked for, until none is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

from trainer.console import aside
from trainer.sweep.axes import written
from trainer.sweep.storage import Claim, Storage

POLL_SECONDS = 0.1
SHARED_SECONDS = 1.0  # between looks at what other processes have finished or left
END_SECONDS = 10.0  # a trial has to end in, once told to

Running = list[tuple[Claim, subprocess.Popen[bytes]]]


def run(storage: Storage, jobs: int) -> int | None:
    """Runs trials until all are finished, here or elsewhere; the signal that ended it early."""
    received: list[int] = []

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    running: Running = []
    try:
        look, waits = 0.0, False
        while True:
            # A signal from a terminal reaches the trials as well: what ends after it is not over.
            ended = [(claim, process) for claim, process in running if process.poll() is not None]
            if received:
                return received[0]
            for claim, process in ended:
                running.remove((claim, process))
                storage.finish(claim, process.returncode)
                look = 0.0
            if time.monotonic() >= look:
                while len(running) < jobs and (claimed := storage.claim()) is not None:
                    running.append((claimed, _start(storage, claimed, jobs)))
                if not running and storage.finished():
                    return None
                if not running and not waits:
                    aside("waiting for trials of other processes")
                    waits = True
                look = time.monotonic() + SHARED_SECONDS
            time.sleep(POLL_SECONDS)
    finally:
        _end(running)
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(storage: Storage, claim: Claim, jobs: int) -> subprocess.Popen[bytes]:
    values, folder = written(claim.values), storage.run_folder(claim.index)
    aside(f"{folder.name}  {'  '.join(values)}")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))  # trials do not crowd each other out
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "--config", str(storage.folder / "config.yaml"),
         "--run-dir", str(folder), *values],
        stdin=subprocess.DEVNULL,
        stdout=claim.log,  # and so holds it: as long as the run lives, the trial is somebody's
        stderr=claim.log,
        env={"OMP_NUM_THREADS": threads, **os.environ},
    )  # fmt: skip


def _end(running: Running) -> None:
    """Ends the trials that still run; they wait for the next sweep."""
    for _, process in running:
        process.terminate()
    end = time.monotonic() + END_SECONDS
    for claim, process in running:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        claim.log.close()
