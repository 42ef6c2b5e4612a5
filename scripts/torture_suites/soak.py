"""Trains for long and asks whether memory, open files, threads and the time of a step stay flat."""

from __future__ import annotations

import os
import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from torture_suites.runs import train
from trainer.checkpoints import listing
from trainer.signals import ENDING

CONFIG = """
name: soak
data: {name: digits, batch_size: 64}
model: {name: mlp, depth: 4, width: 64, dropout: 0.1}
loss: {name: cross_entropy}
metrics: [accuracy]
optimizer: {name: adam, lr: 1.0e-4}
validation: {fraction: 0.2, every_steps: 1000}
checkpoint: {every_steps: 1000}
stop: {steps: 1000000000}
"""
LOOKS = 60  # in all
TICKS = os.sysconf("SC_CLK_TCK")
# From the second quarter to the last: of memory, files, threads and CPU time, which other programs
# on the machine disturb through its caches.
MAX_GROWTH = 1.03, 1.0, 1.0, 1.15


@dataclass(frozen=True)
class Look:
    """A process at a moment, and the step of its newest checkpoint."""

    step: int
    memory_mb: float
    files: int
    threads: int
    cpu_seconds: float

    @classmethod
    def at(cls, process: int, folder: Path) -> Look:
        """Reads them where Linux tells them."""
        place = Path("/proc") / str(process)
        told = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        return cls(
            step=listing.step_of(folder / (folder / "LAST").read_text().strip()),
            memory_mb=int(told["VmRSS"].split()[0]) / 1024,
            files=len(os.listdir(place / "fd")),
            threads=int(told["Threads"]),
            cpu_seconds=(int(fields[11]) + int(fields[12])) / TICKS,
        )


def soak(work: Path, minutes: float) -> int:
    """Prints what a run of so many minutes takes, quarter by quarter; how much of it grows."""
    config, folder = work / "soak.yaml", work / "soaked"
    config.write_text(CONFIG)
    process, looks = train(config, folder), []
    end = time.monotonic() + 60 * minutes
    while not (folder / "checkpoints" / "LAST").exists():
        time.sleep(0.1)
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 60 * minutes / LOOKS))
        looks.append(Look.at(process, folder / "checkpoints"))
    os.kill(process, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    quarters = [looks[i * len(looks) // 4 : (i + 1) * len(looks) // 4] for i in range(4)]
    print(f"{minutes:g} minutes, {looks[-1].step:,} steps")
    print(f"{'quarter':8} {'memory MB':>10} {'files':>6} {'threads':>8} {'CPU us a step':>14}")
    rows = []
    for number, quarter in enumerate(quarters, 1):
        first, last = quarter[0], quarter[-1]
        cpu = 1e6 * (last.cpu_seconds - first.cpu_seconds) / (last.step - first.step)
        memory = statistics.median(look.memory_mb for look in quarter)
        rows.append((memory, max(q.files for q in quarter), max(q.threads for q in quarter), cpu))
        print(f"{number:8} {memory:10.1f} {rows[-1][1]:6} {rows[-1][2]:8} {cpu:14.1f}", flush=True)
    grown = [b > a * most for a, b, most in zip(rows[1], rows[3], MAX_GROWTH, strict=True)]
    events = sum(p.stat().st_size for p in folder.glob("events.*")) / 1e6
    print(f"{sum(grown)} of 4 grew; {events:.1f} MB of events; status {status}")
    return sum(grown) + (status != 128 + ENDING[1])
