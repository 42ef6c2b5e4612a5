"""Mistakes in a loop that lead to no error, each told once."""

from __future__ import annotations

import logging

logger = logging.getLogger("trainer")

RESTARTED = (
    "step %d comes after step %d: count the updates on, through all epochs; what is found goes by "
    "their number"
)
NOT_ENTERED = (
    "step %d was not entered and is not recorded: write `with monitor.step(...):` around the update"
)


class Reminders:
    """Those of one loop."""

    def __init__(self) -> None:
        self._told = set[str]()

    def tell(self, message: str, *numbers: int) -> None:
        """Warns of a mistake, unless it was done before."""
        if message not in self._told:
            self._told.add(message)
            logger.warning(message, *numbers)
