"""What is the same for many records of a block, and how its numbers stand in it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.record import INPUT, MOMENTS, SIGNALS, StepRecord, TensorTable

# A block is MAGIC and a zlib stream, little-endian, of the length of a JSON list and the number of
# records (uint32), the list (layouts that occur), each record's layout (uint32), step (int64), and
# per layout the records' float64 numbers and, for each table that has them, their histograms: how
# many bins a row uses, the distance of each from the one before, the bytes of a count and the
# counts. Numbers stand byte plane by byte plane, column by column, so that equal signs, exponents
# and zeros are together.
MAGIC = b"GRAD\x04"
# How many of the last NUMBERS those of blocks of now and of before lack.
LACK = {MAGIC: 0, b"GRAD\x03": 1, b"GRAD\x02": 3}
MAX_BLOCK_BYTES = 1 << 30  # uncompressed, and of all histograms with their empty bins
# The parts of a record's numbers in their order; the layers' where their outputs were observed.
PARTS = (
    *("numbers", "moments", "parameter_rms", "update_ratio", "unchanged_fraction"),
    *("rms", "zero_fraction", "signal_fraction", "dead_fraction", "layer_moments"),
)
NUMBERS = [field.name for field in fields(StepRecord) if field.type == "float"]


class Layout(NamedTuple):
    """All of a record that is no number: records with the same fill the rows of one matrix."""

    optimizer: str
    gradients: tuple[str, ...]
    has_histograms: bool
    parameters: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    layers: tuple[str, ...] | None  # None: their outputs were not observed
    kinds: tuple[str, ...]
    layer_dtypes: tuple[str, ...]
    reached: tuple[str, ...]  # the layers that have gradients
    reached_has_histograms: bool
    leads_to: tuple[str, ...] = ()  # which blocks of before lack

    def widths(self) -> list[int]:
        """How many numbers a record has in each of its PARTS."""
        own = [len(NUMBERS), MOMENTS * len(self.gradients), *[len(self.parameters)] * 3]
        if self.layers is None:
            return own
        return [*own, *[len(self.layers)] * SIGNALS, MOMENTS * len(self.reached)]

    @property
    def has_input(self) -> bool:
        """Whether the first of the layers is the network's input."""
        return self.kinds[:1] == (INPUT,)

    def tables(self) -> list[tuple[tuple[str, ...], bool]]:
        """The rows of each table of gradients, and whether it has histograms."""
        own = self.gradients, bool(self.has_histograms)
        return [own, (self.reached, bool(self.reached_has_histograms))]

    def check(self) -> None:
        """ValueError when it is not made of what it should be, or lengths disagree."""
        layers = self.layers or ()
        for texts in (self.gradients, self.parameters, self.dtypes, layers, self.kinds,
                      self.layer_dtypes, self.reached, self.leads_to):  # fmt: skip
            if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
                raise ValueError("its names are not lists of texts")
        if not isinstance(self.optimizer, str):
            raise ValueError("its optimizer is no text")
        if not all(isinstance(size, int) for shape in self.shapes for size in shape):
            raise ValueError("its shapes are not whole numbers")
        lengths = len(self.shapes), len(self.dtypes), len(self.kinds), len(self.layer_dtypes)
        if lengths != (len(self.parameters),) * 2 + (len(layers),) * 2:
            raise ValueError("its names and their descriptions differ in length")
        if len(self.leads_to) not in (0, len(layers)):
            raise ValueError("its branches are not those of its layers")


def layout_of(record: StepRecord) -> Layout:
    """The layout of a record."""
    own, of = record.gradients, record.layers
    reached = of.gradients if of else TensorTable((), np.empty((0, MOMENTS)))
    return Layout(
        record.optimizer,
        own.names,
        own.histograms is not None,
        record.parameters,
        record.shapes,
        record.dtypes,
        of.names if of else None,
        of.kinds if of else (),
        of.dtypes if of else (),
        reached.names,
        reached.histograms is not None,
        of.leads_to if of else (),
    )


def planes(matrix: NDArray[Any], dtype: str) -> bytes:
    """The bytes of a matrix of numbers: byte by byte of a number, column by column."""
    columns = np.ascontiguousarray(matrix.T, dtype)
    return columns[..., None].view(np.uint8).transpose(2, 0, 1).tobytes()


def unplanes(octets: NDArray[Any], shape: tuple[int, int], dtype: str) -> NDArray[Any]:
    """The matrix of such a shape that `planes` made the bytes of."""
    ordered = octets.reshape(np.dtype(dtype).itemsize, shape[1], shape[0]).transpose(2, 1, 0)
    return np.ascontiguousarray(ordered).view(dtype)[..., 0]
