"""Where in time does a recurrent layer's gradient arrive: at the first steps, or at the last?"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

SHORTEST = 8  # steps of a sequence whose ends are told apart
ENDS = ("first_steps", "last_steps")


def ends(module: nn.Module, sequence: Any) -> dict[str, tuple[slice, ...]]:
    """The names of the two ends of what a recurrent layer is given, and where they stand in it.

    {} where there is no time: another layer, a packed or a short sequence.
    """
    if not isinstance(module, nn.RNNBase) or not isinstance(sequence, Tensor):
        return {}
    time = 1 if module.batch_first and sequence.dim() == 3 else 0
    steps = sequence.shape[time] if sequence.dim() in (2, 3) else 0
    if steps < SHORTEST or not sequence.is_floating_point():
        return {}
    before, quarter = (slice(None),) * time, steps // 4
    places = slice(None, quarter), slice(steps - quarter, None)
    return {end: (*before, place) for end, place in zip(ENDS, places, strict=True)}
