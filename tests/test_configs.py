"""Every configuration does what its header says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import experiment, loop
from trainer.config import load
from trainer.console import Console
from trainer.models.linear import Linear
from trainer.monitor import Monitor

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def train(name: str, *overrides: str) -> tuple[experiment.Experiment, loop.Result]:
    config, document = load(CONFIGS / f"{name}.yaml", overrides, [experiment.check])
    built = experiment.build(config, document)
    monitor = Monitor(built.model, **config.monitor.model_dump())
    result = loop.run(built, monitor, Console(quiet=True))
    if not overrides:
        assert not [finding for finding in monitor.findings if finding.alarm]
    return built, result


def coefficients(built: experiment.Experiment) -> dict[str, float]:
    assert isinstance(built.model, Linear)
    return dict(built.model.coefficients(built.rows))


def test_linear_stops_at_the_cost() -> None:
    built, result = train("linear")
    assert result.reason == "cost" and result.training.cost <= 0.01
    found = coefficients(built)
    predicted = found["weight"] * np.array([2.0, 3.0]) + found["bias"]
    assert 0.5 * np.sum((predicted - [3.0, 2.0]) ** 2) == pytest.approx(
        result.training.cost, rel=1e-5
    )


def test_linear_stops_at_the_steps() -> None:
    _, result = train("linear", "stop.steps=5")
    assert (result.reason, result.steps) == ("steps", 5)


def test_the_first_update_is_the_posts() -> None:
    """W - lr·dW and b - lr·db, with the gradients that the post gives."""
    built, _ = train("linear", "stop.steps=1", "optimizer.lr=0.01")
    found = coefficients(built)
    assert found["weight"] == pytest.approx(1.6649098 - 0.01 * 12.376228, rel=1e-6)
    assert found["bias"] == pytest.approx(0.54648024 - 0.01 * 4.4175096, rel=1e-6)


@pytest.mark.parametrize("name", ["norris", "longley"])
def test_a_regression_gets_no_alarm(name: str) -> None:
    _, result = train(name)
    assert result.reason == "steps"


@pytest.mark.parametrize(("name", "digits"), [("norris", 10), ("longley", 6)])
def test_nist_certified_values(name: str, digits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import nist

    reached = nist.correct_digits(name)
    print(name, reached)
    assert min(reached.values()) >= digits


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_weighted_equals_the_closed_form(reduction: str) -> None:
    built, _ = train(
        "weighted", f"loss.reduction={reduction}", "optimizer.lr=0.1", "stop.steps=3000"
    )
    x = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    y = np.array([1.0, 2.5, 4.5, 7.0, -20.0])
    weights = np.array([2.0, 1.0, 0.5, 1.0, 0.0])
    design = np.stack([x, np.ones(5)], axis=1)
    expected = np.linalg.solve(design.T @ (weights[:, None] * design), design.T @ (weights * y))
    found = coefficients(built)
    assert [found["weight"], found["bias"]] == pytest.approx(expected.tolist(), rel=1e-8)


def test_weighted_as_it_stands() -> None:
    built, _ = train("weighted")
    found = coefficients(built)
    assert found["weight"] == pytest.approx(1.974137931, rel=1e-8)
    assert found["bias"] == pytest.approx(0.8620689655, rel=1e-8)


def test_overrides_work_as_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.__main__ import main

    monkeypatch.chdir(tmp_path)
    overrides = ["optimizer.lr=1e-2", "stop.steps=50", "name=slow"]
    assert main(["--config", str(CONFIGS / "linear.yaml"), *overrides]) == 0
    (folder,) = (tmp_path / "runs" / "slow").iterdir()
    saved, _ = load(folder / "config.yaml")
    assert (saved.optimizer.lr, saved.stop.steps, saved.name) == (0.01, 50, "slow")


def test_a_runs_own_config_repeats_it_bit_for_bit(run_config: Callable[..., Path]) -> None:
    """Started from drawn weights, shuffled batches and a relative file: all of it counts."""
    overrides = ("data.batch_size=7", "stop.steps=40", "seed=3")
    first = run_config("norris", *overrides)
    second = run_config("norris", config=first / "config.yaml")
    assert (first / "config.yaml").read_text().split("\n", 2)[2] == (
        (second / "config.yaml").read_text().split("\n", 2)[2]
    )
    records = [scalars(folder) for folder in (first, second)]
    assert records[0] == records[1]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    tags = accumulator.Tags()["scalars"]
    return {
        tag: [(point.step, point.value) for point in accumulator.Scalars(tag)]
        for tag in tags
        if not tag.startswith("time/")
    }


def test_the_posts_numbers_in_tensorboard(run_config: Callable[..., Path]) -> None:
    first = {tag: points[0] for tag, points in scalars(run_config("linear")).items()}
    assert first["loss/train"] == (0, pytest.approx(6.6540337, rel=1e-6))
    assert first["gradient_norm/weight"] == (0, pytest.approx(12.376228, rel=1e-6))
    assert first["gradient_norm/bias"] == (0, pytest.approx(4.4175096, rel=1e-6))


def test_an_optimizer_that_evaluates_the_loss_itself() -> None:
    built, _ = train("norris", "optimizer={name: lbfgs, lr: 1.0}", "stop.steps=10")
    assert coefficients(built)["weight[x]"] == pytest.approx(1.00211681802045, rel=1e-9)


def test_not_finite_ends_with_status_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trainer.__main__ import main

    arguments = ["--config", str(CONFIGS / "linear.yaml"), "--run-dir", str(tmp_path / "run")]
    assert main([*arguments, "optimizer.lr=1e9", "stop.cost=null"]) == 3
    assert "the loss or a gradient is not finite at step" in capsys.readouterr().err
    assert scalars(tmp_path / "run")["loss/train"]


def test_clipping_bounds_the_update_not_the_record(run_config: Callable[..., Path]) -> None:
    points = scalars(run_config("linear", "clip.max_grad_norm=1", "stop.steps=3"))
    norm = points["gradient_norm/global"][0][1]
    assert norm == pytest.approx(np.hypot(12.376228, 4.4175096), rel=1e-6)
    assert points["clip_coefficient"][0][1] == pytest.approx(1 / norm, rel=1e-5)
    # lr 0.1 times a gradient of norm 1
    weights = np.array([1.6649098, 0.54648024])
    moved = [points[f"update_ratio/{n}"][0][1] for n in ("weight", "bias")] * weights
    assert np.hypot(*moved) == pytest.approx(0.1, rel=1e-5)


def test_minibatches_cover_every_row_once_a_pass() -> None:
    config, document = load(CONFIGS / "norris.yaml", ["data.batch_size=10"], [experiment.check])
    built = experiment.build(config, document)
    batches = iter(built.batches)
    passes = [torch.cat([next(batches).x for _ in range(4)]) for _ in range(2)]
    for rows in passes:
        assert torch.equal(rows.sort(0).values, built.rows.x.sort(0).values)
    assert not torch.equal(*passes)
