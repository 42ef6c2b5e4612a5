"""Injects the faults of disks, clocks and neighbours, and asks whether runs end as promised."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import trainer
from torture_suites.case import Case, NotPossible, at, disk, fill, give_up_rights
from torture_suites.disks import DISKS
from torture_suites.kills import said
from torture_suites.remains import half_written
from torture_suites.runs import EVERY, WORKLOADS, ended, log_of, start, train, unbroken
from trainer.checkpoints import checkpoint, listing

DAY, YEAR = 86400.0, 365 * 86400.0


def no_cache(case: Case) -> Iterator[str]:
    """The compiled kernel can be kept nowhere: another user's package, no home, no room."""
    package = case.work / "package"
    shutil.copytree(Path(trainer.__file__).parent, package / "trainer",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for path in [package, *package.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    shut = case.work / "shut"
    shut.mkdir(mode=0o555)
    without = {"HOME": str(shut), "XDG_CACHE_HOME": str(shut), "PYTHONPATH": str(package)}
    with contextlib.ExitStack() as held:
        places = [None, shut]
        with contextlib.suppress(NotPossible):
            places.append(held.enter_context(disk(case.work / "disk")))
            fill(places[-1])
        for place in places:
            keys = {} if place is None else {"NUMBA_CACHE_DIR": str(place)}
            shutil.rmtree(case.folder, ignore_errors=True)
            log_of(case.folder).write_text("")
            environment = {**os.environ, **without, **keys}
            process = start(
                case.config, case.folder, env=environment, preexec_fn=give_up_rights, cwd=case.work
            )
            status, told = process.wait(), log_of(case.folder).read_text()
            if status or "rror" in told or "arning" in told:
                yield f"status {status} with {keys}: {told}"
                continue
            yield from case.is_the_unbroken_run()
            newest = listing.complete(case.folder / "checkpoints")[0]
            if not checkpoint.read(newest).tree["mark"]["kernel"]:
                yield "the kernel was not in use"
        if kept := [each for each in case.work.rglob("*.nb?") if each.stat().st_size]:
            yield f"compiled code was kept all the same: {kept}"
    for path in [package, *package.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def clock_jumps(case: Case) -> Iterator[str]:
    """Back by a day, then forward by a year; and between a run and its going on."""
    step, now = case.drawn.randrange(5, 40), time.time

    def jumps() -> None:
        offsets = [0.0]
        time.time = lambda: now() + offsets[-1]
        at(step, lambda: offsets.append(-DAY))
        at(step + 20, lambda: offsets.append(YEAR))

    yield from case.ends(jumps, 0)
    yield from case.is_the_unbroken_run()
    shutil.rmtree(case.folder)

    def ahead() -> None:
        time.time = lambda: now() + YEAR
        at(step, lambda: os.kill(os.getpid(), signal.SIGTERM))

    yield from case.ends(ahead, 143)
    yield from case.goes_on()


def two_processes(case: Case) -> Iterator[str]:
    """Started at the same moment in a folder: one trains, the other one is refused."""
    refused = re.compile(
        f"{re.escape(str(case.folder))}: another process trains here; end it first"
    )
    for existing in (False, True):
        for number in range(5):
            if not existing:
                shutil.rmtree(case.folder, ignore_errors=True)
            log_of(case.folder).write_text("")
            ready, go = os.pipe()
            more = (f"stop.steps={85 + 5 * number}",) if existing else ()

            def wait(ready: int = ready) -> None:
                os.read(ready, 1)

            both = [train(case.config, case.folder, wait, *more) for _ in range(2)]
            os.write(go, b"go")
            statuses = sorted(map(ended, both))
            os.close(ready)
            os.close(go)
            told = log_of(case.folder).read_text()
            over = told.count("starts anew")  # it came when the other one was through
            if "Traceback" in told or statuses != [0, 0 if over else 2]:
                yield f"statuses {statuses}: {told}"
            if len(refused.findall(told)) + over != 1:
                yield f"nobody was refused: {told}"
            yield from half_written(case.folder)
            if not existing:
                yield from case.is_the_unbroken_run()


def stale_lock(case: Case) -> Iterator[str]:
    """A killed process leaves its lock file, which keeps nobody out."""
    step = case.step()
    kill = lambda: at(step, lambda: os.kill(os.getpid(), signal.SIGKILL))  # noqa: E731
    if ended(train(case.config, case.folder, kill)) != 137:
        yield "it was not killed"
    if not (case.folder / "lock").exists():
        yield "there is no lock"
    yield from case.goes_on()


FAULTS = (*DISKS, no_cache, clock_jumps, two_processes, stale_lock)


def faults(work: Path, seed: int, only: Sequence[str] = ()) -> int:
    """Injects each fault, or only some, once; how many were met otherwise than promised."""
    drawn, wrong, injected = random.Random(seed), 0, 0
    work.mkdir()
    config, whole = work / "mlp.yaml", work / "whole"
    config.write_text(WORKLOADS["mlp"] + EVERY)
    unbroken(config, whole)
    expected = said(whole)
    for fault in FAULTS if not only else [each for each in FAULTS if each.__name__ in only]:
        name = fault.__name__.replace("_", " ")
        case = Case(work / fault.__name__, config, expected, drawn)
        case.work.mkdir()
        try:
            complaints = list(fault(case))
        except NotPossible as why:
            print(f"{name}: not possible here: {why}")
            continue
        injected += 1
        wrong += bool(complaints)
        print(f"{name}: {'; '.join(complaints) or 'as promised'}", flush=True)
    print(f"{injected} faults, {wrong} wrong")
    return wrong
