"""What the diagnosis proposes can be pasted: the configuration takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer import experiment
from trainer.config import load, resolved
from trainer.config.scalars import inline
from trainer.diagnosis import remedies

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
        remedies.change(verdict, blame, tree, 0.5)
        for verdict in VERDICTS
        for blame in remedies.REMEDIES
    ]
    for change in {str(change): change for change in changes if change}.values():
        pasted = [f"{key}={inline(value)}" for key, value in change.items()]
        load(CONFIGS / f"{name}.yaml", [*overrides, *pasted], [experiment.check])


def test_nothing_is_proposed_without_a_configuration_or_a_known_change() -> None:
    assert remedies.change("vanishing", "activation", None, 0.1) == {}
    assert remedies.change("non_finite", "data", {"model": {}, "optimizer": {"lr": 1}}, 0.1) == {}
    zeros = {"model": {"init": {"bias": "zeros_", "hidden": "default"}, "activation": "relu"}}
    assert "model.init.bias" not in remedies.change("dead_units", "initialisation", zeros, 0.1)
