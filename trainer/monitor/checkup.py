"""What the diagnosis says of a run that goes on, told to whoever wants to know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.diagnosis import Diagnosis
from trainer.finding import Finding
from trainer.record import StepRecord

Found = Callable[[Finding], None]

logger = logging.getLogger("trainer")


class Checkup:
    """Shows the diagnosis each record. Where that fails it is off from there on, with a warning:
    training goes on whatever is wrong with it."""

    def __init__(self, configuration: Mapping[str, Any] | None, wanted: bool) -> None:
        self.is_on = wanted
        self._diagnosis = Diagnosis(configuration)

    @property
    def findings(self) -> list[Finding]:
        """All so far."""
        return self._diagnosis.findings

    @property
    def suspects(self) -> bool:
        """Whether a look at the layers may soon tell more."""
        return self.is_on and self._diagnosis.suspects

    def add(self, record: StepRecord, told: Sequence[Found]) -> None:
        """Tells what the next record shows."""
        self._tell(record.step, lambda: self._diagnosis.add(record), told)

    def end(self, step: int, loss: float | None, told: Sequence[Found]) -> None:
        """Tells what it means that this step was the last one. `loss` is the median of those of
        the last steps, where it is known."""
        self._tell(step, lambda: self._diagnosis.end(step, loss), told)

    def _tell(self, step: int, judged: Callable[[], list[Finding]], told: Sequence[Found]) -> None:
        if not self.is_on:
            return
        try:
            findings = judged()
        except Exception:
            self.is_on = False
            message = "the diagnosis failed at step %d and is off from here on; training goes on"
            logger.warning(message, step, exc_info=True)
            return
        for finding in findings:
            for found in told:
                found(finding)
