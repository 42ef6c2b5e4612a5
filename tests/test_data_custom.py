"""The user's own data: arrays, Datasets in memory, and Datasets read by workers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from trainer import data
from trainer.config import ConfigError, load
from trainer.config.data_sections import CustomData
from trainer.data import DataError, Shape, Stream, Table, workers
from trainer.data.batches import Batches
from trainer.experiment import build, check

ROOT = Path(__file__).parent.parent


class Rows(Dataset[Any]):
    """Samples that tell their number: float inputs, a class, and a weight if asked for."""

    def __init__(self, count: int = 10, weighted: bool = False, huge: bool = False) -> None:
        self.count, self.weighted, self.huge = count, weighted, huge

    def __len__(self) -> int:
        return 10**13 if self.huge else self.count

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        sample = (np.array([index, index**2], dtype=np.float32), index % 3)
        return (*sample, float(index + 1)) if self.weighted else sample


class Tokens(Rows):
    """Per-position classes: four tokens of 7 and whether each is even."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        x = torch.arange(index, index + 4) % 7
        return x, 1 - x % 2


class Labelled(Rows):
    classes = ("a", "b", "c", "d", "e")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


def flat() -> tuple[Any, ...]:
    return np.arange(4.0), [1.0, 2.0, 3.0, 4.0]


def column() -> tuple[Any, ...]:
    return np.zeros((4, 2)), np.array([[0], [1], [2], [1]], dtype=np.int32)


def one_class() -> tuple[Any, ...]:
    return torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)


def negative() -> tuple[Any, ...]:
    return torch.zeros(3, 2), torch.tensor([0, -1, 1])


def tokens() -> tuple[Any, ...]:
    return torch.tensor([[0, 5], [2, 1]]), torch.tensor([[0, 1], [1, 0]])


def words() -> list[tuple[str, str]]:
    return [("a", "b")] * 4


class Words(Rows):
    def __getitem__(self, index: int) -> Any:
        return "a"


def section(thing: str, **keys: Any) -> CustomData:
    return CustomData.model_validate({"name": f"{__name__}:{thing}", **keys})


def table(thing: str, **keys: Any) -> Table:
    made = data.read(section(thing, **keys), 0)
    assert isinstance(made, Table)
    return made


def test_arrays() -> None:
    numbers = table("flat")
    assert numbers.shape == Shape((1,), 1, False, None, False)
    assert numbers.y.tolist() == [[1.0], [2.0], [3.0], [4.0]]
    classes = table("column")
    assert classes.shape == Shape((2,), 3, True, None, False)
    assert classes.y.dtype == torch.int64 and classes.y.tolist() == [0, 1, 2, 1]
    assert table("tokens").shape == Shape((2,), 2, True, 6, True)
    assert table("column", autoencode=True).shape == Shape((2,), 2, False, None, False)


def test_a_dataset_in_memory() -> None:
    rows = table("Rows", count=7)
    assert rows.shape == Shape((2,), 3, True, None, False)
    assert rows.x.tolist() == [[i, i**2] for i in range(7)] and rows.weights is None
    assert rows.y.tolist() == [i % 3 for i in range(7)]
    weights = table("Rows", count=3, weighted=True).weights
    assert weights is not None and weights.tolist() == [1.0, 2.0, 3.0]
    assert table("Tokens").shape == Shape((4,), 2, True, 7, True)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("thing", ["Rows", "Tokens"])
def test_workers_give_the_batches_that_memory_gives(thing: str, workers: int) -> None:
    keys: dict[str, Any] = {"count": 11, "weighted": thing == "Rows", "batch_size": 4}
    stream = data.read(section(thing, workers=workers, **keys), 0)
    assert isinstance(stream, Stream)
    held = table(thing, **keys)
    assert stream.shape == held.shape and len(stream) == len(held)
    device = torch.device("cpu")
    read, kept = (
        Batches(rows.to(device, torch.float64), 4, True, "mean", 3) for rows in (stream, held)
    )
    read.load_state_dict({"drawn": 2})
    kept.load_state_dict({"drawn": 2})
    for _ in range(7):
        one, other = next(read), next(kept)
        assert torch.equal(one.x, other.x) and one.x.dtype == other.x.dtype
        assert torch.equal(one.y, other.y)
        losses = torch.zeros(len(one.x), dtype=torch.float64)
        weights = one.grad_losses(losses), other.grad_losses(losses)
        assert weights[0] is not None and weights[1] is not None
        assert torch.equal(weights[0], weights[1])
    assert read.state_dict() == {"drawn": 9}


class Pairs(Rows):
    """Of two classes."""

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return np.array([index / 10], dtype=np.float32), index % 2


class Drawn(Rows):
    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return torch.rand(1), torch.zeros(1)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_workers_draw_follows_from_the_seed(workers: int) -> None:
    def first(seed: int) -> list[float]:
        torch.manual_seed(seed)
        (x, _, _), *_ = Stream.of(Drawn(), 10, workers, seed).parts([torch.arange(4)])
        return x.flatten().tolist()

    assert first(0) == first(0)
    assert first(0) != first(1)


@pytest.mark.parametrize("workers", ["null", "0"])
def test_two_classes_are_numbers_for_a_loss_of_one_output(workers: str) -> None:
    keys = [f"data={{name: '{__name__}:Pairs', workers: {workers}, batch_size: 4}}",
            "model={name: linear}", "loss.name=bce_with_logits", "metrics=[accuracy]"]  # fmt: skip
    made = build(*load(ROOT / "configs" / "linear.yaml", keys, [check]))
    assert made.rows.shape == Shape((1,), 1, False, None, False)
    batch = next(made.batches)
    assert batch.y.shape == (4, 1) and batch.y.dtype == torch.float32
    assert made.loss(made.model(batch.x), batch.y).shape == (4, 1)
    assert made.training is not None and made.training(made.model) is not None


def test_a_stream_is_not_read_to_its_end_for_the_cost_alone() -> None:
    keys = [f"data={{name: '{__name__}:Pairs', workers: 0, batch_size: 4}}", "model={name: linear}",
            "loss.name=bce_with_logits"]  # fmt: skip
    made = build(*load(ROOT / "configs" / "linear.yaml", keys, [check]))
    assert made.training is not None, "nothing else tells how good it is"
    keys = ["validation.fraction=0.2", *keys]
    assert build(*load(ROOT / "configs" / "linear.yaml", keys, [check])).training is None


def test_a_dataset_that_names_its_classes_is_not_read_for_them() -> None:
    stream = data.read(section("Labelled", workers=0, batch_size=2), 0)
    assert stream.shape == Shape((2,), 5, True, None, False)


def test_splitting_a_stream() -> None:
    stream = data.read(section("Rows", workers=0, batch_size=2), 0)
    training, validation = stream.split(0.3, 1)
    assert (len(training), len(validation)) == (7, 3)
    numbers = [
        int(value)
        for side in (training, validation)
        for x, _, _ in side.parts([torch.arange(len(side))])
        for value in x[:, 0]
    ]
    assert sorted(numbers) == list(range(10))
    for fraction, side in ((0.01, "validation"), (0.99, "training")):
        with pytest.raises(DataError, match=f"^{fraction} of 10 rows leaves none for {side}$"):
            stream.split(fraction, 1)


MISTAKES = [
    ("Endless", {}, "it gives a Endless, expected (x, y), (x, y, weights) or a Dataset with"),
    ("Rows", {"count": 0}, "its Dataset Rows is empty"),
    ("Rows", {"huge": True}, "its 10000000000000 samples take "),
    ("Words", {}, "its sample 0 is a str, expected (x, y) or (x, y, weight)"),
    ("one_class", {}, "y holds class 0 only; a classifier needs at least two classes"),
    ("negative", {}, "y holds the index -1; indices start at 0 (use floating-point numbers"),
    ("words", {}, "it gives 4 parts, expected (x, y) or (x, y, weights)"),
    ("flat", {"workers": 1, "batch_size": 2}, "workers: for a Dataset only; these rows are in"),
    ("tokens", {"autoencode": True}, "autoencode: needs floating-point inputs; the data give"),
]


@pytest.mark.parametrize(("thing", "keys", "message"), MISTAKES)
def test_data_that_are_no_rows(thing: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        data.read(section(thing, **keys), 0)
    assert str(caught.value).startswith(message)


def test_mistakes_are_told_at_their_place() -> None:
    for override, message in (
        ("data={name: 'FILE:one_class'}", "data: y holds class 0 only"),
        ("data={name: 'FILE:tokens', autoencode: true}", "data.autoencode: needs floating-point"),
        ("data={name: text, file: none.txt}", "data.file: no such file: "),
        ("data={name: 'FILE:Absent'}", "data.name: module 'FILE' has no 'Absent'"),
    ):
        override = override.replace("FILE", __name__)
        with pytest.raises(ConfigError) as caught:
            build(*load(ROOT / "configs" / "linear.yaml", [override], [check]))
        assert f": {message.replace('FILE', __name__)}" in str(caught.value)


SIGNALLED = """
import os, signal, torch
from trainer.data.batches import Batches
from trainer.data.stream import Stream

class Rows(torch.utils.data.Dataset):
    def __getitem__(self, index):
        return torch.tensor([float(index)]), torch.tensor([0.0])

seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: seen.append((os.getpid(), number)))
batches = Batches(Stream.of(Rows(), 30, 2, 0), 3, False, "sum", 0)
rows = [row for _ in range(2) for row in next(batches).x.flatten().tolist()]  # both are at work
os.killpg(0, signal.SIGINT)
os.killpg(0, signal.SIGTERM)
for _ in range(23):
    rows += next(batches).x.flatten().tolist()
assert rows == [float(i % 30) for i in range(75)], rows
assert sorted(seen) == [(os.getpid(), signal.SIGINT), (os.getpid(), signal.SIGTERM)], seen
print("done")
"""


def test_workers_outlive_a_signal_meant_for_the_trainer() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,  # a process group of its own to signal
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


BROKEN = """
import os
import torch
from torch.utils.data import Dataset, get_worker_info

class Rows(Dataset):
    def __len__(self):
        return 200
    def __getitem__(self, i):
        if i == 150 and get_worker_info():
            {fault}
        return torch.ones(4), torch.ones(1)
"""
READ_BY_WORKERS = """
name: broken
data: {name: "broken:Rows", batch_size: 5, workers: 2}
model: {name: mlp, depth: 2, width: 8}
loss: {name: half_squared_error}
optimizer: {name: sgd, lr: 0.01}
stop: {steps: 500}
"""
MEMORY = ", as a system does that runs out of memory: use fewer workers or smaller batches"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("os.kill(os.getpid(), 9)", f"was killed by SIGKILL{MEMORY}; go on with --resume auto"),
        ("os._exit(7)", "ended with status 7; go on with --resume auto"),
        ("raise ZeroDivisionError('row 150')", "ZeroDivisionError: row 150"),
    ],
)
def test_a_worker_that_fails_ends_the_run(tmp_path: Path, fault: str, said: str) -> None:
    """A lost process in one line, a mistake of the user's own code with its traceback."""
    (tmp_path / "broken.py").write_text(BROKEN.format(fault=fault))
    (tmp_path / "broken.yaml").write_text(READ_BY_WORKERS)
    ended = subprocess.run(
        [sys.executable, "-m", "trainer", "--config", "broken.yaml"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.rstrip().endswith(said)
    assert ("Traceback" in ended.stderr) == ("row 150" in said), ended.stderr


def test_a_worker_on_which_the_trainer_hangs_up_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for error in (ConnectionResetError(104, "reset"), EOFError()):
        workers._unless_unanswered(type(error), error, None)
    assert capsys.readouterr().err == ""
    workers._unless_unanswered(OSError, OSError("disk"), None)
    assert "disk" in capsys.readouterr().err
