"""One step while it is made: gradients measured before its update, the change after it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from itertools import chain, compress, islice
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainer import statistics
from trainer.monitor.activations import Activations
from trainer.monitor.leftover import Leftover
from trainer.monitor.measured import Measured
from trainer.monitor.others import Others
from trainer.monitor.shards import here
from trainer.monitor.update import Update, clipped_to
from trainer.monitor.watched import Watched
from trainer.record import UNDEFINED, StepRecord, TensorTable, norm_of

logger = logging.getLogger("trainer")

_FAILED = "the monitor failed at step %d and is off from here on; training goes on"


class Unobserved:
    """The context of a step that nobody looks at: does nothing."""

    record: StepRecord | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def clipped(self, coefficient: Tensor | float) -> None:
        """As for a step that is observed."""


UNOBSERVED = Unobserved()


class Observation(Unobserved):
    """Measures the gradients when its context begins, the change of the parameters when it ends.

    All results stay on their devices until the end and are then copied to the host at once;
    `record` is there afterwards, unless an exception has left the context, and `done` was called.
    """

    def __init__(
        self,
        step: int,
        watched: Watched,
        activations: Activations,
        again: Measured | None,  # of passes made again, whose rows are more than what is measured
        loss: Tensor | float | None,
        loss_before: float | None,
        others: Others,
        optimizer: torch.optim.Optimizer | None,
        before: Leftover | None,
        histograms: bool,
        step_ms: float,
        done: Callable[[Observation], None],
    ) -> None:
        self.step = step
        self.entered = self.failed = False
        self._watched = watched
        self._activations = activations
        self._again = again
        self._layers: list[Measured] = []  # by how much they know of the outputs
        self._loss, self._loss_before = loss, loss_before
        self._others = others
        self._optimizer = optimizer
        self._before = before  # None: the step before was not observed
        self._histograms = histograms
        self._step_ms = step_ms
        self._done = done
        self._clip_coefficient: Tensor | float | None = None
        self._update = Update(step, watched, self._fail)

    def clipped(self, coefficient: Tensor | float) -> None:
        """Tells by what a loop of its own has multiplied the gradients (1: not at all)."""
        self._clip_coefficient = coefficient

    def __enter__(self) -> Self:
        self.entered = True
        try:
            self._begin()
        except Exception:
            self._fail()
        return self

    def _begin(self) -> None:
        started = time.perf_counter()
        self._wall_time = time.time()
        is_whole = self._activations.pause()
        self._layers = [self._activations.measured] if is_whole else []
        self._layers += [] if self._again is None else [self._again]
        self._again = None
        watched = self._watched
        gradients = watched.gradients()
        watched.look(gradients)
        self._carried = math.nan if self._before is None else self._before.carried(gradients)
        self._gradients = [gradient for gradient in gradients if gradient is not None]
        self._names = watched.names
        if len(self._gradients) < len(gradients):
            present = [gradient is not None for gradient in gradients]
            self._names = tuple(compress(watched.names, present))
        values = here(self._gradients)
        self._moments, self._counts = statistics.summarize(values, self._histograms)
        self._squares = watched.snapshot.take(watched.values)
        self._update.begin(self._gradients, self._optimizer)
        self._seconds = time.perf_counter() - started
        self._seconds += self._activations.seconds if is_whole else 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._update.end()
            if kind is None and not self.failed:
                self.record = self._made()
        except Exception:
            self._fail()
        if self.record is None:
            self.drop()
            self._activations.release()
        self._layers = []
        self._gradients = []  # the monitor, and maybe the loop, keeps its last observation
        self._update.forget()
        self._done(self)

    def drop(self) -> None:
        """Waits for no gradient of a step that has no record."""
        for left in (self._before, self._update.leftover):
            if left is not None:
                left.end()
        self._before = self._update.leftover = None

    @property
    def leftover(self) -> Leftover | None:
        """What the step leaves in `.grad`, for the step after."""
        return self._update.leftover

    def _fail(self) -> None:
        if not self.failed:
            logger.warning(_FAILED, self.step, exc_info=True)
        self.failed = True

    def _made(self) -> StepRecord:
        started = time.perf_counter()
        watched = self._watched
        changes = watched.snapshot.changes(here(watched.trained))
        tables = [self._moments, self._squares, changes]
        tables += [] if self._counts is None else [self._counts]
        given = self._update.norms() if self._clip_coefficient is None else None
        tables += [] if given is None else [given]
        numbers = {
            "loss": self._loss,
            "coefficient": self._clip_coefficient,
            "found": self._before.found if self._before is not None else None,
        }
        read = {key: _readable(n) for key, n in numbers.items() if isinstance(n, Tensor)}
        results = [measured.results() for measured in self._layers]
        arrays = statistics.fetch([*tables, *read.values(), *chain(*results)])
        layer_arrays = iter(arrays[len(tables) + len(read) :])
        numbers |= {
            key: array.item() for key, array in zip(read, arrays[len(tables) :], strict=False)
        }

        moments, squares, changed = (array.astype(np.float64, copy=False) for array in arrays[:3])
        counts = None if self._counts is None else arrays[3]
        gradients = TensorTable(self._names, moments, counts)
        norms = gradients.norms()
        if given is not None:
            numbers["coefficient"] = clipped_to(arrays[len(tables) - 1], norms)
        left = self._update.leftover
        if left is not None:
            left.note_zeros({*compress(self._names, gradients.is_zero.tolist())})
        if numbers["found"] == 0:
            self._carried = 0.0  # somebody has set it to zero where no version tells
        with np.errstate(divide="ignore", invalid="ignore"):
            rms, ratio = np.sqrt(squares / watched.sizes), np.sqrt(changed[:, 0] / squares)
            unchanged = changed[:, 1] / watched.sizes
        looks = [
            measured.table([*islice(layer_arrays, len(result))])
            for measured, result in zip(self._layers, results, strict=True)
        ]
        layers = looks.pop() if looks else None
        if layers is not None and looks:
            layers = layers.with_gradients(looks[0].gradients)
        loss = _number(numbers["loss"])
        seconds = self._seconds + time.perf_counter() - started
        return StepRecord(
            step=self.step,
            wall_time=self._wall_time,
            loss=UNDEFINED if self._loss is not None and math.isnan(loss) else loss,
            learning_rate=self._update.learning_rate,
            gradient_norm=norm_of(norms),
            clip_coefficient=_number(numbers["coefficient"]),
            step_ms=self._step_ms,
            monitor_ms=1000 * seconds,
            carried_gradients=float(self._carried),
            optimizer=self._update.name,
            gradients=gradients,
            parameters=watched.trained_names,
            shapes=watched.shapes,
            dtypes=watched.dtypes,
            parameter_rms=rms,
            update_ratio=ratio,
            unchanged_fraction=unchanged,
            layers=layers,
            # Kept only where weights are not finite: a resumed run does not know it, and has none.
            loss_before=math.nan if np.isfinite(rms).all() else _number(self._loss_before),
            strangers=self._others.strangers,
            opponents=self._others.opponents,
        )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _readable(number: Tensor) -> Tensor:
    """A number of a kind that numpy knows, which has none for bfloat16."""
    number = number.detach().reshape(1)
    return number.float() if number.itemsize < 4 else number
