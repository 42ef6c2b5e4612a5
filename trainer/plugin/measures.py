"""The statistics that the tab can show, and how each is read from a record."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trainer.plugin.grid import ABSENT
from trainer.record import LayerTable, StepRecord, TensorStatistics, TensorTable

Values = tuple[tuple[str, ...], NDArray[np.float64]]  # one for each name; ABSENT where none


def _rms(table: TensorTable) -> NDArray[np.float64]:
    """(N,) NaN with any NaN, infinite with any infinity, ABSENT of a tensor without values."""
    count = table.moments[:, 0]
    return np.where(count > 0, table.norms() / np.sqrt(np.maximum(count, 1)), ABSENT)


def _activation_gradients(layers: LayerTable) -> NDArray[np.float64]:
    place = {name: row for row, name in enumerate(layers.gradients.names)}
    which = [place.get(name, -1) for name in layers.names]
    return np.append(_rms(layers.gradients), ABSENT)[which]


def _of_layers(read: Callable[[LayerTable], NDArray[np.float64]]) -> Callable[..., Values | None]:
    def values(record: StepRecord) -> Values | None:
        layers = record.layers
        if layers is None:
            return None
        start = int(layers.has_input)
        return layers.names[start:], read(layers)[start:]

    return values


def _update_ratio(record: StepRecord) -> Values:
    ratio = np.where(record.parameter_rms == 0, ABSENT, record.update_ratio)
    return record.parameters, ratio


# Of layers in order of execution, or of parameters; None where a step was not looked at so far.
MEASURES: dict[str, Callable[[StepRecord], Values | None]] = {
    "activation_gradient": _of_layers(_activation_gradients),
    "parameter_gradient": lambda record: (record.gradients.names, _rms(record.gradients)),
    "update_ratio": _update_ratio,
    "activation": _of_layers(lambda layers: layers.rms),
    "zero_fraction": _of_layers(
        lambda layers: np.where(np.isnan(layers.zero_fraction), ABSENT, layers.zero_fraction)
    ),
}


def gradient(record: StepRecord, measure: str, row: str) -> TensorStatistics | None:
    """The gradient behind a row of a statistic, with its histogram, or the first within a module
    of this name; None where there is none."""
    table: TensorTable | None = record.gradients
    if measure not in ("parameter_gradient", "update_ratio"):
        table = record.layers.gradients if record.layers else None
    if table is None or table.histograms is None:
        return None
    if row not in table.names:
        row = next((name for name in table.names if name.startswith(f"{row}.")), "")
    return table[row] if row in table.names else None
