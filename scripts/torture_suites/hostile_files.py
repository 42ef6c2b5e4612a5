"""Lists of overrides and data files that no one should write."""

from __future__ import annotations

import csv
import io
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from torture_suites.hostile_configs import (
    CONFIGS,
    FILES,
    HUGE,
    KEYS,
    TOKENS,
    VALUES,
    Case,
    Make,
    Raw,
    drawn_by_hypothesis,
    flow,
    holding,
    ladder,
    laughs,
    paths,
    torn,
)
from trainer.config.source import Document

TREES = {file: Document(str(file), file.read_text()).tree for file in FILES}


def key_of(path: tuple[Any, ...]) -> str:
    """The path as a command line has it."""
    return ".".join(part.text if isinstance(part, Raw) else str(part) for part in path)


@st.composite
def override_lists(draw: st.DrawFn) -> tuple[Path, tuple[str, ...]]:
    """A committed configuration and things in place of `key=value`."""
    file = draw(st.sampled_from(FILES))
    known = st.sampled_from([*paths(TREES[file]), ("clip", "max_grad_norm"), ("monitor", "x")])
    strange = st.lists(KEYS, max_size=4).map(tuple)
    odd = ["", "=", "==", "--", "-", "-1=3", "--x=1", "a", ".=1", "a..b=1", "data.x[0]=1", "@f=1"]
    odd += ["schema", "optimizer.lr", "optimizer.lr =1", " optimizer.lr=1", "optimizer.=1"]
    lists = draw(
        st.lists(
            st.tuples(known | known | strange, VALUES).map(
                lambda pair: f"{key_of(pair[0])}={flow(pair[1])}"
            )
            | st.sampled_from(odd)
            | st.text(max_size=12),
            min_size=1,
            max_size=6,
        )
    )
    return file, tuple(lists)


def huge_overrides(count: int, drawn: random.Random) -> Iterator[Case]:
    """Overrides that are long, deep, many or the same."""
    made = [
        lambda n: ["name=" + "x" * n],
        lambda n: ["x" * n],
        lambda n: ["x" * n + "=1"],
        lambda n: [".".join(["a"] * n) + "=1"],
        lambda n: ["optimizer." + ".".join(["lr"] * n) + "=1"],
        lambda n: ["." * n + "=1"],
        lambda n: ["data.x=" + "[" * n + "]" * n],
        lambda n: ["stop=" + "{steps: " * n + "1" + "}" * n],
        lambda n: [f"data.x=[{'[1.0], ' * n}]"],
        lambda n: [f"data.x=[{'a, ' * n}]"],
        lambda n: ["stop={" + "".join(f"k{i}: 1, " for i in range(n)) + "}"],
        lambda n: ["optimizer={name: sgd, lr: 1, " + "k: 1, " * n + "}"],
        lambda n: [f"model.weight={laughs(10, min(n, 30))}"],
        lambda n: [f"model.weight={ladder(min(n, 10_000))}"],
        lambda n: ["seed=" + "9" * n],
        lambda n: ["optimizer.lr=0." + "0" * n + "1"],
        lambda n: ["optimizer.lr=1e-3"] * min(n, 20_000),
        lambda n: [f"optimizer.lr={i}" for i in range(min(n, 20_000))],
        lambda n: [f"k{i}=1" for i in range(min(n, 20_000))],
        lambda n: [f"stop.k{i}=1" for i in range(min(n, 20_000))],
        lambda n: [f"k{i}.a.b.c=1" for i in range(min(n, 20_000))],
        lambda n: ["="] * min(n, 20_000),
        lambda n: ["stop={}", "stop.steps=3"] * min(n, 10_000),
    ]
    for number in range(count):
        size = drawn.choice((10, 33, 1000, 10_000, 120_000, 120_000, 1_000_000, 1_500_000))
        overrides = tuple(made[number % len(made)](size))
        content = CONFIGS.joinpath("linear.yaml").read_bytes()
        yield Case("overrides: huge", {"config.yaml": holding(content)}, overrides)


def hostile_overrides(count: int, seed: int) -> Iterator[Case]:
    """So many lists of overrides, the same for the same seed."""
    huge = count // 5
    yield from huge_overrides(huge, random.Random(seed))
    for file, overrides in drawn_by_hypothesis(override_lists(), count - huge, seed):
        files = {"config.yaml": holding(file.read_bytes())}
        yield Case("overrides", files, overrides)


TABLE = """\
name: table
data: {name: csv, file: data.csv, x: [a, b], y: [c]}
model: {name: linear}
loss: {name: mse}
optimizer: {name: sgd, lr: 0.1}
"""
TEXT = """\
name: letters
data: {name: text, file: data.csv, context: 8}
model: {name: transformer, layers: 1, width: 8}
loss: {name: cross_entropy}
optimizer: {name: sgd, lr: 0.1}
"""
SECTIONS = [
    *((), (), ("standardize=true",), ("classes=true",), ("weights=d",), ("weights=c",)),
    *(("y=[]", "autoencode=true"), ("x=[a]", "y=[b, c]"), ("x=[a, a]",), ("x=['']",), ("x=[A]",)),
    *(("y=[zz]",), ("x=[é]",), ("weights=zz",), ("batch_size=2",), ("batch_size=1000000000",)),
]
CELLS = [
    *("", " ", "x", "1", "-1", "1e3", "nan", "inf", "1e400", "1e308", "-1e308", "1e-400", "0x10"),
    *("1_0", "1,5", "1;5", "1 2", '"', '""', '"1', '1"', "'1'", "\t1", "NULL", "None", "#N/A", "é"),
    *("\x00", "\x1b[2J", "\u202e", "\u0661", "９", "1\r", "\n", "9" * 400, "0." + "3" * 5000),
]
LARGE = 2_000_000  # bytes


def folder(path: Path) -> None:
    """A folder in place of a file."""
    path.mkdir()


def sparse(path: Path) -> None:
    """A terabyte of nothing."""
    path.touch()
    os.truncate(path, 1 << 40)


def linked(to: str) -> Make:
    """A link to something of the system."""
    return lambda path: path.symlink_to(to)


def many(piece: str, after: str = "", before: str = "a,b,c,d\n") -> list[Make]:
    """Files in which something is repeated until they are large, and huge."""
    pieces = piece.encode()
    return [
        partial(_repeated, before.encode(), pieces, size // len(pieces), after.encode())
        for size in (100_000, LARGE, HUGE)
    ]


def _repeated(before: bytes, piece: bytes, times: int, after: bytes, path: Path) -> None:
    path.write_bytes(before + piece * times + after)


def _columns(count: int) -> Make:
    names = ",".join(f"c{i}" for i in range(count))
    text = f"a,b,c,d,{names}\n1,2,3,4{',5' * count}\n2,3,4,5{',6' * count}\n"
    return holding(text.encode())


def strange_files() -> list[tuple[str, Make]]:
    """What may stand where a data file should."""
    made: list[tuple[str, Make]] = [
        ("missing", lambda path: None),
        ("a folder", folder),
        ("a pipe without an end", os.mkfifo),
        ("a loop of links", lambda path: path.symlink_to(path)),
        ("without a right to read", lambda path: path.symlink_to("/proc/self/mem")),
        *((name, linked(name)) for name in ("/dev/zero", "/dev/null", "/dev/full", "/dev/tty")),
        ("empty", holding(b"")),
        ("sparse", sparse),
        *((f"{n} columns", _columns(n)) for n in (1000, 100_000, 300_000)),
        ("columns of one name", holding(b"a," * 100_000 + b"b\n" + b"1," * 100_000 + b"2\n")),
    ]  # fmt: skip
    for piece, after, before in [
        ("1,2,3,4\n", "", "a,b,c,d\n"),
        ("1,2,3,4\n", "1,2\n", "a,b,c,d\n"),
        ("1,2,3,x\n", "", "a,b,c,d\n"),
        ("x,y,z,w\n", "", "a,b,c,d\n"),
        ("\n", "1,2,3,4\n", "a,b,c,d\n"),
        ("\n", "", ""),
        ("\x00", "", ""),
        ("1,", "\n", "a,b,c,d\n"),
        ("a,", "\n1,2\n", ""),
        ("9", "\n", "a,b,c,d\n1,2,3,"),
        ('"', "\n", "a,b,c,d\n"),
        ('""', '"\n', 'a,b,c,d\n1,2,3,"'),
        ("x\n", '"', 'a,b,c,d\n1,2,3,"'),
        (" ", "\n", "a,b,c,d\n"),
        ("é", "\n", ""),
    ]:
        for size, make in zip(("", "large", "huge"), many(piece, after, before), strict=True):
            made.append((f"{size} {piece!r}".strip(), make))
    return made


def table(drawn: random.Random) -> bytes:
    """A table of numbers in which some cells, rows or bytes went wrong."""
    names = drawn.choice(("abcd", "abcd", "abcd", "dcba", "abc", "aabcd", "ABCD", "x"))
    rows: list[list[str]] = [list(names)]
    for _ in range(drawn.choice((0, 1, 2, 5, 20))):
        rows.append([repr(drawn.gauss(0, 1)) for _ in names])
    for _ in range(drawn.choice((0, 1, 1, 2, 5))):
        row = drawn.choice(rows)
        match drawn.randrange(6):
            case 0:
                row.append(drawn.choice(CELLS))
            case 1 if row:
                row.pop()
            case 2:
                rows.insert(drawn.randrange(len(rows) + 1), [])
            case _ if row:
                row[drawn.randrange(len(row))] = drawn.choice(CELLS)
    if drawn.randrange(3):
        stream = io.StringIO()
        csv.writer(stream, lineterminator=drawn.choice(("\n", "\r\n", "\r"))).writerows(rows)
        text = stream.getvalue()
    else:  # nothing quoted
        text = drawn.choice(("\n", "\r\n")).join(",".join(row) for row in rows)
    encoding = drawn.choice(("utf-8",) * 6 + ("utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037"))
    content = text.encode(encoding, "replace")
    if drawn.randrange(3) == 0:
        content = torn(content or b" ", drawn, [b"1,2,3,4\n", *TOKENS])
    return content


def hostile_data(count: int, seed: int) -> Iterator[Case]:
    """So many data files, read as a table or as a text, the same for the same seed."""
    drawn, strange = random.Random(seed), strange_files()
    strange.sort(key=lambda named: named[0].startswith("huge"))  # each of these once, if at all
    usual = [named for named in strange if not named[0].startswith("huge")]
    for number in range(count):
        name, make = "torn", holding(table(drawn))
        if number % 4 == 0:
            name, make = strange[number // 4] if number // 4 < len(strange) else drawn.choice(usual)
        text, section = TABLE, drawn.choice(SECTIONS)
        if number // 4 % 4 == 3:
            text, section = TEXT, ()
        overrides = tuple(f"data.{part}" for part in section)
        files = {"config.yaml": holding(text.encode()), "data.csv": make}
        yield Case(f"data: {name}", files, overrides)
