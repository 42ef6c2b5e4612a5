"""The Circle networks of AutoTrainer (Zhang et al., ICSE 2021), in PyTorch.

autotrainer_circle.json has them as published with DeepDiagnosis (ICSE 2022); the labels there are
the publishers', and how a run ends is found out anew.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from sklearn.datasets import make_circles
from torch import Tensor, nn

from diagnosis_zoo.networks import ACTIVATIONS
from diagnosis_zoo.program import Program, Run, Task, supervised

VERDICTS = {
    "vanishing": frozenset({"vanishing"}),
    "exploding": frozenset({"exploding", "signal_blow_up", "non_finite"}),
    "dying_relu": frozenset({"dead_units", "signal_collapse"}),
}
CAUSES = {
    "vanishing": ("activation",),
    "exploding": ("activation",),
    "dying_relu": ("initialisation",),
}


def fill(tensor: Tensor, name: str) -> None:
    """Keras' initialisers; its truncated normals are cut at two standard deviations."""
    fan_out, fan_in = tensor.shape if tensor.dim() > 1 else (len(tensor), len(tensor))
    cut = 0.87962566103423978  # standard deviation of a standard normal cut at two
    bounds = {
        "he_uniform": math.sqrt(6 / fan_in),
        "glorot_uniform": math.sqrt(6 / (fan_in + fan_out)),
        "lecun_uniform": math.sqrt(3 / fan_in),
        "random_uniform": 0.05,
    }
    deviations = {
        "glorot_normal": math.sqrt(2 / (fan_in + fan_out)) / cut,
        "lecun_normal": math.sqrt(1 / fan_in) / cut,
        "truncated_normal": 0.05,
    }
    if name == "zeros":
        nn.init.zeros_(tensor)
    elif name in bounds:
        nn.init.uniform_(tensor, -bounds[name], bounds[name])
    elif name in deviations:
        std = deviations[name]
        nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)
    else:
        assert name == "random_normal", name
        nn.init.normal_(tensor, std=0.05)


def programs() -> list[Program]:
    """One program for each of the published networks."""
    published = json.loads((Path(__file__).parent / "autotrainer_circle.json").read_text())
    x, y = make_circles(1000, noise=0.1, random_state=1)
    rows, targets = torch.tensor(x[:700], dtype=torch.float32), torch.tensor(y[:700]).float()
    share = float(targets.mean())
    constant = -share * math.log(share) - (1 - share) * math.log(1 - share)

    def loss(probability: Tensor, target: Tensor) -> Tensor:
        # Not F.binary_cross_entropy: that refuses the NaN which some of the networks put out.
        p = probability.clamp(1e-7, 1 - 1e-7)
        return -(target * p.log() + (1 - target) * (1 - p).log()).mean()

    task = Task(rows, targets[:, None], loss, 1, constant)

    def program(model: dict[str, object]) -> Program:
        def make(seed: int) -> Run:
            inputs, layers = 2, list[nn.Module]()
            for layer in model["layers"]:  # type: ignore[attr-defined]
                if layer["type"] == "activation":
                    layers.append(ACTIVATIONS[layer["name"]]())
                    continue
                linear = nn.Linear(inputs, layer["units"])
                fill(linear.weight, layer["init"])
                fill(linear.bias, layer["bias_init"])
                layers.append(linear)
                inputs = layer["units"]
            network = nn.Sequential(*layers, nn.Sigmoid())
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7)
            return supervised(network, task, optimizer, seed, 128)

        label = str(model["published_label"])
        verdicts = VERDICTS.get(label, frozenset())
        name = f"circle/{model['id']}-{label}"
        return Program(name, make, 1800, verdicts, (), CAUSES.get(label, ()))

    return [program(model) for model in published["models"]]
