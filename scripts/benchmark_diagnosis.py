"""How often is the diagnosis right, how often does it cry wolf, and how do its peers do?

    python scripts/benchmark_diagnosis.py [--output FILE] [--misses] [--sensitivity]

Trains the programs of diagnosis_zoo on two processes of one thread each, keeps what a Monitor saw
of them in a folder (a second call goes on where the first ended) and lets every detector look at
the same records. What is sick and what is healthy is decided by how a run ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from diagnosis_zoo import tables
from diagnosis_zoo.case import OURS, Case, Reading, cases, read, vary
from diagnosis_zoo.recording import SEEDS, Job, jobs, record

PROCESSES = 2
T = TypeVar("T")


def each(work: Callable[[Job], T], todo: Sequence[Job], verb: str) -> list[T]:
    """The results of the work on all jobs, with a line on stderr now and then."""
    started, results = time.monotonic(), list[T]()
    with ProcessPoolExecutor(PROCESSES, None, torch.set_num_threads, (1,)) as pool:
        for result in pool.map(work, todo, chunksize=4):
            results.append(result)
            if len(results) % 100 == 0 or len(results) == len(todo):
                seconds = time.monotonic() - started
                print(f"{verb} {len(results)} of {len(todo)}, {seconds:.0f} s", file=sys.stderr)
    return results


def place(case: Case) -> str:
    """Which run it is and how it ended."""
    reading = case.reading
    return (
        f"{case.program.name} seed {reading.job.seed}: final {reading.final:.4g}, "
        f"constant {reading.constant:.4g}, progress {case.progress:.2f}, {reading.steps} steps"
    )


def line(what: str, case: Case) -> str:
    """A run that went wrong for the diagnosis, with all that was said of it."""
    wanted = f"  wanted: {', '.join(sorted(case.program.verdicts)) or '-'}"
    wanted += f" in {case.program.where or 'any'} by {case.program.causes or 'any'}"
    said = [f"  said: {finding}" for finding in case.reading.findings] or ["  said nothing"]
    return "\n".join([f"{what} {place(case)}", wanted, *said])


def misses(found: Sequence[Case]) -> list[str]:
    """Every miss, false alarm, wrong layer and cause, and the runs that do not count."""
    lines = []
    for case in found:
        if case.kind in ("between", "healed"):
            lines.append(f"{case.kind.upper()} {place(case)}")
        alarm = case.right(OURS)
        if case.kind == "healthy" and case.alarms(OURS):
            lines.append(line("FALSE ALARM", case))
        if case.kind != "sick":
            continue
        if not case.alarms(OURS):
            lines.append(line("MISSED", case))
        elif case.program.verdicts and alarm is None:
            lines.append(line("WRONG VERDICT", case))
        elif alarm is not None and case.right_layer(alarm) is False:
            lines.append(line("WRONG LAYER", case))
        elif alarm is not None and case.right_cause(alarm) is False:
            lines.append(line("WRONG CAUSE", case))
    return lines


def varied() -> dict[str, object]:
    """The thresholds as they are, and with each of them three times as large and a third of it."""
    from trainer.diagnosis.thresholds import Thresholds

    made: dict[str, object] = {"as they are": Thresholds()}
    for name, value in dataclasses.asdict(Thresholds()).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for sign, changed in (("x 3", value * 3), ("/ 3", value / 3)):
            number = max(1, round(changed)) if isinstance(value, int) else changed
            made[f"{name} {sign}"] = dataclasses.replace(Thresholds(), **{name: number})
    return made


def sensitivity(folder: Path, found: Sequence[Case]) -> str:
    """The table of what changed thresholds do on the kept traces of the runs that it counts."""
    found = [*tables.named(found), *tables.healthy(found, "healthy")]
    variants = varied()
    jobs_ = [case.reading.job for case in found]
    alarms = each(partial(vary, folder, variants), jobs_, "varied")

    def seen(name: str) -> list[Case]:
        return [
            dataclasses.replace(
                case, reading=dataclasses.replace(case.reading, alarms={OURS: said[name]})
            )
            for case, said in zip(found, alarms, strict=True)
        ]

    return tables.sensitivity({name: seen(name) for name in variants})


def parsed() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", nargs="+", choices=list(SEEDS), default=list(SEEDS))
    parser.add_argument("--seeds", type=int, help="at most so many of each program")
    parser.add_argument("--first-seed", type=int, default=0, help="10: runs nobody has looked at")
    parser.add_argument("--quick", action="store_true", help="one seed of every eighth program")
    parser.add_argument("--cache", type=Path, default=Path("runs/diagnosis-traces"))
    parser.add_argument("--cached", action="store_true", help="train nothing, read what is there")
    parser.add_argument("--misses", action="store_true", help="list what went wrong for ours")
    parser.add_argument("--sensitivity", action="store_true", help="vary each of our thresholds")
    parser.add_argument("--output", type=Path, help="write the tables to this file as well")
    return parser.parse_args()


def main() -> None:
    asked = parsed()
    seeds, every = (1, 8) if asked.quick else (asked.seeds, 1)
    asked_for = jobs(asked.groups, seeds, every, asked.first_seed)
    there = [job for job in asked_for if (asked.cache / job.file).exists()]
    if not asked.cached:
        missing = [job for job in asked_for if job not in set(there)]
        each(partial(record, asked.cache), missing, "trained")
        there = asked_for
    if not there:
        sys.exit(f"no traces in {asked.cache}")
    readings: list[Reading] = each(partial(read, asked.cache), there, "read")
    found = cases(readings)
    if asked.misses:
        print("\n".join(misses(found)), end="\n\n")
    text = tables.report(found)
    if asked.sensitivity:
        text += "\n\n" + sensitivity(asked.cache, found)
    print(text)
    if asked.output is not None:
        asked.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
