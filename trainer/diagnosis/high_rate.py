"""Is the learning rate too high? Weights thrown away, and what came in their place."""

from __future__ import annotations

import math
from dataclasses import replace

from trainer.diagnosis import gains, recovery, standstill, target
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.rates import FALLEN_RATE
from trainer.diagnosis.standstill import FALLS
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.finding import Level

FAR_ABOVE = 100  # times the loss at the start, from where a way down is no comfort
RISEN_AT_ONCE = 5  # times the loss at the start, which one look is enough for
ABOVE = 1.25  # times the loss at the start, from where it is not on its way below that
BACK_STEPS = 20  # steps after which a loss should be back at where it started
OUTGROWN = 100  # times the weights at the start
BLUNT = 0.2  # of the signal at the start
STOOD = 0.95  # of the loss at the start
THROWN_AWAY = 10  # times the weights: RMSprop and Adagrad begin with steps ten times their rate
PASSED_UPDATE = 0.05  # of the weights of now
UNLEARNT_TO = 0.75  # of the loss at the start
UNLEARNT_FROM = 0.25  # of it
MUCH_LEARNT = 0.1  # of the loss at the start, however little of a signal it took


def learning_rate_too_high(history: History, thresholds: Thresholds) -> Symptom | None:
    """Updates of a tenth of the weights' size and more, or a rate that was raised, and losses that
    have risen for it and do not come down, or a signal that is gone since."""
    return (
        _has_risen(history, thresholds)
        or _has_outgrown(history, thresholds)
        or _has_replaced(history)
        or _has_blunted(history, thresholds)
        or _has_unlearnt(history, thresholds)
        or _is_no_better(history, thresholds)
    )


def _has_risen(history: History, thresholds: Thresholds) -> Symptom | None:
    first = history.first_view
    if first is not None and first.forward_ratio >= thresholds.blown_up_forward:
        return None  # the gradient is too large, not the rate
    # From one sample to the next a loss differs by more than anything that training does to it.
    alone = first is not None and math.isnan(first.output_signal)
    thrown = history.largest_update >= (1 if alone else thresholds.thrown_update)
    # Beside weights that have grown since it is nothing: targets may grow as they do.
    thrown = thrown and (history.adaptive or history.way.farthest_share > PASSED_UPDATE)
    times = history.rates.raised_for
    risen = (thrown or times) and history.loss_rise >= thresholds.risen_loss
    replaced = _were_replaced(history)
    if not (risen or replaced):
        return None
    if history.steps < BACK_STEPS:
        return None  # adaptive optimizers begin with large updates that many networks survive
    since = max(times - 1, 1) if times else 5  # the first loss at a raised rate is from before
    far, latest = history.loss_rise >= FAR_ABOVE, history.losses[-min(since, 5) :]
    falls = len(latest) > 1 and history.loss < FALLS * min(latest[:-1])
    # Where nothing of the output depends on the sample it falls to the targets' mean.
    learns = history.view is None or not recovery.lost(history.view, thresholds)
    if not far and falls and learns:
        return None
    if min(latest) < history.first_losses[0]:
        return None  # it fits some batches better than untouched weights did one
    rate, rise = history.record.learning_rate, history.loss / history.loss_at_start
    what = f"an update changed the weights by {history.largest_update:.1g} of their size"
    if times:
        what = f"the rate was raised to {rate / history.rates.first:.1g} times what it was"
    found = _found(
        f"{what} and the loss is {rise:.1g} times that at the start",
        {
            "largest_update_ratio": history.largest_update,
            "loss_over_start": rise,
            "learning_rate": rate,
        },
        sightings=1 if replaced or times and rise >= RISEN_AT_ONCE else 2,
    )
    return _unless_minute(history, found)


def _were_replaced(history: History) -> bool:
    """Whether one update was larger than the weights, and what came in their place is no better:
    a loss above that at the start, of an output that depends on the sample a tenth as much."""
    first, view = history.first_view, history.view
    if first is None or view is None or history.steps < PATIENCE_STEPS:
        return False
    above = history.recent_loss > ABOVE * history.loss_at_start > 0
    blunt = view.output_signal <= first.output_signal / 10
    return history.largest_update >= 1 and above and blunt and history.loss > history.loss_at_start


def _has_outgrown(history: History, thresholds: Thresholds) -> Symptom | None:
    """Whether large updates made the weights a hundred times what they were, for no lower loss."""
    thrown = history.largest_update >= thresholds.thrown_update
    late, start = history.steps >= 2 * BACK_STEPS, history.loss_at_start
    stands = min(history.loss, history.recent_loss) >= standstill.STANDING * start > 0
    if not (late and thrown and stands):
        return None
    grown = history.size_over_start
    if not OUTGROWN <= grown < math.inf:
        return None
    found = _found(
        f"an update changed the weights by {history.largest_update:.1g} of their size, they are "
        f"{grown:.1g} times as large as at the start, and the loss is not lower",
        {"largest_update_ratio": history.largest_update, "weights_over_start": grown},
    )
    return _unless_minute(history, found, _once_grown(history))


def _has_replaced(history: History) -> Symptom | None:
    """Whether one update was ten times the weights, which is all that there was to start from, and
    100 steps have led nowhere since: no loss was a tenth lower, and what there is to learn beside
    noise was not learnt."""
    start = history.loss_at_start
    lowest = STOOD * min(history.loss, history.recent_loss), history.lowest_loss
    stands = min(lowest) >= STOOD * STOOD * start > 0 or standstill.guesses(history)
    late = history.steps >= 2 * PATIENCE_STEPS and history.adaptive
    if not (late and stands and history.largest_update >= THROWN_AWAY):
        return None
    if standstill.learns_some(history):
        return None
    found = _found(
        f"an update changed the weights by {history.largest_update:.1g} of their size, and the "
        f"loss has not fallen in {history.steps} steps",
        {"largest_update_ratio": history.largest_update, "loss_over_start": history.loss_rise},
    )
    return _unless_minute(history, found, _once_grown(history))


def _unless_minute(history: History, found: Symptom, level: Level = "warning") -> Symptom:
    """The same; of weights that were next to nothing, which any update exceeds, the start values
    are to blame."""
    gain = gains.at_first(history)
    learnt = history.lowest_loss <= FALLS * history.loss_at_start  # and they have grown
    if learnt or not gain <= gains.MINUTE:
        return found
    return replace(
        found,
        verdict="signal_collapse",
        level=level,
        category="initialisation",
        cause=f"the weights make {gain:.1g} of what they are given at first; {found.cause}",
        evidence={**found.evidence, "weight_gain": gain},
    )


def _once_grown(history: History) -> Level:
    """Weights of next to nothing take their steps to grow."""
    return "info" if history.steps < 5 * PATIENCE_STEPS else "warning"


def _has_blunted(history: History, thresholds: Thresholds) -> Symptom | None:
    """Whether the large updates that an adaptive optimizer begins with have taken most of a signal
    that was there, and none of 150 steps has brought it back. The loss may fall, to that of a
    constant answer. Of several outputs a constant may be all that there is to one, as to the
    critic's of an actor that does well."""
    first, view = history.first_view, history.view
    if first is None or view is None or first.order.leads_to:
        return None
    if history.steps < (10 if first.order.gated else 3) * PATIENCE_STEPS:
        return None  # gates take their time to open
    thrown = history.adaptive and history.largest_update >= thresholds.thrown_update
    thrown = thrown and not history.record.learning_rate <= FALLEN_RATE * history.rates.first
    high = history.recent_loss >= MUCH_LEARNT * history.loss_at_start > 0
    fits = target.is_squared(history) and standstill.has_learnt(history)
    if not (thrown and high) or fits:
        return None  # beside a large mean of the targets little of a signal is all there is
    since = history.first_step + BACK_STEPS
    signals = [view.output_signal, *(m.signal for m in history.trail.marks if m.step >= since)]
    if not max(signals) <= BLUNT * first.output_signal:
        return None
    return _found(
        f"an update changed the weights by {history.largest_update:.1g} of their size, and since "
        f"then {view.output_signal:.1g} of the output depends on the sample, of which "
        f"{first.output_signal:.1g} did",
        {
            "largest_update_ratio": history.largest_update,
            "output_signal_fraction": view.output_signal,
            "first_output_signal_fraction": first.output_signal,
        },
        sightings=1,
    )


def _has_unlearnt(history: History, thresholds: Thresholds) -> Symptom | None:
    """Whether a rate was raised and no loss since has been less than twice what it was before; or,
    if it was raised at once, than three quarters of that at the start, of which a quarter was left.
    """
    rates, start = history.rates, history.loss_at_start
    least, before = rates.least_since, rates.loss_before
    if rates.raised_for < 3:
        return None
    if least >= UNLEARNT_TO * start and rates.lowest_before <= UNLEARNT_FROM * start:
        before = rates.lowest_before  # where records are few it tells sooner than a median
    if not math.inf > least >= thresholds.risen_loss * before > 0:
        return None
    rate = history.record.learning_rate
    return _found(
        f"the rate was raised to {rate / history.rates.first:.1g} times what it was, and the loss "
        f"is {least / before:.1g} times and more what it was",
        {"loss_over_before": least / before, "learning_rate": rate},
        sightings=1,
    )


def _is_no_better(history: History, thresholds: Thresholds) -> Symptom | None:
    """Whether 150 steps of an adaptive optimizer have led nowhere after an update that replaced the
    weights: half of the latest losses are twice that at the start, though some batches may fit; or
    after one of a tenth of them, and a loss a hundred times that at the start, it is back there."""
    start, latest, first = history.loss_at_start, history.losses[-5:], history.first_view
    late = history.steps >= 3 * PATIENCE_STEPS and history.adaptive and history.loss_rise > 0
    if not late or first is None or math.isnan(first.output_signal):
        return None  # from one sample to the next a loss differs by as much
    above = history.recent_loss >= thresholds.risen_loss * start and not history.returns
    burst = history.highest_loss >= FAR_ABOVE * start
    back = burst and max(latest) <= ABOVE * start and history.lowest_loss >= STOOD * start
    update = history.largest_update
    if not (above and update >= 1 or back and update >= thresholds.thrown_update):
        return None
    most = max(history.highest_loss, history.recent_loss) / start
    found = _found(
        f"an update changed the weights by {update:.1g} of their size, the loss was {most:.1g} "
        f"times that at the start, and {history.steps} steps have led nowhere",
        {"largest_update_ratio": update, "highest_loss_over_start": most},
    )
    return _unless_minute(history, found)


def _found(cause: str, evidence: dict[str, float], sightings: int = 2) -> Symptom:
    return Symptom(
        "learning_rate_too_high", "warning", None, "learning rate", cause, evidence, sightings
    )
