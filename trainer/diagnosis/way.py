"""How far the weights have come, relative to their size: the clock of the diagnosis."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import median

import numpy as np
from numpy.typing import NDArray

from trainer.diagnosis.view import Array
from trainer.record import StepRecord

SAME = 1e-13  # of a size: rounding of sums that are taken in another order
MOVES = 1e-6  # of a matrix, by an update that does something


@dataclass
class Way:
    """Of each parameter, in the order of the newest record; of what is no matrix the ratios are NaN
    and the paths 0, since biases start at zero and norms at one.

    `paths` are the sums of update ratios, each at most 1, since a warm-up or a small rate takes its
    time. `undone` is for how many steps all parameters have had the same sizes at each record,
    although updates moved them.
    """

    updates: Array = field(default_factory=lambda: np.zeros(0))  # the newest ratios
    largest: Array = field(default_factory=lambda: np.zeros(0))  # since they were trained last
    farthest: Array = field(default_factory=lambda: np.zeros(0))  # the same, as an RMS, no ratio
    paths: Array = field(default_factory=lambda: np.zeros(0))
    undone: int = 0
    _sizes: Array = field(default_factory=lambda: np.zeros(0))  # of now
    _ways: Array = field(default_factory=lambda: np.zeros(0))  # at the newest step
    _come: dict[str, float] = field(default_factory=dict)  # paths when others were trained

    def add(self, record: StepRecord, before: StepRecord | None) -> None:
        """Goes on by a record; between two of them ratios count as their mean."""
        self.updates = np.where(matrices(record.shapes), record.update_ratio, np.nan)
        ways, self._ways = self._ways, np.minimum(self.updates, 1.0)
        names, last = record.parameters, before or record
        moved = np.fmax.reduce(ways, initial=0.0) > MOVES
        sizes, then = record.parameter_rms, last.parameter_rms
        put_back = moved and len(sizes) == len(then) and (abs(sizes - then) <= SAME * then).all()
        self.undone = self.undone + record.step - last.step if put_back else 0
        if last.parameters != names or before is None:  # layers may be trained in turns
            self._come |= zip(last.parameters, self.paths.tolist(), strict=False)
            self.paths = np.array([self._come.get(name, 0.0) for name in names])
            ways, self.largest, self.farthest = self._ways, self.updates, self.updates * sizes
        self.largest = np.fmax(self.largest, self.updates)
        self.farthest = np.fmax(self.farthest, self.updates * sizes)
        self._sizes = sizes
        both = np.fmax(ways + self._ways, 0.0)  # NaN, where there is no matrix, is no way
        self.paths = self.paths + both * ((record.step - last.step) / 2)

    @property
    def path(self) -> float:
        """That of the matrix that has come farthest."""
        return max(self.paths.tolist(), default=0.0)

    @property
    def farthest_share(self) -> float:
        """The largest update beside the sizes of now, the median over the matrices; NaN without."""
        shares = (self.farthest / self._sizes).tolist()
        known = [share for share in shares if share == share]
        return median(known) if known else math.nan


@lru_cache(maxsize=8)  # the same for most records of a run
def matrices(shapes: tuple[tuple[int, ...], ...]) -> NDArray[np.bool_]:
    """Which of the parameters are; all, where none is."""
    matrix = np.array([len(shape) > 1 for shape in shapes], dtype=bool)
    return matrix if matrix.any() else np.ones(len(shapes), bool)
