"""What a rule sees in the newest record: not yet a finding, which takes confirmation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trainer.diagnosis.history import History
from trainer.diagnosis.thresholds import Thresholds
from trainer.finding import Level

FLOW = "flow_first_over_last"  # in the evidence; RULES.md says what its names mean
IN_TIME = "gradient_first_over_last_steps"
UNCONFIRMED = 1_000_000  # sightings: only what follows can make it a finding


@dataclass(frozen=True)
class Symptom:
    """A suspicion. `sightings` in a row make it a finding."""

    verdict: str
    level: Level
    where: str | None
    category: str  # category of the cause, a key of remedies.REMEDIES
    cause: str  # in words
    evidence: Mapping[str, float] = field(default_factory=dict)
    sightings: int = 2
    confidence: float = 0.95


Rule = Callable[[History, Thresholds], Symptom | None]
