"""Trials are taken once, go on after kills, and are drawn alike by whichever process draws them."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from trainer.sweep.axes import Axis, Range

pytest.importorskip("optuna")

from trainer.sweep.storage import Claim, Storage  # noqa: E402

TWO = [Axis("lr", ("1", "2"))]


def complete(storage: Storage, claim: Claim, cost: float, reason: str = "steps") -> None:
    """As if the trial's run had come to its end."""
    folder = storage.run_folder(claim.index)
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"cost": cost, "reason": reason}))
    storage.finish(claim, 0 if reason == "steps" else 3)


# Workers that share a storage and are killed wherever they are. A run notes its end only after its
# result is there: two notes of one trial are two runs to the end.
WORKERS = """
import json, os, random, signal, sys, time
from pathlib import Path
from trainer.sweep.axes import Axis
from trainer.sweep.storage import Storage

folder, trials, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
random.seed(sys.argv[4])

def work():
    storage = Storage(folder, [Axis("a", tuple(map(str, range(trials))))], "grid", trials)
    while not storage.finished():
        claim = storage.claim()
        if claim is None:
            time.sleep(0.005)
            continue
        run = storage.run_folder(claim.index)
        run.mkdir()
        time.sleep(random.uniform(0, 0.03))
        (run / "draft").write_text(json.dumps({"cost": 0.0, "reason": "steps"}))
        (run / "draft").replace(run / "result.json")
        with (folder / "ends").open("a") as file:
            print(claim.index, file=file)
        storage.finish(claim, 0)

def start():
    seed = random.random()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            random.seed(seed)
            work()
            status = 0
        finally:
            os._exit(status)
    return pid

workers = [start() for _ in range(4)]
while workers:
    if kills and len(workers) == 4:
        time.sleep(random.uniform(0.005, 0.04))
        kills -= 1
        os.kill(random.choice(workers), signal.SIGKILL)
    pid, status = os.wait()
    workers.remove(pid)
    if os.WIFSIGNALED(status):
        workers.append(start())
    elif status:
        sys.exit("a worker failed")
print("kills left:", kills)
"""


def test_whoever_is_killed_no_trial_is_lost_or_run_twice_to_the_end(tmp_path: Path) -> None:
    trials, kills, seed = 40, 40, random.randrange(1000)
    command = [sys.executable, "-c", WORKERS, str(tmp_path), str(trials), str(kills), str(seed)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, f"seed {seed}: {ended.stderr}"
    left = int(ended.stdout.removeprefix("kills left: "))  # on a busy machine the work ends first
    assert left < kills
    storage = Storage(tmp_path, [Axis("a", tuple(map(str, range(trials))))], "grid", trials)
    assert storage.finished()
    entries = storage.trials()
    assert [entries[i].params["a"] for i in range(trials)] == [str(i) for i in range(trials)]
    assert all(entry.value == 0.0 for entry in entries.values())
    ends = Counter((tmp_path / "ends").read_text().split())
    assert max(ends.values()) == 1, f"seed {seed}: {ends.most_common(3)}"


def test_a_trial_whose_process_is_gone_waits_again(tmp_path: Path) -> None:
    mine, other = (Storage(tmp_path, TWO, "grid", 2) for _ in range(2))
    first, second = mine.claim(), mine.claim()
    assert first is not None and second is not None
    assert other.claim() is None and not other.finished()  # both are held
    first.log.close()  # as if its process were gone, with nothing written
    again = other.claim()
    assert again is not None and (again.index, again.values) == (first.index, first.values)
    mine.run_folder(second.index).mkdir()
    result = {"cost": 1.0, "reason": "steps"}
    (mine.run_folder(second.index) / "result.json").write_text(json.dumps(result))
    second.log.close()  # gone too, but its run came to its end
    assert other.claim() is None
    other.finish(again, 1)
    assert other.finished() and mine.finished()


def test_a_run_that_outlives_its_sweep_keeps_its_trial(tmp_path: Path) -> None:
    mine, other = (Storage(tmp_path, TWO, "grid", 2) for _ in range(2))
    claim = mine.claim()
    assert claim is not None
    run = subprocess.Popen(["sleep", "60"], stdout=claim.log)
    claim.log.close()  # the sweep is gone
    second = other.claim()
    assert second is not None and second.index != claim.index
    assert other.claim() is None
    run.kill()
    run.wait()
    again = other.claim()
    assert again is not None and again.index == claim.index
    second.log.close()
    again.log.close()


def test_a_torn_last_line_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    storage = Storage(tmp_path, TWO, "grid", 2)
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(b'{"op_code": 4, "work')
    claim = storage.claim()
    assert claim is not None
    storage.finish(claim, 1)
    states = [entry.state.name for entry in Storage(tmp_path, TWO, "grid", 2).trials().values()]
    assert states == ["FAIL", "WAITING"]


MIXED = [Axis("lr", Range("log", 1e-4, 1.0)), Axis("depth", Range("int", 1, 9)),
         Axis("norm", ("none", "layer"))]  # fmt: skip


def drawn(folder: Path, sampler: str, trials: int, afresh: bool) -> list[dict[str, str]]:
    """The values of all trials, told by a cost; `afresh` takes each in a new process's place."""
    folder.mkdir(exist_ok=True)
    storage, values = Storage(folder, MIXED, sampler, trials), []
    while claim := storage.claim():
        values.append(claim.values)
        complete(storage, claim, abs(math.log10(float(claim.values["lr"])) + 2))
        if afresh:
            storage = Storage(folder, MIXED, sampler, trials)
    return values


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_what_is_drawn_depends_on_no_process(tmp_path: Path, sampler: str) -> None:
    one, two = tmp_path / "1" / "s", tmp_path / "2" / "s"
    for folder in (one, two):
        folder.parent.mkdir()
    values = drawn(one, sampler, 16, afresh=False)
    assert drawn(two, sampler, 16, afresh=True) == values
    assert len({v["lr"] for v in values}) == 16
    assert all(1e-4 <= float(v["lr"]) <= 1 and 1 <= int(v["depth"]) <= 9 for v in values)
    more = drawn(one, sampler, 18, afresh=False)  # goes on where it was
    assert len(more) == 2 and not {v["lr"] for v in more} & {v["lr"] for v in values}


def test_a_killed_trial_gets_the_values_it_had(tmp_path: Path) -> None:
    storage = Storage(tmp_path, MIXED, "random", 1)
    claim = storage.claim()
    assert claim is not None
    claim.log.close()
    again = Storage(tmp_path, MIXED, "random", 1).claim()
    assert again is not None and again.values == claim.values
    again.log.close()


def test_tpe_learns_from_what_was_found(tmp_path: Path) -> None:
    axes = [Axis("lr", Range("log", 1e-6, 1.0)), Axis("norm", ("none", "layer"))]
    storage, lrs = Storage(tmp_path, axes, "tpe", 40), []
    while claim := storage.claim():
        lrs.append(lr := float(claim.values["lr"]))
        cost = abs(math.log10(lr) + 3) + (claim.values["norm"] == "none")
        complete(storage, claim, cost, reason="not finite" if lr > 0.1 else "steps")
    assert len(lrs) == 40

    def far(part: list[float]) -> float:
        return sum(abs(math.log10(lr) + 3) for lr in part) / len(part)

    assert far(lrs[25:]) < far(lrs[:10])  # those first ones are random
