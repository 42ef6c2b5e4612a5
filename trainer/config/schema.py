"""The keys of a configuration, their bounds and defaults: the only place a default stands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
)

from trainer.config.data_sections import DATA_KINDS, Data
from trainer.config.model_sections import MODEL_KINDS, Model
from trainer.config.section import (
    Boolean,
    Count,
    Float,
    Integer,
    OpenSection,
    PlainName,
    Positive,
    Section,
    Text,
)


class Loss(OpenSection):
    """How far predictions are from targets, and how the values per sample become one cost."""

    name: Text
    """`half_squared_error`: ½(ŷ−y)² for each value; any loss of torch.nn (`mse`, `cross_entropy`,
    `huber`, …), or `module:Thing`, whose result maps predictions and targets to one value per
    sample (or finer); further keys are its arguments."""
    reduction: Literal["sum", "mean"] = "mean"
    """What weighs the loss values (the `grad_outputs` of the derivative): `sum`: the sample weights
    (ones without them); `mean`: the same divided by their sum, in which a class counts as its
    `weight` says and one that is ignored (name its `ignore_index`) nothing, as in torch."""


class Optimizer(OpenSection):
    """Any optimizer of torch.optim with torch's own arguments."""

    name: Text
    """A class of torch.optim, in upper or lower case, or `module:Thing`; further keys are its
    arguments."""
    lr: Positive
    """Learning rate."""


class Schedule(OpenSection):
    """How the learning rate changes from step to step."""

    name: Text | None = None
    """A scheduler of torch.optim.lr_scheduler, in upper or lower case, stepped after each update;
    further keys are its arguments; null for a constant rate."""
    warmup_steps: Annotated[Integer, Field(ge=0)] = 0
    """For so many first steps the rate rises to its full value; then the schedule starts."""


class Clip(Section):
    """A bound on the gradient that the optimizer sees."""

    max_grad_norm: Positive | None = None
    """The largest L2 norm of all gradients together; larger ones are scaled down; null for none."""
    max_grad_value: Positive | None = None
    """The largest size of a single value; larger ones are cut, before the norm is bounded; null for
    none."""


class Validation(Section):
    """Rows that are kept apart to see how well the model does on what it was not fitted to."""

    fraction: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Share of the rows, drawn from `seed` (of text: its end); 0 for none. With some, rows that
    `data.workers` read are not gone through again at the end for their cost: that of the last step
    looked at is told."""
    every_steps: Count = 100
    """The validation loss and the metrics are computed at each multiple of this, and at the end."""


class Stop(Section):
    """When training ends: at whichever comes first."""

    cost: Float | None = None
    """Stop once the cost of a step is at most this; null for never. The cost is then read at every
    step, for which an accelerator has to be waited for."""
    steps: Count = 1000
    """Stop after this many optimizer steps."""
    patience_steps: Count | None = None
    """Stop when the validation loss has not fallen for so many steps; null for never."""


class Checkpoint(Section):
    """When a run is kept so that it can go on from there: in its folder, under `checkpoints/`."""

    every_steps: Count | None = None
    """A checkpoint is written at each multiple of this; null for by the clock only."""
    every_minutes: Positive | None = 10.0
    """A checkpoint is written when the latest is so old; null for by the steps only."""
    keep: Annotated[Integer, Field(ge=0)] = 2
    """So many of the latest are kept, and the one with the lowest validation loss; one is also
    written at a validation whose loss is the lowest so far, and when a run ends or is interrupted;
    0 for none at all."""


class Monitor(Section):
    """Which steps are looked at."""

    every_steps: Count = 50
    """Statistics of the loss, of gradients and of updates are recorded at each multiple of this.
    The beginning is looked at whatever this and the next two are: steps 0 to 10, 20, 30, 40, 50,
    100 and 150."""
    histogram_every_steps: Count | None = 200
    """Gradient histograms are recorded at each multiple of this; null for never."""
    activation_every_steps: Count | None = 200
    """The layers' outputs and the gradients that reach them are recorded at each multiple of this,
    and with every record while the diagnosis suspects something or the loss stays where it began;
    null for never."""
    include: list[Text] = ["*"]
    """Patterns of the parameters and layers to look at, such as `encoder.*`."""
    exclude: list[Text] = []
    """Patterns of those to leave out, among the ones included."""
    diagnose: Boolean = True
    """Whether each record is diagnosed at once, and what is wrong is said; it changes nothing else.
    """


KINDS: dict[str, tuple[type[Section], ...]] = {
    "data": DATA_KINDS,
    "model": MODEL_KINDS,
}


class Config(Section):
    """One experiment."""

    name: PlainName
    """Name of the experiment: its runs are written to `runs/<name>/`."""
    seed: Annotated[Integer, Field(ge=0, lt=2**32)] = 0
    """Seed of Python's, NumPy's and PyTorch's random numbers."""
    device: Text = "auto"
    """`auto` (an accelerator if there is one), `cpu`, `cuda`, `cuda:1`, `mps`, …"""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of data and parameters: `float32` or `float64`."""
    deterministic: Boolean = False
    """Use only operations that give the same bits each time, and fail at others. On the CPU runs
    are so in any case, for the same machine, versions and number of threads; elsewhere this costs
    time."""
    data: Data
    """What the model is fitted to."""
    model: Model
    """What is fitted."""
    loss: Loss
    """What is minimised."""
    metrics: list[Literal["accuracy", "r2"]] = []
    """What else is computed on the validation rows (on all rows without any): `accuracy`, the share
    of right classes; `r2`, the coefficient of determination R²."""
    optimizer: Optimizer
    """How it is minimised."""
    schedule: Schedule = Schedule()
    """How the learning rate changes."""
    clip: Clip = Clip()
    """Whether large gradients are scaled down."""
    accumulate_steps: Count = 1
    """Batches whose gradients are added up for one step of the optimizer."""
    validation: Validation = Validation()
    """Which rows are kept apart."""
    stop: Stop = Stop()
    """When training ends."""
    on_nonfinite: Literal["stop", "skip", "raise"] = "stop"
    """What happens where the loss or a gradient is not finite: `stop`, with exit status 3, at the
    first such step that is looked at, and of a loss on the CPU at once; `skip`: no such step
    updates anything, and they are counted; `raise`: a FloatingPointError before the update. The
    last two look at every step, for which an accelerator has to be waited for."""
    stop_on: Literal["critical", "warning"] | None = None
    """Stop, with exit status 3, at a finding of this level or above that has not ended; null for
    never."""
    checkpoint: Checkpoint = Checkpoint()
    """What is kept of a run while it goes on."""
    monitor: Monitor = Monitor()
    """Which steps are looked at."""
