"""What the diagnosis proposes can be pasted: the configuration takes it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer import Monitor, experiment
from trainer.__main__ import main
from trainer.config import load, resolved
from trainer.config.scalars import inline
from trainer.diagnosis import remedies
from trainer.diagnosis.history import History
from trainer.diagnosis.pace import Pace, other_rate, say_rate

CONFIGS = Path(__file__).parent.parent / "configs"
VERDICTS = ("vanishing", "exploding", "dead_units", "saturated", "starved_update")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "softsign", "hardtanh", "hardsigmoid", "gelu", "selu")
CASES = [
    *[(path.stem, ()) for path in sorted(CONFIGS.glob("*.yaml"))],
    *[("digits_mlp", (f"model.activation={name}",)) for name in ACTIVATIONS],
    ("vanishing_rnn", ("model.nonlinearity=relu",)),
    ("charlm_transformer", ("model.init.bias=zeros",)),
]


@pytest.mark.parametrize(("name", "overrides"), CASES)
def test_every_proposal_is_a_valid_configuration(name: str, overrides: tuple[str, ...]) -> None:
    tree = resolved(load(CONFIGS / f"{name}.yaml", overrides, [experiment.check])[0])
    changes = [
        remedies.change(verdict, blame, tree, Pace(0.5))
        for verdict in VERDICTS
        for blame in remedies.REMEDIES
    ]
    for change in {str(change): change for change in changes if change}.values():
        pasted = [f"{key}={inline(value)}" for key, value in change.items()]
        load(CONFIGS / f"{name}.yaml", [*overrides, *pasted], [experiment.check])


def proposed(verdict: str, blame: str, *overrides: str, name: str = "digits_mlp") -> object:
    tree = resolved(load(CONFIGS / f"{name}.yaml", overrides, [experiment.check])[0])
    return remedies.change(verdict, blame, tree, Pace(0.5, now=tree["optimizer"]["lr"]))


def test_what_the_configuration_says_already_is_not_proposed() -> None:
    he = "model.init.hidden={name: kaiming_normal_, nonlinearity: relu}"
    assert proposed("vanishing", "initialisation", he) == {"model.norm": "batch"}
    assert proposed("vanishing", "initialisation", he, "model.norm=batch") == {}
    assert proposed("vanishing", "initialisation", he, "data.batch_size=1") == {
        "model.norm": "layer"
    }
    small = "model.init={hidden: {name: normal_, std: 0.02}, output: {name: normal_, std: 0.02}}"
    assert proposed("vanishing", "initialisation", small, "model.norm=none",
                    name="charlm_transformer") == {"model.norm": "pre"}  # fmt: skip
    assert proposed("vanishing", "initialisation", "model.activation=Tanh") == {
        "model.init.hidden": remedies.XAVIER["tanh"]
    }
    large = "model.init={hidden: {name: normal_, std: 2}, output: {name: normal_, std: 2}}"
    assert proposed("signal_blow_up", "initialisation", large, "model.norm=none") == {
        "model.init.hidden": remedies.HE, "model.init.output": "default",
    }  # fmt: skip
    assert proposed("signal_blow_up", "initialisation", large, name="charlm_transformer") == {
        "model.init.hidden": remedies.SMALL_START, "model.init.output": remedies.SMALL_START,
    }  # fmt: skip
    tree = {"model": {"name": "mine:Net", "activation": "tanh"}, "optimizer": {"lr": 0.1}}
    assert remedies.change("vanishing", "activation", tree, Pace(0.1)) == {}
    assert remedies.change("exploding", "learning rate", tree, Pace(0.1)) == {"optimizer.lr": 0.005}
    lstm = ("model.kind=lstm", "model.nonlinearity=tanh")
    assert proposed("vanishing", "recurrence", *lstm, name="vanishing_rnn") == {
        "model.forget_bias": 1.0
    }
    open_gates = (*lstm, "model.forget_bias=1.0", "model.layers=8")
    assert proposed("vanishing", "recurrence", *open_gates, name="vanishing_rnn") == {
        "model.layers": 2
    }
    assert proposed("vanishing", "memory", *open_gates, name="vanishing_rnn") == {"model.layers": 2}
    post = proposed("vanishing", "activation", name="postnorm_transformer")
    assert post == {"model.norm": "pre"}


def test_what_is_behind_a_rate() -> None:
    sgd = "optimizer={name: sgd, lr: 0.1, momentum: 0.999, weight_decay: 5.0}"
    assert proposed("exploding", "learning rate", sgd) == {
        "optimizer.lr": 1e-4, "optimizer.momentum": 0.9,
    }  # fmt: skip
    assert proposed("exploding", "learning rate", "optimizer={name: adam, lr: 1.0}") == {
        "optimizer.lr": 0.08
    }
    up = "optimizer={name: sgd, lr: 0.1, maximize: true}"
    assert proposed("non_finite", "learning rate", up) == {"optimizer.maximize": False}
    assert proposed("vanishing", "decay", sgd) == {"optimizer.weight_decay": 0.0}
    assert proposed("vanishing", "decay") == {}
    rising = "schedule={name: exponentiallr, gamma: 1.1}"
    tree = resolved(load(CONFIGS / "digits_mlp.yaml", [rising], [experiment.check])[0])
    risen = remedies.change(
        "exploding", "learning rate", tree, Pace(0.1, now=5 * tree["optimizer"]["lr"])
    )
    assert risen == {"schedule": {"name": None}}
    assert proposed("starved_update", "schedule", rising) == risen
    bounds = "clip={max_grad_norm: 1e-5, max_grad_value: 1e-6}"
    assert proposed("starved_update", "clipping", bounds) == {
        "clip.max_grad_norm": 1.0, "clip.max_grad_value": None,
    }  # fmt: skip
    assert proposed("starved_update", "clipping", "clip.max_grad_norm=5.0") == {
        "clip.max_grad_norm": None
    }
    tight = proposed("exploding", "recurrence", "clip.max_grad_norm=0.1", name="vanishing_rnn")
    assert isinstance(tight, dict) and tight["clip.max_grad_norm"] == 0.01
    assert proposed("exploding", "data", "data={name: diabetes, standardize: false}",
                    "loss.name=mse", "metrics=[]") == {"data.standardize": True}  # fmt: skip


def test_nothing_is_proposed_without_a_configuration_or_a_known_change() -> None:
    assert remedies.change("vanishing", "activation", None, Pace(0.1)) == {}
    assert (
        remedies.change("non_finite", "data", {"model": {}, "optimizer": {"lr": 1}}, Pace(0.1))
        == {}
    )
    zeros = {"model": {"init": {"bias": "zeros_", "hidden": "default"}, "activation": "relu"}}
    assert "model.init.bias" not in remedies.change(
        "dead_units", "initialisation", zeros, Pace(0.1)
    )


def test_a_rate_for_a_loop_that_has_no_configuration() -> None:
    lower = say_rate("diverging", "Adam", Pace(0.8, 0.1, 0.1))
    assert lower == "; 0.005, say, in place of a rate of 0.1"
    starved = say_rate("starved_update", "AdamW", Pace(1e-6, 1e-6, 1e-6))
    assert starved == "; 0.04, say, in place of a rate of 1e-06"
    assert say_rate("diverging", "SGD", Pace(0.8, 0.1, 0.1)) == "", "whose momentum nobody knows"
    assert say_rate("diverging", "Adam", Pace(0.8, 0.1, 1.0)) == "", "it is the schedule"


@pytest.mark.parametrize("rate", [0.14, 0.15, 0.2, 1.0])
def test_the_rate_of_a_linear_model_goes_by_its_curvature(rate: float, tmp_path: Path) -> None:
    """Its largest eigenvalue is 14.93, whose inverse takes the error along it away at once."""
    pace = Pace(0.7, rate, rate, overshoot=14.93 * rate - 1)
    plain = {"name": "sgd", "lr": rate}
    assert other_rate("exploding", plain, pace)["optimizer.lr"] in (0.04, 0.06, 0.07)
    slow = other_rate("exploding", {**plain, "momentum": 0.9}, pace)["optimizer.lr"]
    assert slow < 0.01  # with momentum the error is another
    where = ["--config", str(CONFIGS / "exploding_lr.yaml"), "--run-dir", str(tmp_path / "run")]
    changes = [f"optimizer.lr={rate}", "stop.steps=12"]
    assert main([*where, *changes]) == 0
    lines = (tmp_path / "run" / "findings.jsonl").read_text().splitlines()
    told = [json.loads(line)["change"] for line in lines]
    proposed = [change["optimizer.lr"] for change in told if change]
    assert proposed and all(0.03 <= each <= 0.13 for each in proposed)


def test_of_a_linear_classifier_nothing_is_known_of_the_curvature() -> None:
    """Its gradient is at most so large, and grows by little however high the rate is."""

    def overshoot(loss: Callable[[Tensor, Tensor], Tensor], targets: Tensor) -> float:
        torch.manual_seed(0)
        model, history = nn.Linear(6, 3), History()
        optimizer = torch.optim.SGD(model.parameters(), 30.0)
        with Monitor(model, sinks=[history.add], diagnose=False) as monitor:
            for step in range(3):
                made = loss(model(torch.linspace(-1, 3, 48).reshape(8, 6)), targets)
                optimizer.zero_grad()
                made.backward()
                with monitor.step(step, made):
                    optimizer.step()
        return Pace.of(history).overshoot

    assert math.isnan(overshoot(functional.cross_entropy, torch.arange(8) % 3))
    assert overshoot(functional.mse_loss, torch.ones(8, 3)) > 10
