"""A symptom in a row of records, and the finding that it became."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.diagnosis.symptom import UNCONFIRMED, Symptom
from trainer.finding import Finding

GONE_AFTER = 3  # records in a row without the symptom


@dataclass
class Case:
    """What is known of one rule's symptom since it was first seen."""

    first_step: int
    seen: int = 0
    missed: int = 0
    symptom: Symptom | None = None
    finding: Finding | None = None

    @property
    def is_doubtful(self) -> bool:
        """Whether more sightings would make it a finding, or more misses end one."""
        if self.finding is not None:
            return 0 < self.missed < GONE_AFTER
        return self.symptom is not None and self.symptom.sightings < UNCONFIRMED
