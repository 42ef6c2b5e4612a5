"""Which steps are looked at."""

from __future__ import annotations

# Where problems start: these are, whatever the cadence.
FIRST_STEPS = frozenset([*range(11), 20, 30, 40, 50, 100, 150])


def due(every_steps: int | None, *steps: int) -> bool:
    """Whether a cadence falls on any of these steps; None is never."""
    if every_steps is not None:
        for step in steps:  # without a generator: this is asked at every step
            if step % every_steps == 0 or step in FIRST_STEPS:
                return True
    return False
