"""Two runs side by side: what differs is told, at its key, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.__main__ import main
from trainer.difference import Side, differences, table

CONFIGS = Path(__file__).parent.parent / "configs"
LINEAR = CONFIGS / "linear.yaml"


def cells(text: str) -> list[list[str]]:
    """The printed table's cells; they are two spaces or more apart."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()
    ]


def test_two_runs(run_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    first = run_config("linear", "stop.steps=3")
    second = run_config("linear", "stop.steps=5", "optimizer={name: adam, lr: 0.1}")
    costs = [json.loads((f / "result.json").read_text())["cost"] for f in (first, second)]
    capsys.readouterr()
    assert main(["diff", str(first), str(second)]) == 0
    rows = cells(capsys.readouterr().out)
    assert rows[0] == [str(first), str(second)]
    assert rows[1:4] == [["configuration"], ["optimizer.name", "sgd", "adam"],
                         ["stop.steps", "3", "5"]]  # fmt: skip
    results = {row[0]: row[1:] for row in rows[5:]}
    assert rows[4] == ["result"]
    assert results["cost"] == [repr(cost) for cost in costs]
    assert results["steps"] == ["3", "5"]
    assert results["status"] == ["0", "0"]  # equal, and still of interest beside the others
    assert main(["diff", str(first), str(first)]) == 0
    assert capsys.readouterr().out == "no difference\n"


def test_a_run_and_the_configuration_it_came_from(
    run_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_config("linear")
    capsys.readouterr()
    assert main(["diff", str(LINEAR), str(run)]) == 0
    rows = cells(capsys.readouterr().out)
    assert rows[1] == ["result"]  # no key of the configuration differs
    assert ["steps", "–", "333"] in rows


def test_what_was_found_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"verdict": "vanishing", "level": "critical", "where": "stem", "resolved": False}
    ended = found | {"verdict": "diverging", "resolved": True}
    for name, findings in (("sick", [found, ended]), ("cured", [])):
        (tmp_path / name).mkdir()
        shutil.copy(CONFIGS / "linear.yaml", tmp_path / name / "config.yaml")
        (tmp_path / name / "result.json").write_text(json.dumps({"findings": findings}))
    assert main(["diff", str(tmp_path / "sick"), str(tmp_path / "cured")]) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "findings" in line)
    assert row.split(maxsplit=1)[1].split("  ")[0] == "vanishing (critical); diverging (resolved)"
    assert row.endswith("none")


def test_two_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = LINEAR.read_text()
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("lr: 0.1", "lr: 0.1, momentum: 0.9").replace("[3.0]]", "[4.0]]"))
    assert main(["diff", str(LINEAR), str(other)]) == 0
    rows = cells(capsys.readouterr().out)
    assert rows[1:] == [
        ["configuration"],
        ["data.x", "[[2.0], [3.0]]", "[[2.0], [4.0]]"],
        ["optimizer.momentum", "–", "0.9"],
    ]


@pytest.mark.parametrize(
    ("healthy", "sick", "keys"),
    [
        ("linear", "exploding_lr", {"optimizer.lr"}),
        ("digits_mlp", "vanishing_sigmoid", {"model.depth", "model.activation"}),
        ("digits_mlp", "exploding_init", {"model.depth", "model.init.hidden"}),
        ("digits_mlp", "dead_relu", {"model.depth", "model.init.bias"}),
        ("digits_mlp", "saturated_tanh", {"model.depth", "model.activation", "model.init.hidden"}),
        ("adding_lstm", "vanishing_rnn", {"model.kind", "model.forget_bias"}),
        ("charlm_transformer", "postnorm_transformer", {"model.norm"}),
    ],
)
def test_a_sick_network_differs_from_a_healthy_one_in_its_cause(
    healthy: str, sick: str, keys: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *(str(CONFIGS / f"{name}.yaml") for name in (healthy, sick))]) == 0
    names, *found = [row[0] for row in cells(capsys.readouterr().out)[2:]]
    assert names == "name" and set(found) == keys


def test_long_lists_are_compared_by_item() -> None:
    a = {"x": [[float(i)] for i in range(1000)]}
    b = {"x": [[float(i)] for i in range(1000)]}
    b["x"][17] = [0.5]
    assert table(Side(a, {}, {}), Side(b, {}, {}))[1:] == [("  x[17]", "[17.0]", "[0.5]")]
    assert table(Side(a, {}, {}), Side({"x": []}, {}, {}))[1:] == [("  x", "a list of 1000", "[]")]


def test_the_machine_is_told_where_both_ran() -> None:
    here, there = {"packages": {"torch": "2.13.0"}}, {"packages": {"torch": "2.14.0"}}
    rows = table(Side({}, {}, here), Side({}, {}, there))
    assert rows == [("environment", "", ""), ("  packages.torch", "2.13.0", "2.14.0")]
    assert table(Side({}, {}, here), Side({}, {}, {})) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "{linear}"], "nowhere: no such file"),
        (["{folder}", "{linear}"], "{folder}: holds no config.yaml; name a run's folder or a YAML"),
        (["{linear}", "{broken}"], "{broken}: name: missing: Name of the experiment"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.yaml").write_text("seed: x\n")
    known = {"linear": str(LINEAR), "folder": "folder", "broken": "broken.yaml"}
    assert main(["diff", *(a.format(**known) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(message.format(**known))


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab :{}'\"#1", max_size=6)
)
trees = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("abc", min_size=1), below),
)


def same(a: object, b: object) -> bool:
    """Equality that tells 1, 1.0 and true apart, and finds nan equal to itself."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@given(trees, trees)
def test_a_difference_is_found_exactly_where_there_is_one(a: object, b: object) -> None:
    assert list(differences(a, a)) == []
    assert bool(list(differences(a, b))) == (not same(a, b))
