"""What helps: words for each category of cause, and the change of the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.diagnosis.order import FEW_LAYERS
from trainer.diagnosis.pace import Pace, is_plain, other_rate

DEEP = 16  # layers, from where start values alone may not be enough

REMEDIES = {
    "activation": "use an activation that does not flatten out (ReLU, GELU) with start values made "
    "for it (He), or normalise between the layers",
    "last activation": "take a cross-entropy that undoes it, or leave it out where the loss has it "
    "already",
    "initialisation": "draw the start values so that signal and gradient keep their size: He for "
    "ReLU and its like, Xavier for tanh, zeros for biases; or normalise in between",
    "normalisation": "lead a skip around each block and normalise before it (pre-norm), or warm "
    "the learning rate up",
    "recurrence": "use a gated network (LSTM, GRU), orthogonal recurrent start values, or "
    "bound the gradient's norm where it explodes",
    "learning rate": "change the learning rate",
    "schedule": "look at the schedule of the learning rate, or keep the rate as it is",
    "clipping": "raise the bound of the gradient",
    "decay": "lower the weight decay",
    "dtype": "compute or keep the weights in float32, or scale the loss (GradScaler)",
    "data": "look at the data: clean, fill or scale what goes in",
    "growth": "find what makes values larger from layer to layer or from step to step (a factor "
    "that rises, weights of more than 1 in a loop), and normalise or bound it",
    "operation": "keep the operation away from where it is not defined (a small epsilon in log, "
    "sqrt and division) or overflows (a bound on what exp and powers are given)",
    "loss": "keep the loss, and what is done to the output before it, away from where they are not "
    "defined (the form with logits; a small epsilon in log, sqrt and division)",
    "blocked": "take out what has no derivative: a rectifier after the last layer may give nothing "
    "but zeros, a softmax over one number is always 1, rounding and comparisons are steps",
    "loop": "look at the training loop: zero_grad before each backward, a step of the optimizer "
    "after it",
    "outside": "put clipping and the optimizer's step inside of `with monitor.step(step, loss):`, "
    "which begins after backward and ends before zero_grad",
    "undone": "look for what puts the weights back after a step: a checkpoint that is loaded, "
    "weights that are copied or a model that is made anew inside the loop",
    "optimizer": "give an optimizer all parameters that are to be trained, or freeze the others",
    "unregistered": "keep layers where the model finds them: in a ModuleList in place of a list, "
    "made once and not in forward",
    "detached": "make output and loss by what has a derivative, and call backward on that loss: no "
    "detach, no_grad, argmax or item, no new tensor on the way",
    "memory": "start with open gates (raise the bias of the forget gate, take large ones from the "
    "others), shorten the sequence, take fewer recurrent layers, or let attention or a skip lead "
    "back to its start",
    "dropout": "lower the dropout",
    "objective": "look at the sign of the loss, and whether the targets are what it is made for (0 "
    "and 1, or between, of a binary cross-entropy)",
    "plateau": "take a loss that pulls where it is worst (for a generator -log D in place of "
    "log(1 - D), or a critic without a sigmoid and with a gradient penalty), give another network "
    "less of a lead (a lower rate, fewer steps), or start nearer to where it is not flat",
    "unused": "nothing, if that is meant; otherwise use it or freeze it",
    "spike": "nothing, if it passes; otherwise look at that batch, or bound the gradient's norm",
    "relapse": "go back to a checkpoint from before, with a lower learning rate or a bound on the "
    "gradient; check that inputs and targets still belong together",
    "stalled": "compare with a larger learning rate; check that inputs and targets belong together",
}
GROWN_VERDICTS = ("exploding", "signal_blow_up", "non_finite")
SMALL_START = {"name": "normal_", "std": 0.02}  # as in GPT
HE = {"name": "kaiming_normal_", "nonlinearity": "relu"}
ORTHOGONAL = {"name": "orthogonal_"}
XAVIER = {  # torch knows a gain for the first two only
    **dict.fromkeys(("tanh", "sigmoid"), {"name": "xavier_normal_", "gain": "auto"}),
    **dict.fromkeys(("softsign", "hardtanh", "hardsigmoid"), {"name": "xavier_normal_"}),
}


def remedy(verdict: str, category: str) -> str:
    """What to do, in words."""
    if category == "learning rate":
        if verdict == "starved_update":
            return "raise the learning rate"
        return "lower the learning rate (by 3 to 10 at first), warm it up, or bound the gradient"
    if category == "data" and verdict == "stalled":
        return "scale inputs and targets to a mean of 0 and an RMS of 1"
    if category == "activation" and verdict in GROWN_VERDICTS:
        return (
            "use an activation that grows no faster than its input (ReLU, GELU), or normalise "
            "between the layers"
        )
    return REMEDIES[category]


def change(
    verdict: str,
    category: str,
    configuration: Mapping[str, Any] | None,
    pace: Pace,
) -> dict[str, Any]:
    """Overrides of the configuration that are likely to help; {} where none is known.

    What the configuration says already, or has no key for, is left out; then the next best is
    proposed.
    """
    if configuration is None:
        return {}
    for proposal in _proposals(verdict, category, configuration, pace):
        new = {key: value for key, value in proposal.items() if _is_new(configuration, key, value)}
        if new:
            return new
    return {}


def _proposals(
    verdict: str, category: str, configuration: Mapping[str, Any], pace: Pace
) -> Iterator[dict[str, Any]]:
    """The best first."""
    model, optimizer = configuration.get("model", {}), configuration.get("optimizer", {})
    if category == "learning rate" and "lr" in optimizer:
        yield other_rate(verdict, optimizer, pace)
    if category == "objective" and optimizer.get("maximize"):
        yield {"optimizer.maximize": False}
    if category == "schedule":
        yield {"schedule": {"name": None}}
    if category == "clipping":
        norm = _value(configuration, "clip.max_grad_norm")
        bounds = {"clip.max_grad_norm": 1.0 if norm and norm < 0.1 else None}
        yield bounds | {"clip.max_grad_value": None}
    if category == "decay" and optimizer.get("weight_decay"):
        yield {"optimizer.weight_decay": 0.0}
    if category == "dropout":
        yield {"model.dropout": 0.1}
    if category == "data":
        yield {"data.standardize": True}
    if ":" in str(model.get("name", ":")):
        return  # what the keys of the user's own model mean nobody knows
    if category == "memory" and model.get("kind") == "lstm":
        yield {"model.forget_bias": 1.0}
    lost = verdict in ("vanishing", "constant_output", "stalled")
    if category == "recurrence" and model["name"] == "rnn":
        if lost:
            of_plain = {"model.nonlinearity": "tanh"} if model.get("nonlinearity") == "relu" else {}
            yield {**of_plain, "model.kind": "lstm", "model.forget_bias": 1.0, **_recurrent(model)}
        else:
            bound = _value(configuration, "clip.max_grad_norm")
            bound = min(1.0, bound / 10) if bound else 1.0
            yield {"clip.max_grad_norm": bound, "model.init.recurrent": ORTHOGONAL}
    if lost and category in ("memory", "recurrence") and model["name"] == "rnn":
        if int(model.get("layers") or 1) > FEW_LAYERS:
            yield {"model.layers": FEW_LAYERS}
    if category in ("normalisation", "activation", "initialisation"):
        if model.get("norm") == "post":
            yield {"model.norm": "pre"}
        if category == "activation":
            yield {"model.activation": "relu", "model.init.hidden": HE}
        if category == "initialisation" and verdict == "dead_units":
            bias = _value(configuration, "model.init.bias")
            yield {} if bias in ("default", "zeros", "zeros_") else {"model.init.bias": "zeros_"}
        # Adam finds its way through many layers with the right start values alone.
        many = verdict == "vanishing" and _hidden(model) >= DEEP and is_plain(optimizer)
        deep = _norm(configuration) if many else {}
        if category != "normalisation" or verdict == "signal_blow_up":
            yield _start_values(verdict, model) | deep
        yield _norm(configuration)


def _hidden(model: Mapping[str, Any]) -> int:
    """How many layers with weights come one after the other, about."""
    if model["name"] == "cnn" and model.get("kind") != "lenet":
        stages = len(model.get("channels") or (16, 32, 64))
        return 2 * int(model.get("blocks", 2)) * stages
    return len(model.get("widths") or ()) or int(model.get("depth") or 0)


def _recurrent(model: Mapping[str, Any]) -> dict[str, Any]:
    """Start values that keep a state's size, where those given may not."""
    given = _value(model, "init.recurrent", "default")
    kept = given in ("default", "orthogonal_", ORTHOGONAL)
    return {} if kept else {"model.init.recurrent": ORTHOGONAL}


def _norm(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """One where the model has none; of batches of one sample there is nothing to normalise."""
    model, alone = configuration["model"], _value(configuration, "data.batch_size") == 1
    kind = "pre" if model["name"] == "transformer" else "layer" if alone else "batch"
    return {"model.norm": kind} if model.get("norm") == "none" else {}


def _start_values(verdict: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """Those for the activation."""
    if model["name"] == "transformer":
        return {"model.init.hidden": SMALL_START, "model.init.output": SMALL_START}
    name = model.get("activation", "relu")
    name = str(name.get("name", "") if isinstance(name, Mapping) else name)
    name = name.lower().replace("_", "")
    change: dict[str, Any] = {"model.init.hidden": XAVIER.get(name, HE)}
    if verdict == "signal_blow_up":
        change["model.init.output"] = "default"
    return change


def _is_new(configuration: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether the configuration has the key and says something else."""
    if key == "schedule":
        return bool(_value(configuration, "schedule.name"))
    return bool(_value(configuration, key, value) != value)


def _value(configuration: Mapping[str, Any], key: str, default: Any = None) -> Any:
    tree: Any = configuration
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return default
        tree = tree[part]
    return tree
