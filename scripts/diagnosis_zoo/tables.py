"""What the benchmark found, as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from diagnosis_peers import PEERS
from scipy.stats import beta

from diagnosis_zoo.case import OURS, VERDICT_GROUPS, Case
from diagnosis_zoo.recording import SEEDS

DETECTORS = (OURS, *PEERS)
DRAWN = ("drawn", "unseen")  # groups of which the outcome alone tells that something is wrong
Cases = Sequence[Case]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its columns aligned."""
    cells = [head, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(c.ljust(width) for c, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


def percent(hits: int, of: int) -> str:
    """A share without its sign; a dash of nothing."""
    return f"{100 * hits / of:.1f}".removesuffix(".0") if of else "-"


def upper_bound(hits: int, of: int) -> str:
    """Clopper and Pearson's 95 % upper bound of a share: 3 / n where there was none."""
    return f"{100 * (1.0 if hits == of else beta.ppf(0.95, hits + 1, of - hits)):.2f} %"


def named(found: Cases) -> list[Case]:
    """The sick runs of which it is known what is wrong."""
    return [case for case in found if case.kind == "sick" and case.verdict_group]


def unnamed(found: Cases, group: str) -> list[Case]:
    """The sick runs of a group of which only that is known."""
    return [
        case
        for case in found
        if case.kind == "sick" and not case.verdict_group and case.reading.job.group == group
    ]


def healthy(found: Cases, group: str) -> list[Case]:
    """The runs of a group that train."""
    return [c for c in found if c.kind == "healthy" and c.reading.job.group == group]


def alarmed(found: Iterable[Case], detector: str) -> int:
    """How many of the runs the detector raised any alarm on."""
    return sum(bool(case.alarms(detector)) for case in found)


def right(found: Iterable[Case], detector: str) -> int:
    """On how many of the runs the detector gave a right verdict."""
    return sum(case.right(detector) is not None for case in found)


def counts(found: Cases) -> str:
    """How many runs of which group count as what."""
    kinds = ("healthy", "sick", "between", "healed")

    def row(group: str) -> list[str]:
        of_group = [case.kind for case in found if case.reading.job.group == group]
        return [group, str(len(of_group)), *(str(of_group.count(kind)) for kind in kinds)]

    made = [group for group in SEEDS if any(c.reading.job.group == group for c in found)]
    return table(["runs", "all", *kinds], [row(group) for group in made])


def recalls(found: Cases) -> str:
    """Of the sick runs: the share with the right verdict / with any alarm."""
    groups = {g: [c for c in named(found) if c.verdict_group == g] for g in VERDICT_GROUPS}
    groups["all"] = named(found)

    def cell(detector: str, cases: Cases) -> str:
        hits, any_alarm = right(cases, detector), alarmed(cases, detector)
        return f"{percent(hits, len(cases))} / {percent(any_alarm, len(cases))}"

    head = ["% of sick runs", *(f"{group} ({len(c)})" for group, c in groups.items())]
    return table(head, [[d, *(cell(d, cases) for cases in groups.values())] for d in DETECTORS])


def false_alarms(found: Cases) -> str:
    """Runs that train and were given a warning, and drawn ones that fail and were given one.

    Runs of one program are no independent draws, so the programs are counted too.
    """
    every = healthy(found, "healthy")
    there = {case.reading.job.group for case in found}
    groups = ("healthy", "circle", *DRAWN, "foreign", "fresh", "later", "last")
    trains = {group: healthy(found, group) for group in groups if group in there}
    fails = {group: unnamed(found, group) for group in DRAWN if group in there}

    def row(detector: str) -> list[str]:
        def share(cases: Cases) -> str:
            return f"{alarmed(cases, detector)} of {len(cases)}"

        programs = {case.program.name for case in every}
        warned = {case.program.name for case in every if case.alarms(detector)}
        hits = alarmed(every, detector)
        return [
            detector,
            *map(share, trains.values()),
            upper_bound(hits, len(every)) if every else "-",
            f"{len(warned)} of {len(programs)}",
            *map(share, fails.values()),
        ]

    head = ["alarms on", *(f"{group} that train" for group in trains), "healthy, bound (95 %)"]
    head += ["healthy programs", *(f"{group} that fail" for group in fails)]
    return table(head, [row(detector) for detector in DETECTORS])


def quality(found: Cases, detector: str) -> list[str]:
    """Of the detected runs: median and 90th percentile of the step, layer right, cause right."""
    alarms = [(case, alarm) for case in found if (alarm := case.right(detector)) is not None]
    steps = [alarm.step for _, alarm in alarms]
    layers = [r for case, a in alarms if (r := case.right_layer(a)) is not None]
    causes = [r for case, a in alarms if (r := case.right_cause(a)) is not None]
    return [
        str(len(alarms)),
        *(f"{np.percentile(steps, share):.0f}" if steps else "-" for share in (50, 90)),
        *(f"{percent(sum(hits), len(hits))} of {len(hits)}" for hits in (layers, causes)),
    ]


HOW_WELL = ("detected", "step, median", "90th percentile", "layer right, %", "cause right, %")


def ours_in_detail(found: Cases) -> str:
    """How soon the right verdict is given and what else of it is right, by group."""
    groups = {g: [c for c in named(found) if g in ("all", c.verdict_group)]
              for g in (*VERDICT_GROUPS, "all")}  # fmt: skip
    rows = [[g, str(len(c)), *quality(c, OURS)] for g, c in groups.items() if c]
    return table([OURS, "sick runs", *HOW_WELL], rows)


def how_soon(found: Cases) -> str:
    """The same of all detectors, but causes, which no peer names."""
    rows = [[d, *quality(named(found), d)[:-1]] for d in DETECTORS]
    return table(["all", *HOW_WELL[:-1]], rows)


def published(found: Cases) -> str:
    """How the runs of the Circle networks end, and whether ours says what was published."""
    of_label: dict[str, list[Case]] = {}
    for case in found:
        if case.reading.job.group == "circle":
            of_label.setdefault(case.program.name.rpartition("-")[2], []).append(case)

    def row(label: str, cases: Cases) -> list[str]:
        kinds = [case.kind for case in cases]
        agrees = (
            right(cases, OURS) if cases[0].program.verdicts else len(cases) - alarmed(cases, OURS)
        )
        ends = [str(kinds.count(kind)) for kind in ("sick", "healthy", "between")]
        return [label, str(len(cases)), *ends, str(agrees)]

    head = [
        "published label",
        "runs",
        "sick",
        "healthy",
        "between",
        f"{OURS} agrees with the label",
    ]
    return table(head, [row(label, cases) for label, cases in of_label.items()])


def milliseconds(found: Cases) -> str:
    """What our diagnosis of a record takes."""
    seconds = sum(case.reading.seconds for case in found)
    records = sum(case.reading.records for case in found)
    return f"The diagnosis of a record took {1000 * seconds / records:.2f} ms ({records} records)."


def sensitivity(variants: Mapping[str, Cases]) -> str:
    """Recall and false alarms of ours with one threshold changed; the first is as they are."""

    def row(name: str, found: Cases) -> list[str]:
        sick, train = named(found), healthy(found, "healthy")
        return [
            name,
            percent(right(sick, OURS), len(sick)),
            percent(alarmed(sick, OURS), len(sick)),
            f"{alarmed(train, OURS)} of {len(train)}",
        ]

    head = ["threshold", "right verdict, %", "any alarm, %", "false alarms"]
    return table(head, [row(name, found) for name, found in variants.items()])


def report(found: Cases) -> str:
    """All tables of a run of the benchmark but the sensitivity; none of runs that were not made."""
    parts = [counts(found)]
    if named(found):
        parts.append(recalls(found))
    if any(case.kind == "healthy" for case in found):
        parts.append(false_alarms(found))
    if named(found):
        parts += [ours_in_detail(found), how_soon(found)]
    if any(case.reading.job.group == "circle" for case in found):
        parts.append(published(found))
    return "\n\n".join([*parts, milliseconds(found)])
