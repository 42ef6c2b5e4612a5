"""The networks of configs/: the healthy ones learn, the sick ones fail as their headers say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import experiment, loop
from trainer.config import load, resolved
from trainer.config.scalars import inline
from trainer.console import Console
from trainer.data.table import Table
from trainer.diagnosis import Diagnosis
from trainer.experiment import Experiment
from trainer.monitor import Monitor
from trainer.record import StepRecord

CONFIGS = Path(__file__).parent.parent / "configs"
CHANCE = pytest.approx(0.1, abs=0.03)  # accuracy of ten classes
QUIET = ("monitor.histogram_every_steps=null",)  # of 12 blocks
VERDICT = re.compile(r"^# Verdict: (\w+)", re.MULTILINE)


def train(name: str, *overrides: str) -> tuple[Experiment, loop.Result, list[StepRecord]]:
    config, document = load(CONFIGS / f"{name}.yaml", overrides, [experiment.check])
    built, records = experiment.build(config, document), list[StepRecord]()
    monitor = Monitor(built.model, sinks=[records.append], **config.monitor.model_dump())
    result = loop.run(built, monitor, Console(quiet=True))
    assert monitor._checkup.is_on  # it goes off where it fails, and training goes on
    if all(override.startswith(("stop.", "monitor.")) for override in overrides):
        header = VERDICT.search((CONFIGS / f"{name}.yaml").read_text())
        alarms = {finding.verdict for finding in monitor.findings if finding.alarm}
        assert header[1] in alarms if header else not alarms
    return built, result, records


def proposed(name: str, records: list[StepRecord], verdict: str) -> list[str]:
    """The overrides that the diagnosis proposes for a verdict."""
    diagnosis = Diagnosis(resolved(load(CONFIGS / f"{name}.yaml")[0]))
    for record in records:
        diagnosis.add(record)
    found = next(f for f in diagnosis.findings if f.verdict == verdict)
    assert found.change
    return [f"{key}={inline(value)}" for key, value in found.change.items()]


def validation_loss(result: loop.Result) -> float:
    assert result.validation is not None
    return result.validation.cost


def accuracy(result: loop.Result) -> float:
    assert result.validation is not None
    return result.validation.metrics["accuracy"]


def weight_norms(record: StepRecord) -> list[float]:
    """Of the gradients of the weights, from the first layer to the last."""
    names = record.gradients.names
    return [record.gradients[name].norm for name in names if name.endswith("weight")]


def activation_rms(record: StepRecord) -> list[float]:
    """Of the activation functions' outputs, from the first to the last."""
    assert record.layers is not None
    named = zip(record.layers.names, record.layers.rms.tolist(), strict=True)
    return [rms for name, rms in named if name.endswith("activation")]


def slope_by_the_first_number(built: Experiment) -> float:
    """Of the answer to the adding problem: the mean of |d answer / d first marked number|."""
    assert built.validation is not None and isinstance(built.validation.rows, Table)
    x = built.validation.rows.x[:64].clone().requires_grad_()
    built.model(x).sum().backward()
    assert x.grad is not None
    marked = x.grad[..., 0][x[..., 1] > 0].reshape(64, 2)
    return float(marked[:, 0].abs().mean())


class TestHealthy:
    def test_digits_mlp(self) -> None:
        _, result, records = train("digits_mlp")
        assert accuracy(result) >= 0.96
        norms = weight_norms(records[0])
        assert max(norms) < 10 * min(norms)

    def test_digits_cnn(self) -> None:  # 150 steps in place of 400
        _, result, _ = train("digits_cnn", "stop.steps=150")
        assert accuracy(result) >= 0.98

    def test_diabetes_mlp(self) -> None:
        _, result, _ = train("diabetes_mlp")
        assert result.validation is not None and result.validation.metrics["r2"] >= 0.4

    def test_circles_mlp(self) -> None:
        _, result, _ = train("circles_mlp")
        assert accuracy(result) >= 0.97
        _, straight, _ = train("circles_mlp", "model={name: linear}")
        assert accuracy(straight) < 0.6

    def test_autoencoder_digits(self) -> None:
        built, result, _ = train("autoencoder_digits")
        assert validation_loss(result) < 0.01
        assert isinstance(built.rows, Table)
        assert built.validation is not None and isinstance(built.validation.rows, Table)
        mean_image = (built.validation.rows.y - built.rows.y.mean(0)).square().mean()
        assert float(mean_image) == pytest.approx(0.073, abs=5e-4)

    def test_adding_lstm(self) -> None:
        built, result, _ = train("adding_lstm")
        assert validation_loss(result) < 0.005
        assert slope_by_the_first_number(built) > 0.8
        assert built.validation is not None and isinstance(built.validation.rows, Table)
        always_one = (built.validation.rows.y - 1).square().mean()
        assert float(always_one) == pytest.approx(0.167, abs=0.02)

    def test_charlm_transformer(self) -> None:  # 100 steps in place of 300
        built, result, _ = train("charlm_transformer", "stop.steps=100", *QUIET)
        assert validation_loss(result) < 3.2
        counts = torch.bincount(built.rows.y.flatten()).double()
        shares = counts[counts > 0] / counts.sum()
        assert float(-(shares * shares.log()).sum()) == pytest.approx(3.35, abs=0.005)


class TestSick:
    def test_vanishing_sigmoid(self) -> None:  # 200 and 400 steps in place of 600
        _, result, records = train("vanishing_sigmoid", "stop.steps=200")
        assert accuracy(result) == CHANCE
        norms = weight_norms(records[0])
        assert 0 < norms[0] < 1e-6 * norms[-1]
        change = proposed("vanishing_sigmoid", records, "vanishing")
        _, cured, _ = train("vanishing_sigmoid", *change, "stop.steps=200")
        assert accuracy(cured) >= 0.85

    def test_vanishing_rnn(self) -> None:  # 401 steps in place of 1250
        built, result, _ = train("vanishing_rnn", "stop.steps=401")
        assert validation_loss(result) > 0.15
        assert slope_by_the_first_number(built) < 1e-3

    def test_exploding_init(self) -> None:  # 200 and 300 steps in place of 600
        _, result, records = train("exploding_init", "stop.steps=200")
        rms = activation_rms(records[0])
        assert rms[-1] > 1e7 * rms[0]
        assert records[0].loss > 1e6
        assert validation_loss(result) > 10_000
        change = proposed("exploding_init", records, "signal_blow_up")
        _, cured, records = train("exploding_init", *change, "stop.steps=300")
        assert records[0].loss == pytest.approx(2.3, abs=0.5)
        assert accuracy(cured) >= 0.85

    def test_exploding_lr(self) -> None:
        _, result, records = train("exploding_lr")
        assert result.reason == "not finite" and 180 < result.steps < 220
        x = np.array([[2.0, 1.0], [3.0, 1.0]])
        largest = np.linalg.eigvalsh(x.T @ x)[-1]
        assert largest == pytest.approx(14.93, abs=0.005)
        change = proposed("exploding_lr", records, "diverging")
        _, cured, _ = train("exploding_lr", *change)
        assert cured.training.cost < 1
        factors = [b.loss / a.loss for a, b in zip(records[20:100], records[21:101], strict=True)]
        assert factors == pytest.approx([(1 - 0.15 * largest) ** 2] * 80, rel=1e-3)

    def test_exploding_rnn_with_and_without_clipping(self) -> None:
        _, result, records = train("exploding_rnn")
        assert result.reason == "not finite" and result.steps < 20
        change = proposed("exploding_rnn", records, "exploding")
        _, cured, _ = train("exploding_rnn", *change)
        assert validation_loss(cured) < 0.3
        _, clipped, records = train("exploding_rnn", "clip.max_grad_norm=1")
        assert clipped.reason == "steps"
        assert validation_loss(clipped) < 0.3
        assert max(record.gradient_norm for record in records) > 1
        assert all(r.clip_coefficient * r.gradient_norm < 1.0001 for r in records)

    def test_dead_relu(self) -> None:  # the sick one 200 steps in place of 600
        _, result, records = train("dead_relu", "stop.steps=200")
        assert accuracy(result) == CHANCE
        for record in records:
            norms = {name: record.gradients[name].norm for name in record.gradients.names}
            assert norms.pop("head.bias") > 0
            assert set(norms.values()) == {0.0}
        assert set(activation_rms(records[0])) == {0.0}
        change = proposed("dead_relu", records, "dead_units")
        assert change == ["model.init.bias=zeros_"]
        _, cured, _ = train("dead_relu", *change)
        assert accuracy(cured) >= 0.95

    def test_saturated_tanh(self) -> None:  # 200 steps in place of 600
        _, result, records = train("saturated_tanh", "stop.steps=200")
        assert accuracy(result) < 0.4
        watched = [record for record in records if record.layers is not None]
        assert min(min(activation_rms(record)) for record in watched) > 0.95
        change = proposed("saturated_tanh", records, "saturated")
        _, cured, records = train("saturated_tanh", *change, "stop.steps=200")
        assert accuracy(cured) >= 0.9
        assert all(0.4 < rms < 0.8 for rms in activation_rms(records[0]))

    def test_postnorm_transformer(self) -> None:  # 60 steps in place of 300
        _, result, records = train("postnorm_transformer", "stop.steps=60", *QUIET)
        assert validation_loss(result) > 3.2
        ends = [f"blocks.{number}.feed_forward.inward.weight" for number in (0, 11)]
        norms = {r.step: [r.gradients[name].norm for name in ends] for r in records}
        first, last = norms[0]
        assert last / 3 < first < 3 * last
        first, last = norms[50]
        assert 0 < first < 1e-3 * last


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_headers_tell_command_expectation_and_time(path: Path) -> None:
    config, _ = load(path)
    assert config.name == path.stem
    header, _, _ = path.read_text().partition(f"name: {path.stem}\n")
    assert header.startswith("# yaml-language-server: $schema=schema.json\n")
    timed = rf"\n#   python -m trainer --config configs/{path.name} +\(.*seconds?.*\)\n"
    assert re.search(timed, header) and "\n# Expect: " in header
