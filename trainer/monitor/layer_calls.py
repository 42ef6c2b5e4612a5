"""The statistics of a layer that was called several times: as those of one call, and of the first
and the last calls, where the same weights go through time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.monitor.time_steps import SHORTEST
from trainer.record import BINS, ENDS, MAX_ABS, MOMENTS, NORM, SIGNALS, TIME_STEPS, TensorTable


def joined(groups: list[NDArray[Any]], columns: int, dtype: Any) -> NDArray[Any]:
    """The rows of all groups, in their order."""
    return (
        groups[0] if len(groups) == 1 else np.concatenate([np.zeros((0, columns), dtype), *groups])
    )


Ends = dict[int, tuple[list[int], list[int]]]  # the numbers of a layer's first and last calls


def ends(called: Sequence[int], passes: Sequence[int]) -> Ends:
    """The first and the last quarter of the calls of each layer that a forward pass calls SHORTEST
    times or more.

    `called` and `passes` are the layer and the number of the forward pass of each output, which is
    -1 for one that is no such call.
    """
    calls: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, (layer, forward) in enumerate(zip(called, passes, strict=True)):
        if forward >= 0:
            calls[layer, forward].append(number)
    found: Ends = {}
    for (layer, _), numbers in calls.items():
        if len(numbers) >= SHORTEST:
            quarter = len(numbers) // 4
            first, last = found.setdefault(layer, ([], []))
            first += numbers[:quarter]
            last += numbers[-quarter:]
    return found


def answers(found: Ends, answered: Sequence[int]) -> Ends:
    """The gradients that came to these calls; `answered` is the number of the call of each."""
    place = {number: at for at, number in enumerate(answered)}

    def came(numbers: list[int]) -> list[int]:
        return [place[number] for number in numbers if number in place]

    return {layer: (came(first), came(last)) for layer, (first, last) in found.items()}


def with_ends(rows: list[tuple[str, str, str]], found: Ends) -> list[tuple[str, str, str]]:
    """The (name, kind, dtype) of all rows, with two for the ends of a loop ahead of its own."""
    made = []
    for row, (name, kind, dtype) in enumerate(rows):
        if row in found:
            made += [(f"{name}.{end}", TIME_STEPS, dtype) for end in ENDS]
        made.append((name, kind, dtype))
    return made


def spread(
    layers: Sequence[int], count: int, found: Ends
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The numbers of all tensors, those at the ends of a loop once more, and the row of each, as
    `with_ends` makes them of so many layers."""
    moved = np.arange(count) + 2 * np.cumsum([row in found for row in range(count)])
    numbers, rows = [*range(len(layers))], moved[np.array(layers, np.intp)].tolist()
    for layer, both in found.items():
        for end, part in enumerate(both):
            numbers += part
            rows += [moved[layer] - 2 + end] * len(part)
    return np.array(numbers, np.intp), np.array(rows, np.intp)


def mean(
    signals: NDArray[Any], sizes: NDArray[Any], layer: NDArray[np.intp], layers: int
) -> NDArray[Any]:
    """(layers, SIGNALS) of all calls: root mean square of RMS, means of the fractions."""
    parts = signals * sizes[:, None]
    parts[:, 0] *= signals[:, 0]
    total, weight = np.zeros((layers, SIGNALS)), np.zeros((layers, 1))
    np.add.at(total, layer, parts)
    np.add.at(weight, layer, sizes[:, None])
    with np.errstate(invalid="ignore"):
        total /= weight
    total[:, 0] **= 0.5
    return total


def merged(
    names: tuple[str, ...],
    reached: NDArray[np.intp],
    moments: NDArray[Any],
    counts: NDArray[Any] | None,
) -> TensorTable:
    """The rows of each layer that a gradient reached, those of several calls added together."""
    once = len(set(reached.tolist())) == len(reached)
    if once:
        order = np.argsort(reached)
        rows = reached[order]
        moments, counts = moments[order], None if counts is None else counts[order]
        return TensorTable(tuple(names[row] for row in rows), moments, counts)
    rows, place = np.unique(reached, return_inverse=True)
    total_moments = np.zeros((len(rows), MOMENTS))
    np.add.at(total_moments, place, moments)
    for column, merge in ((NORM, np.hypot), (MAX_ABS, np.maximum)):
        total_moments[:, column] = 0
        merge.at(total_moments[:, column], place, moments[:, column])
    total = None
    if counts is not None:
        total = np.zeros((len(rows), BINS), np.int64)
        np.add.at(total, place, counts)
    return TensorTable(tuple(names[row] for row in rows), total_moments, total)
