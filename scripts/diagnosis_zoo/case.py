"""One run of the benchmark: what the detectors said of it, and what was right."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diagnosis_peers import GATED, PEERS, Alarm, gated

from diagnosis_zoo import outcome
from diagnosis_zoo.program import Program, Trace
from diagnosis_zoo.recording import Job, load, programs
from trainer.diagnosis import Diagnosis

OURS = "trainer"
VERDICT_GROUPS = ("vanishing", "exploding", "dead", "non-finite", "other")
OF_FAMILY = {
    "vanish": "vanishing",
    "collapse": "vanishing",
    "dead": "dead",
    "explode": "exploding",
    "finite": "non-finite",
    "loop": "other",
    "saturate": "other",
}
# Groups of which is known what is meant to train.
BUILT = ("sick", "healthy", "foreign", "fresh", "later", "last")
OF_PUBLISHED = {"vanishing": "vanishing", "exploding": "exploding", "dying_relu": "dead"}


@dataclass(frozen=True)
class Reading:
    """What is kept of a trace: how it ended, and what each detector said."""

    job: Job
    steps: int
    final: float
    middle: float
    constant: float
    alarms: dict[str, list[Alarm]]
    findings: list[str]
    records: int
    seconds: float  # that the diagnosis took


@dataclass(frozen=True)
class Case:
    """A reading with its label by outcome."""

    reading: Reading
    program: Program
    label: outcome.Label
    progress: float

    @property
    def kind(self) -> str:
        """What it counts as."""
        group, faulty = self.reading.job.group, bool(self.program.verdicts)
        if group in BUILT and faulty and self.label == "healthy":
            return "healed"
        if group in BUILT and not faulty and self.label == "sick":
            return "between"  # the program was meant to train: neither
        return self.label

    @property
    def verdict_group(self) -> str | None:
        """The row of the table it counts in; None where nobody knows what is wrong."""
        if self.reading.job.group == "circle":
            return OF_PUBLISHED.get(self.program.name.rpartition("-")[2])
        return OF_FAMILY.get(self.program.family)

    def alarms(self, detector: str) -> list[Alarm]:
        """All of a detector."""
        alarms = self.reading.alarms[detector]
        return gated(alarms, self.progress) if detector == GATED else alarms

    def right(self, detector: str) -> Alarm | None:
        """The first alarm with a right verdict."""
        return next((a for a in self.alarms(detector) if a.verdict in self.program.verdicts), None)

    def right_layer(self, alarm: Alarm) -> bool | None:
        """Whether it names the layer; None where any is right."""
        if not self.program.where:
            return None
        return alarm.where is not None and any(
            f"{alarm.where}.".startswith(f"{start}.") for start in self.program.where
        )

    def right_cause(self, alarm: Alarm) -> bool | None:
        """Whether it names the cause; None where any is right."""
        return alarm.cause.startswith(self.program.causes) if self.program.causes else None


def diagnosed(trace: Trace, **keys: object) -> tuple[list[Alarm], list[str]]:
    """The alarms of our diagnosis, one of each verdict and place, and all its findings as text."""
    diagnosis, alarms = Diagnosis(**keys), dict[tuple[str, str | None], Alarm]()  # type: ignore[arg-type]
    for record in trace.records:
        for finding in diagnosis.add(record):
            alarm = Alarm(record.step, finding.verdict, finding.where, finding.cause)
            if finding.alarm:
                alarms.setdefault(alarm[1:3], alarm)
    for finding in diagnosis.end(trace.steps - 1, trace.last):
        alarm = Alarm(trace.steps, finding.verdict, finding.where, finding.cause)
        alarms.setdefault(alarm[1:3], alarm)
    return list(alarms.values()), [str(finding) for finding in diagnosis.findings]


def read(folder: Path, job: Job) -> Reading:
    """Lets every detector look at a kept trace."""
    trace = load(folder, job)
    steps = programs(job.group)[job.name].steps
    alarms = {name: peer(trace.records, steps) for name, peer in PEERS.items()}
    started = time.perf_counter()
    try:
        alarms[OURS], findings = diagnosed(trace)
    except Exception as error:
        error.add_note(f"while diagnosing {job}")
        raise
    seconds = time.perf_counter() - started
    return Reading(
        job, trace.steps, trace.final, outcome.middle(trace), trace.constant,
        alarms, findings, len(trace.records), seconds,
    )  # fmt: skip


def vary(folder: Path, variants: Mapping[str, object], job: Job) -> dict[str, list[Alarm]]:
    """Our alarms on a kept trace with each of these thresholds."""
    trace = load(folder, job)
    return {name: diagnosed(trace, thresholds=value)[0] for name, value in variants.items()}


def cases(readings: Sequence[Reading]) -> list[Case]:
    """The readings with their labels; the best losses are those among them."""
    best = outcome.best_losses((r.job.name, r.final, r.constant) for r in readings)
    return [case(reading, best) for reading in readings]


def case(reading: Reading, best: Mapping[str, float]) -> Case:
    """A reading with its label."""
    program = programs(reading.job.group)[reading.job.name]

    def made(loss: float) -> float:
        return outcome.progress(program.name, loss, reading.constant, best)

    known = not math.isnan(reading.constant)
    share = made(reading.final) if known else math.nan
    half_way = made(reading.middle) if known else math.nan
    return Case(reading, program, outcome.label(program, reading.final, share, half_way), share)
