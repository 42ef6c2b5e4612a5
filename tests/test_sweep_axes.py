"""What a sweep varies, as the command line says it, and mistakes told before any run."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.__main__ import main
from trainer.config import ConfigError
from trainer.sweep.axes import Axis, Range, combinations, parse, split

LINEAR = Path(__file__).parent.parent / "configs" / "linear.yaml"

values = st.sampled_from(["1e-3", "[0.9,0.99]", "{name: adam, lr: 0.1}", "'a,b'", '"x]y"', "null",
                          "[[1, 2], [3]]", "-1", "relu"])  # fmt: skip


@given(st.lists(values, min_size=1, max_size=5, unique=True), st.sampled_from([",", ", ", " ,"]))
def test_commas_separate_values_outside_brackets_and_quotes(texts: list[str], comma: str) -> None:
    assert split(comma.join(texts)) == tuple(texts)


@pytest.mark.parametrize("text", ["", "a b", "1],[2", "[1", "a: 'b", "[1, 2]", "{a: 1, b: 2}"])
def test_one_value_is_left_alone(text: str) -> None:
    assert split(text) == (text,)


def test_axes_and_what_all_trials_share() -> None:
    fixed, axes = parse(["a=1,2", "stop.steps=5", "b=log(1e-4,1e-1)", "c=int(2, 8)", "d=[1,2]"])
    assert fixed == ["stop.steps=5", "d=[1,2]"]
    assert axes == [Axis("a", ("1", "2")), Axis("b", Range("log", 1e-4, 1e-1)),
                    Axis("c", Range("int", 2, 8))]  # fmt: skip
    assert parse(["a=1,1", "b=1,2"])[0] == ["a=1"], "what is listed twice is one value"
    listed = [Axis("a", ("1", "2")), Axis("b", ("x", "y", "z"))]
    pairs = [(c["a"], c["b"]) for c in combinations(listed)]
    assert pairs == list(itertools.product("12", "xyz"))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a=log(0,1)"], "a=log(0,1): a: expected low > 0 in log(low,high), got 0"),
        (["a=uniform(2,1)"], "a: expected low < high, got 'uniform(2,1)'"),
        (["a=int(1,2.5)"], "a: expected two whole numbers in int(low,high), got 2.5"),
        (["a=log(x,1)"], "a: expected two numbers in log(low,high), got 'x'"),
        (["a=uniform(0,.inf)"], "a: expected finite numbers in uniform(low,high), got .inf"),
        (["a=uniform(1)"], "a: expected log(low,high), uniform(low,high) or int(low,high) with"),
        (["a=1", "a=2,3"], "a=2,3: a: the key is set twice; write all its values in one list"),
    ],
)
def test_axes_that_are_none(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lrr=1,2"], "command line: optimizer.lrr=1: optimizer.lrr: SGD has no such "
                                "argument; did you mean 'lr'?"),
        (["optimizer.lr=1,x"], "command line: optimizer.lr=x: optimizer.lr: expected a number, "
                               "got 'x'"),
        (["optimizer.lr=1,2", "stop.stops=1"], "command line: stop.stops=1: stop.stops: unknown "
                                               "key; did you mean 'steps'?"),
        (["optimizer.lr=1"], "nothing to vary: give a key several values"),
        (["optimizer.lr=log(1,2)"], "command line: optimizer.lr: a grid cannot list a range"),
        (["optimizer.lr=uniform(-1,1)", "--sampler=random", "--trials=2"],
         "command line: optimizer.lr=-1: optimizer.lr: expected a number > 0, got -1"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_any_trial(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "--config", str(LINEAR), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sampler=tpe"], "--trials N is missing: how many the sampler tpe is to draw"),
        (["--trials=3"], "--trials goes with --sampler random or tpe"),
        (["--jobs=0"], "argument --jobs: invalid positive number value: '0'"),
    ],
)
def test_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "--config", str(LINEAR), "optimizer.lr=1,2", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
