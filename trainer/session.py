"""One run from start to end: its folder, its event file, its messages and its exit status."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from trainer import loop, outcome, run_dir, statistics
from trainer.checkpoints import Checkpoints, Rest, resume
from trainer.checkpoints.checkpoint import Checkpoint
from trainer.checkpoints.listing import name_of
from trainer.config import dump, resolved
from trainer.console import Console
from trainer.events import Events
from trainer.events.reader import records
from trainer.experiment import Experiment
from trainer.finding import Finding
from trainer.monitor import Monitor
from trainer.monitor.journal import Journal
from trainer.outcome import STATUS
from trainer.programs import called
from trainer.progress import Progress
from trainer.record import StepRecord
from trainer.signals import Signals
from trainer.summary import Summary, loss_unit, overrides

AT_ONCE_SECONDS = 1.0  # what is left for the curves where a run is interrupted at once


def run(
    experiment: Experiment,
    config_path: Path,
    wanted: Path | None,
    replaced: Sequence[str] = (),
    going_on: str = "never",
) -> int:
    """Trains the experiment in its run folder; the exit status.

    `replaced` are the overrides of the command line, whose keys it is compared with other runs by,
    besides the usual ones; `going_on` is its `--resume`.
    """
    config, console, progress = experiment.config, Console(), Progress()
    folder, found = resume.run_folder(config, wanted, going_on), None
    with ExitStack() as held:
        if folder is not None:
            held.enter_context(run_dir.claim(folder))
            found = resume.find(folder, wanted, going_on, config, console.say)
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
        # All experiments share one view, unless the folder was chosen by hand.
        logdir = folder if wanted else folder.parent.parent
        watch = shlex.join([called("tensorboard"), "--logdir", str(logdir)])
        try:
            session = Session(experiment, folder, progress, console, signals, found)
        except OSError as error:
            console.say(f"{folder}: cannot be written: {error.strerror}")
            return 1
        console.say(f"writing to {folder}; watch with: {watch}")
        session.begin([override.partition("=")[0] for override in replaced])
        result = session.train()
        command = [called("python"), "-m", "trainer", "--config", str(config_path), *replaced]
        return session.end(result, watch, shlex.join([*command, "--resume", str(folder)]))


class Session:
    """A run in its folder: what it writes, who watches it, and what is told of it.

    It begins anew, or goes on from the checkpoint `found`, whose state the experiment and the
    progress have already. OSError where the folder cannot be written.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        progress: Progress,
        console: Console,
        signals: Signals,
        found: Checkpoint | None,
    ) -> None:
        config = experiment.config
        parameters = sum(p.numel() for p in experiment.model.parameters())
        console.say(
            f"{config.name}: {config.model.name}, {parameters:,} parameters on {experiment.device}"
        )
        self._experiment, self._folder, self._progress = experiment, folder, progress
        self._console, self._signals, self._found = console, signals, found
        self._mark: dict[str, Any] | None = None if found is None else found.tree["mark"]
        if found is not None:
            console.say(f"going on at step {progress.step} from {found.path}")
            run_dir.go_on(folder, config, progress.step)
        left = None if self._mark is None else (progress.step, self._mark["events"])
        self._events = Events(folder, console.say, left)
        size = None if self._mark is None else self._mark["findings"]
        self._journal = Journal(folder, self._events, size)
        self._unit = loss_unit(resolved(config))
        self._seen = Summary(self._unit)
        self._monitor = Monitor(
            experiment.model,
            sinks=[self._events.write, self._seen.add],
            found=self._tell,
            configuration=resolved(config),
            **config.monitor.model_dump(),
        )
        self._checkpoints = Checkpoints(folder, experiment, signals, self._marked, console.say)

    def begin(self, varied: Sequence[str]) -> None:
        """Tells TensorBoard of the run, and the monitor of its steps before, if there are any.

        `varied` are the keys by which it is compared with other runs, besides the usual ones.
        """
        config, events, step = self._experiment.config, self._events, self._progress.step
        if self._found is None or self._found.tree["config"] != resolved(config):
            events.text("config", f"```yaml\n{dump(resolved(config))}```", step)
        validated = config.metrics if self._experiment.validation else []
        metrics = [f"{name}/validation" for name in validated]
        compared = outcome.hyperparameters(self._experiment, varied)
        events.hyperparameters(compared, metrics, varied)
        if self._mark:
            self._checkpoints.resume(step)
            if self._mark.get("kernel"):
                statistics.use_compiled()  # from the same step on as in the unbroken run
            before = _each(records(self._folder, self._console.say), self._seen)
            self._monitor.resume(step, before, self._journal.remember)

    def train(self) -> loop.Result:
        """Trains to the end, and has all that was left to threads written whatever happens."""
        console, events, checkpoints = self._console, self._events, self._checkpoints
        self._started = time.monotonic()
        console.start(self._experiment.config.stop.steps, self._unit)
        failed = True
        try:
            result = loop.run(
                self._experiment,
                self._monitor,
                console,
                events.scalars,
                self._progress,
                checkpoints,
            )
            checkpoints.close()
            failed = STATUS.get(result.reason) != 0
        except KeyboardInterrupt:
            console.stop()
            console.say(f"interrupted at once; what was kept is in {self._folder}")
            events.close(failed, AT_ONCE_SECONDS)
            raise
        except Exception:
            checkpoints.close()
            raise
        finally:
            console.stop()
            events.close(failed)
        return result

    def end(self, result: loop.Result, watch: str, again: str) -> int:
        """Keeps the result and tells of it, and of the command `again` that goes on with what was
        interrupted; the exit status."""
        console, experiment = self._console, self._experiment
        findings = self._monitor.findings
        interrupted = result.reason == "interrupted"
        status = self._signals.status if interrupted else STATUS[result.reason]
        if not interrupted:
            try:
                what = outcome.outcome(result, findings)
                run_dir.write_json(self._folder / "result.json", what)
            except OSError as error:
                console.say(f"{self._folder}: the result cannot be written: {error.strerror}")
                status = status or 1
        kept = self._checkpoints.saved == result.steps
        if not kept and experiment.config.checkpoint.keep:
            status = status or 1  # nobody has the weights
        last = self._checkpoints.folder / name_of(result.steps)
        console.table(
            [
                *outcome.values(experiment),
                *outcome.evaluated(result, experiment),
                ("steps", str(result.steps)),
                *([("skipped", f"{result.skipped} steps, not finite")] if result.skipped else []),
                ("stopped", outcome.reason(result, experiment)),
                ("time", f"{time.monotonic() - self._started:.2f} s"),
                *([("checkpoint", str(last))] if kept else []),
                ("curves", watch),
            ]
        )
        if experiment.config.monitor.diagnose:
            console.found(self._seen.lines(findings))
        if interrupted and kept:
            console.say(f"to go on: {again}")
        return status

    def _tell(self, finding: Finding) -> None:
        self._journal.write(finding)
        if finding.alarm:
            change = "" if finding.resolved else overrides(finding)
            self._console.found([str(finding), *([f"  try {change}"] if change else [])])

    def _marked(self, durable: bool) -> Rest:
        kernel = statistics.is_compiled()
        told, found = self._events.mark(durable), self._journal.mark(durable)

        def rest(wait: bool) -> dict[str, Any] | None:
            events = told(wait)
            if events is None:
                return None
            return {"events": events, "findings": found(), "kernel": kernel}

        return rest


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
    console.say(f"{folder}: ended at step {found.step}: {told}; `--resume never` starts anew")
    return STATUS[reason]
