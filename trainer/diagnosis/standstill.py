"""Has training led anywhere so far, or was it in vain?"""

from __future__ import annotations

from trainer.diagnosis.history import PATIENCE_STEPS, RECENT_LOSSES, History

FALLS = 0.7  # of the lowest of those before: a loss on its way down is lower than all of them
BETTER = 0.9  # times the loss of a guess for the gradient that is there
LOOKS = 3  # in a row at a classifier that is worse than a guess


def in_vain(history: History) -> bool:
    """Whether the loss stays, or is that of a guess after as many steps: it may have started above
    that and fallen to it."""
    guesses = sum(look.is_a_guess for look in history.guesses) >= RECENT_LOSSES - 1
    return history.stays or guesses and _is_late(history)


def learns_nothing(history: History) -> bool:
    """Whether all was in vain, or a classifier is still no better than a guess, and nothing tells
    that it is about to be."""
    latest = history.guesses[-LOOKS:]
    worse = len(latest) == LOOKS and all(look.is_no_better for look in latest)
    before = history.losses[-RECENT_LOSSES:-1]
    falls = bool(before) and history.loss < FALLS * min(before)
    told = bool(latest) and latest[-1].surprise <= BETTER
    return (in_vain(history) or worse and _is_late(history)) and not (falls or told)


def _is_late(history: History) -> bool:
    return history.steps >= 3 * PATIENCE_STEPS
