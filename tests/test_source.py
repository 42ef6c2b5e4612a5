"""YAML is read by the 1.2 core schema, each value at its place, and what is written is kept."""

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import ConfigError
from trainer.config.file import read
from trainer.config.scalars import dump, plain_scalar
from trainer.config.source import MAX_NODES, Document

# YAML 1.2.2, chapter 10.3.2: the regular expressions' own cases and those of example 10.9, then
# what YAML 1.1 (and PyYAML) takes for something else.
CORE = [
    ("null", None), ("Null", None), ("NULL", None), ("~", None), ("", None),
    ("true", True), ("True", True), ("TRUE", True),
    ("false", False), ("False", False), ("FALSE", False),
    ("0", 0), ("-19", -19), ("+12", 12), ("007", 7), ("0o14", 12), ("0x3A", 58), ("0xff", 255),
    ("0.", 0.0), ("-0.0", -0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0),
    ("1e-3", 1e-3), ("1E5", 1e5), ("1.e2", 100.0), ("6.02e23", 6.02e23), ("1e-999", 0.0),
    (".inf", math.inf), ("-.Inf", -math.inf), ("+.INF", math.inf),
    # strings
    ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("N", "N"),
    ("nULL", "nULL"), ("tRUE", "tRUE"), ("12:30:00", "12:30:00"), ("1:20", "1:20"),
    ("1_000", "1_000"), ("0b101", "0b101"), ("0o8", "0o8"), ("0xg", "0xg"), ("-0x1", "-0x1"),
    ("-0o7", "-0o7"), ("1e", "1e"), ("e5", "e5"), (".", "."), ("..5", "..5"), ("1.2.3", "1.2.3"),
    ("inf", "inf"), ("nan", "nan"), (".iNF", ".iNF"), ("-.nan", "-.nan"), ("1d", "1d"),
    ("2001-12-14", "2001-12-14"), ("=", "="), ("1 2", "1 2"), ("\u0661", "\u0661"), ("+", "+"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), CORE)
def test_plain_scalars(text: str, value: Any) -> None:
    for found in (plain_scalar(text), Document("", f"key: {text}").tree["key"]):
        assert found == value
        assert type(found) is type(value)
        assert math.copysign(1, found) == math.copysign(1, value) if value == 0 else True


def test_not_a_number() -> None:
    assert all(math.isnan(Document("", f"a: {t}").tree["a"]) for t in (".nan", ".NaN", ".NAN"))


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1" * 310, "9" * 5000, "0x" + "f" * 300])
def test_numbers_beyond_all_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="^the number is too large$"):
        plain_scalar(text)


def test_quoted_scalars_and_blocks_are_strings() -> None:
    text = "a: '1'\nb: \"null\"\nc: |\n  1\nd: >-\n  true\n  no\n"
    assert Document("", text).tree == {"a": "1", "b": "null", "c": "1\n", "d": "true no"}


def test_keys_are_strings() -> None:
    assert Document("", "1: a\ntrue: b\n~: c").tree == {"1": "a", "true": "b", "~": "c"}


WORDS = ["<<", "- a", "#", "a: b", "\x85", "\u2028", "\ufeff", " a ", "a\nb\n"]
TEXT = st.text() | st.sampled_from(WORDS + [text for text, _ in CORE])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=5))
def test_what_is_dumped_is_read_back(tree: dict[str, Any]) -> None:
    document = Document("", dump(tree))
    assert document.tree == tree
    assert repr(document.tree) == repr(tree)  # 1, 1.0 and True are equal; -0.0 and 0.0 also
    assert not document.faults


@settings(deadline=None, max_examples=300)
@given(
    st.text(st.sampled_from("ab:-[]{},&*!?|>'\"#%@\n \t\r\x00\ufeff\u2028é1.") | st.characters())
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        document = Document("name", text)
    except ConfigError as error:
        assert len(error.messages) == 1
        assert error.messages[0].startswith("name:")
    else:
        assert isinstance(document.tree, dict)


TEXT_WITH_PLACES = """\
# a comment
name: é
data:
  x: [1.0, [2.0]]   # inline
  'quoted key':
    - a
    - {b: c}
"""


@pytest.mark.parametrize(
    ("path", "row", "column", "key_column"),
    [
        (("name",), 2, 7, 1),
        (("data", "x"), 4, 6, 3),
        (("data", "x", 0), 4, 7, 6),
        (("data", "x", 1, 0), 4, 13, 12),
        (("data", "quoted key"), 6, 5, 3),
        (("data", "quoted key", 1), 7, 7, 5),
        (("data", "quoted key", 1, "b"), 7, 11, 8),
    ],
)
def test_places(path: Any, row: int, column: int, key_column: int) -> None:
    document = Document("f", TEXT_WITH_PLACES)
    place, key = document.place(path), document.place(path, at_key=True)
    assert (place.source, place.row, place.column) == ("f", row, column)
    assert place.line == TEXT_WITH_PLACES.splitlines()[row - 1]
    if isinstance(path[-1], str):
        assert (key.column, key.line.strip() != "") == (key_column, True)


def test_the_place_of_what_is_missing_is_the_section_above() -> None:
    document = Document("f", TEXT_WITH_PLACES)
    assert document.place(("data", "y", 3)).row == 3
    assert document.place(("model", "name")).row == 0
    assert document.place(("data", "x", 7)).column == 3


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_ends_of_lines(newline: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + TEXT_WITH_PLACES.replace("\n", newline).encode())
    document = read(file, [])
    assert document.tree == Document("", TEXT_WITH_PLACES).tree
    assert document.place(("data", "x", 1, 0)).column == 13


REFUSED = [
    ("[1", "1:3: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'"),
    ("a: b: c", "1:5: not valid YAML: mapping values are not allowed in this context"),
    ("a:\n\tb: 1", "2:1: not valid YAML: while scanning for the next token, found character that"
     " cannot start any token"),
    ("a: *b", "1:4: not valid YAML: found undefined alias"),
    ("a: 1\n---\na: 2", "2:1: not valid YAML: expected a single document in the stream, but found"
     " another document"),
    ("é: \x07", "1:4: not valid YAML: the character '\\x07' is not allowed"),
    ("a: é\nb: \ud800", "2:4: not valid YAML: the character '\\ud800' is not allowed"),
    ("- 1", "1:1: expected sections (key: value), got a list of 1"),
    ("hello", "1:1: expected sections (key: value), got 'hello'"),
    ("", " the file is empty; see configs/linear.yaml for an example"),
    ("# only\n  # comments", " the file is empty; see configs/linear.yaml for an example"),
    ("---\n...\n", " the file is empty; see configs/linear.yaml for an example"),
    ("a: &a [*a]", "1:4: a[0]: an alias refers to the value it stands in"),
    ("a: &a {x: 1}\nb: {<<: *a}", "2:5: b: YAML 1.2 has no '<<'; write the keys out"),
    ("? [a, b]\n: 1", "1:3: a key must be a word, not a list or a section"),
    ("a: " + "[" * 100_000, "1:35: nested more than 32 levels deep"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Document("f", text)
    assert str(caught.value).splitlines()[0] == f"f:{message}"


def test_aliases_are_expanded() -> None:
    assert Document("", "a: &a {x: [1]}\nb: [*a, *a]").tree["b"] == [{"x": [1]}, {"x": [1]}]


def test_a_bomb_of_aliases_does_not_go_off() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(ConfigError, match=f"more than {MAX_NODES:,} values"):
        Document("f", "\n".join(lines))


@pytest.mark.parametrize("item", ["1, ", "[], ", "!!x 1, ", "&a 1, ", "*a, "])
def test_a_list_without_an_end_is_not_built(item: str) -> None:
    text = f"a: &a 1\nb: [{item * 120_000}"
    with pytest.raises(ConfigError, match=f"^f:2:[0-9]+: more than {MAX_NODES:,} values"):
        Document("f", text)


def test_a_ladder_of_aliases_is_not_climbed() -> None:
    lines = ["a0: &a0 1", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3000))]
    with pytest.raises(ConfigError, match="nested more than 32 levels deep"):
        Document("f", "\n".join(lines))


def faults(text: str) -> list[str]:
    return [place.show(p.path, p.message) for place, p in Document("f", text).faults]


def test_keys_set_twice() -> None:
    expected = "f:3:1: a: the key is set twice (first at line 1)\n    a: 3\n    ^"
    assert faults("a: 1\nb: 2\na: 3\n") == [expected]
    assert Document("f", "a: 1\n'a': 3").tree == {"a": 1}
    [message] = faults("a: {b: [{c: 1, d: 2, c: 3}]}")
    assert message.startswith("f:1:22: a.b[0].c: the key is set twice (first at line 1)")


@pytest.mark.parametrize("value", ["!!str 1", "!x 1", "! 1", "!!map {}", "!!python/tuple [1]"])
def test_tags(value: str) -> None:
    [message] = faults(f"a:\n  b: {value}")
    assert message.startswith("f:2:6: a.b: tags are not supported; write the value alone\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_read_when_there_is_a_writer_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="pipe.yaml: the file is empty"):
        read(pipe, [])
    reading, writing = os.pipe()  # what a shell's <(command) is
    with ThreadPoolExecutor() as pool:
        document = pool.submit(read, Path(f"/dev/fd/{reading}"), [])
        time.sleep(0.05)
        os.write(writing, b"a: 1")
        os.close(writing)
        assert document.result().tree == {"a": 1}
    os.close(reading)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "linear.yaml").write_text("a: 1")
    (tmp_path / "bytes.yaml").write_bytes("a: é\nb: ".encode() + b"\xff")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    for name, message in {
        "liner.yaml": "no such file; did you mean 'linear.yaml'?",
        "nowhere/linear.yaml": "no such file",
        "linear.yaml/x": "cannot be read: Not a directory",
        ".": "is a folder; name a file in it",
        "large.yaml": "larger than 1,000,000 bytes; is it a configuration?",
        "bytes.yaml": "not a text file in UTF-8 (byte 0xff)",
        "x" * 300: "cannot be read: File name too long",
    }.items():
        path = tmp_path / name
        position = ":2:4" if name == "bytes.yaml" else ""
        with pytest.raises(ConfigError) as caught:
            read(path, [])
        assert str(caught.value) == f"{path}{position}: {message}"
    with pytest.raises(ConfigError, match=r"^'a\\x00b': not a file name: embedded null byte$"):
        read(Path("a\0b"), [])
