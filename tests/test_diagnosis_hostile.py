"""Numbers of any kind in the records: the diagnosis says what it likes, and nothing ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer import Monitor
from trainer.diagnosis import Diagnosis
from trainer.record import MAX_ABS, NORM, StepRecord, TensorTable

SIZES = [0, np.nan, np.inf, 5e-324, 1e-300, 1e-160, 1e-45, 1.0, 1e20, 1e38, 1e160, 1e300, 1.8e308]
SHARES = [0.0, 1e-9, 1.0, np.nan]


class Functions(nn.Module):
    """No module but itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(0.3 * torch.randn(8, 8)) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for weight in self.weights:
            x = torch.tanh(x @ weight)
        return x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates, self.last = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.gates(x[:, None].expand(-1, 9, 8).contiguous())[0][:, -1])
        return found


def models() -> list[nn.Module]:
    mixed = (nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    normed = (nn.Linear(8, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3), nn.Softmax(-1))
    return [
        nn.Sequential(*mixed),
        nn.Sequential(*normed),
        Functions(),
        Recurrent(),
        nn.Linear(8, 3),
    ]


def trained(model: nn.Module, kind: type[torch.optim.Optimizer]) -> list[StepRecord]:
    records: list[StepRecord] = []
    optimizer = kind(model.parameters(), lr=1e-2)  # type: ignore[call-arg]
    keys: dict[str, Any] = {"activation_every_steps": 1, "histogram_every_steps": 10}
    with Monitor(model, sinks=[records.append], diagnose=False, **keys) as monitor:
        for step in range(20):
            loss = nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.arange(16) % 3)
            optimizer.zero_grad()
            loss.backward()
            with monitor.step(step, loss):
                optimizer.step()
    return records


class Hostile:
    """Puts numbers of all kinds in the place of some."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.scale = 10.0 ** self.random.uniform(-300, 300) if seed % 3 == 0 else 1.0
        self.share = (0.0, 0.03, 0.3, 1.0)[seed // 3 % 4]

    def some(self, values: Any, by: Sequence[float] = SIZES, scale: float = 1.0) -> NDArray[Any]:
        made = scale * np.array(values, dtype=np.float64)
        chosen = self.random.random(made.shape) < self.share
        made[chosen] = self.random.choice(by, chosen.sum())
        return made

    def one(self, value: float, by: Sequence[float] = SIZES, scale: float = 1.0) -> float:
        return float(self.some([value], by, scale)[0])

    def table(self, table: TensorTable) -> TensorTable:
        moments = np.array(table.moments)
        sizes = slice(NORM, MAX_ABS + 1)
        moments[:, sizes] = self.some(moments[:, sizes], scale=self.scale)
        return replace(table, moments=moments)

    def record(self, given: StepRecord, step: int) -> StepRecord:
        layers = given.layers
        if layers is not None and self.random.random() < 0.1:
            layers = None
        if layers is not None:
            layers = replace(
                layers,
                rms=self.some(layers.rms, scale=self.scale),
                signal_fraction=self.some(layers.signal_fraction, SHARES),
                dead_fraction=self.some(layers.dead_fraction, SHARES),
                zero_fraction=self.some(layers.zero_fraction, SHARES),
                gradients=self.table(layers.gradients),
            )
        return replace(
            given,
            step=step,
            layers=layers,
            loss=self.one(given.loss, [*SIZES, -np.inf, -1.0, -1e300], self.scale),
            gradient_norm=self.one(given.gradient_norm, scale=self.scale),
            learning_rate=self.one(given.learning_rate),
            clip_coefficient=self.one(given.clip_coefficient),
            parameter_rms=self.some(given.parameter_rms),
            update_ratio=self.some(given.update_ratio),
            unchanged_fraction=self.some(given.unchanged_fraction, SHARES),
            gradients=self.table(given.gradients),
        )


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_no_number_ends_the_diagnosis(kind: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    for model in models():
        records = trained(model, kind)
        for seed in range(24):
            hostile, diagnosis, stride = Hostile(seed), Diagnosis(), (1, 5, 20)[seed % 3]
            last = 0
            for turn in range(40):
                last = turn * stride
                diagnosis.add(hostile.record(records[turn % len(records)], last))
            diagnosis.end(last, records[-1].loss)
