"""How much of what it is given do the weights of a matrix make?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.diagnosis.view import Array

LARGE = 3.0  # times what a matrix is given, which start values make one or two
MINUTE = 0.08  # of what a matrix is given: far less than with any usual start values


def weight_gains(
    parameters: Sequence[str], shapes: Sequence[tuple[int, ...]], sizes: Array
) -> dict[str, float]:
    """Of each parameter of two dimensions and more: weights of RMS r, for n inputs, make r·√n times
    as much (He et al. 2015, arXiv:1502.01852)."""
    return {
        name: rms * math.sqrt(math.prod(shape[1:]))
        for name, rms, shape in zip(parameters, sizes.tolist(), shapes, strict=True)
        if len(shape) > 1
    }
