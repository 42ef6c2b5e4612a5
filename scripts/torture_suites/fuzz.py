"""Checks configurations, overrides and data that no one should write: is each one told?"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torture_suites.hostile_configs import CONFIGS, FILES, Case, hostile_configs
from torture_suites.hostile_files import hostile_data, hostile_overrides
from trainer.__main__ import main

SECONDS = 1.0  # for a refusal
BUILDING = 5.0  # for what is built, of its data or of all
BYTES_A_SECOND = 2_000_000  # of a file of data, on top of that
MEMORY = 500_000_000  # bytes on top of what torch has taken
AT_ONCE = 20  # cases in a process
HANGS = 120.0  # seconds after which no end is waited for
LOCATED = re.compile(r"^(?:config\.yaml(?::(?P<row>\d+):\d+)?|command line): .", re.MULTILINE)
USAGE = re.compile(r"usage: .*\n(?: .*\n)*python -m trainer: error: ")
VALID = re.compile(r"config\.yaml: valid; [\d,]+ parameters, [\d,]+ rows\n\Z")
OF_MEMORY = re.compile(r"MemoryError|allocate|out of memory", re.IGNORECASE)


@dataclass(frozen=True)
class Ended:
    """How a check ended."""

    signal: int  # 0: by itself
    status: int
    seconds: float
    out: str
    err: str
    left: frozenset[str]  # the files of the working folder
    data: int  # bytes of the file of data


def start(batch: list[tuple[Case, Path]]) -> int:
    """Starts a process that checks these cases, each in its folder; its number."""
    process = os.fork()
    if process:
        return process
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for case, folder in batch:
            check(case, folder)
    finally:
        os._exit(0)


def check(case: Case, folder: Path) -> None:
    """Checks a case in this process; what came of it is left beside the folder."""
    folder.mkdir()
    os.chdir(folder)
    Path("data").symlink_to(CONFIGS / "data")
    for name, make in case.files.items():
        make(Path(name))
    for number, name in ((1, "out"), (2, "err")):
        with open(beside(folder, name), "w") as file:
            os.dup2(file.fileno(), number)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, -1))
    signal.setitimer(signal.ITIMER_REAL, HANGS)  # its signal ends the process
    started, status = time.process_time(), 70  # of the processor: others may be using it too
    try:
        status = main(["--config", case.config, "--check", *case.overrides])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 71
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    seconds = time.process_time() - started
    signal.setitimer(signal.ITIMER_REAL, 0)
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    beside(folder, "end").write_text(f"{status} {seconds}")


def beside(folder: Path, name: str) -> Path:
    """The file in which something of a case is told."""
    return folder.with_name(f"{folder.name}.{name}")


def ended(folder: Path, process_status: int) -> Ended:
    """How the check in a folder ended, in a process that ended with this status."""
    told = []
    for name in ("end", "out", "err"):
        file = beside(folder, name)
        told.append(file.read_text(errors="replace") if file.exists() else "")
        file.unlink(missing_ok=True)
    status, seconds = told[0].split() if told[0] else ("-1", "inf")
    table = folder / "data.csv"
    return Ended(
        0 if told[0] else os.WTERMSIG(process_status),
        int(status),
        float(seconds),
        told[1],
        told[2],
        frozenset(os.listdir(folder)),
        table.stat().st_size if table.is_file() else 0,
    )


def wrong(case: Case, how: Ended) -> str | None:
    """What is wrong with the end of a check; None where it is as promised."""
    located = LOCATED.search(how.err)
    rows = (located and located["row"]) or "1"
    if how.signal:
        return f"ended by {signal.Signals(how.signal).name}"
    if "Traceback" in how.err:
        return f"a traceback: {how.err.splitlines()[-1][:200]}"
    if how.status not in (0, 2):
        return f"status {how.status}"
    if how.left - {"data", *case.files}:
        return f"left {sorted(how.left - {'data', *case.files})}"
    if OF_MEMORY.search(how.err):
        return f"memory was asked for: {how.err[:200]}"
    warned = not how.err or "Warning: " in how.err  # torch's own, of what is no mistake
    if how.status == 0 and not (warned and VALID.fullmatch(how.out)):
        return f"a valid check that says {how.out[:100]!r} and {how.err[:200]!r}"
    if how.status == 2 and not (located or USAGE.match(how.err)):
        return f"not located: {how.err[:200]!r}"
    if how.status == 2 and how.out:
        return f"a refusal that says {how.out[:200]!r}"
    if located and (int(rows) > 1_000_000 or len(how.err) > 20_000):
        return f"{len(how.err)} characters"
    odd = {character for character in how.err if not (character.isprintable() or character == "\n")}
    if odd and located:
        return f"{sorted(odd)} on the terminal"
    if how.seconds > limit(case, how):
        return f"{how.seconds:.1f} s"
    return None


def limit(case: Case, how: Ended) -> float:
    """The seconds that a check may take."""
    builds = how.status == 0 or case.kind == "sizes"
    return (BUILDING if builds else SECONDS) + how.data / BYTES_A_SECOND


def checked(cases: Iterator[Case], work: Path) -> Iterator[tuple[Case, Path, Ended]]:
    """Checks the cases, a batch in a process, as many at once as there are processors."""
    named = ((case, work / f"case-{number}") for number, case in enumerate(cases))
    running: dict[int, list[tuple[Case, Path]]] = {}
    left: list[tuple[Case, Path]] = []  # of a batch whose process was ended
    while True:
        while len(running) < (os.cpu_count() or 1):
            batch = left or list(itertools.islice(named, AT_ONCE))
            left = []
            if not batch:
                break
            running[start(batch)] = batch
        if not running:
            return
        process, status = os.wait()
        batch = running.pop(process)
        begun = [(case, folder) for case, folder in batch if folder.exists()]
        left += batch[len(begun) :]
        for case, folder in begun:
            yield case, folder, ended(folder, status)


def hostile(cases: int, seed: int) -> Iterator[Case]:
    """Four fifths configurations, a tenth overrides, a tenth data files."""
    yield from hostile_configs(cases - 2 * (cases // 10), seed)
    yield from hostile_overrides(cases // 10, seed)
    yield from hostile_data(cases // 10, seed)


def fuzz(work: Path, cases: int, seed: int) -> int:
    """Checks so many hostile inputs; how many did not end as promised."""
    # What is loaded when it is needed is loaded here, before the forks.
    importlib.import_module("torch._dynamo")
    for file in FILES:
        with contextlib.redirect_stdout(None):
            assert main(["--config", str(file), "--check"]) == 0
    gc.freeze()
    counts: Counter[str] = Counter()
    number, slowest = 0, 0.0
    for case, folder, how in checked(hostile(cases, seed), work):
        reason = wrong(case, how)
        for attempt in range(2):  # or was the machine busy with something else?
            if reason and reason.endswith(" s"):
                again = folder.with_name(f"{folder.name}-{attempt}")
                _, status = os.waitpid(start([(case, again)]), 0)
                reason = wrong(case, how := ended(again, status))
                shutil.rmtree(again)
        outcome = "valid" if how.status == 0 else "refused"
        if reason:
            number += 1
            outcome = "WRONG"
            overrides = " ".join(repr(text[:200]) for text in case.overrides[:5])
            print(f"{folder} {overrides}: {case.kind}: {reason}", flush=True)
        else:
            if limit(case, how) == SECONDS:
                slowest = max(slowest, how.seconds)
            shutil.rmtree(folder)
        counts[f"{case.kind.partition(': ')[0]}: {outcome}"] += 1
    print("\n".join(f"{count:6} {what}" for what, count in sorted(counts.items())))
    print(f"{sum(counts.values())} cases, {number} wrong, the slowest refusal took {slowest:.2f} s")
    return number
