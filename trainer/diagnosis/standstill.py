"""Has training led anywhere so far, or was it in vain?"""

from __future__ import annotations

from statistics import fmean

from trainer.diagnosis import target
from trainer.diagnosis.chance import Look
from trainer.diagnosis.history import PATIENCE_STEPS, RECENT_LOSSES, History

STANDING = 0.9  # of the loss at the start: hardly lower
FALLS = 0.7  # of the lowest of those before: a loss on its way down is lower than all of them
BETTER = 0.9  # times the loss of a guess for the gradient that is there
FALLING = 0.96  # of the latest losses
SCALED = 1e-4  # of it: the gradient is that of a larger loss than was told, as of a scaled one
ARRIVED = 0.01  # of the loss at the start
ALL_MEAN = 10.0  # times the way that a loss has to go
MEAN_SIGNAL = 0.1  # of it depends on the sample
ANSWERED_WAY = 0.3  # of it
FITS = 0.7  # times what of the output depends on the sample: errors of what has been learnt
SOME = 0.1  # of the errors, beside which noise there may be little to learn
CLEAR = 0.15  # of logits, which shows in the loss
GROWN_SIGNAL = 1.5  # times, of what of an output depends on the sample
SHOWS = 0.1  # of logits and of logarithms, at one look


def guesses(history: History) -> bool:
    """Whether a classifier does so after three times the steps that an adaptive optimizer is given:
    its loss may have started above that and fallen to it, but does not fall any more."""
    late = history.steps >= 3 * PATIENCE_STEPS and history.loss >= FALLING * history.recent_loss
    looks = sum(look.is_a_guess for look in history.guesses) >= RECENT_LOSSES - 1
    return late and looks and not target.is_squared(history)


def in_vain(history: History) -> bool:
    """Whether the loss stays, or is that of a guess after as many steps."""
    return history.stays or guesses(history)


def has_arrived(history: History) -> bool:
    """Whether hardly anything is left of a loss that knows no mean to learn at first, as a squared
    one does: signal and gradient may go then, as of outputs that nobody asks for."""
    left = max(history.recent_loss, history.loss)
    return left <= ARRIVED * history.loss_at_start and not target.is_squared(history)


def falls(history: History) -> bool:
    """Whether the newest loss is well below all of those before it."""
    before = history.losses[-RECENT_LOSSES:-1]
    return bool(before) and history.loss < FALLS * min(before)


def answers(history: History) -> bool:
    """Whether an output that is nearly all mean, as of targets that are, tells the samples apart:
    the rest of it is small beside the mean, and with it signal and gradient, but not beside the way
    that the loss has to go by its gradient: the RMS of squared errors, twice the mean of absolute
    ones."""
    mark = history.trail.now
    way = target.distance(mark)
    learnt = history.recent_loss <= STANDING * max(history.first_losses[:1], default=0.0)
    all_mean = mark.signal <= MEAN_SIGNAL and mark.output >= ALL_MEAN * way > 0
    return learnt and all_mean and mark.output * mark.signal >= ANSWERED_WAY * way


def has_learnt(history: History) -> bool:
    """Whether a classifier tells the classes better than a guess, or the errors of a squared loss
    are smaller than what of the output depends on the sample."""
    if not history.trail.marks:
        return False
    mark = history.trail.now
    told = bool(history.guesses) and _is_better(history.guesses[-1])
    fits = target.distance(mark) <= FITS * mark.output * mark.signal
    return fits if target.is_squared(history) else told


def learns_little(history: History) -> bool:
    """Whether it has learnt next to nothing, beside noise as well, of a loss that tells: a squared
    one, or one that has been that of a guess of late."""
    told = target.is_squared(history) or any(look.is_a_guess for look in history.guesses)
    return told and not learns(history)


def learns(history: History) -> bool:
    """Whether it has learnt, or has some, beside noise that is most of the loss."""
    return has_learnt(history) or learns_some(history)


def fits_some(history: History) -> bool:
    """Whether what of the output depends on the sample is a tenth of the errors of a squared loss:
    if it were of no use it would have become less; of a loss that is mostly noise there is not more
    to learn."""
    mark = history.trail.now
    some = mark.output * mark.signal >= SOME * target.distance(mark)
    return some and target.is_squared(history)


def tells_some(history: History) -> bool:
    """Whether a classifier's logits, of a deviation s, are right, however noisy the classes are.

    Its loss is then s²/8 and more below that of a guess, and beside the gradient, which becomes
    smaller as well, s²/18 and more (both to second order in s; above it by as much where they are
    random): a quarter of that is asked at the latest looks.
    """
    varies = history.trail.now.output * history.trail.now.signal
    surprise = fmean(look.surprise for look in history.guesses)
    guess = history.guesses[-1].is_a_guess  # of other losses it says nothing
    return guess and varies >= CLEAR and 1 - surprise >= varies * varies / 18 / 4


def learns_some(history: History) -> bool:
    """Whether it has, beside noise that is most of the loss."""
    return fits_some(history) or bool(history.guesses) and tells_some(history)


def tells_more(history: History) -> bool:
    """Whether half as much again of the output depends on the sample as at first, and so much that
    a loss of logits or of logarithms shows it: of no use it would not have become more. Squared
    errors tell what it is beside them."""
    first, mark = history.trail.first, history.trail.now
    varies = mark.output * mark.signal
    grown = varies >= max(SHOWS, GROWN_SIGNAL * first.output * first.signal)
    return grown and not target.is_squared(history)


def had_learnt(history: History) -> bool:
    """Whether a classifier told the classes better than a guess at any of the latest looks."""
    return any(map(_is_better, history.guesses)) and not target.is_squared(history)


def _is_better(look: Look) -> bool:
    return SCALED <= look.surprise <= BETTER
