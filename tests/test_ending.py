"""What the end of a run shows: fires on hand-made records, near misses that do not, real runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records_by_hand import VALUES, deep, of_a_mean, record
from test_diagnosis import TestOverTime as OverTime
from test_diagnosis import guessing, scaled
from test_plugin import Tab
from torch import nn
from torch.nn import functional

from trainer import Monitor
from trainer.__main__ import main
from trainer.diagnosis import Diagnosis
from trainer.events.reader import records
from trainer.finding import Finding
from trainer.last_words import with_last_words
from trainer.record import StepRecord

STEPS = (*range(12), 20, 50, 80, 100, 120, 150, 200)
CONFIGS = Path(__file__).parent.parent / "configs"


def ended(records: Iterable[StepRecord], loss: float | None = None) -> list[Finding]:
    """What is found at the end, in whatever unit the loss is; nothing is an alarm before."""
    records, said = list(records), []
    for factor in (1, 1e-6, 1e6):
        diagnosis = Diagnosis()
        for one in records:
            assert not any(f.alarm for f in diagnosis.add(scaled(one, factor)))
        last = None, None if loss is None else factor * loss
        found = diagnosis.end(*last)
        assert diagnosis.end(*last) == []  # it has been told
        assert [f for f in diagnosis.findings if f.alarm] == found
        said.append(found)
    assert [[f.headline for f in each] for each in said] == 3 * [[f.headline for f in said[0]]]
    return said[0]


def verdicts(*given: Any) -> list[str]:
    return [finding.verdict for finding in ended(*given)]


def vain(
    update: float = 5e-4, losses: dict[int, float] | None = None, last: int = 200, **keys: Any
) -> list[StepRecord]:
    """A classifier that guesses all the time."""
    made = [guessing(record(k, deep(3, update=update), **keys)) for k in STEPS if k <= last]
    return [replace(one, loss=(losses or {}).get(one.step, 1.0)) for one in made]


def test_weights_that_have_not_come_far() -> None:
    [found] = ended(vain())
    assert found.headline == "warning: starved_update (steps 0 to 200)"
    assert found.cause == (
        "learning rate: the run ended after 201 steps with the loss of a guess, and no weight "
        "matrix has moved by more than 0.1 of its size, which is too little to learn much"
    )
    assert found.remedy == "raise the learning rate" and found.of_the_end
    assert found.evidence["steps_in_all"] == 201
    assert Finding.from_json(found.to_json()) == found


def test_weights_that_have() -> None:
    [found] = ended(vain(update=5e-3))  # of which the records alone are information
    assert found.headline == "warning: stalled (steps 0 to 200)"
    assert found.cause.startswith("stalled: the run ended after 201 steps with the loss of a guess")


@pytest.mark.parametrize(
    "given",
    [
        {"last": 120},  # it may be for want of steps
        {"losses": {200: 0.9}},
        {"losses": {100: 0.8}},  # a critic, say, whose opponent has learnt since
    ],
)
def test_not_of_a_run_that(given: dict[str, Any]) -> None:
    assert verdicts(vain(**given)) == []


def test_not_where_the_loss_has_fallen_since_the_newest_record() -> None:
    assert verdicts(vain(), 0.9) == []


def test_layers_that_were_seen_in_the_second_half_alone() -> None:
    made = [guessing(record(step, deep(3, update=5e-4))) for step in range(0, 201, 10)]
    late = [one if one.step > 150 else replace(one, layers=None) for one in made]
    assert verdicts(late) == verdicts(made) == ["starved_update"]


def test_not_while_the_rate_is_rising() -> None:
    made = vain()
    assert verdicts(replace(one, learning_rate=1e-4 * (1 + one.step)) for one in made) == []


def test_not_of_a_loss_of_which_nobody_knows_what_a_guess_is() -> None:
    made = [record(step, deep(3, update=5e-4), loss=1 + 0.01 * (step % 2)) for step in STEPS]
    assert verdicts(made) == []


def test_not_of_a_sum_of_which_another_part_is_learnt() -> None:
    made = [
        guessing(record(k, deep(3, update=5e-3), 1 + 9 * 0.9**k)) if k < 50 else one
        for k, one in zip(STEPS, vain(update=5e-3), strict=True)
    ]
    assert verdicts(made) == []


def test_not_of_the_best_that_the_data_allow() -> None:
    assert verdicts(vain(), 0.985) == ["starved_update"]
    assert verdicts(vain(), 0.975) == []


def test_not_beside_an_alarm() -> None:
    diagnosis = Diagnosis()
    for one in vain():
        diagnosis.add(replace(one, carried_gradients=3.0))
    assert [f.verdict for f in diagnosis.findings if f.alarm] == ["accumulating_gradients"]
    assert diagnosis.end() == []
    assert Diagnosis().end() == []  # which has seen nothing


def test_a_signal_that_came_back_too_late() -> None:
    def made(back: float, since: int) -> list[StepRecord]:
        return [
            guessing(record(step, deep(8, signal=(1e-5 if step < since else back) ** (1 / 8),
                                       update=2e-4), optimizer="Adam"))
            for step in STEPS
            if step <= 150
        ]  # fmt: skip

    [found] = ended(made(0.5, since=120))
    assert found.verdict == "vanishing" and found.where == "0"
    assert found.cause == (
        "initialisation: the run ended after 151 steps without having learnt; at step 50 8e-06 of "
        "the output depended on the sample, and gradient times output at the first layers was 1 of "
        "that at the last ones"
    )
    assert verdicts(made(0.5, since=20)) == ["starved_update"]


def test_a_network_whose_output_hardly_depends_on_the_sample() -> None:
    """Whatever its loss is; on its way back, for which the records alone wait."""

    def made(
        signal: float, flow: float, learnt: float = 1.0, decades: float = 4
    ) -> list[StepRecord]:
        shares = [10 ** (-2 - decades * (1 - step / 100)) for step in STEPS]
        losses = [learnt if step > 50 else 1.0 for step in STEPS]
        return [
            replace(guessing(record(step, deep(8, backward=(flow * share) ** (1 / 8), update=5e-3,
                                               signal=(signal * share) ** (1 / 8)), 0.5 * factor,
                                    optimizer="Adam")), loss=factor)
            for step, share, factor in zip(STEPS, shares, losses, strict=True)
            if step <= 100
        ]  # fmt: skip

    [found] = ended(made(0.5, 1.0))
    assert found.headline == "warning: vanishing in 0 (steps 0 to 100)"
    assert "the run ended after 101 steps without having learnt; at step 100 0.004" in found.cause
    assert verdicts(made(0.5, 1.0), 0.8) == []  # it fell since
    assert verdicts(made(5.0, 1.0)) == []
    assert verdicts(made(5.0, 1.0, decades=7)) == ["vanishing"]  # it was lost, and is not all back
    assert verdicts(made(50.0, 1.0)) == []
    assert verdicts(made(0.5, 100.0)) == []
    assert verdicts(made(0.5, 1.0, learnt=1e-3)) == []  # nothing is left to learn


def test_a_classifier_that_was_sure_and_wrong_and_is_worse_than_a_guess() -> None:
    """Nothing but 0 and ±1/N is in its first gradient, which tells how many nats the loss is."""

    def made(last: float, wrong: float = 0.5) -> list[StepRecord]:
        samples, records = VALUES / 30, list[StepRecord]()
        for step, loss in zip(STEPS, np.geomspace(100.0, last, 17), strict=False):
            one = record(step, deep(8, forward=1.5, update=5e-3), float(loss), optimizer="Adam")
            some, soft = 2 * wrong * samples, 1.0 if step < 50 else 0.5
            moments = some**0.5 / samples, some / samples, soft / samples, VALUES - some
            assert one.layers is not None
            one.layers.gradients.moments[-1, 1:5] = moments
            records.append(one)
        return records

    [found] = ended(made(4.0))
    assert found.headline == "warning: signal_blow_up in 16 (steps 0 to 120)"
    assert found.cause == (
        "initialisation: the output started 30 times as large as the input and was sure and wrong; "
        "the run ended after 121 steps with a loss of 4 nats a sample, worse than that of a guess"
    )
    assert verdicts(made(3.3)) == [] == verdicts(made(4.0), 3.3)  # a guess among 30 is 3.4
    assert verdicts(made(4.0, wrong=0.2)) == []


def test_a_classifier_with_next_to_no_signal() -> None:
    def made(signal: float) -> list[StepRecord]:
        layers = deep(3, update=5e-3, signal=(signal / 0.8) ** (1 / 3))
        return [replace(guessing(record(k, layers)), loss=1.0) for k in STEPS]

    [found] = ended(made(0.014))
    assert found.verdict == "vanishing" and "0.01 of the output depended" in found.cause
    assert verdicts(made(0.025)) == ["stalled"]


def test_a_loss_that_fell_early_to_what_the_last_layer_knows_alone() -> None:
    """As a language model's falls to how often each token comes."""

    def made(signal: float, last: float = 3.2, backward: float = 0.1) -> list[StepRecord]:
        layers = of_a_mean(deep(3, update=5e-3, signal=signal ** (1 / 3), backward=backward))
        fallen = {k: max(3.2, 8.0 - 0.5 * k) for k in STEPS} | {150: last, 200: last}
        return [record(k, layers, loss=fallen[k]) for k in STEPS]

    [found] = ended(made(0.1), 3.2)
    assert found.verdict == "vanishing" and "with a loss of 3.2, " in found.cause
    assert "at the first layers was 0.001 of that at the last ones at first" in found.cause
    assert verdicts(made(0.3), 3.2) == []  # the output tells the samples apart
    assert verdicts(made(0.1, last=2.7), 2.7) == []
    assert verdicts(made(0.1, backward=0.5), 3.2) == []


def test_an_output_that_never_varies() -> None:
    """As of a critic whose loss is a difference: it stays at zero."""

    def made(signal: float, backward: float = 0.1) -> list[StepRecord]:
        layers = deep(3, update=5e-3, signal=signal ** (1 / 3), backward=backward)
        return [record(k, layers, loss=0.0) for k in STEPS]

    [found] = ended(made(1e-7), 0.0)
    assert found.verdict == "vanishing"
    assert "at step 200 8e-08 of the output depended on the sample" in found.cause
    assert verdicts(made(1e-4), 0.0) == verdicts(made(1e-7, backward=1.0), 0.0) == []


def test_a_sequence_whose_beginning_got_no_gradient() -> None:
    def made(first: float, kind: str = "RNN", update: float = 5e-4) -> list[StepRecord]:
        given = {"loss": 1.0, "kind": kind, "update": update}
        ratios = [first if step < 50 else 0.1 for step in STEPS]
        return [
            guessing(OverTime().layers(ratio, step=step, **given))  # type: ignore[arg-type]
            for step, ratio in zip(STEPS, ratios, strict=True)
        ]

    [found] = ended(made(1e-7))
    assert found.headline == "warning: vanishing in 0 (steps 0 to 200)"
    assert found.cause == (
        "recurrence: the run ended after 201 steps with the loss of a guess; the gradient at the "
        "first steps of the sequence was 1e-07 of that at the last ones"
    )
    [gated] = ended(made(1e-7, "LSTM"))
    assert gated.cause.startswith("memory: ")
    assert verdicts(made(1e-5)) == ["starved_update"]


def test_a_sequence_whose_beginning_got_little_gradient() -> None:
    """Enough of a reason where all else was well, and nothing was learnt."""

    def made(first: float, last: float, update: float = 5e-3) -> list[StepRecord]:
        given = {"loss": 1.0, "kind": "RNN", "update": update}
        ratios = [first if step < 50 else last for step in STEPS]
        return [
            guessing(OverTime().layers(ratio, step=step, **given))  # type: ignore[arg-type]
            for step, ratio in zip(STEPS, ratios, strict=True)
        ]

    [found] = ended(made(1e-3, 1e-3), 1.0)
    assert found.verdict == "vanishing" and found.cause.startswith("recurrence: ")
    assert found.evidence["gradient_first_over_last_steps"] == pytest.approx(1e-3)
    assert verdicts(made(1e-3, 0.1), 1.0) == ["stalled"]
    assert verdicts(made(1e-3, 1e-3, update=5e-4), 1.0) == ["starved_update"]
    assert verdicts(made(1e-3, 1e-3), 0.96) == []  # beside noise that may be all
    [thrown] = ended(made(1e-3, 1e-3, update=0.15), 1.0)
    assert thrown.cause.startswith("learning rate: ")


def trained(
    folder: Path, breaks: bool = False, falls: bool = False, steps: int = 160, **keys: Any
) -> Monitor:
    """A network that learns nothing of labels that are drawn for each batch. Where it `falls` the
    last losses, of which there is no record, are lower."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4))
    nn.init.normal_(model[2].weight, std=0.02)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Monitor(model, folder, **keys) as monitor:
        for step in range(steps):
            optimizer.zero_grad()
            x, y = torch.randn(64, 20), torch.randint(4, (64,))
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            with monitor.step(step, loss / 2 if falls and step > 155 else loss):
                optimizer.step()
            if breaks and step == steps - 2:
                raise RuntimeError("out of memory")
        assert not any(finding.alarm for finding in monitor.findings)
    return monitor


def test_in_somebody_elses_loop(
    tmp_path: Path, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    [found] = trained(run).findings
    assert found.verdict == "stalled" and found.alarm and found.steps == (0, 150)
    assert [each.message for each in caplog.records] == [str(found)]
    assert Finding.from_json((run / "findings.jsonl").read_text()) == found
    assert main(["report", str(run), "--json"]) == 0
    assert [f["cause"] for f in json.loads(capsys.readouterr().out)["findings"]] == [found.cause]
    shown = Tab(tmp_path).get("/findings", run="run")["findings"]
    assert [one["headline"] for one in shown] == [found.headline]
    (run / "findings.jsonl").unlink()  # the records alone do not say that it has ended
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"] == []


def test_a_loop_that_breaks_has_not_ended(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        trained(tmp_path / "run", breaks=True)
    assert not (tmp_path / "run" / "findings.jsonl").exists()


def test_nor_one_whose_monitor_is_closed_on_the_way(tmp_path: Path) -> None:
    monitor = Monitor(nn.Linear(2, 2), tmp_path / "run")
    called = []
    monitor.end = lambda: called.append(1)  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        try:
            raise RuntimeError("out of memory")
        finally:
            monitor.close()
    assert not called
    monitor.close()
    assert called


def test_who_is_told_may_fail(tmp_path: Path) -> None:
    def refuse(finding: Finding) -> None:
        raise ArithmeticError("I do not like it")

    with pytest.raises(ArithmeticError):
        trained(tmp_path / "run", found=refuse)
    assert [record.step for record in records(tmp_path / "run", print)][-1] == 150  # all is written


def test_not_where_the_last_losses_are_lower(tmp_path: Path) -> None:
    assert trained(tmp_path / "run", falls=True).findings == []


BROKEN = [
    b"", b"{", b"[]", b'{"steps": 1}', b'{"steps": [1, 2], "evidence": {}}', b"\xff", b"[" * 10**5,
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_of_a_file_that_is_damaged_what_is_whole_is_read(broken: bytes, tmp_path: Path) -> None:
    [found] = ended(vain())
    last = vain()[-1]
    other = replace(found, verdict="non_finite", evidence={"loss": last.loss})
    path = tmp_path / "findings.jsonl"
    path.write_bytes(b"\n".join([broken, found.to_json().encode(), other.to_json().encode()]))
    assert with_last_words([], tmp_path, last) == [found]
    worse = replace(found, level="info", evidence={})
    assert with_last_words([worse, other, worse], tmp_path, last) == [other, found]
    ago = replace(worse, resolved=True)
    assert with_last_words([ago], tmp_path, last) == [ago, found]
    # It was not the end, or is that of another run in the same folder.
    assert with_last_words([], tmp_path, replace(last, step=250)) == []
    assert with_last_words([], tmp_path, replace(last, loss=0.1)) == []
    assert with_last_words([], tmp_path / "none", last) == with_last_words([], tmp_path, None) == []


@pytest.mark.parametrize("field, value", [
    ("level", "foo"), ("verdict", [1]), ("where", [1]), ("change", None), ("evidence", {"a": "b"}),
    ("steps", [1]), ("resolved", "no"),
])  # fmt: skip
def test_a_line_that_no_finding_has_made(field: str, value: Any) -> None:
    [found] = ended(vain())
    line = json.loads(found.to_json())
    assert Finding.from_json(json.dumps(line | {"of_a_later_version": 1})) == found
    with pytest.raises(ValueError, match="no line of a finding"):
        Finding.from_json(json.dumps(line | {field: value}))


def test_in_our_loop(tmp_path: Path, capsys: Any) -> None:
    """It is told before the last checkpoint, and by the report as in the run."""
    run = tmp_path / "run"
    given = ["optimizer.lr=1e-5", "optimizer.name=adam", "stop={steps: 200}"]
    arguments = ["--config", str(CONFIGS / "digits_mlp.yaml"), "--run-dir", str(run), *given]
    assert main(arguments) == 0
    live = capsys.readouterr().err
    assert "try optimizer.lr=" in live
    assert main(["report", str(run)]) == 0
    afterwards = capsys.readouterr().out
    assert live.endswith(afterwards) and "warning: starved_update (steps 0 to 150)" in afterwards
    assert "the run ended after 200 steps with the loss of a guess" in afterwards
    # One that goes on has not ended there, and is told so at its end, though nothing is recorded.
    assert main([*arguments, "stop={steps: 204}", "--resume", str(run)]) == 0
    assert "the run ended after 204 steps with the loss of a guess" in capsys.readouterr().err
    [line] = (run / "findings.jsonl").read_text().splitlines()
    assert Finding.from_json(line).evidence["steps_in_all"] == 204
    rate = ["optimizer.lr=1e-2", "stop={steps: 400}"]
    assert main([*arguments, *rate, "--resume", str(run)]) == 0
    assert "diagnosis: nothing is wrong" in capsys.readouterr().err
    assert not (run / "findings.jsonl").exists()
