"""How far has a run come: what the training loop knows between two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Patience:
    """Whether the validation loss still falls."""

    steps: int | None = None
    best: float = math.inf
    best_step: int = 0

    def ended_by(self, step: int, loss: float) -> bool:
        """Takes the loss of a step; whether it is too long since the best one, which is not that of
        step 0, of weights that nobody trained."""
        if step and loss < self.best:
            self.best, self.best_step = loss, step
        return self.steps is not None and step - self.best_step >= self.steps


@dataclass
class Progress:
    """Where a run stands."""

    step: int = 0  # the next one
    skipped: int = 0  # steps without an update, because of numbers that are not finite
    patience: Patience = field(default_factory=Patience)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return vars(self) | {"patience": dict(vars(self.patience))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where the state was taken; how long to be patient is the configuration's."""
        best = {key: state["patience"][key] for key in ("best", "best_step")}
        patience = Patience(self.patience.steps, **best)
        for key, value in (state | {"patience": patience}).items():
            setattr(self, key, value)


class Keeper:
    """Who is told of a run while it goes on; this one keeps nothing of it."""

    def pause(self, progress: Progress) -> str | None:
        """Called between two steps; why training has to end here, if it has to."""
        return None

    def is_ending(self) -> bool:
        """Whether `pause` will end training, so that nothing long is to be begun or finished."""
        return False

    def validated(self, progress: Progress, loss: float) -> None:
        """Called with the validation loss of the weights before a step, and before anything follows
        from it: a run that goes on from here validates again."""

    def ended(self, progress: Progress, reason: str) -> None:
        """Called once, when training has ended."""
