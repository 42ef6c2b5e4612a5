"""What the diagnosis says of a run: a verdict with its place, its steps, its cause and its cure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

Level = Literal["info", "warning", "critical"]
FILE = "findings.jsonl"  # of a run, a line for each
END = "steps_in_all"  # in the evidence for what was found because a run has ended
LEVELS: tuple[Level, ...] = ("info", "warning", "critical")


@dataclass(frozen=True)
class Finding:
    """One verdict on a run. A warning or a critical one is an alarm, an `info` never is."""

    verdict: str  # such as `vanishing`
    level: Level
    where: str | None  # the layer or parameter; None for the whole model
    steps: tuple[int, int]  # the first and the last step at which it was seen
    evidence: Mapping[str, float]  # the numbers that it rests on
    cause: str  # begins with what is to blame: `initialisation: …`
    remedy: str
    change: Mapping[str, Any] = field(default_factory=dict)  # overrides of the configuration
    confidence: float = 1.0  # from 0 to 1
    resolved: bool = False  # whether it has ended by itself

    @property
    def alarm(self) -> bool:
        """Whether somebody should look."""
        return self.level != "info"

    @property
    def headline(self) -> str:
        """`critical: vanishing in layers.0 (steps 20 to 70)`."""
        place = "" if self.where is None else f" in {self.where}"
        first, last = self.steps
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        ended = ", resolved" if self.resolved else ""
        return f"{self.level}: {self.verdict}{place} ({when}{ended})"

    def __str__(self) -> str:
        return f"{self.headline}: {self.cause}; {self.remedy}"

    def at_least(self, level: Level) -> bool:
        """Whether its level is this one or above."""
        return LEVELS.index(self.level) >= LEVELS.index(level)

    @property
    def of_the_end(self) -> bool:
        """Whether it was found because the run has ended."""
        return END in self.evidence

    def ended_with(self, step: int, loss: float) -> bool:
        """Whether it was, and the newest record was that of this step, with this loss."""
        return self.of_the_end and self.steps[1] == step and self.evidence.get("loss") == loss

    @classmethod
    def from_json(cls, line: str) -> Self:
        """What `to_json` made the line of; ValueError where it made none."""
        try:
            found = json.loads(line)
            first, last = found["steps"]
            kept = {each.name: found[each.name] for each in fields(cls) if each.name in found}
            evidence = {str(name): float(value) for name, value in found["evidence"].items()}
            made = cls(**kept | {"steps": (int(first), int(last)), "evidence": evidence})
            texts = made.verdict, made.cause, made.remedy, made.where or ""
            plain = all(isinstance(text, str) for text in texts) and made.level in LEVELS
            if plain and isinstance(made.change, dict) and isinstance(made.resolved, bool):
                return made
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            pass
        raise ValueError("no line of a finding")

    def to_json(self) -> str:
        """One line of JSON; numbers that are not finite become the texts `nan`, `inf`, `-inf`."""
        values = asdict(self) | {
            "steps": list(self.steps),
            "evidence": {
                name: value if math.isfinite(value) else str(value)
                for name, value in self.evidence.items()
            },
        }
        return json.dumps(values, ensure_ascii=False, default=str)
