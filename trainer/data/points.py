"""Rows written in the configuration itself."""

from __future__ import annotations

import torch

from trainer.config.data_sections import Points
from trainer.data.table import Table


def read(section: Points) -> Table:
    """The inline rows as a float64 table."""
    weights = (
        None if section.weights is None else torch.tensor(section.weights, dtype=torch.float64)
    )
    x = torch.tensor(section.x, dtype=torch.float64)
    return Table(x, torch.tensor(section.y, dtype=torch.float64), weights)
