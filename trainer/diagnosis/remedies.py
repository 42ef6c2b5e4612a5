"""What helps: words for each category of cause, and the change of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REMEDIES = {
    "activation": "use an activation that does not flatten out (ReLU, GELU) with start values made "
    "for it (He), or normalise between the layers",
    "initialisation": "draw the start values so that signal and gradient keep their size: He for "
    "ReLU and its like, Xavier for tanh, zeros for biases; or normalise in between",
    "normalisation": "normalise before each branch (pre-norm) or warm the learning rate up",
    "recurrence": "use a gated network (LSTM, GRU), orthogonal recurrent start values, or "
    "bound the gradient's norm where it explodes",
    "learning rate": "change the learning rate",
    "schedule": "let the learning rate fall later, or more slowly",
    "dtype": "compute or keep the weights in float32, or scale the loss (GradScaler)",
    "data": "look at the data: clean, fill or scale what goes in",
    "operation": "keep the operation away from where it is not defined (a small epsilon in log, "
    "sqrt and division)",
    "loss": "keep the loss, and what is done to the output before it, away from where they are not "
    "defined (the form with logits; a small epsilon in log, sqrt and division)",
    "blocked": "take out what has no derivative: a softmax over one number is always 1, rounding "
    "and comparisons are steps, a rectifier as the last layer may give nothing but zeros",
    "loop": "look at the training loop: zero_grad before each backward, no detach on the way",
    "unused": "nothing, if that is meant; otherwise use it or freeze it",
    "spike": "nothing, if it passes; otherwise look at that batch, or bound the gradient's norm",
    "stalled": "compare with a larger learning rate; check that inputs and targets belong together",
}
HELPED_BY_SCALING = {"activation", "initialisation", "learning rate"}  # of the inputs
HE = {"name": "kaiming_normal_", "nonlinearity": "relu"}
XAVIER = {  # torch knows a gain for the first two only
    **dict.fromkeys(("tanh", "sigmoid"), {"name": "xavier_normal_", "gain": "auto"}),
    **dict.fromkeys(("softsign", "hardtanh", "hardsigmoid"), {"name": "xavier_normal_"}),
}


def remedy(verdict: str, blame: str) -> str:
    """What to do, in words."""
    if blame == "learning rate":
        if verdict == "starved_update":
            return "raise the learning rate"
        return "lower the learning rate (by 3 to 10 at first), warm it up, or bound the gradient"
    return REMEDIES[blame]


def change(
    verdict: str, blame: str, configuration: Mapping[str, Any] | None, update: float
) -> dict[str, Any]:
    """Overrides of the configuration that are likely to help; {} where none is known.

    `update` is the update ratio that the present learning rate began with.
    """
    if configuration is None:
        return {}
    model, optimizer = configuration.get("model", {}), configuration.get("optimizer", {})
    if blame == "learning rate" and "lr" in optimizer:
        if verdict == "starved_update":
            return {"optimizer.lr": _round(optimizer["lr"] * 1e-3 / update)} if update > 0 else {}
        factor = min(0.3, 0.1 / update) if update > 0 else 0.1
        return {"optimizer.lr": _round(optimizer["lr"] * max(factor, 1e-4))}
    if blame == "schedule" and configuration.get("schedule", {}).get("name"):
        return {"schedule": {"name": None}}
    if blame == "recurrence" and model.get("name") == "rnn":
        if verdict in ("vanishing", "constant_output", "stalled"):
            of_plain = {"model.nonlinearity": "tanh"} if model.get("nonlinearity") == "relu" else {}
            return {**of_plain, "model.kind": "lstm", "model.forget_bias": 1.0}
        return {"clip.max_grad_norm": 1.0, "model.init.recurrent": {"name": "orthogonal_"}}
    if blame == "normalisation" and model.get("norm") == "post":
        return {"model.norm": "pre"}
    if blame == "activation" and "activation" in model:
        return {"model.activation": "relu", "model.init.hidden": HE}
    if blame == "initialisation" and isinstance(model.get("init"), Mapping):
        if verdict == "dead_units" and model["init"].get("bias") not in (
            "default",
            "zeros",
            "zeros_",
        ):
            return {"model.init.bias": "zeros_"}
        name = model.get("activation", "relu")
        name = name.get("name", "") if isinstance(name, Mapping) else name
        return {"model.init.hidden": XAVIER.get(name, HE)}
    return {}


def _round(value: float) -> float:
    return float(f"{value:.1g}")
