"""The keys of a configuration, their bounds and defaults: the only place a default stands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    ConfigDict,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from trainer.config.section import (
    Boolean,
    Count,
    CustomName,
    Float,
    Integer,
    Numbers,
    OpenSection,
    PlainName,
    Positive,
    Section,
    Text,
    by_name,
)


class InMemory(Section):
    """Rows that are held in memory."""

    batch_size: Count | None = None
    """Rows per step; null for all rows at every step."""
    shuffle: Boolean = True
    """Whether each pass over the rows has a new order, drawn from `seed`; needs `batch_size`."""


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


class Csv(InMemory):
    """Columns of a file of comma-separated values with a header line."""

    name: Literal["csv"]
    """Columns of a CSV file, by name."""
    file: Text
    """The CSV file; a relative path starts at the folder of the configuration, or of the command
    line's working folder when given there."""
    x: Annotated[list[Text], Field(min_length=1)]
    """Names of the input columns."""
    y: Annotated[list[Text], Field(min_length=1)]
    """Names of the target columns."""
    weights: Text | None = None
    """Name of the column of sample weights; null for equal weights."""
    standardize: Boolean = False
    """Whether x and y are shifted and scaled to mean 0 and standard deviation 1, learnt on the
    training rows; undone in the parameters and costs that are reported."""

    @model_validator(mode="after")
    def _columns_once(self) -> Csv:
        columns = [*self.x, *self.y, *([self.weights] if self.weights else [])]
        for column in columns:
            if columns.count(column) > 1:
                raise ValueError(f"column '{column}' is named more than once in x, y and weights")
        return self


class CustomData(OpenSection, InMemory):
    """The user's own data: a function or class called with the other keys of its section."""

    model_config = ConfigDict(extra="allow")

    name: CustomName
    """`package.module:Thing`; calling it gives (x, y) or (x, y, weights), as tensors or arrays with
    one row per sample."""


class Linear(Section):
    """Y = X·W + b, with scalar W and b when there is one input and one output."""

    name: Literal["linear"]
    """A linear model of any number of inputs and outputs."""
    weight: Numbers = None
    """Start value of W: a number (used throughout) or a list of inputs lists of outputs numbers;
    null to draw it from a standard normal distribution."""
    bias: Numbers = None
    """Start value of b: a number or a list with one number per output; null as for `weight`."""


class Loss(Section):
    """How far predictions are from targets, and how the values per sample become one cost."""

    name: Literal["half_squared_error", "mse"]
    """`half_squared_error`: ½(ŷ−y)² for each value; `mse`: (ŷ−y)²."""
    reduction: Literal["sum", "mean"] = "mean"
    """What weighs the loss values (the `grad_outputs` of the derivative): `sum`: the sample weights
    (ones without them); `mean`: the same divided by their sum."""


class CustomModel(OpenSection):
    """The user's own model: a class or function called with the other keys of its section."""

    name: CustomName
    """`package.module:Thing`; calling it gives a torch.nn.Module."""


class CustomLoss(OpenSection):
    """The user's own loss: a function or class called with the other keys of its section."""

    name: CustomName
    """`package.module:Thing`; the result of calling it maps predictions and targets to one loss
    value per sample (or per sample and output)."""
    reduction: Literal["sum", "mean"] = "mean"
    """As for the losses that are built in."""


class Optimizer(OpenSection):
    """Any optimizer of torch.optim with torch's own arguments."""

    name: Text
    """A class of torch.optim, in upper or lower case, or `module:Thing`; further keys are its
    arguments."""
    lr: Positive
    """Learning rate."""


class Clip(Section):
    """A bound on the gradient that the optimizer sees."""

    max_grad_norm: Positive | None = None
    """The largest L2 norm of all gradients together; larger ones are scaled down; null for none."""


class Stop(Section):
    """When training ends: at whichever comes first."""

    cost: Float | None = None
    """Stop once the cost of a step is at most this; null for never. The cost is then read at every
    step, for which an accelerator has to be waited for."""
    steps: Count = 1000
    """Stop after this many optimizer steps."""


class Monitor(Section):
    """Which steps are looked at, besides steps 0 to 10, 20 and 50, where problems start."""

    every_steps: Count = 20
    """Statistics of the loss, of gradients and of updates are recorded at each multiple of this."""
    histogram_every_steps: Count | None = 100
    """Gradient histograms are recorded at each multiple of this; null for never."""
    activation_every_steps: Count | None = 100
    """The layers' outputs and the gradients that reach them are recorded at each multiple of this;
    null for never."""
    include: list[Text] = ["*"]
    """Patterns of the parameters and layers to look at, such as `encoder.*`."""
    exclude: list[Text] = []
    """Patterns of those to leave out, among the ones included."""


KINDS: dict[str, tuple[type[Section], ...]] = {
    "data": (Points, Csv, CustomData),
    "model": (Linear, CustomModel),
    "loss": (Loss, CustomLoss),
}


Data = Annotated[
    Annotated[Points, Tag("Points")]
    | Annotated[Csv, Tag("Csv")]
    | Annotated[CustomData, Tag("CustomData")],
    by_name(KINDS["data"]),
]
Model = Annotated[
    Annotated[Linear, Tag("Linear")] | Annotated[CustomModel, Tag("CustomModel")],
    by_name(KINDS["model"]),
]
AnyLoss = Annotated[
    Annotated[Loss, Tag("Loss")] | Annotated[CustomLoss, Tag("CustomLoss")], by_name(KINDS["loss"])
]


class Config(Section):
    """One experiment."""

    name: PlainName
    """Name of the experiment: its runs are written to `runs/<name>/`."""
    seed: Annotated[Integer, Field(ge=0, lt=2**32)] = 0
    """Seed of Python's, NumPy's and PyTorch's random numbers."""
    device: Text = "auto"
    """`auto` (an accelerator if there is one), `cpu`, `cuda`, `cuda:1`, `mps`, …"""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of data and parameters."""
    data: Data
    """What the model is fitted to."""
    model: Model
    """What is fitted."""
    loss: AnyLoss
    """What is minimised."""
    optimizer: Optimizer
    """How it is minimised."""
    clip: Clip = Clip()
    """Whether large gradients are scaled down."""
    stop: Stop = Stop()
    """When training ends."""
    monitor: Monitor = Monitor()
    """Which steps are looked at."""
