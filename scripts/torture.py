"""Does a run survive what happens to runs?

    python scripts/torture.py kills [--runs 200]    # SIGKILL anywhere: is it the unbroken run?
    python scripts/torture.py damage [--ways 1000]  # damaged checkpoints: is each one refused?
    python scripts/torture.py fuzz [--cases 25000]  # hostile files and arguments: is each one told?
    python scripts/torture.py faults [--moments 50] # signals; full disks and the like: as promised?
    python scripts/torture.py soak [--minutes 60]   # training for long: does anything grow?

Prints counts; the exit status is 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from torture_suites.damage import damage
from torture_suites.faults import faults
from torture_suites.fuzz import fuzz
from torture_suites.kills import kills
from torture_suites.signals import signals
from torture_suites.soak import soak


def run(arguments: list[str]) -> int:
    """Runs one of the suites; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", choices=("kills", "damage", "fuzz", "faults", "soak"))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--ways", type=int, default=1000)
    parser.add_argument("--cases", type=int, default=25_000)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--only", nargs="*", default=[], metavar="FAULT")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work and leave what differs")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # small networks; and a fork has no other threads
    os.environ["OMP_NUM_THREADS"] = "1"  # what is started anew sums up in the same order
    work = (given.folder or Path(tempfile.mkdtemp(prefix="torture-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(work):
        match given.suite:
            case "kills":
                wrong = kills(work, given.runs, given.seed)
            case "damage":
                wrong = damage(work, given.ways, given.seed)
            case "fuzz":
                wrong = fuzz(work, given.cases, given.seed)
            case "faults":
                wrong = faults(work / "faults", given.seed, given.only)
                wrong += 0 if given.only else signals(work / "signals", given.moments, given.seed)
            case _:
                wrong = soak(work, given.minutes)
    if not wrong and not given.folder:
        shutil.rmtree(work)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
