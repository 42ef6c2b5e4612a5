"""One run from start to end: its folder, its event file, its messages and its exit status."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import loop, run_dir
from trainer.config import dump, resolved
from trainer.console import Console
from trainer.data.table import Table
from trainer.events import Events
from trainer.experiment import Experiment
from trainer.finding import Finding
from trainer.journal import Journal
from trainer.models.linear import Linear
from trainer.monitor import Monitor
from trainer.summary import Summary, overrides

STATUS = {"cost": 0, "steps": 0, "patience": 0, "not finite": 3, "finding": 3}
MAX_VALUES_SHOWN = 32
COMPARED = ("model.name", "loss.name", "loss.reduction", "optimizer.name", "optimizer.lr",
            "data.batch_size", "dtype", "seed")  # fmt: skip
FINDING_SHOWN = ("verdict", "level", "where", "steps", "resolved")  # in result.json


def run(
    experiment: Experiment, config_path: Path, wanted: Path | None, varied: Sequence[str] = ()
) -> int:
    """Trains the experiment in a new run folder; the exit status.

    `varied` are the keys by which it is compared with other runs, besides the usual ones.
    """
    config, console = experiment.config, Console()
    folder = run_dir.create(config, wanted)
    parameters = sum(p.numel() for p in experiment.model.parameters())
    # All experiments share one view, unless the folder was chosen by hand.
    logdir = folder if wanted else folder.parent.parent
    watch = f"tensorboard --logdir {shlex.quote(str(logdir))}"
    console.say(
        f"{config.name}: {config.model.name}, {parameters:,} parameters on {experiment.device}"
    )
    console.say(f"writing to {folder}; watch with: {watch}")
    events = Events(folder, warn=console.say)
    events.text("config", f"```yaml\n{dump(resolved(config))}```")
    validated = config.metrics if experiment.validation else []
    metrics = [f"{name}/validation" for name in validated]
    events.hyperparameters(_hyperparameters(experiment, varied), metrics, varied)
    journal, seen = Journal(folder, events), Summary()

    def found(finding: Finding) -> None:
        journal.write(finding)
        if finding.alarm:
            change = "" if finding.resolved else overrides(finding)
            console.found([str(finding), *([f"  try {change}"] if change else [])])

    monitor = Monitor(
        experiment.model,
        sinks=[events.write, seen.add],
        found=found,
        configuration=resolved(config),
        **config.monitor.model_dump(),
    )
    started = time.monotonic()
    console.start(config.stop.steps)
    failed = True
    try:
        result = loop.run(experiment, monitor, console, events.scalars)
        failed = STATUS[result.reason] != 0
    except KeyboardInterrupt:
        console.stop()
        console.say(f"interrupted; what was logged is in {folder}")
        return 130
    finally:
        console.stop()
        events.close(failed)
    run_dir.write_json(folder / "result.json", _outcome(result, monitor.findings))
    console.table(
        [
            *_found(experiment),
            ("cost", f"{result.training.cost:.8g}"),
            *_evaluated(result),
            ("steps", str(result.steps)),
            ("stopped", _reason(result, experiment)),
            ("time", f"{time.monotonic() - started:.2f} s"),
            ("curves", watch),
        ]
    )
    if config.monitor.diagnose:
        console.found(seen.lines(monitor.findings))
    return STATUS[result.reason]


def _outcome(result: loop.Result, findings: list[Finding]) -> dict[str, object]:
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


def _evaluated(result: loop.Result) -> list[tuple[str, str]]:
    """The rows of the table about validation and metrics."""
    rows = []
    if result.validation is not None:
        rows.append(("validation loss", f"{result.validation.cost:.8g}"))
    on = result.validation or result.training
    return rows + [(name, f"{value:.4g}") for name, value in on.metrics.items()]


def _hyperparameters(
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


def _reason(result: loop.Result, experiment: Experiment) -> str:
    stop = experiment.config.stop
    if result.finding is not None:
        return _stopped_by(result.finding)
    return {
        "cost": f"the cost is at most {stop.cost}",
        "steps": f"all {stop.steps} steps are done",
        "patience": f"the validation loss has not fallen for {stop.patience_steps} steps",
        "not finite": f"the loss or a gradient is not finite at step {result.steps}",
    }[result.reason]


def _stopped_by(finding: Finding) -> str:
    return finding.headline.replace(": ", " finding: ", 1)


def _found(experiment: Experiment) -> list[tuple[str, str]]:
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
