"""A diagnosis that finds what a test tells it to find, at the steps that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from trainer import report
from trainer.finding import Finding
from trainer.monitor import checkup
from trainer.record import StepRecord

VANISHING = Finding(
    verdict="vanishing",
    level="warning",
    where="weight",
    steps=(3, 3),
    evidence={"gain": 0.25, "decades": 7},
    cause="initialisation: each layer passes on a quarter of the gradient",
    remedy="start from weights that keep its size",
    change={"model.init.hidden": {"name": "kaiming_uniform_", "nonlinearity": "relu"}},
)
WORSE = replace(VANISHING, level="critical", steps=(3, 5))
ENDED = replace(WORSE, steps=(3, 7), resolved=True)
SPIKE = Finding("loss_spike", "info", None, (4, 4), {}, "a batch: it is unlike the others", "wait")

Told = Mapping[int, list[Finding]]  # by the step of the record


def standin(told: Told) -> Callable[..., Any]:
    """The class of a diagnosis with these findings; of one verdict and place the last counts."""

    class Standin:
        suspects = False

        def __init__(self, configuration: Mapping[str, Any] | None = None) -> None:
            self.configuration = configuration
            self.records: list[StepRecord] = []
            self._findings: dict[tuple[str, str | None], Finding] = {}
            made.append(self)

        @property
        def findings(self) -> list[Finding]:
            return list(self._findings.values())

        def add(self, record: StepRecord) -> list[Finding]:
            self.records.append(record)
            new = told.get(record.step, [])
            self._findings |= {(finding.verdict, finding.where): finding for finding in new}
            return new

        def end(self, step: int, loss: float | None) -> list[Finding]:
            return []

    made: list[Standin] = []
    Standin.made = made  # type: ignore[attr-defined]
    return Standin


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch) -> Callable[[Told], list[Any]]:
    """Lets monitor and report find what is told; the diagnoses that they make."""

    def tell(told: Told) -> list[Any]:
        kind: Any = standin(told)
        monkeypatch.setattr(checkup, "Diagnosis", kind)
        monkeypatch.setattr(report, "Diagnosis", kind)
        return kind.made

    return tell
