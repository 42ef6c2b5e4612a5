"""Where in time does a recurrent layer's gradient arrive: at the first steps, or at the last?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from trainer.record import ENDS

SHORTEST = 8  # steps of a sequence whose ends are told apart


def ends(module: nn.Module, sequence: Any) -> dict[str, Any]:
    """The names of the two ends of what a recurrent layer is given, and their index in its values:
    the first and the last quarter of the steps, of packed sequences of each one's own.

    {} where there is no time: another layer, or short sequences.
    """
    if not isinstance(module, nn.RNNBase):
        return {}
    if isinstance(sequence, PackedSequence):
        return _packed_ends(sequence.batch_sizes)
    if not isinstance(sequence, Tensor):
        return {}
    time = 1 if module.batch_first and sequence.dim() == 3 else 0
    steps = sequence.shape[time] if sequence.dim() in (2, 3) else 0
    if steps < SHORTEST or not sequence.is_floating_point():
        return {}
    before, quarter = (slice(None),) * time, steps // 4
    places = slice(None, quarter), slice(steps - quarter, None)
    return {end: (*before, place) for end, place in zip(ENDS, places, strict=True)}


def _packed_ends(batch_sizes: Tensor) -> dict[str, Any]:
    """The rows of the values, which are those of the first step of all sequences, then of the
    second, and so on; of `batch_sizes` sequences each, the longest first."""
    step = torch.arange(len(batch_sizes))[:, None]
    is_there = torch.arange(int(batch_sizes[0])) < batch_sizes[:, None]
    steps = is_there.sum(0)
    quarter = torch.where(steps < SHORTEST, 0, steps // 4)
    if not quarter.any():
        return {}
    places = step < quarter, step >= steps - quarter
    return {end: place[is_there].nonzero()[:, 0] for end, place in zip(ENDS, places, strict=True)}


def with_values(sequence: Any, values: Tensor) -> Any:
    """The same sequence of a recurrent layer with these values."""
    if isinstance(sequence, PackedSequence):
        return PackedSequence(values, *sequence[1:])
    return values
