"""May a signal that is lost still come back, and for how long is that waited for?"""

from __future__ import annotations

import math
from statistics import median

from trainer.diagnosis import standstill, target
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.overconfidence import varying
from trainer.diagnosis.thresholds import Thresholds
from trainer.diagnosis.view import View

ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
SHRUNK = 30  # times less of an output
FLOOR_ROUNDINGS = 4  # roundings above which a signal can be told from them
USUAL_OUTPUT = 30.0  # times the input, at most, of an output that was not too large at the start
MUCH_LEFT = 0.1  # of the first losses
LITTLE_LEFT = 0.3  # of the size of the weights, or of the loss, at the start
HALF_LEFT = 0.5  # of either, or of the first losses
LONG = 10  # times the way after which recovery is judged: enough for one that leads somewhere
SETTLED_STEPS = 2 * PATIENCE_STEPS  # steps after which one look is enough


def lost(view: View, thresholds: Thresholds) -> bool:
    """Whether hardly anything of the output depends on the sample, and hardly any gradient reaches
    the first layers."""
    return bool(
        view.output_signal <= thresholds.lost_signal and view.flow_ratio <= thresholds.lost_gradient
    )


def is_faint(view: View, thresholds: Thresholds) -> bool:
    """Whether signal and flow are together as weak as where both are lost, each within a tenth."""
    signal, flow = view.output_signal, view.flow_ratio
    product = thresholds.lost_signal * thresholds.lost_gradient
    each = signal <= 10 * thresholds.lost_signal and flow <= 10 * thresholds.lost_gradient
    return bool(each and signal * flow <= product)


def is_rounding(view: View, times: float = 1.0) -> bool:
    """Whether what is left of the signal is no more than rounding, or so many times that."""
    rounding = ROUNDING.get(view.table.dtypes[-1], ROUNDING["float32"])
    return view.output_signal <= times * FLOOR_ROUNDINGS * rounding


def first_layers_update(history: History) -> float:
    """The median update ratio of the first half of the matrices; NaN without."""
    known = history.known
    return median(known[: max(1, len(known) // 2)]) if known else math.nan


def first_layers_path(history: History) -> float:
    """How far the first half of the matrices has come, the median; NaN without."""
    both = zip(history.way.paths.tolist(), history.updates.tolist(), strict=True)
    paths: list[float] = [path for path, update in both if update == update]  # of the matrices
    return median(paths[: max(1, len(paths) // 2)]) if paths else math.nan


def largest_update(history: History) -> float:
    """The update ratio of the matrix that the newest step moved most; NaN without."""
    return max(history.known, default=math.nan)


def had_its_way(history: History, thresholds: Thresholds) -> bool:
    """Whether the weights have come far enough for a recovery, or had the steps for it in vain."""
    enough = history.budget >= 0.8 * thresholds.moved_path
    return history.path >= thresholds.moved_path or history.steps >= SETTLED_STEPS and enough


def doublings(history: History, thresholds: Thresholds, of_signal: bool = True) -> float:
    """How often the way has to double until signal or flow are no longer lost.

    `of_signal` is false where the first layers stand still: the last ones can make more of a signal
    that those are not told of.
    """
    flow = history.trail.doublings_of_flow(thresholds.lost_gradient)
    signal = history.trail.doublings_of_signal(thresholds.lost_signal)
    return min(flow, signal) if of_signal else flow


def is_given_up(history: History, thresholds: Thresholds) -> bool:
    """Whether the loss stays after a long way, on which signal and flow may come and go, and not
    because what there was to learn was learnt at once."""
    long = history.stays and history.path >= LONG * thresholds.moved_path
    return long and not (standstill.has_learnt(history) or standstill.had_learnt(history))


def is_awaited(history: History, view: View, thresholds: Thresholds) -> bool:
    """Whether weights still follow what is left of the signal, however little that is.

    As long as it is more than rounding it has a direction; and it seems to where it grows. Adaptive
    optimizers take steps of one size in it, others steps of its size: enough where the first layers
    do not stand still, and have not come far either, whatever way the last ones had to the targets'
    mean. Deep ReLU networks begin like that: nothing seems to happen for hundreds of steps, in
    which the first layers move the faster the farther they have come.
    """
    followed = not is_rounding(view, 10 if history.adaptive else 3)
    if history.adaptive:
        followed |= doublings(history, thresholds) <= 2 * thresholds.recovery_doublings
        return history.steps < (2 if followed else 1) * PATIENCE_STEPS
    moving = first_layers_update(history) > thresholds.starved_update
    near = first_layers_path(history) < thresholds.moved_path / 3
    slow = near and history.steps < 20 * PATIENCE_STEPS
    return followed and moving and (slow or history.steps < PATIENCE_STEPS)


def stands_still(history: History, thresholds: Thresholds) -> bool:
    """Whether the first layers do while others move: ten times as far as counts as moving, or a
    hundred times as far as they after SETTLED_STEPS; or while the loss stays and no rate rises."""
    first, largest = first_layers_update(history), largest_update(history)
    if not (first <= thresholds.starved_update and history.steps >= 10):
        return False
    relative = history.steps >= SETTLED_STEPS and largest >= 100 * first
    in_vain = history.stays and not history.adaptive and not history.rate_is_rising
    return largest >= 10 * thresholds.starved_update or relative or in_vain


def left_behind(history: History, thresholds: Thresholds) -> bool:
    """Whether the first half of the matrices stood still for so many steps that it is not for want
    of them, beside those that moved, under an optimizer whose updates shrink with the gradient.

    What dropout adds, or the degree of a graph's nodes, is no signal but looks like one.
    """
    if history.adaptive or not history.known or history.steps < 3 * PATIENCE_STEPS:
        return False
    first = first_layers_path(history)
    return first <= thresholds.starved_update * history.steps and history.path >= 10 * first


def nothing_moves(history: History, thresholds: Thresholds) -> bool:
    """Whether no matrix moves although its steps would grow with its gradient."""
    still = largest_update(history) <= thresholds.starved_update
    settled = history.steps >= SETTLED_STEPS and not history.rate_is_rising
    return still and settled and not history.adaptive


def has_faded(history: History, first: View, view: View, thresholds: Thresholds) -> bool:
    """Whether hardly any of a gradient is left that was there at first, the output has shrunk with
    it and the loss stays; as where a large weight decay shrinks the weights."""
    was_there = first.flow_ratio >= 10 * thresholds.lost_gradient
    gone = was_there and view.flow_ratio <= thresholds.lost_gradient / 100
    return (
        gone and standstill.in_vain(history) and view.forward_ratio <= first.forward_ratio / SHRUNK
    )


def is_idle(history: History, view: View, thresholds: Thresholds) -> bool:
    """Whether no more than a hundredth of a gradient that is lost came to the first layers over the
    second half of the steps, or a third where the weights moved, and all was in vain, in a network
    with dropout: what looks like a signal may be that."""
    if history.steps < 3 * PATIENCE_STEPS or not view.order.drops:
        return False
    moved = history.path >= thresholds.moved_path
    least = thresholds.lost_gradient / (3 if moved else 100)
    middle = history.first_step + history.steps / 2
    if not (view.flow_ratio <= least and standstill.in_vain(history)):
        return False
    return all(mark.flow_ratio <= least for mark in history.trail.marks if mark.step >= middle)


def is_mute(history: History, view: View, thresholds: Thresholds) -> bool:
    """Whether hardly anything of the output has depended on the sample since a quarter of the
    steps, beside what of the input does, and it is not becoming more, under an optimizer whose
    updates shrink with the gradient, once the weights have come some way. A third of that is asked
    when the steps are few. The loss may do what it likes: it falls while the targets' mean is
    learnt.

    Where that mean is large beside what is to be learnt, a small share of the output is all there
    is to it: the loss is then a smaller one of that at the start, or a squared error that of what
    the output lacks, and that little beside what of it depends on the sample.
    """
    steps = history.steps
    if history.adaptive or steps < 3 * PATIENCE_STEPS or history.rate_is_rising:
        return False
    if history.path < thresholds.moved_path / 10:
        return False
    most = thresholds.lost_signal * varying(view) / (1 if steps >= 2 * SETTLED_STEPS else 3)
    since = history.first_step + steps / 4
    looks = [mark.signal for mark in history.trail.marks if mark.step >= since]
    if not all(signal <= most for signal in (*looks, view.output_signal)):
        return False
    mark, enough = history.trail.now, 10 * thresholds.lost_gradient
    if target.is_squared(history) and target.distance(mark) < 10 * mark.output * mark.signal:
        return False
    signal = history.trail.doublings_of_signal(10 * thresholds.lost_signal)
    # A flow that was not lost is on no way back.
    was_there = history.trail.half_way.flow_ratio >= enough
    flow = math.inf if was_there else history.trail.doublings_of_flow(enough)
    grows = history.trail.signal_grows or history.trail.rebounds
    grows = grows or min(signal, flow) <= thresholds.recovery_doublings
    least = 10 * view.output_signal * history.loss_at_start
    return not grows and history.recent_loss >= least and history.loss_at_start > 0


def is_cut_off(history: History, thresholds: Thresholds) -> bool:
    """Whether a hundredth of a gradient that is lost was the most that ever came to the first
    layers, which stand still, and the loss has hardly fallen; or a ten thousandth of it, and only
    the last matrix moves, which cannot make the loss less than half of the first. Whatever signal
    there seems to be."""
    first = history.first_losses
    if history.steps < 3 * PATIENCE_STEPS or not first or not history.trail.marks:
        return False
    slow, stands = first_layers_update(history), min(history.recent_loss, history.loss)
    still = slow <= 10 * thresholds.starved_update and largest_update(history) >= 10 * slow
    flow = max(mark.flow_ratio for mark in history.trail.marks)
    alone = max(history.known[:-1], default=math.inf) <= 10 * thresholds.starved_update
    never = alone and flow <= thresholds.lost_gradient / 1e4
    least = history.first_loss * (HALF_LEFT if never else standstill.STANDING)
    return still and stands >= least > 0 and flow <= thresholds.lost_gradient / 100


def has_faded_away(history: History) -> bool:
    """Whether most of the weights with which the loss was low are gone, and with them nine tenths
    of the output and what had been learnt: the loss is back where it began."""
    if history.loss < standstill.STANDING / LITTLE_LEFT * history.lowest_loss:  # as at most looks
        return False
    began, marks = history.first_loss, history.trail.marks
    back = min(history.losses[-2:], default=0.0) >= standstill.STANDING * began
    if not (back and history.recent_loss >= HALF_LEFT * began and len(marks) > 1):
        return False
    learnt = 0 < min(mark.loss for mark in marks) <= HALF_LEFT * began
    small = marks[-1].output <= max(mark.output for mark in marks) / 10
    lowest = 0 < history.lowest_loss <= LITTLE_LEFT * began
    return learnt and small and lowest and history.size_over_lowest <= HALF_LEFT


def shrinks(history: History, first: View, view: View) -> bool:
    """Whether most of the weights are gone, and of an output that was of the size of the input nine
    tenths with them, which few losses ask of a network that learns, as for small targets of large
    inputs: not where half of the loss is gone and something learnt; or, after twice as many steps,
    with the loss of half of the steps ago, and little learnt. A single matrix may have to."""
    if history.steps < 2 * PATIENCE_STEPS or len(history.known) < 2:
        return False
    began, now = first.forward_ratio, view.forward_ratio
    gone = 0 < began <= USUAL_OUTPUT and now <= began / 10
    gone = gone and not (
        history.recent_loss <= HALF_LEFT * history.first_loss and standstill.learns(history)
    )
    return (gone or _stays_high(history)) and history.size_over_start <= LITTLE_LEFT


def _stays_high(history: History) -> bool:
    """Whether the loss is what it was half of the steps ago, with little learnt."""
    if history.steps < 4 * PATIENCE_STEPS:
        return False
    before = history.trail.until(history.first_step + history.steps / 2).loss
    stands = standstill.STANDING * before <= history.recent_loss <= before / standstill.STANDING
    high = history.recent_loss >= MUCH_LEFT * history.first_loss > 0
    return stands and high and not standstill.learns(history)
