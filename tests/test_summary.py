"""The report of findings made by hand: what it says, in which order, and how short it stays."""

import math
import shlex
from dataclasses import replace

import pytest
import yaml
from records_by_hand import deep, record
from standin import ENDED, SPIKE, VANISHING, WORSE
from test_events import made

from trainer.config.scalars import inline
from trainer.config.source import Document
from trainer.finding import Finding
from trainer.record import owner
from trainer.summary import SHOWN, State, Summary, loss_unit, markdown, overrides, table


def summary(*steps: int) -> Summary:
    """Of a network with the layers `a` (weight and bias) and `b`."""
    found = Summary()
    for step in steps:
        found.add(made(step, layers=step % 2 == 0))
    return found


def test_all_is_well_in_one_line() -> None:
    assert summary(0, 1, 2, 50).lines([]) == [
        "diagnosis: nothing is wrong (4 steps looked at, from 0 to 50; loss 0.729 to 0.242)"
    ]
    assert Summary().lines([]) == ["diagnosis: no step was looked at"]


def test_what_losses_are_of_is_said_where_results_are_in_another_unit() -> None:
    standardized = " of standardized targets"
    for data, unit in (
        ({"name": "csv", "standardize": True, "classes": False}, standardized),
        ({"name": "csv", "standardize": True, "classes": True}, ""),
        ({"name": "diabetes", "standardize": True}, standardized),
        ({"name": "diabetes", "standardize": False}, ""),
        ({"name": "digits"}, ""),
        ({"name": "mine:Rows", "standardize": True}, ""),
    ):
        assert loss_unit({"data": data}) == unit
    assert loss_unit(None) == loss_unit({}) == ""
    found = Summary(standardized)
    for step in (0, 1, 2):
        found.add(made(step))
    assert found.lines([])[0].endswith(f"{standardized})")


def test_a_loss_that_has_not_fallen_is_said() -> None:
    def line(*losses: float) -> str:
        found = Summary()
        for step, loss in enumerate(losses):
            found.add(replace(made(step), loss=loss))
        return found.lines([])[0].removeprefix("diagnosis: ")

    still = "nothing was found, but the loss has not fallen (6 steps looked at, from 0 to 5; "
    assert line(2.0, 1.0, 1.99, 1.98, 2.5, 1.97) == f"{still}loss 2 to 1.98)"
    assert line(-2.0, -1.9, -1.9, -1.9, -1.9, -1.9) == f"{still}loss -2 to -1.9)"
    assert line(2.0, 1.9, 1.9, 1.9, 2.5, 1.9).startswith("nothing is wrong (")
    assert line(-2.0, -2.1, -2.1).startswith("nothing is wrong (")
    nan = float("nan")
    assert line(nan, nan) == "nothing is wrong (2 steps looked at, from 0 to 1)"
    assert line(nan, 2.0) == "nothing is wrong (2 steps looked at, from 0 to 1)"


def test_layers_first_then_the_worst_that_goes_on() -> None:
    ended = replace(ENDED, where="a.weight")
    killed = Finding(
        "dead_units", "critical", "b", (2, 40), {}, "learning rate: too high", "lower it"
    )
    assert summary(0, 50).lines([ended, SPIKE, killed]) == [
        "diagnosis: 3 findings (2 steps looked at, from 0 to 50; loss 0.729 to 0.821)",
        "  (whole model)  loss_spike (info)",
        "  a              vanishing (resolved); gradient 0.001",
        "  b              dead_units (critical)",
        "",
        "critical: dead_units in b (steps 2 to 40)",
        "  why   learning rate: too high",
        "  do    lower it",
        "",
        "info: loss_spike (step 4)",
        "  why   a batch: it is unlike the others",
        "  do    wait",
        "",
        "critical: vanishing in a.weight (steps 3 to 7, resolved)",
        "  seen  gain 0.25, decades 7",
        "  why   initialisation: each layer passes on a quarter of the gradient",
        "  do    start from weights that keep its size",
        "  try   model.init.hidden='{name: kaiming_uniform_, nonlinearity: relu}'",
    ]


def test_a_change_is_shown_once_and_no_number_that_is_none() -> None:
    other = replace(WORSE, verdict="saturated", evidence={"gain": float("nan"), "decades": 7})
    lines = summary(0).lines([WORSE, other, replace(WORSE, change={})])
    tries = [line for line in lines if line.startswith("  try")]
    assert tries == [
        "  try   model.init.hidden='{name: kaiming_uniform_, nonlinearity: relu}'",
        "  try   as above",
    ]
    assert [line for line in lines if "decades" in line and "gain" not in line] == [
        "  seen  decades 7"
    ]


def test_a_layer_is_known_by_its_parameters_too() -> None:
    found = summary(1)  # no outputs were looked at
    assert [str(state) for state in found.states([])] == ["ok"]
    assert found.states([])[0].layer == "a"
    assert [s.layer for s in summary(0, 1).states([replace(WORSE, where="c")])] == ["a", "b", "c"]
    assert (owner("blocks.0.norm.weight"), owner("weight")) == ("blocks.0.norm", "")


def test_the_state_of_a_layer_is_its_worst_one_that_goes_on() -> None:
    assert State("a", ()).level == "ok"
    assert State("a", (ENDED,)).level == "ok"
    both = State("a", (VANISHING, WORSE, ENDED))
    assert (both.level, str(both)) == (
        "critical",
        "vanishing (warning), vanishing (critical), vanishing (resolved)",
    )


def test_of_many_layers_only_those_with_something_to_say() -> None:
    well = [State(f"layers.{k}", ()) for k in range(SHOWN)]
    assert table(well[:2]) == ["  layers.0  ok", "  layers.1  ok"]
    assert len(table(well)) == SHOWN
    assert table([*well, State("head", (WORSE,))]) == [
        "  head       vanishing (critical)",
        "  16 others  ok",
    ]
    ill = [State(str(k), (WORSE,)) for k in range(SHOWN + 3)]
    shown = table([*ill, *well])
    assert len(shown) == SHOWN + 2
    assert shown[SHOWN:] == ["  3 more     not ok", "  16 others  ok"]


def test_a_layer_that_no_gradient_ever_reached_is_not_ok() -> None:
    made, some = Summary(), record(0, deep(2))
    late = replace(some, gradients=record(0, deep(2)[2:]).gradients)
    for one in (late, some, late):
        made.add(one)
    assert {str(state) for state in made.states([])} == {"ok"}
    made = Summary()
    made.add(late)
    unreached = [state.layer for state in made.states([]) if str(state) == "no gradient"]
    assert unreached and set(unreached) < {s.layer for s in made.states([])}
    assert f"  {unreached[0]}  no gradient" in table(made.states([]))
    told = {layer["layer"]: layer["state"] for layer in made.tree([])["layers"]}
    assert told[unreached[0]] == "no gradient"


def test_many_findings_are_counted() -> None:
    lines = summary(0).lines([replace(WORSE, where=f"layers.{k}") for k in range(100)])
    assert lines[0].startswith("diagnosis: 100 findings (")
    assert lines[-1] == "and 84 more findings"
    assert len(lines) < 7 * SHOWN + 10


def test_gradients_that_are_not_finite_are_shown() -> None:
    made, rows = Summary(), deep(2)
    made.add(
        record(
            0,
            [
                replace(rows[0], gradient=math.nan),
                *rows[1:-1],
                replace(rows[-1], gradient=math.inf),
            ],
        )
    )
    first, *_, last = made.tree([])["layers"]
    assert (first["gradient_rms"], last["gradient_rms"]) == ("nan", "inf")
    shown = table(made.states([]))
    assert shown[0].endswith("ok; gradient nan") and shown[-1].endswith("ok; gradient inf")
    many = [state for state in made.states([]) for _ in range(SHOWN)]
    assert table(many)[-1].endswith("ok; gradients 1 to nan")
    alone = Summary()
    alone.add(record(0, [replace(row, signal=math.nan, gradient=None) for row in rows]))
    assert {
        (each["signal_fraction"], each["gradient_rms"]) for each in alone.tree([])["layers"]
    } == {(None, None)}


UNSEEN = dict.fromkeys(("gradient_rms", "output_rms", "signal_fraction"))


def test_the_gradients_of_the_newest_look_stand_beside_the_layers() -> None:
    made, some = Summary(), record(0, deep(SHOWN))
    made.add(record(0, deep(SHOWN, backward=0.1)))
    made.add(some)
    made.add(replace(some, layers=None))
    assert some.layers is not None
    rms = {
        name: g.rms for name in some.layers.gradients.names for g in [some.layers.gradients[name]]
    }
    for layer in made.tree([])["layers"]:
        assert layer["gradient_rms"] == pytest.approx(rms[layer["layer"]])
    first = made.states([])[0].layer
    shown = table(made.states([replace(WORSE, where=first)]))
    assert shown[0].endswith(f"vanishing (critical); gradient {rms[first]:.1g}")
    others = [value for name, value in rms.items() if name != first]
    least, most = f"{min(others):.1g}", f"{max(others):.1g}"
    span = f"gradient {most}" if least == most else f"gradients {least} to {most}"
    assert shown[1].endswith(f"others  ok; {span}")


def test_the_tree_has_all() -> None:
    found = replace(WORSE, where="a.bias", evidence={"gain": float("nan")})
    run = summary(0, 7)
    run._look = None  # but for the numbers of the layers, which a test above is about
    tree = run.tree([found] * (SHOWN + 1))
    assert (tree["records"], tree["steps"]) == (2, [0, 7])
    assert len(tree["findings"]) == SHOWN + 1
    assert tree["findings"][0]["evidence"] == {"gain": "nan"}
    assert tree["layers"] == [
        {"layer": "a", "state": "critical", "verdicts": ["vanishing"] * (SHOWN + 1), **UNSEEN},
        {"layer": "b", "state": "ok", "verdicts": [], **UNSEEN},
    ]


@pytest.mark.parametrize(
    "value",
    [1e-3, 3, None, True, "true", "no", "1e-3", "", "a b", "it's", "a, b: [c]", [1, "2"],
     {"name": "kaiming_uniform_", "nonlinearity": "relu"}, {}, [], float("inf"), "é" * 200],
)  # fmt: skip
def test_changes_can_be_pasted_as_overrides(value: object) -> None:
    finding = replace(WORSE, change={"model.init.hidden": value, "seed": 1})
    document = Document("", "seed: 0")
    pasted = shlex.split(overrides(finding))
    assert len(pasted) == 2
    for override in pasted:
        document.override(override)
    assert document.faults == []
    assert document.tree == {"seed": 1, "model": {"init": {"hidden": value}}}
    assert "\n" not in inline(value)
    assert yaml.safe_load(f"[{inline('1e-3')}]") == ["1e-3"], "a YAML 1.1 reader agrees"


def test_markdown() -> None:
    assert markdown([WORSE, SPIKE]) == (
        "- **critical: vanishing in weight (steps 3 to 5)**: initialisation: each layer passes on "
        "a quarter of the gradient; start from weights that keep its size; try `model.init.hidden="
        "'{name: kaiming_uniform_, nonlinearity: relu}'`\n"
        "- **info: loss_spike (step 4)**: a batch: it is unlike the others; wait"
    )
