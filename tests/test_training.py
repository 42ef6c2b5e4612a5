"""Losses, schedules, clipping, accumulation, validation: against torch's and scikit-learn's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from trainer import experiment, loop, losses
from trainer.clipping import clip
from trainer.config import Config, ConfigError, load
from trainer.config.schema import Schedule as ScheduleSection
from trainer.console import Console
from trainer.data.batches import Batches, weighting
from trainer.data.stream import Stream
from trainer.data.table import Table
from trainer.evaluation import Evaluator
from trainer.monitor import Monitor
from trainer.schedules import Schedule
from trainer.training import Training

DIGITS = """
name: test
data: {name: digits, batch_size: 64}
model: {name: mlp, depth: 2, width: 32}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 2e-3}
metrics: [accuracy]
validation: {fraction: 0.2, every_steps: 50}
stop: {steps: 120}
"""


def built(tmp_path: Path, text: str, *overrides: str) -> tuple[Config, experiment.Experiment]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    config, document = load(path, overrides, [experiment.check])
    return config, experiment.build(config, document)


def train(made: experiment.Experiment, log: Any = None) -> loop.Result:
    return loop.run(made, Monitor(made.model), Console(quiet=True), log)


CLASSES = (torch.randn(7, 4), torch.randint(4, (7,)))
NUMBERS = (torch.randn(7, 3), torch.randn(7, 3))
SIGNS = (torch.randn(7, 3), torch.randint(0, 2, (7, 3)) * 2.0 - 1)
SHARES = (torch.randn(7, 3).sigmoid(), torch.rand(7, 3))
EXAMPLES: list[tuple[str, type[nn.Module], tuple[Tensor, Tensor], dict[str, Any]]] = [
    ("cross_entropy", nn.CrossEntropyLoss, CLASSES, {}),
    ("CrossEntropyLoss", nn.CrossEntropyLoss, CLASSES, {"label_smoothing": 0.1}),
    ("nll", nn.NLLLoss, CLASSES, {}),
    ("mse", nn.MSELoss, NUMBERS, {}),
    ("l1", nn.L1Loss, NUMBERS, {}),
    ("huber", nn.HuberLoss, NUMBERS, {"delta": 0.5}),
    ("smooth_l1", nn.SmoothL1Loss, NUMBERS, {"beta": 0.5}),
    ("poisson_nll", nn.PoissonNLLLoss, NUMBERS, {}),
    ("soft_margin", nn.SoftMarginLoss, SIGNS, {}),
    ("bce", nn.BCELoss, SHARES, {}),
    ("bce_with_logits", nn.BCEWithLogitsLoss, SHARES, {}),
]


@pytest.mark.parametrize(("name", "kind", "data", "arguments"), EXAMPLES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_reduce_to_torchs(
    name: str, kind: type[nn.Module], data: Any, arguments: Any, reduction: str
) -> None:
    values = losses.make(name, arguments)(*data)
    assert len(values) == 7
    weights = weighting(None, reduction)(values)
    cost = values.sum() if weights is None else (values * weights).sum()
    torch.testing.assert_close(cost, kind(**arguments, reduction=reduction)(*data))


def test_losses_of_every_position() -> None:
    predictions, classes = torch.randn(5, 6, 4), torch.randint(4, (5, 6))
    values = losses.make("cross_entropy", {})(predictions, classes)
    expected = nn.functional.cross_entropy(predictions.transpose(1, 2), classes, reduction="none")
    torch.testing.assert_close(values, expected)


OF_CLASSES = [
    {"weight": [1.0, 2.0, 0.5, 3.0]},
    {"ignore_index": 1},
    {"weight": [1.0, 2.0, 0.5, 3.0], "ignore_index": 2, "label_smoothing": 0.1},
    {"weight": [1.0, 2.0, 0.5, 3.0], "label_smoothing": 0.3},
    {"weight": [1.0, 2.0, 0.5, 3.0], "ignore_index": 250},
]


@pytest.mark.parametrize("arguments", OF_CLASSES, ids=repr)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("positions", [False, True])
def test_classes_that_count_more_or_less(
    arguments: dict[str, Any], reduction: str, positions: bool
) -> None:
    """A mean divides by what they weigh, as torch's does: in training, in parts of a step, and
    where the model is evaluated."""
    torch.manual_seed(0)
    shape = (30, 5) if positions else (30,)
    x, y = torch.randn(*shape, 4), torch.randint(4, shape)
    if arguments.get("ignore_index") == 250:
        y[::3] = 250
    given = {k: torch.tensor(v) if k == "weight" else v for k, v in arguments.items()}
    torchs = nn.CrossEntropyLoss(**given, reduction=reduction)
    expected = torchs(x.flatten(0, -2), y.flatten())
    loss, counts = (make("cross_entropy", arguments) for make in (losses.make, losses.counts))
    batch = next(Batches(Table(x, y), None, False, reduction, 0, counts))
    values = loss(x, y)
    weights = batch.grad_losses(values)
    cost = values.sum() if weights is None else (values * weights).sum()
    torch.testing.assert_close(cost, expected)
    evaluator = Evaluator(Table(x, y), loss, reduction, counts=counts, rows_at_once=7)
    found = evaluator(nn.Identity())
    assert found is not None and found.cost == pytest.approx(float(expected), rel=1e-6)
    if reduction == "mean":
        parts = Batches(Table(x, y), 11, False, reduction, 0, counts)
        each = [next(parts) for _ in range(3)]
        total = sum(part.weight for part in each)
        sums = [(loss(p.x, p.y) * p.grad_losses(loss(p.x, p.y))).sum() * p.weight for p in each]
        torch.testing.assert_close(sum(sums) / total, expected)


def test_classes_count_in_the_type_that_is_computed_in(tmp_path: Path) -> None:
    weight = [0.1 * (1 + each) for each in range(10)]
    loss = f"loss={{name: cross_entropy, weight: {json.dumps(weight)}}}"
    _, made = built(tmp_path, DIGITS, loss, "dtype=float64", "data.batch_size=null")
    step = Training(made)
    step.differentiate()
    batch = next(made.batches)
    torchs = nn.CrossEntropyLoss(weight=torch.tensor(weight, dtype=torch.float64))
    torch.testing.assert_close(
        step.cost(), torchs(made.model(batch.x), batch.y), rtol=1e-14, atol=0
    )
    _, summed = built(tmp_path, DIGITS, loss, "loss.reduction=sum")
    assert next(summed.batches).counts is None, "nothing is divided by it"


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("[a, b]", "loss.weight: expected a list of numbers | None for this argument of"),
        ("3", "loss.weight: expected a list of numbers | None for this argument of"),
        ("[1, 2, 3]", "weight tensor should be defined either for all 10 classes"),
    ],
)
def test_class_weights_that_are_none(tmp_path: Path, weight: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(tmp_path, DIGITS, f"loss={{name: cross_entropy, weight: {weight}}}")
    assert message in str(caught.value)


def test_probabilities_as_targets_count_as_torch_has_it() -> None:
    counts = losses.counts("cross_entropy", {"weight": [1.0, 2.0]})
    assert counts is not None and counts(torch.rand(3, 2)) is None
    assert losses.counts("cross_entropy", {"label_smoothing": 0.1}) is None
    assert losses.counts("multi_margin", {"weight": [1.0, 2.0]}) is None


class Widest(nn.Module):
    """Takes down how many rows it was given at once."""

    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.linear, self.most = nn.Linear(64, 10), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, len(x))
        return self.linear(x.flatten(1))


@pytest.mark.parametrize("size", ["16", "null"])
def test_no_more_rows_are_evaluated_at_once_than_are_learnt_from(tmp_path: Path, size: str) -> None:
    given = (f"model={{name: '{__name__}:Widest'}}", f"data.batch_size={size}", "stop.steps=1")
    _, made = built(tmp_path, DIGITS, *given)
    train(made)
    rows = len(made.rows)
    assert isinstance(made.model, Widest) and made.model.most == (16 if size == "16" else rows)


def test_class_weights() -> None:
    weight = [1.0, 2.0, 0.5, 0.0]
    values = losses.make("cross_entropy", {"weight": weight})(*CLASSES)
    expected = nn.CrossEntropyLoss(weight=torch.tensor(weight), reduction="none")(*CLASSES)
    torch.testing.assert_close(values, expected)


def rates(steps: int, **keys: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = Schedule(ScheduleSection(**keys), optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    return found


def torchs(steps: int, kind: type[Any], **arguments: Any) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = kind(optimizer, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CosineAnnealingLR", {"T_max": 20}),
        ("StepLR", {"step_size": 7, "gamma": 0.3}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("OneCycleLR", {"max_lr": 0.3, "total_steps": 30}),
        ("PolynomialLR", {"total_iters": 10}),
    ],
)
def test_schedules_are_torchs(name: str, arguments: dict[str, Any]) -> None:
    kind = getattr(torch.optim.lr_scheduler, name)
    assert rates(25, name=name.lower(), **arguments) == torchs(25, kind, **arguments)
    warm = rates(29, name=name, warmup_steps=4, **arguments)
    assert warm[5:] == pytest.approx(torchs(25, kind, **arguments)[1:])
    full = torchs(1, kind, **arguments)[0]
    assert warm[:5] == pytest.approx([full * (k + 1) / 5 for k in range(5)])


CYCLE = "name: onecyclelr, max_lr: 0.1"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("name: steplr, step_size: 0", ".step_size: StepLR refuses 0: "),
        ("name: cosineannealinglr, T_max: 0", ".T_max: CosineAnnealingLR refuses 0: "),
        ("name: cycliclr, base_lr: 0.1, max_lr: 1, step_size_up: 0",
         ".step_size_up: CyclicLR refuses 0: "),
        ("name: cosineannealingwarmrestarts, T_0: 0",
         ".T_0: CosineAnnealingWarmRestarts refuses 0: Expected positive integer T_0, but got 0"),
        ("name: onecyclelr, max_lr: [0.1, 0.2], total_steps: 120",
         ": OneCycleLR refuses these arguments: max_lr must have the same length as "),
        (f"{CYCLE}, total_steps: 119",
         ".total_steps: OneCycleLR refuses 119 where stop.steps is 120: Tried to step 120 times. "),
        (f"{CYCLE}, total_steps: 99, warmup_steps: 20",
         ".total_steps: OneCycleLR refuses 99 where stop.steps is 120: Tried to step 100 times. "),
        (f"{CYCLE}, epochs: 2, steps_per_epoch: 3", ".epochs: OneCycleLR refuses 2 where "),
        (f"{CYCLE}, total_steps: 120, pct_start: 1.0",
         ": OneCycleLR refuses these arguments where stop.steps is 120: "),
    ],
)  # fmt: skip
def test_schedules_that_would_fail_later(tmp_path: Path, schedule: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        built(tmp_path, DIGITS, f"schedule={{{schedule}}}")
    told = f"schedule={{{schedule}}}: schedule{message}"
    assert told in str(error.value), str(error.value)


@pytest.mark.parametrize(
    "schedule",
    [
        "name: steplr, step_size: 2",
        "name: reducelronplateau",
        f"{CYCLE}, total_steps: 6",
        f"{CYCLE}, total_steps: 4, warmup_steps: 2",
        f"{CYCLE}, total_steps: 1, warmup_steps: 6",
        "name: cycliclr, base_lr: 0.1, max_lr: 1, step_size_up: 2",
    ],
)
def test_schedules_that_last_are_as_if_never_tried(tmp_path: Path, schedule: str) -> None:
    keys = (f"schedule={{{schedule}}}", "stop.steps=6", "optimizer={name: sgd, lr: 0.1}")
    _, made = built(tmp_path, DIGITS, *keys, "optimizer.momentum=0.8")
    alone = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.8)
    Schedule(made.config.schedule, alone)
    kept, bare = ({**o.param_groups[0], "params": 0} for o in (made.optimizer, alone))
    assert kept == bare
    assert train(made).steps == 6


def test_a_constant_rate_after_the_warm_up() -> None:
    assert rates(6, warmup_steps=3) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_accumulated_gradients_are_those_of_one_batch(tmp_path: Path) -> None:
    """1,438 rows in batches of 100 and 38: a mean of means would weigh the last rows too much."""
    keys = ("dtype=float64", "data.shuffle=false", "data.batch_size=100", "accumulate_steps=15")
    _, parts = built(tmp_path, DIGITS, *keys)
    _, whole = built(tmp_path, DIGITS, "dtype=float64", "data.batch_size=null")
    assert len(parts.rows) == 1438
    for made in (parts, whole):
        training = Training(made)
        training.differentiate()
        made.model.cost = training.cost()  # kept for the comparison
    torch.testing.assert_close(parts.model.cost, whole.model.cost)
    for one, other in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


class Weighted(Dataset[Any]):
    """Seven samples that weigh 0 to 12, the first three nothing; targets by sample or position."""

    def __init__(self, positions: bool, whole: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randint(3, (7, 5), generator=generator)
        self.y = self.x.flip(1) if positions else self.x[:, :1] / 2
        self.weights = torch.tensor([0.0, 0, 0, 1, 9, 2, 12])
        self.weights = self.weights.long() if whole else self.weights / 3

    def __len__(self) -> int:
        return 7

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.x[row], self.y[row], self.weights[row]


ACCUMULATED = """
name: test
data: {name: 'test_training:Weighted', shuffle: false}
model: {name: rnn, hidden_size: 4}
loss: {name: mse}
optimizer: {name: sgd, lr: 0.1}
dtype: float64
"""


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("workers", ["null", "0"])
@pytest.mark.parametrize(("positions", "whole"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("size", [1, 3])
def test_accumulated_samples_weigh_what_they_do_in_one_batch(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reduction: str,
    workers: str,
    positions: bool,
    whole: bool,
    size: int,
) -> None:
    """A mean of the batches' means would weigh the samples of a light batch too much."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    loss = "cross_entropy" if positions else "mse"
    keys = (f"data.positions={positions}", f"data.whole={whole}", f"data.workers={workers}")
    keys = (*keys, f"loss.name={loss}", f"loss.reduction={reduction}")
    parts_of = (f"data.batch_size={size}", f"accumulate_steps={-(-7 // size)}")
    found = []
    for more in (parts_of, ("data.batch_size=7",)):
        _, made = built(tmp_path, ACCUMULATED, *map(str.lower, keys), *more)
        training = Training(made)
        training.differentiate()
        found.append([training.cost(), *(p.grad for p in made.model.parameters())])
    torch.testing.assert_close(found[0], found[1])
    assert float(found[0][0]) > 0


def test_accumulated_samples_of_no_weight_count_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    keys = ("data.positions=false", "data.whole=true", "data.batch_size=1", "accumulate_steps=3")
    _, made = built(tmp_path, ACCUMULATED, *keys)
    training = Training(made)
    training.differentiate()
    assert float(training.cost()) == 0
    assert all(not bool(p.grad.any()) for p in made.model.parameters())


@pytest.mark.parametrize(("norm", "value"), [(0.5, None), (None, 0.1), (0.5, 0.1)])
def test_clipping_is_torchs(norm: float | None, value: float | None) -> None:
    ours = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    theirs = [nn.Parameter(torch.zeros_like(p)) for p in ours]
    for one, other in zip(ours, theirs, strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    before = nn.utils.get_total_norm([p.grad for p in theirs])
    if value is not None:
        nn.utils.clip_grad_value_(theirs, value)
    if norm is not None:
        nn.utils.clip_grad_norm_(theirs, norm)
    coefficient = clip(ours, norm, value)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    after = nn.utils.get_total_norm([p.grad for p in theirs])
    assert float(coefficient) == pytest.approx(float(after / before), rel=1e-5)
    for one in ours:
        one.grad = torch.zeros_like(one)
    assert float(clip(ours, norm, value)) == 1  # of which nothing is to be cut


class Lookup(nn.Module):
    """The mean of rows of a table, for each of its tokens one, with a linear layer after it."""

    def __init__(self, sparse: bool = True, frozen: bool = False, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 5, sparse=sparse).requires_grad_(not frozen)
        self.last = nn.Linear(5, 3)
        if tied:
            self.last.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.table(x).mean(1))[:, :1]


NORM, VALUE, ADAM = "clip.max_grad_norm=1", "clip.max_grad_value=1", "optimizer.name=adam"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([NORM], "and torch clips none of those; leave out this, or sparse=True"),
        ([VALUE], "and torch clips none of those; leave out this, or sparse=True"),
        ([ADAM], "Adam does not support sparse gradients, please consider SparseAdam instead"),
        ([], None),
        (["optimizer.momentum=0.9"], None),
        (["optimizer.name=adagrad"], None),
        ([NORM, VALUE, ADAM, "model.sparse=false"], None),
        ([NORM, VALUE, ADAM, "model.frozen=true"], None),
        ([NORM, VALUE, ADAM, "model.tied=true"], None),
    ],
)
def test_what_sparse_gradients_are_not_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str | None
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    keys = ("data={name: 'test_training:Weighted', positions: false, whole: false}",)
    keys = (*keys, "model={name: 'test_training:Lookup'}", "stop.steps=3", *overrides)
    if message is None:
        assert train(built(tmp_path, ACCUMULATED, *keys)[1]).steps == 3
        return
    with pytest.raises(ConfigError) as error:
        built(tmp_path, ACCUMULATED, *keys)
    key, told = overrides[0].partition("=")[0], str(error.value)
    assert f": {key}: the gradients of the model's layer table are sparse" in told
    assert told.endswith(message)


class Detached(nn.Linear):
    """A layer whose parameters get no gradient."""

    def __init__(self) -> None:
        super().__init__(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1)).detach()


@pytest.mark.parametrize("clip", ["{}", "{max_grad_norm: 1, max_grad_value: 1}"])
@pytest.mark.parametrize("on_nonfinite", ["stop", "skip", "raise"])
def test_no_gradient_at_all_is_found_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_nonfinite: str, clip: str
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    keys = ("model={name: 'test_training:Detached'}", f"clip={clip}", "stop.steps=12")
    _, made = built(tmp_path, DIGITS, *keys, f"on_nonfinite={on_nonfinite}")
    monitor = Monitor(made.model, found=lambda finding: None)
    result = loop.run(made, monitor, Console(quiet=True))
    assert (result.reason, result.skipped) == ("steps", 0)
    assert [finding.verdict for finding in monitor.findings] == ["unused_parameter"]


def test_validation_and_metrics(tmp_path: Path) -> None:
    _, made = built(tmp_path, DIGITS)
    logged: list[tuple[int, dict[str, float]]] = []
    result = train(made, lambda step, values: logged.append((step, values)))
    assert [step for step, _ in logged] == [0, 50, 100, 120]
    assert result.validation is not None and made.validation is not None
    rows = made.validation.rows
    assert isinstance(rows, Table) and len(rows) == 359
    made.model.eval()
    with torch.no_grad():
        predictions = made.model(rows.x)
    cost = nn.functional.cross_entropy(predictions, rows.y)
    assert result.validation.cost == pytest.approx(float(cost), rel=1e-5)
    accuracy = sklearn_metrics.accuracy_score(rows.y, predictions.argmax(1))
    assert result.validation.metrics["accuracy"] == pytest.approx(accuracy)
    assert logged[-1][1]["accuracy/validation"] == pytest.approx(accuracy)
    assert accuracy > 0.8 > logged[0][1]["accuracy/validation"]
    assert result.best_validation_loss == min(values["loss/validation"] for _, values in logged)


DIABETES = """
name: test
data: {name: diabetes, batch_size: 64}
model: {name: mlp, depth: 2, width: 16}
loss: {name: mse, reduction: REDUCTION}
optimizer: {name: adam, lr: 1e-4}
validation: {fraction: 0.2, every_steps: 50}
stop: {steps: 120}
"""


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_curves_are_in_the_unit_that_is_trained_on(tmp_path: Path, reduction: str) -> None:
    _, made = built(tmp_path, DIABETES.replace("REDUCTION", reduction))
    logged: list[float] = []
    result = train(made, lambda step, values: logged.append(values["loss/validation"]))
    assert result.validation is not None and made.validation is not None
    rows = made.validation.rows
    assert isinstance(rows, Table) and rows.y_scale is not None
    with torch.no_grad():
        expected = nn.functional.mse_loss(made.model(rows.x), rows.y, reduction=reduction)
    assert logged[-1] == pytest.approx(float(expected), rel=1e-5)
    deviation = float(rows.y_scale.deviation)
    assert result.validation.cost == pytest.approx(logged[-1] * deviation**2, rel=1e-5)


def test_r2_is_scikit_learns() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    rows = Table(torch.randn(3000, 3), torch.randn(3000, 2))
    found = Evaluator(rows, losses.make("mse", {}), "mean", ["r2"])(model)
    with torch.no_grad():
        expected = sklearn_metrics.r2_score(rows.y.double(), model(rows.x).double())
    assert found.metrics["r2"] == pytest.approx(expected, rel=1e-6)
    one = Table(rows.x[:1], rows.y[:1])  # whose targets do not vary
    assert math.isnan(Evaluator(one, losses.make("mse", {}), "mean", ["r2"])(model).metrics["r2"])


@pytest.mark.parametrize("shape", [(40, 4), (40, 5, 4), (40, 4, 4, 4), (40, 4, 2, 3, 4)])
def test_accuracy_is_scikit_learns(shape: tuple[int, ...]) -> None:
    """Classes are last in a sequence, and where torch has them in a picture."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    classes = x if x.dim() < 4 else x.movedim(1, -1)
    noisy = classes + torch.randn(classes.shape)
    y = noisy.argmax(-1)
    loss = losses.make("cross_entropy", {})
    found = Evaluator(Table(x, y), loss, "mean", ["accuracy"])(nn.Identity())
    expected = sklearn_metrics.accuracy_score(y.flatten(), classes.argmax(-1).flatten())
    assert 0.4 < expected < 0.9 and found.metrics["accuracy"] == pytest.approx(expected)


def test_evaluating_leaves_the_training_bit_identical(tmp_path: Path) -> None:
    weights = []
    for every in ("1", "1000"):
        keys = ("model.dropout=0.3", "model.norm=batch", "stop.steps=30")
        _, made = built(tmp_path, DIGITS, *keys, f"validation.every_steps={every}")
        train(made)
        weights.append(made.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_patience(tmp_path: Path) -> None:
    keys = ("optimizer.lr=1e-9", "validation.every_steps=5", "stop.patience_steps=20")
    _, made = built(tmp_path, DIGITS, *keys, "stop.steps=1000", "optimizer.name=sgd")
    made.model.requires_grad_(False)  # the loss cannot fall
    for parameter in made.model.parameters():
        parameter.requires_grad_(True)
        parameter.data.zero_()
    logged: list[int] = []
    result = train(made, lambda step, values: logged.append(step))
    assert result.reason == "patience" and result.steps < 100
    assert logged == [*range(0, result.steps + 1, 5)], "the last one once"


def test_an_end_at_a_validation_is_logged_once(tmp_path: Path) -> None:
    _, made = built(tmp_path, DIGITS, "stop.cost=1e9")
    logged: list[int] = []
    result = train(made, lambda step, values: logged.append(step))
    assert (result.reason, result.steps, logged) == ("cost", 0, [0])


def test_a_schedule_that_waits_for_the_validation(tmp_path: Path) -> None:
    schedule = "schedule={name: reducelronplateau, patience: 0, threshold: 1e9}"
    keys = ("validation.every_steps=10", "stop.steps=35", "optimizer.lr=1e-3")
    _, made = built(tmp_path, DIGITS, schedule, *keys)
    train(made)
    # No loss is ever low enough: a tenth of the rate at each of steps 0, 10, 20 and 30.
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(1e-7)


BINARY = ("data={name: circles, batch_size: 32}", "metrics=[accuracy]", "optimizer.lr=1e-2")


@pytest.mark.parametrize("name", ["bce_with_logits", "cross_entropy"])
def test_two_classes_by_one_output_or_two(tmp_path: Path, name: str) -> None:
    _, made = built(tmp_path, DIGITS, *BINARY, f"loss.name={name}", "stop.steps=400")
    result = train(made)
    assert result.validation is not None and result.validation.metrics["accuracy"] > 0.6
    assert made.rows.shape.outputs == (1 if name == "bce_with_logits" else 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.name=crossentropi", "loss.name: unknown loss 'crossentropi'; did you mean 'cross_e"),
        ("schedule.name=cosinelr", "schedule.name: unknown schedule 'cosinelr'; did you mean 'Cos"),
        ("schedule={name: steplr}", "schedule.step_size: missing"),
        ("schedule={T_max: 3}", "schedule.T_max: is an argument of a schedule, but the key 'name'"),
        ("schedule.warmup_steps=500", "schedule.warmup_steps: 500 is more than stop.steps (120)"),
        ("metrics=[r2]", "metrics[0]: r2 is for targets that are numbers; the data give classes"),
        ("metrics=[acuracy]", "metrics[0]: input should be 'accuracy' or 'r2', got 'acuracy'"),
        ("validation.fraction=0.0001", "validation.fraction: 0.0001 of 1797 rows leaves none"),
        ("model.activation=rellu", "model.activation: "),
        ("model.init={hidden: kaimin_uniform_}", "model.init.hidden: "),
        ("model={name: autoencoder, widths: [8]}", "model.name: "),
        ("data={name: adding_problem, length: 0}", "data.length: expected a number >= 2, got 0"),
        (
            "loss.name=torch.nn.functional:mse_loss",
            "name what makes the loss, such as `def make():",
        ),
        ("loss.name=torch.nn.functional:mse_loss", "mse_loss cannot be called without input and t"),
    ],
)
def test_mistakes(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        built(tmp_path, DIGITS, override)
    assert f"{message}" in str(error.value), str(error.value)


NUMBERS_CONFIG = """
name: test
data: {name: csv, file: numbers.csv, x: [a], y: [b]}
model: {name: mlp, depth: 2, width: 4}
loss: {name: mse}
optimizer: {name: adam, lr: 1e-3}
"""
STANDARDIZED = "; they are standardized: set data.standardize to false"


@pytest.mark.parametrize(
    ("values", "overrides", "message"),
    [
        ("0.25 7 1", ["bce"], "loss.name: bce is for targets from 0 to 1; the data give 7"),
        ("0 -0.5 1", ["bce_with_logits", "metrics=[r2]"],
         "loss.name: bce_with_logits is for targets from 0 to 1; the data give -0.5"),
        ("0 1 1", ["BCEWithLogitsLoss", "data.standardize=true"],
         f"loss.name: BCEWithLogitsLoss is for targets from 0 to 1; the data give -1.41421"
         f"{STANDARDIZED}"),
        ("3 -1 2", ["poisson_nll"],
         "loss.name: poisson_nll is for targets of 0 or more; the data give -1"),
        ("3 1 2", ["poisson_nll", "data.standardize=true"],
         f"loss.name: poisson_nll is for targets of 0 or more; the data give -1.22474"
         f"{STANDARDIZED}"),
        ("0 0.5 1", ["bce_with_logits", "metrics=[r2]"],
         "metrics[0]: r2 is for a loss of numbers, and bce_with_logits takes targets for classes;"
         " use accuracy"),
        ("0 0.5 1", ["mse", "metrics=[accuracy]"],
         "metrics[0]: accuracy is for targets that are classes; the data give numbers"),
        ("0 0.5 1", ["mse", "data.classes=true"],
         "loss.name: mse is for targets that are numbers; the data give classes; use"
         " cross_entropy, or give the targets as floating-point numbers"),
        ("0 0.5 1", ["half_squared_error", "data.classes=true"],
         "loss.name: half_squared_error is for targets that are numbers; the data give classes;"),
        ("0 0.5 1", ["bce", "data.classes=true"],
         "loss.name: bce is for targets that are numbers, or one of two classes for each sample;"
         " the data give classes; use cross_entropy"),
    ],
)  # fmt: skip
def test_targets_that_are_not_for_the_loss(
    tmp_path: Path, values: str, overrides: list[str], message: str
) -> None:
    rows = "".join(f"{number},{value}\n" for number, value in enumerate(values.split()))
    (tmp_path / "numbers.csv").write_text(f"a,b\n{rows}")
    with pytest.raises(ConfigError) as error:
        built(tmp_path, NUMBERS_CONFIG, f"loss.name={overrides[0]}", *overrides[1:])
    assert f": {message}" in str(error.value), str(error.value)


@pytest.mark.parametrize("name", ["bce_with_logits", "poisson_nll"])
def test_targets_at_the_ends_of_their_range(tmp_path: Path, name: str) -> None:
    (tmp_path / "numbers.csv").write_text("a,b\n1,0\n2,1\n3,0.5\n")
    built(tmp_path, NUMBERS_CONFIG, f"loss.name={name}")


def test_targets_of_the_validation_are_for_the_loss_too(tmp_path: Path) -> None:
    values = [0.5] * 20
    _, made = built(tmp_path, NUMBERS_CONFIG, *inline(values), "validation.fraction=0.2")
    assert isinstance(made.rows, Table)
    kept = sorted(set(range(20)) - {int(x) for x in made.rows.x.flatten()})
    values[kept[0]] = 2.0
    message = "loss.name: bce_with_logits is for targets from 0 to 1; the data give 2"
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, NUMBERS_CONFIG, *inline(values), "validation.fraction=0.2")


def inline(values: list[float]) -> list[str]:
    x, y = [[float(number)] for number in range(len(values))], [[value] for value in values]
    return [f"data={{name: points, x: {x}, y: {y}}}", "loss.name=bce_with_logits"]


def test_patience_without_validation(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="stop.patience_steps: there is no validation loss to wai"
    ):
        built(tmp_path, DIGITS, "validation.fraction=0", "stop.patience_steps=3")


def samples() -> Dataset[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())


def test_streams_train_as_rows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    results = []
    for workers in ("null", "0"):
        data = f"data={{name: 'test_training:samples', batch_size: 32, workers: {workers}}}"
        _, made = built(tmp_path, DIGITS, data, "validation.fraction=0", "optimizer.lr=1e-2")
        assert isinstance(made.rows, Stream) == (workers == "0")
        results.append(train(made))
    assert results[0] == results[1]
    assert results[0].training.metrics["accuracy"] > 0.9
