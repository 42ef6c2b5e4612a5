"""The statistics that the tab can show, and how each is read from the records."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.plugin.grid import ABSENT
from trainer.record import COUNT, INFINITIES, NANS, NORM
from trainer.wire import OF_LAYERS, OF_PARAMETERS, Sheet

Names = tuple[str, ...]
Values = NDArray[np.float64]  # (R, N) of R records and N names; ABSENT where there is none


class Measure(NamedTuple):
    """A statistic: `values` is None of records that do not have it; a row's gradient has its
    histogram in `table`."""

    values: Callable[[Sheet], tuple[Names, Values] | None]
    table: int


def _rms(sheet: Sheet, part: str) -> Values:
    """NaN with any NaN, infinite with any infinity, ABSENT of a tensor without values."""
    count, norm = sheet.moment(part, COUNT), sheet.moment(part, NORM)
    for which, value in ((INFINITIES, np.inf), (NANS, np.nan)):
        if sheet.any(part, which):
            norm = np.where(sheet.moment(part, which) > 0, value, norm)
    return np.where(count > 0, norm / np.sqrt(np.maximum(count, 1)), ABSENT)


def _activation_gradient(sheet: Sheet) -> Values | None:
    if not sheet.layout.reached:  # passes that were made again had no way back
        return None
    place = {name: row for row, name in enumerate(sheet.layout.reached)}
    which = [place.get(name, -1) for name in sheet.layout.layers or ()]
    absent = np.full((len(sheet.steps), 1), ABSENT)
    return np.hstack([_rms(sheet, "layer_moments"), absent])[:, which]


def _zero_fraction(sheet: Sheet) -> Values:
    fraction = sheet.part("zero_fraction")
    return np.where(np.isnan(fraction), ABSENT, fraction)


def _of_layers(read: Callable[[Sheet], Values | None]) -> Measure:
    def values(sheet: Sheet) -> tuple[Names, Values] | None:
        layout = sheet.layout
        if layout.layers is None or (found := read(sheet)) is None:
            return None
        start = int(layout.has_input)
        return layout.layers[start:], found[:, start:]

    return Measure(values, OF_LAYERS)


def _update_ratio(sheet: Sheet) -> tuple[Names, Values]:
    ratio = np.where(sheet.part("parameter_rms") == 0, ABSENT, sheet.part("update_ratio"))
    return sheet.layout.parameters, ratio


MEASURES = {  # of layers in order of execution, or of parameters
    "activation_gradient": _of_layers(_activation_gradient),
    "parameter_gradient": Measure(
        lambda sheet: (sheet.layout.gradients, _rms(sheet, "moments")), OF_PARAMETERS
    ),
    "update_ratio": Measure(_update_ratio, OF_PARAMETERS),
    "activation": _of_layers(lambda sheet: sheet.part("rms")),
    "zero_fraction": _of_layers(_zero_fraction),
}
