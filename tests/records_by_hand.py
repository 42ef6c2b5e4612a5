"""Records of networks that exist on paper only, for rules that are tested one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trainer.record import INPUT, MOMENTS, LayerTable, StepRecord, TensorTable

VALUES = 1000  # of each tensor


@dataclass(frozen=True)
class Layer:
    """One row: a healthy one unless told otherwise."""

    kind: str = "Linear"
    rms: float = 1.0
    signal: float = 0.8
    gradient: float | None = 1.0  # RMS; None where none came
    dead: float = 0.0
    weight: float | None = None  # RMS of its weights; None for a layer without
    update: float = 1e-3  # ratio
    weight_gradient: float | None = 1.0


def linear(**changes: object) -> Layer:
    """A layer with weights."""
    return replace(Layer(weight=0.1), **changes)  # type: ignore[arg-type]


def moments(rms: Sequence[float], zeros: Sequence[float] | None = None) -> np.ndarray:
    """(N, MOMENTS) of tensors of VALUES values with these RMS; not finite ones hold one such."""
    table = np.zeros((len(rms), MOMENTS))
    for row, size in enumerate(rms):
        finite = np.isfinite(size)
        zero = VALUES if size == 0 else 0 if zeros is None else zeros[row] * VALUES
        norm = size * np.sqrt(VALUES) if finite else 1.0
        table[row] = VALUES, norm, norm, norm, zero, np.isnan(size), np.isinf(size)
    return table


def is_moved(layer: Layer) -> bool:
    """Whether the layer's weights are, which get no gradient where they have no part in a loss."""
    return layer.update > 0 and layer.weight_gradient is not None


def record(
    step: int,
    layers: Sequence[Layer],
    loss: float = 1.0,
    input_rms: float | None = 1.0,
    observed: bool = True,
    learning_rate: float = 0.1,
    carried: float = 0.0,
    clip: float = np.nan,
    optimizer: str = "SGD",
    dtype: str = "float32",
    unchanged: float = 0.0,
    zeros: float = 0.0,
) -> StepRecord:
    """What a monitor would say of a step of these layers, which are called 0, 1, 2, …"""
    names = tuple(str(number) for number in range(len(layers)))
    weights = [(n, layer) for n, layer in zip(names, layers, strict=True) if layer.weight]
    with_gradient = [(n, layer) for n, layer in weights if layer.weight_gradient is not None]
    gradients = TensorTable(
        tuple(f"{n}.weight" for n, _ in with_gradient),
        moments([float(k.weight_gradient or 0) for _, k in with_gradient],
                [zeros] * len(with_gradient)),
    )  # fmt: skip
    reached = [(n, layer.gradient) for n, layer in zip(names, layers, strict=True)
               if layer.gradient is not None]  # fmt: skip
    rows = [] if input_rms is None else [Layer(INPUT, input_rms)]
    rows += layers
    table = LayerTable(
        (*(() if input_rms is None else ("input",)), *names),
        tuple(row.kind for row in rows),
        (dtype,) * len(rows),
        np.array([row.rms for row in rows]),
        np.array([row.dead for row in rows]),
        np.array([row.signal for row in rows]),
        np.array([row.dead for row in rows]),
        TensorTable(tuple(n for n, _ in reached), moments([g for _, g in reached])),
    )
    norms = gradients.norms()
    return StepRecord(
        step=step, wall_time=float(step), loss=loss, learning_rate=learning_rate,
        gradient_norm=float(np.sqrt((norms**2).sum())), clip_coefficient=clip, step_ms=1.0,
        monitor_ms=0.1, carried_gradients=carried, optimizer=optimizer, gradients=gradients,
        parameters=tuple(f"{n}.weight" for n, _ in weights), shapes=((30, 30),) * len(weights),
        dtypes=(dtype,) * len(weights),
        # Updates change it, if by less than anybody asks for.
        parameter_rms=np.array(
            [(k.weight or 0.0) * (1 + 1e-9 * step * is_moved(k)) for _, k in weights]
        ),
        update_ratio=np.array([layer.update for _, layer in weights]),
        unchanged_fraction=np.full(len(weights), unchanged),
        layers=table if observed else None,
    )  # fmt: skip


def deep(
    depth: int = 6,
    activation: str = "ReLU",
    forward: float = 1.0,
    backward: float = 1.0,
    signal: float = 1.0,
    **changes: object,
) -> list[Layer]:
    """Linear layers with activations in between and a head. From each linear layer to the next the
    RMS, the gradient's RMS on its way back and the signal fraction change by these factors."""
    made: list[Layer] = []
    for number in range(depth):
        size, left = forward**number, backward ** (depth - number)
        share = 0.8 * signal**number
        made.append(linear(rms=size, gradient=left, signal=share, **changes))
        made.append(Layer(activation, size, share, left))
    size, share = forward**depth, 0.8 * signal**depth
    return [*made, linear(rms=size, signal=share, gradient=1.0, **changes)]


def of_a_mean(layers: list[Layer]) -> list[Layer]:
    """The same with the gradients of a loss that is a mean over the values of the output."""
    return [replace(each, gradient=(each.gradient or 0.0) / VALUES) for each in layers]
