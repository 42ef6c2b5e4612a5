"""Which programs run with which seeds, and the folder that keeps what was seen of them."""

from __future__ import annotations

import os
import pickle
import warnings
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from diagnosis_zoo import circle, drawn, foreign, further, healthy, later, sick
from diagnosis_zoo.program import Program, Trace, run

SEEDS = {
    "circle": 10, "sick": 3, "healthy": 6, "drawn": 1, "unseen": 1, "foreign": 1, "fresh": 1,
    "later": 1, "last": 1, "further": 1,
    "further_last": 1,
}  # fmt: skip
LISTS = {
    "circle": circle.programs,
    "sick": sick.programs,
    "healthy": healthy.programs,
    "drawn": lambda: [
        *drawn.networks(range(1100)),
        *drawn.networks(range(2000, 2240)),
        *drawn.networks(range(3000, 3240)),
        *drawn.networks(range(4000, 5675)),
        *drawn.architectures(range(160)),
        *drawn.architectures(range(1000, 1240)),
        *drawn.architectures(range(2000, 2280)),
        *drawn.architectures(range(3000, 4675)),
    ],
    "foreign": lambda: foreign.programs(range(54)),
    "later": lambda: later.programs(range(36)),
    "last": lambda: later.last_programs(range(36)),
    "further": lambda: further.programs(range(32)),
    "further_last": lambda: further.last_programs(range(32)),
    # Drawn when the rules were finished; the rules have not been changed for them.
    "unseen": lambda: [*drawn.networks(range(7375, 7475)), *drawn.architectures(range(6375, 6475))],
    "fresh": lambda: [
        *foreign.programs(range(88, 90)),
        *later.programs(range(70, 72)),
        *later.last_programs(range(70, 72)),
        *further.programs(range(66, 68)),
        *further.last_programs(range(66, 68)),
    ],
}


class Job(NamedTuple):
    """One training; names only, so that it can be sent to another process."""

    group: str
    name: str
    seed: int

    @property
    def file(self) -> str:
        """Where in the folder its trace lies."""
        return f"{self.group}/{self.name.replace('/', '__')}.{self.seed}.pkl"


@cache
def programs(group: str) -> dict[str, Program]:
    """The programs of a group by name."""
    return {program.name: program for program in LISTS[group]()}


def jobs(
    groups: Iterable[str], seeds: int | None = None, every: int = 1, first_seed: int = 0
) -> list[Job]:
    """All trainings of the groups; at most `seeds` of each program, every so many-th program."""
    return [
        Job(group, name, seed)
        for group in groups
        for name in list(programs(group))[::every]
        for seed in range(
            first_seed, first_seed + min(SEEDS[group], SEEDS[group] if seeds is None else seeds)
        )
    ]


def record(folder: Path, job: Job) -> None:
    """Trains and keeps the trace, with what a Monitor looks at by default."""
    path = folder / job.file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about what the faulty programs do
        try:
            trace = run(programs(job.group)[job.name], job.seed, {})
        except Exception as error:
            error.add_note(f"while training {job}")
            raise
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(zlib.compress(pickle.dumps(trace), 1))
    unfinished.rename(path)


def load(folder: Path, job: Job) -> Trace:
    """The trace that was kept; FileNotFoundError when there is none."""
    trace = pickle.loads(zlib.decompress((folder / job.file).read_bytes()))
    assert isinstance(trace, Trace) and trace.program == job.name
    return trace
