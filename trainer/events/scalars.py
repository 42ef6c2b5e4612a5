"""What TensorBoard shows of a record as curves: a tag and a number for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.record import COUNT, INFINITIES, MOMENTS, NANS, StepRecord, TensorTable

# The field of a record, and whether NaN means "does not apply" and is left out.
STEP_TAGS = {
    "loss/train": ("loss", True),
    "gradient_norm/global": ("gradient_norm", False),
    "learning_rate": ("learning_rate", True),
    "clip_coefficient": ("clip_coefficient", True),
    "time/step_ms": ("step_ms", True),
    "time/monitor_ms": ("monitor_ms", True),
}


@dataclass(frozen=True)
class Scalars:
    """The scalars of R records with the same tags."""

    tags: tuple[str, ...]  # (C,)
    values: NDArray[np.float32]  # (R, C)
    shown: NDArray[np.bool_]  # (R, C): whether the value applies

    def bad(self) -> NDArray[np.bool_]:
        """(R,) whether a value that is shown is not finite."""
        return np.asarray((self.shown & ~np.isfinite(self.values)).any(axis=1))


def tag_key(record: StepRecord) -> tuple[object, ...]:
    """Equal for records that `scalars` can take together."""
    layers = record.layers
    names = (record.gradients.names, record.parameters)
    if layers is None:
        return names
    return (*names, layers.names, layers.has_input, layers.gradients.names)


def scalars(records: Sequence[StepRecord]) -> Scalars:
    """All scalars of records that share a `tag_key`.

    The network's input has none. The update ratio of a parameter that was all zeros and a layer's
    fraction that is NaN do not apply; a count of non-finite gradients is shown where there are any.
    Everything else is shown as it is: a loss or a norm that is NaN or infinite is what a user has
    to see.
    """
    first = records[0]
    tags = list(STEP_TAGS)
    head = np.array([[getattr(r, name) for name, _ in STEP_TAGS.values()] for r in records])
    optional = np.array([optional for _, optional in STEP_TAGS.values()])
    undefined = np.isnan(head) & np.signbit(head)
    undefined &= np.array([name == "loss" for name, _ in STEP_TAGS.values()])  # that was told
    columns, shown = [head], [~(optional & np.isnan(head)) | undefined]

    def add(group: str, names: Sequence[str], values: NDArray[np.float64], show: object) -> None:
        tags.extend(f"{group}/{name}" for name in names)
        columns.append(values)
        shown.append(np.broadcast_to(np.asarray(show, bool), values.shape))

    norms, bad, _ = _moments([record.gradients for record in records])
    add("gradient_norm", first.gradients.names, norms, True)
    add("gradient_nonfinite", first.gradients.names, bad, bad > 0)
    ratio = np.stack([record.update_ratio for record in records])
    rms = np.stack([record.parameter_rms for record in records])
    add("update_ratio", first.parameters, ratio, rms != 0)
    if first.layers:
        layers = [record.layers for record in records if record.layers]
        start = int(first.layers.has_input)
        names = first.layers.names[start:]
        add("activation_rms", names, np.stack([layer.rms[start:] for layer in layers]), True)
        for group in ("zero_fraction", "signal_fraction"):
            values = np.stack([getattr(layer, group)[start:] for layer in layers])
            tag = group if group == "signal_fraction" else f"activation_{group}"
            add(tag, names, values, ~np.isnan(values))
        norms, _, count = _moments([layer.gradients for layer in layers])
        rms = norms / np.sqrt(np.maximum(count, 1))
        add("activation_gradient_rms", first.layers.gradients.names, rms, count > 0)
    with np.errstate(over="ignore"):  # beyond float32 it shows as infinite
        values = np.concatenate(columns, axis=1).astype(np.float32)
    return Scalars(tuple(tags), values, np.concatenate(shown, axis=1))


def _moments(tables: list[TensorTable]) -> tuple[NDArray[np.float64], ...]:
    """(R, N) norms as the optimizer meets them, counts of non-finite values, counts of values."""
    stacked = np.stack([table.moments for table in tables])
    rows = TensorTable(tables[0].names, stacked.reshape(-1, MOMENTS))
    shape = stacked.shape[:2]
    nonfinite = stacked[..., NANS] + stacked[..., INFINITIES]
    return rows.norms().reshape(shape), nonfinite, stacked[..., COUNT]
