"""Looks at the gradients of chosen steps, before clipping, and changes nothing about training."""

from __future__ import annotations

import math
import operator
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.config.arguments import section
from trainer.config.problem import shown
from trainer.config.schema import Monitor as Section
from trainer.events import Events
from trainer.finding import Finding
from trainer.monitor import step_loss
from trainer.monitor.activations import Activations
from trainer.monitor.cadence import due
from trainer.monitor.checkup import Checkup, Found
from trainer.monitor.journal import Journal, log
from trainer.monitor.last_pass import LastPass
from trainer.monitor.leftover import Leftover
from trainer.monitor.observation import UNOBSERVED, Observation, Unobserved
from trainer.monitor.patterns import Patterns
from trainer.monitor.reminders import NOT_ENTERED, RESTARTED, Reminders
from trainer.monitor.structure import Structure
from trainer.record import StepRecord

_MARKS = "_trainer_monitors"  # on an exception

Sink = Callable[[StepRecord], None]


class Monitor:
    """Records the gradients of a model's training, in our loop and in anybody's.

    Put the update into `with monitor.step(step, loss):`; gradients are complete when it begins,
    clipping and the optimizers' steps happen inside. `keys` are those of the section `monitor` of
    a configuration, with the same defaults; ValueError for a wrong one, TypeError for what is no
    module. Records go to TensorBoard events in `log_dir` (None: nowhere) and to each of `sinks`,
    then to the diagnosis. What that finds, or finds to have ended, goes to `findings.jsonl` and
    TensorBoard's text in `log_dir` and to `found`, which by default warns through Python's logging.
    `configuration` is the tree that changes are proposed to.
    """

    def __init__(
        self,
        model: nn.Module,
        log_dir: str | Path | None = None,
        *,
        sinks: Sequence[Sink] = (),
        found: Found = log,
        configuration: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"Monitor watches a torch.nn.Module, got {shown(model)}")
        self._section = section(Section, "Monitor", keys)
        wants = Patterns(model, self._section).wants
        self._events, self._sinks, self._found = None, list(sinks), [found]
        if log_dir is not None:
            self._events = Events(Path(log_dir))
            self._sinks.insert(0, self._events.write)
            self._found.insert(0, Journal(Path(log_dir), self._events).write)
        self._checkup = Checkup(configuration, self._section.diagnose)
        self._structure = Structure(model, wants)
        self._activations = Activations(model, wants)
        self._previous: tuple[int, float] | None = None  # step and time of the last record
        self._leftover: Leftover | None = None  # of the last record
        self._losses = step_loss.Losses(model)
        self._last_step: int | None = None
        # What the next step may be: by one further, or as far as the last one came.
        self._next: tuple[int, ...] = (0,)
        self._is_off = False  # for good
        self._latest: Observation | None = None
        self._mark = object()  # of what is handled already and ends no training; none is kept
        with suppress(TypeError):  # there is none
            vars(sys.exception()).setdefault(_MARKS, set()).add(self._mark)
        self._reminders = Reminders()
        self._last_pass = LastPass(model, self._section.activation_every_steps is not None)
        # Who lets go of the monitor without closing it is not watched for ever.
        for attached in (self._activations, self._last_pass):
            weakref.finalize(self, attached.release).atexit = False
        self.watch(0)

    @property
    def findings(self) -> list[Finding]:
        """All that was found so far: what has ended, then the rest in the order it was raised."""
        return self._checkup.findings

    def observes(self, step: int) -> bool:
        """Whether the cadences ask for a record of this step; known before it."""
        every_steps, histograms = self._section.every_steps, self._section.histogram_every_steps
        return due(every_steps, step) or due(histograms, step) or self._activations.watching

    def watch(self, *steps: int) -> None:
        """Gets ready for the forward pass of the given step; of several any may be the next.

        Called when the step before has ended; a loop that does not begin at 0 calls it first. As
        long as the diagnosis has a suspicion it sees the layers at every record.
        """
        self._last_pass.forget()
        keys, every_steps = self._section, self._section.activation_every_steps
        looks = due(every_steps, *steps)
        if not looks and every_steps is not None and self._checkup.suspects:
            looks = due(keys.every_steps, *steps) or due(keys.histogram_every_steps, *steps)
        if looks and not self._is_off:
            self._activations.watch(due(keys.histogram_every_steps, *steps))
        else:
            self._activations.release()

    def resume(self, step: int, records: Iterable[StepRecord], known: Found | None = None) -> None:
        """Goes on at a step, after these records of the steps before, as if it had seen them.

        What they say is found again, told to `known` alone.
        """
        last = None
        for last in records:
            self._checkup.add(last, [known] if known else [])
        self._losses.is_first = last is None
        self._last_step = None if last is None else step - 1
        if last is not None and last.step == step - 1:
            self._leftover = Leftover(last.step, [None] * len(self._structure.watched.parameters))
        self.watch(step)

    def probes(self) -> list[Tensor]:
        """Inputs of the forward pass so far that have a gradient only to be looked at: who calls
        `torch.autograd.grad` asks for theirs too; `backward` computes them anyway."""
        return self._activations.probes

    def step(
        self,
        step: int,
        loss: Tensor | float | None = None,
        optimizer: Optimizer | None = None,
        always: bool = False,
    ) -> Unobserved:
        """The context in which the update of this step happens.

        `loss` is the cost of the step, a single number (ValueError otherwise). The learning rate is
        that of the first optimizer that steps inside; `optimizer` is needed only where that one
        runs no hooks of torch's. `always` makes a record whatever the cadences, and so does a loss
        in the host's memory that is no finite number when that of the step before was one. The
        context's `record` is there at its end; None if the step is not observed.
        """
        if self._is_off:
            return UNOBSERVED
        step, loss = operator.index(step), self._losses.take(loss)
        self._next, last, self._last_step = (step + 1,), self._last_step, step
        if last is not None and last < step - 1:  # in a loop that counts samples
            self._next = step + 1, 2 * step - last
        observed = always or self.observes(step) or self._losses.breaks
        if observed:
            step_loss.check(loss)
            if self._structure.look():
                self._activations.learn()
        left, self._leftover = self._leftover, None
        if left is not None and not (observed and left.step == step - 1):
            left.end()
            left = None
        if not observed:
            self.watch(*self._next)
            return UNOBSERVED
        now, step_ms = time.perf_counter(), math.nan
        if self._previous is not None and step > self._previous[0]:
            step_ms = 1000 * (now - self._previous[1]) / (step - self._previous[0])
        elif self._previous is not None:
            self._reminders.tell(RESTARTED, step, self._previous[0])
        self._warn_unless_entered()
        self._previous = step, now
        again = self._last_pass.look_again(step) if self._losses.breaks else None
        self._latest = Observation(
            step=step,
            watched=self._structure.watched,
            activations=self._activations,
            again=again,
            loss=loss,
            loss_before=self._losses.before,
            others=self._losses.others(),
            optimizer=optimizer,
            before=left,
            histograms=due(self._section.histogram_every_steps, step),
            step_ms=step_ms,
            done=self._observed,
        )
        return self._latest

    def end(self) -> None:
        """Training has come to its end: tells what was in vain. Nothing is watched any more."""
        if self._last_step is not None and not self._is_off:
            self._checkup.end(self._last_step, self._losses.recent, self._found)
        self._turn_off()

    def close(self) -> None:
        """Writes what is waiting, closes the event file and leaves no hook on the model.

        Where no exception is on its way, training has come to its end.
        """
        raised = sys.exception()
        self._close(raised is None or self._mark in getattr(raised, _MARKS, ()))

    def _close(self, is_at_end: bool) -> None:
        self._warn_unless_entered()
        try:
            if is_at_end:
                self.end()
        finally:
            if self._leftover is not None:
                self._leftover.end()
            self._turn_off()
            if self._events is not None:
                self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close(kind is None)

    def _observed(self, observation: Observation) -> None:
        self._leftover = observation.leftover
        if observation.failed:
            self._turn_off()
            return
        try:
            if observation.record is not None:
                for sink in self._sinks:
                    sink(observation.record)
                self._checkup.add(observation.record, self._found)
        finally:
            self.watch(*self._next)

    def _turn_off(self) -> None:
        self._activations.release()
        self._last_pass.release()
        self._is_off = True

    def _warn_unless_entered(self) -> None:
        if self._latest is not None and not self._latest.entered:
            self._latest.drop()
            self._reminders.tell(NOT_ENTERED, self._latest.step)
