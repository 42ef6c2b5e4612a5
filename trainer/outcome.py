"""What is told of a run when it has ended, and what it is compared with other runs by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trainer import loop
from trainer.config import resolved
from trainer.data.table import Table
from trainer.experiment import Experiment
from trainer.finding import Finding
from trainer.models.linear import Linear
from trainer.summary import loss_unit

STATUS = {"cost": 0, "steps": 0, "patience": 0, "not finite": 3, "finding": 3}
MAX_VALUES_SHOWN = 32
COMPARED = ("model.name", "loss.name", "loss.reduction", "optimizer.name", "optimizer.lr",
            "data.batch_size", "dtype", "seed")  # fmt: skip
FINDING_SHOWN = ("verdict", "level", "where", "steps", "resolved")  # in result.json


def outcome(result: loop.Result, findings: list[Finding]) -> dict[str, object]:
    """What `result.json` says, for programs that compare runs."""
    on = result.validation or result.training
    return {
        "reason": _stopped_by(result.finding) if result.finding else result.reason,
        "status": STATUS[result.reason],
        "steps": result.steps,
        "cost": result.training.cost,
        "validation_loss": result.validation and result.validation.cost,
        "best_validation_loss": result.best_validation_loss,
        "metrics": on.metrics,
        "findings": [
            {name: getattr(finding, name) for name in FINDING_SHOWN} for finding in findings
        ],
    }


def evaluated(result: loop.Result, experiment: Experiment) -> list[tuple[str, str]]:
    """The rows of the table about costs and metrics."""
    at = ""
    if result.looked_at is not None:
        at = f"{loss_unit(resolved(experiment.config))} at step {result.looked_at}"
    rows = [("cost", f"{result.training.cost:.8g}{at}")]
    if result.validation is not None:
        rows.append(("validation loss", f"{result.validation.cost:.8g}"))
    on = result.validation or result.training
    return rows + [(name, f"{value:.4g}") for name, value in on.metrics.items()]


def hyperparameters(
    experiment: Experiment, varied: Sequence[str]
) -> dict[str, bool | int | float | str]:
    """The values that runs are compared by; the same keys in all runs of a sweep."""
    tree = resolved(experiment.config)
    values: dict[str, bool | int | float | str] = {}
    for key in dict.fromkeys([*COMPARED, *varied]):
        value: Any = tree
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        plain = isinstance(value, bool | int | float | str)
        values[key] = value if plain else json.dumps(value)
    values["data.batch_size"] = experiment.config.data.batch_size or len(experiment.rows)
    return values


def reason(result: loop.Result, experiment: Experiment) -> str:
    stop = experiment.config.stop
    if result.finding is not None:
        return _stopped_by(result.finding)
    return {
        "cost": f"the cost is at most {stop.cost}",
        "steps": f"all {stop.steps} steps are done",
        "patience": f"the validation loss has not fallen for {stop.patience_steps} steps",
        "interrupted": "by a signal",
        "not finite": f"the loss or a gradient is not finite at step {result.steps}",
    }[result.reason]


def _stopped_by(finding: Finding) -> str:
    return finding.headline.replace(": ", " finding: ", 1)


def values(experiment: Experiment) -> list[tuple[str, str]]:
    """The values of a small model's parameters, in the units of the data where that is known."""
    model, rows = experiment.model, experiment.rows
    if sum(p.numel() for p in model.parameters()) > MAX_VALUES_SHOWN:
        return []
    digits = 15 if experiment.config.dtype == "float64" else 8
    if isinstance(model, Linear) and isinstance(rows, Table) and rows.classes is None:
        named = model.coefficients(rows)
    else:
        named = [
            (f"{name}[{index}]" if parameter.dim() else name, value)
            for name, parameter in model.named_parameters()
            for index, value in enumerate(parameter.detach().flatten().tolist())
        ]
    return [(name, f"{value:.{digits}g}") for name, value in named]
