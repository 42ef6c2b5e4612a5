"""Columns come out of a CSV file as they stand in it; what is no number is told by its row."""

import csv
import math
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trainer import data, memory
from trainer.config.data_sections import Csv
from trainer.config.problem import Place
from trainer.data.csv import read
from trainer.data.table import DataError, Shape, Table

ROWS = [[1.0, -2.5, 3e10], [4.0, 5e-3, 6.0]]


def section(file: Path, **keys: object) -> Csv:
    return Csv.model_validate({"name": "csv", "file": str(file), "x": ["a"], "y": ["b"], **keys})


def message(file: Path, content: bytes | str, **keys: object) -> list[tuple[object, str]]:
    """The path and text of each problem, the file's own name left out."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read(section(file, **keys))
    return [(p.path, p.message.replace(str(file), "FILE")) for p in caught.value.problems]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


@pytest.mark.parametrize(
    "content",
    [
        "a,b,c\n1,-2.5,3e10\n4,5e-3,6\n",
        "\ufeffa,b,c\r\n1,-2.5,3e10\r\n4,5e-3,6",
        "\n a , b , c \n\n1, -2.5 ,3.E+10\n   \n\n+4.,.005,06\n\n",
        '"a","b","c"\n"1","-2.5","3e10"\n4,0.005,"6"\n',
    ],
    ids=["plain", "byte order mark and CRLF", "blanks", "quotes"],
)
def test_columns_by_name(file: Path, content: str) -> None:
    file.write_bytes(content.encode())
    expected = torch.tensor(ROWS, dtype=torch.float64)
    table = read(section(file, x=["c", "a"], y=["b"]))
    assert torch.equal(table.x, expected[:, [2, 0]])
    assert torch.equal(table.y, expected[:, [1]])
    assert table.weights is None
    assert (table.x_names, table.y_names) == (("c", "a"), ("b",))
    weighted = read(section(file, x=["a"], y=["b"], weights="c")).weights
    assert weighted is not None and torch.equal(weighted, expected[:, 2])


def test_what_is_not_asked_for_may_be_anything(file: Path) -> None:
    file.write_text("a,comment,b\n1,none,2\n3,,4\n")
    assert read(section(file)).y.tolist() == [[2.0], [4.0]]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
        min_size=1,
    )
)
def test_every_float_is_kept(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]
) -> None:
    file = tmp_path_factory.mktemp("csv") / "data.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["a", "b", "c"], *rows])
    table = read(section(file, x=["a", "b"], y=["c"]))
    assert torch.cat([table.x, table.y], dim=1).tolist() == rows


CELL = "expected a finite number"
CLASSES = "; if the column holds classes, set data.classes: true"
MISTAKES = [
    ("a,b\n1,2\n3,x\n", f"FILE:3: column 'b': {CELL}, got 'x'{CLASSES}"),
    ("a,b\nx,2\n", f"FILE:2: column 'a': {CELL}, got 'x'"),
    ("a,b\n\n1,2\n\n,4\n", f"FILE:5: column 'a': {CELL}, got ''"),
    ("a,b\n1,nan\n", f"FILE:2: column 'b': {CELL}, got 'nan'"),
    ("a,b\n1,.nan\n", f"FILE:2: column 'b': {CELL}, got '.nan'"),
    ("a,b\n-inf,2\n", f"FILE:2: column 'a': {CELL}, got '-inf'"),
    ("a,b\n1e999,2\n", f"FILE:2: column 'a': {CELL}, got '1e999'"),
    ("a,b\n1_000,2\n", f"FILE:2: column 'a': {CELL}, got '1_000'"),
    ("a,b\n\u0661,2\n", f"FILE:2: column 'a': {CELL}, got '\u0661'"),
    ("a,b\n0x1,2\n", f"FILE:2: column 'a': {CELL}, got '0x1'"),
    ('a,b\n1;2,"3\n4"\n', f"FILE:3: column 'a': {CELL}, got '1;2'"),
    ("a,b\n1,2\n3\n", "FILE:3: 1 cell, but the header has 2"),
    ("a,b\n1,2,3\n", "FILE:2: 3 cells, but the header has 2"),
    ("\na,b,a\n1,2,3\n", "FILE:2: column 'a' stands twice in the header"),
    ("a,b\n", "FILE has no rows below its header"),
    ("", "FILE is empty"),
    (" \n\n", "FILE is empty"),
    (
        b"a,b\n1,\xff\n",
        "FILE:2: not UTF-8 (byte 0xff)",
    ),
    (
        "a,b\n" + "1" * 200_000 + ",2\n",
        "FILE:2: not CSV: field larger than field limit (131072)",
    ),
    ("a,b\r1,2\r3,x\r", f"FILE:3: column 'b': {CELL}, got 'x'{CLASSES}"),
    (b"a,b\r\n" + b"1,2\r\n" * 2000 + b"\xff", "FILE:2002: not UTF-8 (byte 0xff)"),
]
ENDLESS = {
    "a row": ("a,b\n" + "1," * 5000, 2),
    "a quotation over lines": ('a,b\n"\n"' + ',"\n"' * 2000, 1751),
    "blank lines": ("\n" * 9000, 6000),
}


@pytest.mark.parametrize(("content", "expected"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes_in_the_file(file: Path, content: bytes | str, expected: str) -> None:
    assert message(file, content) == [(("data", "file"), expected)]


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_row_without_an_end(file: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    content, line = ENDLESS[kind]
    monkeypatch.setattr("trainer.data.file.MAX_ROW", 6000)
    monkeypatch.setattr("trainer.data.file.CHUNK", 1000)
    [(_, told)] = message(file, content)
    assert told == f"FILE:{line}: a row of more than 6,000 characters"


def test_many_rows(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.data.file.CHUNK", 101)
    rows = [[number, number / 7, number % 3] for number in range(3500)]
    for end in ("\n", "\r\n", "\r"):
        file.write_text(
            end.join(["a,b,\u00e9", *(f"{a},{b!r},{c}" for a, b, c in rows)]), newline=""
        )
        table = read(section(file, y=["b"], weights="\u00e9"))
        assert table.x.flatten().tolist() == [row[0] for row in rows]
        assert table.y.flatten().tolist() == [row[1] for row in rows]
        assert table.weights is not None and table.weights.tolist() == [row[2] for row in rows]


def test_missing_columns_are_told_together_where_they_are_named(file: Path) -> None:
    found = message(file, "alpha,b\n1,2\n", x=["alpa", "b"], y=["z"], weights="B")
    assert found == [
        (("data", "x", 0), "no column 'alpa' in FILE; did you mean 'alpha'?"),
        (("data", "y", 0), "no column 'z' in FILE; known: alpha, b"),
        (("data", "weights"), "no column 'B' in FILE; did you mean 'b'?"),
    ]


def test_one_of_several_targets_cannot_hold_classes(file: Path) -> None:
    found = message(file, "a,b,c\n1,2,high\n", y=["b", "c"])
    assert found == [(("data", "file"), f"FILE:2: column 'c': {CELL}, got 'high'")]


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    for name, expected in [
        ("none.csv", "no such file: {}"),
        (".", "cannot read {}: Is a directory"),
    ]:
        path = tmp_path / name
        with pytest.raises(DataError) as caught:
            read(section(path))
        assert str(caught.value) == expected.format(path)
    with pytest.raises(DataError, match=r"^'a\\x00b' is no name of a file: embedded null byte$"):
        read(section(Path("a\0b")))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_has_no_end_is_not_waited_for(file: Path) -> None:
    os.mkfifo(file)
    for path in (file, Path("/dev/zero")):
        with pytest.raises(DataError, match=f"^{path} is no file that has an end$"):
            read(section(path))


def test_columns_of_odd_names_and_by_the_thousand(file: Path) -> None:
    [(_, told)] = message(file, "a,\x1b[2J,b\n1,2,3\n", x=["c"])
    place = Place("config.yaml").show((), told)
    assert place == "config.yaml: no column 'c' in FILE; known: \\x1b[2J, a, b"
    names = [f"c{i}" for i in range(50_000)]
    found = message(file, ",".join(names) + "\n", x=[f"z{i}" for i in range(30)], y=["c1"])
    assert len(found) == 20 and found[0][1].endswith(" c10021, c10022, ...")
    file.write_text(",".join([*names, "a", "b"]) + "\n" + "1," * 50_000 + "2,3\n")
    assert read(section(file)).x.tolist() == [[2.0]]


def test_rows_for_which_there_is_no_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 100_000)
    told = "FILE:2001: the rows so far fill the memory"
    assert message(file, "a,b\n" + "1,2\n" * 5000) == [(("data", "file"), told)]


def test_standardize(file: Path) -> None:
    rows = [[1.0, 5.0, 7.0], [2.0, 5.0, 70.0], [6.0, 5.0, -7.0]]
    file.write_text("a,b,c\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    table = read(section(file, x=["a", "b"], y=["c"], standardize=True)).scaled()
    assert table.x_scale is not None and table.y_scale is not None
    for column, values in zip(zip(*rows, strict=True), [*table.x.T, *table.y.T], strict=True):
        mean = sum(column) / 3
        deviation = math.sqrt(sum((v - mean) ** 2 for v in column) / 3) or 1.0  # b is constant
        assert values.tolist() == pytest.approx([(v - mean) / deviation for v in column], abs=1e-15)
    undone = torch.cat([table.x_scale.undo(table.x), table.y_scale.undo(table.y)], dim=1)
    assert torch.allclose(undone, torch.tensor(rows, dtype=torch.float64), rtol=1e-14)


@pytest.mark.parametrize(
    ("cells", "labels", "indices"),
    [
        (["b", "a", " b ", "c"], ("a", "b", "c"), [1, 0, 1, 2]),
        (["10", "9", "9.0", "-1"], ("-1", "9", "10"), [2, 1, 1, 0]),
        (["10", "9", "x", "9.0"], ("10", "9", "9.0", "x"), [0, 1, 3, 2]),
        (["yes", "no", "yes", "true"], ("no", "true", "yes"), [2, 0, 2, 1]),
    ],
    ids=["words", "numbers", "both", "truth"],
)
def test_classes(file: Path, cells: list[str], labels: tuple[str, ...], indices: list[int]) -> None:
    file.write_text("a,b\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    table = read(section(file, classes=True, standardize=True)).scaled()
    assert table.y_names == labels and table.y.tolist() == indices
    assert table.y.dtype == torch.int64
    assert table.shape == Shape((1,), len(labels), True, None, False)
    assert table.y_scale is None and float(table.x.mean()) == pytest.approx(0.0, abs=1e-15)


def test_class_columns_that_hold_no_classes(file: Path) -> None:
    only = "column 'b' of FILE holds one class only, 'x'; a classifier needs at least two"
    assert message(file, "a,b\n1,x\n2, x\n", classes=True) == [(("data", "y", 0), only)]
    empty = "FILE:3: column 'b': expected a class, got ''"
    assert message(file, "a,b\n1,x\n2,\n", classes=True) == [(("data", "file"), empty)]
    short = "FILE:3: 1 cell, but the header has 2"
    assert message(file, "a,b\n1,x\n2\n", classes=True) == [(("data", "file"), short)]


def test_autoencoding_needs_no_targets(file: Path) -> None:
    file.write_text("a,b\n1,2\n3,5\n")
    table = data.read(section(file, x=["a", "b"], y=[], autoencode=True), 0)
    assert isinstance(table, Table) and torch.equal(table.y, table.x)
    assert table.y_names == ("a", "b")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"y": []}, "y: missing: names of the target columns"),
        ({"y": ["b", "c"], "classes": True}, "classes stand in one target column, but y names 2"),
        ({"autoencode": True}, "with autoencode the targets are x; leave y and classes out"),
    ],
)
def test_targets_that_do_not_fit(file: Path, keys: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        section(file, **keys)
