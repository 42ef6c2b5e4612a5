"""The benchmark of the diagnosis counts what it says it counts."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from diagnosis_peers import GATED, PEERS, Alarm, gated
from diagnosis_zoo import foreign, further, later, outcome
from diagnosis_zoo.case import OURS, Case, Reading
from diagnosis_zoo.program import Program, Trace, run
from diagnosis_zoo.recording import Job, load, programs, record
from diagnosis_zoo.tables import false_alarms, recalls, upper_bound

NAN = math.nan


def trained(group: str, name: str, steps: int) -> Trace:
    """The first steps of a program of the benchmark."""
    return run(dataclasses.replace(programs(group)[name], steps=steps), 0, {})


@pytest.mark.parametrize(
    ("final", "made", "half_way", "label"),
    [
        (0.1, 0.9, 0.5, "healthy"),
        (0.1, 0.9, 0.01, "between"),  # healed late: an alarm was right for half of the run
        (0.1, 0.9, NAN, "healthy"),
        (0.6, 0.1, 0.1, "between"),
        (0.7, 0.04, 0.5, "sick"),
        (NAN, NAN, 0.5, "sick"),
        (math.inf, -math.inf, 0.5, "sick"),
        (0.1, NAN, NAN, "healthy"),  # no constant prediction: it reaches 0.2
        (0.3, NAN, NAN, "between"),
    ],
)
def test_labels_are_outcomes(final: float, made: float, half_way: float, label: str) -> None:
    program = Program("a/b", lambda seed: pytest.fail("is not trained"), reaches=0.2)
    assert outcome.label(program, final, made, half_way) == label


def test_progress_runs_from_the_constant_prediction_to_the_best() -> None:
    ends = [("mlp/a-digits-sgd", 0.2, 2.0), ("mlp/b-digits-sgd", NAN, 2.0), ("c/d", 1.9, 2.0)]
    best = outcome.best_losses(ends)
    assert best == {"digits": 0.2, "c/d": 1.0}  # nobody gets anywhere in the task of its own
    assert outcome.progress("mlp/b-digits-sgd", 1.1, 2.0, best) == pytest.approx(0.5)
    assert outcome.progress("mlp/b-digits-sgd", 3.0, 2.0, best) < 0


def test_no_network_is_drawn_twice() -> None:
    seen, unseen = programs("drawn"), programs("unseen")
    assert len(seen) == 5610 and len(unseen) == 200 and not seen.keys() & unseen.keys()
    groups = {"foreign": 54 * 38, "later": 36 * 26, "last": 36 * 14}
    groups |= {"further": 32 * 29, "further_last": 32 * 19}
    fresh = programs("fresh").keys()
    assert len(fresh) == 2 * (38 + 26 + 14 + 29 + 19)
    for group, count in groups.items():
        assert len(programs(group)) == count and not programs(group).keys() & fresh


def test_every_family_can_be_trained() -> None:
    lists = (foreign.programs, later.programs, later.last_programs, further.programs)
    for program in [p for each in (*lists, further.last_programs) for p in each([0])]:
        torch.manual_seed(0)
        made = program.make(0)
        loss = made.loss()
        loss.backward()
        assert any(parameter.grad is not None for parameter in made.model.parameters())
        assert loss.isfinite() or program.verdicts, program.name


def test_peers_know_what_is_not_finite() -> None:
    trace = trained("sick", "finite/log-digits-adam", 1)
    for name, peer in PEERS.items():
        assert peer(trace.records, 60)[0] == Alarm(
            0, "non_finite", peer(trace.records, 60)[0].where
        ), name


def test_peers_find_a_vanishing_gradient_by_their_constants() -> None:
    records = trained("sick", "vanish/sigmoid8-digits-adam", 4).records
    verdicts = {name: [a.verdict for a in peer(records, 4)] for name, peer in PEERS.items()}
    assert verdicts["AutoTrainer without its gate"] == ["vanishing"]
    assert verdicts["SageMaker, gradient rules"] == ["vanishing"]
    assert verdicts["DeepDiagnosis"] == ["vanishing"]
    assert verdicts["DeepLocalize"] == []  # small is not 0
    assert PEERS[GATED](records, 400) == []  # not before 30 % of the steps
    late = PEERS[GATED](records, 4)
    assert [a.step for a in late] == [2]
    assert gated(late, progress=0.5) == late and gated(late, progress=0.7) == []


def test_no_peer_warns_in_the_first_steps_of_a_plain_network() -> None:
    records = trained("healthy", "mlp/relu2-digits-adam", 12).records
    assert [name for name, peer in PEERS.items() if peer(records, 400)] == []


def test_traces_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("sick", "finite/log-digits-adam", 1)
    record(tmp_path, job)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["finite__log-digits-adam.1.pkl"]
    trace = load(tmp_path, job)
    assert (trace.seed, trace.steps, len(trace.records)) == (1, 1, 1)


def case(kind: outcome.Label, group: str, name: str, alarms: list[Alarm]) -> Case:
    said = dict.fromkeys(PEERS, list[Alarm]()) | {OURS: alarms}
    reading = Reading(Job(group, name, 0), 300, 1.0, 1.0, 2.0, said, [], 10, 0.01)
    return Case(reading, programs(group)[name], kind, 0.5)


def test_layers_and_verdicts_are_compared_with_what_is_wrong() -> None:
    dead = case("sick", "sick", "dead/third-digits-adam", [])
    assert dead.program.where == ("5", "6")
    right = [dead.right_layer(Alarm(0, "dead_units", where)) for where in ("6", "5.weight", "55")]
    assert right == [True, True, False]
    found = [
        case("sick", "sick", "dead/third-digits-adam", [Alarm(3, "dead_units", "6")]),
        case("sick", "sick", "dead/third-digits-adam", [Alarm(3, "exploding")]),
        case("healthy", "sick", "dead/third-digits-adam", []),  # healed: counts nowhere
        case("healthy", "healthy", "mlp/relu2-digits-adam", [Alarm(3, "exploding")]),
        case("between", "healthy", "mlp/relu2-digits-adam", [Alarm(3, "exploding")]),
    ]
    ours = recalls(found).splitlines()[2]
    assert "50 / 100" in ours
    assert "1 of 1" in false_alarms(found).splitlines()[2]


def test_the_bound_of_no_alarm_is_the_rule_of_three() -> None:
    assert upper_bound(0, 300) == "0.99 %"
    assert upper_bound(300, 300) == "100.00 %"
