"""The data that a configuration can name, and how it is handed out in batches."""

from __future__ import annotations

from trainer.config import data_sections as sections
from trainer.data import csv, custom, points, scikit, sequences, text
from trainer.data.stream import Stream
from trainer.data.table import DataError, Shape, Table

__all__ = ["DataError", "Rows", "Shape", "Stream", "Table", "read"]

Rows = Table | Stream


def read(section: sections.Data, seed: int) -> Rows:
    """The rows of a section, in their own units; raises DataError with what is wrong and where.

    What a user's own function raises passes through.
    """
    rows = _read(section, seed)
    encodes = isinstance(section, sections.Encodable) and section.autoencode
    if not encodes or isinstance(rows, Stream):
        return rows
    if not rows.x.is_floating_point():
        raise ValueError(f"autoencode: needs floating-point inputs; the data give {rows.x.dtype}")
    return rows.autoencoding()


def _read(section: sections.Data, seed: int) -> Rows:
    match section:
        case sections.Points():
            return points.read(section)
        case sections.Csv():
            return csv.read(section)
        case sections.Circles():
            return scikit.circles(section, seed)
        case sections.Moons():
            return scikit.moons(section, seed)
        case sections.Blobs():
            return scikit.blobs(section, seed)
        case sections.Digits():
            return scikit.digits(section)
        case sections.Diabetes():
            return scikit.diabetes(section)
        case sections.AddingProblem():
            return sequences.adding_problem(section, seed)
        case sections.CopyMemory():
            return sequences.copy_memory(section, seed)
        case sections.TextFile():
            return text.read(section)
        case sections.CustomData():
            return custom.read(section, seed)
