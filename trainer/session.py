"""One run from start to end: its folder, its event file, its messages and its exit status."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trainer import loop, outcome, resume, run_dir, statistics
from trainer.checkpoint import Checkpoint
from trainer.checkpoints import Checkpoints
from trainer.config import dump, resolved
from trainer.console import Console
from trainer.events import Events
from trainer.events.reader import records
from trainer.experiment import Experiment
from trainer.finding import Finding
from trainer.journal import Journal
from trainer.monitor import Monitor
from trainer.outcome import STATUS
from trainer.progress import Progress
from trainer.record import StepRecord
from trainer.signals import Signals
from trainer.summary import Summary, overrides

AT_ONCE_SECONDS = 1.0  # what is left for the curves where a run is interrupted at once


def run(
    experiment: Experiment,
    config_path: Path,
    wanted: Path | None,
    varied: Sequence[str] = (),
    going_on: str = "never",
) -> int:
    """Trains the experiment in its run folder; the exit status.

    `varied` are the keys by which it is compared with other runs, besides the usual ones.
    `going_on` is the `--resume` of the command line.
    """
    config, console, progress = experiment.config, Console(), Progress()
    folder, found = resume.run_folder(config, wanted, going_on), None
    with ExitStack() as held:
        if folder is not None:
            held.enter_context(run_dir.claim(folder))
            found = resume.find(folder, going_on, config, console.say)
        if folder is not None and found is not None:
            resume.apply(experiment, progress, found, console.say)
            if resume.is_over(found, config):
                return _over(found, folder, console)
        else:
            again = folder is None and going_on == "auto"
            try:
                folder = run_dir.create(config, wanted, again, held.enter_context)
            except OSError as error:
                console.say(f"{error.filename}: cannot be written: {error.strerror}")
                return 1
        signals = held.enter_context(Signals())
        return _run(
            experiment, config_path, folder, wanted, varied, console, progress, found, signals
        )


def _run(
    experiment: Experiment,
    config_path: Path,
    folder: Path,
    wanted: Path | None,
    varied: Sequence[str],
    console: Console,
    progress: Progress,
    found: Checkpoint | None,
    signals: Signals,
) -> int:
    config = experiment.config
    parameters = sum(p.numel() for p in experiment.model.parameters())
    # All experiments share one view, unless the folder was chosen by hand.
    logdir = folder if wanted else folder.parent.parent
    watch = f"tensorboard --logdir {shlex.quote(str(logdir))}"
    console.say(
        f"{config.name}: {config.model.name}, {parameters:,} parameters on {experiment.device}"
    )
    mark: dict[str, Any] | None = None if found is None else found.tree["mark"]
    left = None if mark is None else (progress.step, mark["events"])
    try:
        if found is not None:
            console.say(f"going on at step {progress.step} from {found.path}")
            run_dir.go_on(folder, config, progress.step)
        events = Events(folder, console.say, left)
        journal = Journal(folder, events)
        if mark is not None:
            journal.rewind(mark["findings"])
    except OSError as error:
        console.say(f"{folder}: cannot be written: {error.strerror}")
        return 1
    console.say(f"writing to {folder}; watch with: {watch}")
    if found is None or found.tree["config"] != resolved(config):
        events.text("config", f"```yaml\n{dump(resolved(config))}```", progress.step)
    validated = config.metrics if experiment.validation else []
    metrics = [f"{name}/validation" for name in validated]
    events.hyperparameters(outcome.hyperparameters(experiment, varied), metrics, varied)
    seen = Summary()

    def tell(finding: Finding) -> None:
        journal.write(finding)
        if finding.alarm:
            change = "" if finding.resolved else overrides(finding)
            console.found([str(finding), *([f"  try {change}"] if change else [])])

    monitor = Monitor(
        experiment.model,
        sinks=[events.write, seen.add],
        found=tell,
        configuration=resolved(config),
        **config.monitor.model_dump(),
    )

    def marked(durable: bool) -> Callable[[], dict[str, Any]]:
        kernel = statistics.is_compiled()
        told, found = events.mark(durable), journal.mark(durable)
        return lambda: {"events": told(), "findings": found(), "kernel": kernel}

    checkpoints = Checkpoints(folder, experiment, signals, marked, console.say)
    if mark:
        checkpoints.resume(progress.step)
        if mark.get("kernel"):
            statistics.use_compiled()  # from the same step on as in the unbroken run
        before = _each(records(folder, console.say), seen)
        monitor.resume(progress.step, before, journal.remember)
    started = time.monotonic()
    console.start(config.stop.steps)
    failed = True
    try:
        result = loop.run(experiment, monitor, console, events.scalars, progress, checkpoints)
        checkpoints.close()
        failed = STATUS.get(result.reason) != 0
    except KeyboardInterrupt:
        console.stop()
        console.say(f"interrupted at once; what was kept is in {folder}")
        events.close(failed, AT_ONCE_SECONDS)
        raise
    except Exception:
        checkpoints.close()
        raise
    finally:
        console.stop()
        events.close(failed)
    interrupted = result.reason == "interrupted"
    status = signals.status if interrupted else STATUS[result.reason]
    if not interrupted:
        try:
            run_dir.write_json(folder / "result.json", outcome.outcome(result, monitor.findings))
        except OSError as error:
            console.say(f"{folder}: the result cannot be written: {error.strerror}")
            status = status or 1
    kept = checkpoints.saved == result.steps
    if not kept and config.checkpoint.keep:
        status = status or 1  # nobody has the weights
    last = checkpoints.folder / f"step-{result.steps:09d}"
    console.table(
        [
            *outcome.values(experiment),
            ("cost", f"{result.training.cost:.8g}"),
            *outcome.evaluated(result),
            ("steps", str(result.steps)),
            *([("skipped", f"{result.skipped} steps, not finite")] if result.skipped else []),
            ("stopped", outcome.reason(result, experiment)),
            ("time", f"{time.monotonic() - started:.2f} s"),
            *([("checkpoint", str(last))] if kept else []),
            ("curves", watch),
        ]
    )
    if config.monitor.diagnose:
        console.found(seen.lines(monitor.findings))
    if interrupted and kept:
        again = f"--config {shlex.quote(str(config_path))} --resume {shlex.quote(str(folder))}"
        console.say(f"to go on: python -m trainer {again}")
    return status


def _each(found: Iterable[StepRecord], seen: Summary) -> Iterator[StepRecord]:
    for record in found:
        seen.add(record)
        yield record


def _over(found: Checkpoint, folder: Path, console: Console) -> int:
    """Says that a run has ended; its exit status."""
    reason = str(found.tree["ended"])
    told = {"cost": "its cost was low enough", "steps": "all its steps are done"}.get(
        reason, f"it was stopped by its {reason}"
    )
    console.say(f"{folder}: ended at step {found.step}: {told}; --resume never starts anew")
    return STATUS[reason]
