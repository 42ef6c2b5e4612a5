"""Rows come out of the named data as their sources define them, and are split and scaled so."""

import hashlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from trainer import data
from trainer.config import ConfigError, data_sections, load
from trainer.data import DataError, Shape, Table
from trainer.experiment import check

ROOT = Path(__file__).parent.parent
TEXT = ROOT / "configs" / "data" / "sqlite_interface.txt"


def read(name: str, seed: int = 0, **keys: Any) -> Table:
    section = TypeAdapter(data_sections.Data).validate_python({"name": name, **keys})
    table = data.read(section, seed)
    assert isinstance(table, Table)
    return table


@pytest.mark.parametrize("seed", [0, 7])
def test_generated_points_are_scikit_learns(seed: int) -> None:
    made = [
        (
            read("circles", seed, samples=61, noise=0.2, factor=0.3),
            sklearn.datasets.make_circles(61, noise=0.2, factor=0.3, random_state=seed),
        ),
        (
            read("moons", seed, samples=60, noise=0.0),
            sklearn.datasets.make_moons(60, noise=0.0, random_state=seed),
        ),
        (
            read("blobs", seed, samples=60, centers=4, features=3, noise=0.5),
            sklearn.datasets.make_blobs(60, 3, centers=4, cluster_std=0.5, random_state=seed),
        ),
    ]
    for (table, (x, y)), classes in zip(made, (2, 2, 4), strict=True):
        assert np.array_equal(table.x.numpy(), x) and np.array_equal(table.y.numpy(), y)
        assert table.shape == Shape((x.shape[1],), classes, True, None, False)
        assert table.y.dtype == torch.int64 and len(table.y_names) == classes


def test_points_lie_where_the_keys_say() -> None:
    table = read("circles", samples=40, noise=0.0, factor=0.25)
    radius = table.x.norm(dim=1)
    assert radius.numpy() == pytest.approx(np.where(table.y == 1, 0.25, 1.0))
    blobs = read("blobs", samples=3000, centers=2, noise=0.1)
    for label in (0, 1):
        assert float(blobs.x[blobs.y == label].std(dim=0).mean()) == pytest.approx(0.1, rel=0.05)


def test_digits() -> None:
    table = read("digits")
    assert table.shape == Shape((1, 8, 8), 10, True, None, False)
    source = sklearn.datasets.load_digits()
    assert np.array_equal(table.x[:, 0].numpy() * 16, source.images)
    assert np.array_equal(table.y.numpy(), source.target)
    assert (float(table.x.min()), float(table.x.max())) == (0.0, 1.0)


def test_diabetes_in_its_own_units_and_scaled() -> None:
    table = read("diabetes")
    assert table.shape == Shape((10,), 1, False, None, False)
    assert table.x_names[:3] == ("age", "sex", "bmi")
    assert table.x[0, 0] == 59.0 and table.y[0, 0] == 151.0
    # scikit-learn's scaled form has columns of mean 0 and norm 1.
    scaled = sklearn.datasets.load_diabetes().data * math.sqrt(len(table))
    assert table.scaled().x.numpy() == pytest.approx(scaled, abs=1e-12)
    raw = read("diabetes", standardize=False)
    assert raw.scaled() is raw


def test_adding_problem() -> None:
    length, samples = 11, 3000
    table = read("adding_problem", length=length, samples=samples)
    assert table.shape == Shape((length, 2), 1, False, None, False)
    for sequence, (target,) in zip(table.x[:200].tolist(), table.y.tolist(), strict=False):
        marked = [i for i, (_, mark) in enumerate(sequence) if mark == 1.0]
        assert len(marked) == 2 and marked[0] < length // 2 <= marked[1]
        assert {mark for _, mark in sequence} == {0.0, 1.0}
        assert target == sequence[marked[0]][0] + sequence[marked[1]][0]
    places = Counter(torch.nonzero(table.x[:, :, 1])[:, 1].tolist())
    assert set(places) == set(range(length))
    numbers = table.x[:, :, 0]
    assert 0 <= float(numbers.min()) < 0.01 and 0.99 < float(numbers.max()) <= 1
    # The stated loss of answering 1 always; its standard error here is about 0.003.
    assert float(((table.y - 1) ** 2).mean()) == pytest.approx(1 / 6, abs=0.015)


@pytest.mark.parametrize(("delay", "copied", "symbols"), [(1, 10, 8), (30, 10, 8), (5, 3, 2)])
def test_copy_memory(delay: int, copied: int, symbols: int) -> None:
    table = read("copy_memory", delay=delay, copied=copied, symbols=symbols, samples=400)
    steps = delay + 2 * copied
    assert table.shape == Shape((steps,), symbols + 1, True, symbols + 2, True)
    assert table.x.dtype == table.y.dtype == torch.int64
    blank, signal = symbols, symbols + 1
    for x, y in zip(table.x[:50].tolist(), table.y.tolist(), strict=False):
        content = x[:copied]
        assert all(symbol < symbols for symbol in content)
        assert x[copied:] == [blank] * (delay - 1) + [signal] + [blank] * copied
        assert y == [blank] * (steps - copied) + content
    assert set(table.x[:, :copied].flatten().tolist()) == set(range(symbols))
    # Blanks for certain, symbols by guessing: the stated loss without a memory.
    chances = torch.full((steps, symbols + 1), 0.0)
    chances[:-copied, blank] = 1.0
    chances[-copied:, :symbols] = 1 / symbols
    scores = chances.log().clamp_min(-1e4).expand(len(table), -1, -1)
    loss = torch.nn.functional.cross_entropy(scores.transpose(1, 2), table.y)
    assert float(loss) == pytest.approx(copied * math.log(symbols) / steps, rel=1e-4)


def test_the_seed_makes_the_sequences() -> None:
    for name in ("adding_problem", "copy_memory"):
        first, again, other = (read(name, seed, samples=20) for seed in (1, 1, 2))
        assert torch.equal(first.x, again.x) and torch.equal(first.y, again.y)
        assert not torch.equal(first.x, other.x)


@settings(deadline=None, max_examples=40)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=4),
    st.integers(1, 6),
    st.integers(1, 9),
)
def test_text_windows(
    tmp_path_factory: pytest.TempPathFactory, text: str, context: int, stride: int
) -> None:
    text = f"ab{text}"  # at least two different characters
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_bytes(text.encode())
    if len(text) <= context:
        return
    table = read("text", file=str(file), context=context, stride=stride)
    letters = sorted(set(text))
    starts = range(0, len(text) - context, stride)
    assert table.y_names == tuple(letters)
    assert table.shape == Shape((context,), len(letters), True, len(letters), True)
    spelled = [
        ["".join(letters[i] for i in row) for row in part.tolist()] for part in (table.x, table.y)
    ]
    assert spelled[0] == [text[s : s + context] for s in starts]
    assert spelled[1] == [text[s + 1 : s + context + 1] for s in starts]


def test_text_is_split_at_the_end_without_overlap(tmp_path: Path) -> None:
    file = tmp_path / "numbered.txt"
    file.write_text("".join(chr(0x4E00 + i) for i in range(400)))  # each character once
    for stride in (1, 3, 8, 20):
        table = read("text", file=str(file), context=8, stride=stride)
        training, validation = table.split(0.25, 0)
        assert len(validation) == round(0.25 * len(table))
        assert torch.equal(validation.x, table.x[-len(validation) :])
        assert int(training.x.max()) < int(validation.x.min())
        assert len(training) + len(validation) >= len(table) - math.ceil(8 / stride) + 1


def test_the_text_at_hand_is_what_its_source_says() -> None:
    text = TEXT.read_bytes()
    assert hashlib.sha256(text).hexdigest() in (TEXT.parent / "README.md").read_text()
    table = read("text", file=str(TEXT))
    assert (len(text), table.vocabulary) == (99_859, 77)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=200),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32 - 1),
)
def test_split_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    rows = torch.arange(len(labels), dtype=torch.float64)
    table = Table(rows[:, None], torch.tensor(labels), rows, classes=4)
    count = round(fraction * len(labels))
    if count in (0, len(labels)):
        with pytest.raises(DataError) as caught:
            table.split(fraction, seed)
        side = "training" if count else "validation"
        message = f"{fraction:g} of {len(labels)} rows leaves none for {side}"
        assert [(p.path, p.message) for p in caught.value.problems] == [
            (("validation", "fraction"), message)
        ]
        return
    training, validation = table.split(fraction, seed)
    assert len(validation) == count and training.classes == validation.classes == 4
    numbers = [int(n) for side in (training, validation) for n in side.x.flatten()]
    assert sorted(numbers) == list(range(len(labels)))
    for side in (training, validation):
        assert side.weights is not None and torch.equal(side.weights, side.x[:, 0])
        assert side.y.tolist() == [labels[int(n)] for n in side.x.flatten()]
        assert side.x.flatten().tolist() == sorted(side.x.flatten().tolist())
    for label, of_class in Counter(labels).items():
        share = of_class * count / len(labels)
        assert abs(int((validation.y == label).sum()) - share) < 1 + 1e-9
    again = table.split(fraction, seed)[1]
    assert torch.equal(validation.x, again.x)


def test_other_seeds_split_otherwise() -> None:
    table = Table(torch.rand(100, 1), torch.rand(100, 1))
    sides = [table.split(0.3, seed)[1].x.flatten().tolist() for seed in range(5)]
    assert len({tuple(side) for side in sides}) == 5
    drawn = Counter(v for s in range(300) for v in table.split(0.3, s)[1].x.flatten().tolist())
    assert len(drawn) == 100 and max(drawn.values()) < 150 and min(drawn.values()) > 50


def test_the_scale_is_learnt_on_the_training_rows() -> None:
    table = read("diabetes")
    training, validation = table.split(0.5, 3)
    scaled, other = training.scaled(), validation.scaled(training)
    assert scaled.x_scale is not None and scaled.y_scale is not None and other.x_scale is not None
    assert torch.equal(other.x_scale.mean, scaled.x_scale.mean)
    assert scaled.x.mean(dim=0).numpy() == pytest.approx(np.zeros(10), abs=1e-12)
    assert scaled.x.std(dim=0, correction=0).numpy() == pytest.approx(np.ones(10))
    by_hand = (validation.x - training.x.mean(0)) / training.x.std(0, correction=0)
    assert torch.allclose(other.x, by_hand, rtol=1e-14)
    assert float(other.x.mean(dim=0).abs().max()) > 1e-3
    assert other.y_scale is not None
    assert torch.allclose(other.y_scale.undo(other.y), validation.y, rtol=1e-14)


def test_autoencoding() -> None:
    digits = read("digits", autoencode=True)
    assert digits.shape == Shape((1, 8, 8), 64, False, None, False)
    assert torch.equal(digits.y, digits.x.reshape(-1, 64))
    scaled = read("diabetes", autoencode=True).scaled()
    assert torch.equal(scaled.y, scaled.x) and scaled.y_names == scaled.x_names
    assert scaled.y_scale is not None and float(scaled.y.std(correction=0)) == pytest.approx(1.0)


MISTAKES = [
    ("circles", "samples=1", "data.samples: expected a number >= 2, got 1"),
    ("circles", "factor=1.0", "data.factor: expected a number < 1, got 1.0"),
    ("circles", "noise=-0.1", "data.noise: expected a number >= 0, got -0.1"),
    ("circles", "sample=3", "data.sample: unknown key; did you mean 'samples'?"),
    ("moons", "factor=0.5", "data.factor: unknown key; known: autoencode, batch_size"),
    ("blobs", "centers=1", "data.centers: expected a number >= 2, got 1"),
    ("blobs", "samples=2", "data: 2 samples for 3 centers leave classes without a row"),
    ("adding_problem", "length=0", "data.length: expected a number >= 2, got 0"),
    ("adding_problem", "samples=0", "data.samples: expected a number > 0, got 0"),
    ("adding_problem", "autoencode=true", "data.autoencode: unknown key"),
    ("copy_memory", "delay=0", "data.delay: expected a number > 0, got 0"),
    ("copy_memory", "copied=0", "data.copied: expected a number > 0, got 0"),
    ("copy_memory", "symbols=1", "data.symbols: expected a number >= 2, got 1"),
    ("text", "name=text", "data.file: missing: The file, in UTF-8"),
    ("text", "context=0", "data.context: expected a number > 0, got 0"),
    ("text", "stride=0", "data.stride: expected a number > 0, got 0"),
    ("math:hypot", "workers=0", "data: workers read batches: set batch_size too"),
    ("math:hypot", "workers=-1", "data.workers: expected a number >= 0, got -1"),
    ("digit", "name=digit", "data.name: unknown name 'digit'; did you mean 'digits'?"),
]


@pytest.mark.parametrize(("name", "override", "message"), MISTAKES)
def test_keys_that_do_not_fit(name: str, override: str, message: str) -> None:
    overrides = [f"data={{name: '{name}'}}", f"data.{override}"]
    with pytest.raises(ConfigError) as caught:
        load(ROOT / "configs" / "linear.yaml", overrides, [check])
    assert any(f": {message}" in told for told in caught.value.messages), caught.value.messages


@pytest.mark.parametrize(
    ("content", "context", "path", "message"),
    [
        (None, 4, "file", "no such file: FILE"),
        (b"", 4, "file", "FILE is empty"),
        (b"\xef\xbb\xbf", 4, "file", "FILE is empty"),
        (b"aaaaaaaa", 4, "file", "FILE holds one character only, 'a'"),
        (b"abcd", 4, "context", "FILE has 4 characters; a row needs 4 and the next"),
        (
            b"ab\xff",
            4,
            "file",
            "FILE:1: not UTF-8 (byte 0xff)",
        ),
        (b"ab\r\nc\n\xed\xa0\x80", 4, "file", "FILE:3: not UTF-8 (byte 0xed)"),
    ],
)
def test_texts_that_do_not_fit(
    tmp_path: Path, content: bytes | None, context: int, path: str, message: str
) -> None:
    file = tmp_path / "a.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read("text", file=str(file), context=context)
    (problem,) = caught.value.problems
    assert (problem.path, problem.message.replace(str(file), "FILE")) == (("data", path), message)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^cannot read {tmp_path}: Is a directory$"):
        read("text", file=str(tmp_path))


def test_a_text_too_short_leaves_no_training_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("abcdefghij")
    table = read("text", file=str(file), context=8, stride=1)  # two rows that overlap
    with pytest.raises(DataError, match="^0.5 of 2 rows leaves none for training$"):
        table.split(0.5, 0)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(DataError) as caught:
        read("moons")
    (problem,) = caught.value.problems
    assert problem.path == ("data", "name")
    assert problem.message == "needs scikit-learn: pip install scikit-learn"
