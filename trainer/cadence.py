"""Which steps are looked at."""

from __future__ import annotations

# Where problems start: these are, whatever the cadence.
FIRST_STEPS = frozenset([*range(11), 20, 30, 40, 50, 100, 150])


def due(step: int, every_steps: int | None) -> bool:
    """Whether a cadence falls on this step; None is never."""
    return every_steps is not None and (step % every_steps == 0 or step in FIRST_STEPS)
