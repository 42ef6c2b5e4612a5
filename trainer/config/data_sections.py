"""The keys of a configuration's section `data`, for each kind of data."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, Tag, field_validator, model_validator

from trainer.config.section import (
    Boolean,
    Count,
    CustomName,
    Float,
    Integer,
    OpenSection,
    Section,
    Text,
    by_name,
)

Two = Annotated[Integer, Field(ge=2, le=10**9)]
Noise = Annotated[Float, Field(ge=0)]


class InMemory(Section):
    """Rows that are held in memory."""

    batch_size: Count | None = None
    """Rows per step; null for all rows at every step."""
    shuffle: Boolean = True
    """Whether each pass over the rows has a new order, drawn from `seed`; needs `batch_size`."""


class Encodable(InMemory):
    """Rows of numbers that can be their own targets."""

    autoencode: Boolean = False
    """Whether the targets are the inputs themselves, flattened, in place of those of the data."""


class Points(InMemory):
    """Data written in the configuration itself."""

    name: Literal["points"]
    """Rows given inline."""
    x: Annotated[list[list[Float]], Field(min_length=1)]
    """Inputs, one list per row."""
    y: Annotated[list[list[Float]], Field(min_length=1)]
    """Targets, one list per row."""
    weights: Annotated[list[Annotated[Float, Field(ge=0)]], Field(min_length=1)] | None = None
    """Sample weights, one per row and none negative; null for equal weights."""

    @field_validator("x", "y")
    @classmethod
    def _rows_alike(cls, rows: list[list[float]]) -> list[list[float]]:
        for index, row in enumerate(rows):
            if len(row) != len(rows[0]) or not row:
                lengths = f"row {index} has {len(row)} values and row 0 has {len(rows[0])}"
                raise ValueError(
                    f"{lengths}; every row needs the same number" if index else "row 0 is empty"
                )
        return rows

    @model_validator(mode="after")
    def _lengths_agree(self) -> Points:
        for key, rows in (("y", self.y), ("weights", self.weights)):
            if rows is not None and len(rows) != len(self.x):
                raise ValueError(
                    f"x has {len(self.x)} rows and {key} has {len(rows)}; make them equal"
                )
        return self


class Csv(Encodable):
    """Columns of a file of comma-separated values with a header line."""

    name: Literal["csv"]
    """Columns of a CSV file, by name."""
    file: Text
    """The CSV file; a relative path starts at the folder of the configuration, or of the command
    line's working folder when given there."""
    x: Annotated[list[Text], Field(min_length=1)]
    """Names of the input columns."""
    y: list[Text] = []
    """Names of the target columns; needed unless `autoencode` is true."""
    classes: Boolean = False
    """Whether the one target column holds classes: its distinct values, sorted, from 0 on."""
    weights: Text | None = None
    """Name of the column of sample weights; null for equal weights."""
    standardize: Boolean = False
    """Whether x and y are shifted and scaled to mean 0 and standard deviation 1, learnt on the
    training rows; undone in all results, not in progress and curves of the loss. Classes stay."""

    @model_validator(mode="after")
    def _columns_once(self) -> Csv:
        column, times = Counter([*self.x, *self.y, self.weights]).most_common(1)[0]
        if times > 1:
            raise ValueError(f"column '{column}' is named more than once in x, y and weights")
        return self

    @model_validator(mode="after")
    def _targets_fit(self) -> Csv:
        if self.autoencode and (self.y or self.classes):
            raise ValueError("with autoencode the targets are x; leave y and classes out")
        if not self.autoencode and not self.y:
            raise ValueError("y: missing: names of the target columns")
        if self.classes and len(self.y) != 1:
            raise ValueError(f"classes stand in one target column, but y names {len(self.y)}")
        return self


class Circles(Encodable):
    """scikit-learn's `make_circles`: two classes, a circle around a smaller one."""

    name: Literal["circles"]
    """Two classes on two circles in the plane; needs the extra `examples`."""
    samples: Two = 500
    """Number of rows."""
    noise: Noise = 0.1
    """Standard deviation of what is added to every coordinate."""
    factor: Annotated[Float, Field(ge=0, lt=1)] = 0.5
    """Radius of the inner circle; that of the outer one is 1."""


class Moons(Encodable):
    """scikit-learn's `make_moons`: two classes, two half circles that interleave."""

    name: Literal["moons"]
    """Two classes on two half circles in the plane; needs the extra `examples`."""
    samples: Two = 500
    """Number of rows."""
    noise: Noise = 0.1
    """Standard deviation of what is added to every coordinate."""


class Blobs(Encodable):
    """scikit-learn's `make_blobs`: classes of normally distributed points around centers."""

    name: Literal["blobs"]
    """Classes of points around centers; needs the extra `examples`."""
    samples: Two = 500
    """Number of rows."""
    centers: Two = 3
    """Number of classes; their centers are drawn from -10 to 10."""
    features: Count = 2
    """Number of inputs."""
    noise: Noise = 1.0
    """Standard deviation of every coordinate around its center."""

    @model_validator(mode="after")
    def _every_class_has_a_row(self) -> Blobs:
        if self.samples < self.centers:
            raise ValueError(
                f"{self.samples} samples for {self.centers} centers leave classes without a row"
            )
        return self


class Digits(Encodable):
    """1,797 handwritten digits of 8×8 pixels (UCI, as in scikit-learn), from 0 to 1."""

    name: Literal["digits"]
    """Images 1×8×8 of ten classes; needs the extra `examples`."""


class Diabetes(Encodable):
    """Disease progression of 442 patients from 10 measurements (Efron et al. 2004)."""

    name: Literal["diabetes"]
    """Ten inputs and one target, all in their own units; needs the extra `examples`."""
    standardize: Boolean = True
    """As for `csv`."""


class AddingProblem(InMemory):
    """The sum of two marked numbers in a sequence: a test of long-range gradients."""

    name: Literal["adding_problem"]
    """The adding problem of Hochreiter and Schmidhuber (1997)."""
    length: Two = 100
    """Steps of a sequence."""
    samples: Count = 10_000
    """Number of sequences, drawn from `seed`."""


class CopyMemory(InMemory):
    """Symbols to be repeated after a delay: a test of long-range gradients."""

    name: Literal["copy_memory"]
    """The copying memory problem, as in Arjovsky, Shah and Bengio (2016)."""
    delay: Count = 100
    """Steps between the symbols and their repetition, the last of them the signal to repeat."""
    copied: Count = 10
    """Number of symbols to be repeated; sequences have delay + 2·copied steps."""
    symbols: Two = 8
    """Number of different symbols; a blank and the signal come on top."""
    samples: Count = 10_000
    """Number of sequences, drawn from `seed`."""


class TextFile(InMemory):
    """A text, to predict each next character from those before it."""

    name: Literal["text"]
    """The characters of a file."""
    file: Text
    """The file, in UTF-8; a relative path starts as for `csv`."""
    context: Count = 64
    """Characters of a row; every one of them is followed by the target of its position."""
    stride: Count | None = None
    """Characters from the start of a row to that of the next; null for `context`: no overlap."""


class CustomData(OpenSection, Encodable):
    """The user's own data: a function or class called with the other keys of its section."""

    model_config = ConfigDict(extra="allow")

    name: CustomName
    """`package.module:Thing`; calling it gives (x, y) or (x, y, weights), as tensors or arrays with
    one row per sample, or a torch Dataset of such samples. Integers in y are classes."""
    workers: Annotated[Integer, Field(ge=0, le=1024)] | None = None
    """For a Dataset: null to read it once and hold it in memory; a number to read it anew in each
    pass, by so many processes (0: by the trainer itself). Needs `batch_size`."""

    @model_validator(mode="after")
    def _workers_fit(self) -> CustomData:
        if self.workers is not None and self.batch_size is None:
            raise ValueError("workers read batches: set batch_size too")
        if self.workers is not None and self.autoencode:
            raise ValueError("autoencode works on data in memory; leave workers out")
        return self


_Kinds = (
    Annotated[Points, Tag("Points")]
    | Annotated[Csv, Tag("Csv")]
    | Annotated[Circles, Tag("Circles")]
    | Annotated[Moons, Tag("Moons")]
    | Annotated[Blobs, Tag("Blobs")]
    | Annotated[Digits, Tag("Digits")]
    | Annotated[Diabetes, Tag("Diabetes")]
    | Annotated[AddingProblem, Tag("AddingProblem")]
    | Annotated[CopyMemory, Tag("CopyMemory")]
    | Annotated[TextFile, Tag("TextFile")]
    | Annotated[CustomData, Tag("CustomData")]
)
DATA_KINDS: tuple[type[Section], ...] = tuple(get_args(kind)[0] for kind in get_args(_Kinds))
Data = Annotated[_Kinds, by_name(DATA_KINDS)]
