"""The command report: what is wrong with a run, from what it has logged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.config import ConfigError
from trainer.config.file import read
from trainer.console import aside
from trainer.diagnosis import Diagnosis
from trainer.events.reader import event_files, records
from trainer.last_words import with_last_words
from trainer.record import StepRecord
from trainer.summary import Summary, loss_unit

WANTED = "name the folder of one run"


def main(arguments: Sequence[str]) -> int:
    """Prints the report of a run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer report",
        description="Diagnose the run in a folder from what it has logged, also while it goes on.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--json", action="store_true", help="print it as JSON, nothing left out")
    given = parser.parse_args(arguments)
    try:
        tree = configuration(given.run)
        diagnosis, summary = Diagnosis(tree), Summary(loss_unit(tree))
        newest = None
        for newest in logged(given.run):
            summary.add(newest)
            diagnosis.add(newest)
        findings = with_last_words(diagnosis.findings, given.run, newest)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{given.run}: cannot be read: {error.strerror}", file=sys.stderr)
        return 2
    if given.json:
        said = {"run": str(given.run), **summary.tree(findings)}
        print(json.dumps(said, indent=2, ensure_ascii=False))
    else:
        print("\n".join(summary.lines(findings)))
    return 0


def configuration(run: Path) -> dict[str, Any] | None:
    """The tree of the run's own `config.yaml`; None where somebody else's loop has made the run."""
    path = run / "config.yaml"
    return read(path, []).tree if path.exists() else None


def logged(run: Path) -> Iterator[StepRecord]:
    """The records of a run; raises ConfigError where there are none."""
    if not run.is_dir():
        raise ConfigError([f"{run}: {'is a file' if run.exists() else 'no such folder'}; {WANTED}"])
    if not event_files(run):
        below = sorted([*run.glob("*/*tfevents*"), *run.glob("*/*/*tfevents*")])
        example = f", such as {below[-1].parent}" if below else ""
        raise ConfigError([f"{run}: holds no event file; {WANTED}{example}"])
    number = 0
    for record in records(run, aside):
        number += 1
        yield record
    if not number:
        raise ConfigError([f"{run}: its event files hold no records, or none yet"])
