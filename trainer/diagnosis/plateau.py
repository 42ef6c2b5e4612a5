"""Has the gradient gone where the loss is worse than it began?"""

from __future__ import annotations

from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.stalled import PASSING
from trainer.diagnosis.symptom import Symptom
from trainer.diagnosis.thresholds import Thresholds

LEFT_GRADIENT = 1e-3  # of the first
RISEN_BY = 1e-3  # of the first loss


def plateau(history: History, thresholds: Thresholds) -> Symptom | None:
    """No loss was lower than the first, the latest are higher, and a thousandth is left of the
    gradient, before the weights have come far: what comes after the network is flat there.

    As log(1 - D) is for a generator where a critic D is sure, which is why Goodfellow et al. (2014,
    arXiv:1406.2661, section 3) have it maximise log D in its place (a theorem of Arjovsky and
    Bottou 2017, arXiv:1701.04862, 2.4). On a longer way a policy has become certain of what costs
    least, or two networks have found their balance, which may be above where they began. What is
    about zero, as a gain over an average, has no lowest value that tells.
    """
    if history.steps < 2 * PATIENCE_STEPS or history.raised - PASSING - {"plateau"}:
        return None  # more than that is known
    first, norms = history.first_losses[0] if history.first_losses else 0.0, history.norms[-2:]
    if not history.recent_loss >= first + RISEN_BY * abs(first) > first <= history.lowest_loss:
        return None
    if first < 0 < history.highest_loss or history.path >= thresholds.moved_path:
        return None
    left = max(norms) / history.first_norm if norms and history.first_norm > 0 else 1.0
    if not 0 < left <= LEFT_GRADIENT:
        return None  # of none at all others know more, or it is not this network's turn
    flat = "another network that is sure" if history.opponents > 0 else "a sigmoid or a log"
    return Symptom(
        "vanishing", "warning", None, "plateau",
        f"{left:.1g} of the first gradient is left where the loss is {history.recent_loss:.3g}, "
        f"{first:.3g} at first and never lower: what comes after the output is flat there "
        f"({flat}?)",
        {"gradient_over_first": left, "loss": history.loss, "loss_of_first_record": first},
    )  # fmt: skip
