"""What was said of a run when it ended, which its records do not tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trainer.finding import FILE, Finding
from trainer.record import StepRecord


def with_last_words(
    findings: list[Finding], run_dir: Path, record: StepRecord | None
) -> list[Finding]:
    """The findings of the records, of which this is the newest, and those of the end that the run's
    folder holds, if that was its last one, in the place of information of the same verdict."""
    said = {}
    for finding in _written(run_dir):
        if record is not None and finding.ended_with(record.step, record.loss):
            said[finding.verdict] = finding
    told = [f for f in findings if f.resolved or f.verdict not in said]
    return [*told, *said.values()]


def _written(run_dir: Path) -> Iterator[Finding]:
    """The findings in the file of a run; what is no line of it is passed over."""
    try:
        lines = (run_dir / FILE).read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            yield Finding.from_json(line.decode())
        except ValueError:
            continue
