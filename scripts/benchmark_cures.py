"""Do the changes cure that the diagnosis proposes?

    python scripts/benchmark_cures.py [--seeds 2] [--only PART ...] [--jobs 2]

Puts one fault after another into configurations that train, and applies what the first alarm that
has a change proposes, up to three times, each time to what came of it. A run is sick that gains
less than half of what the configuration without the fault gains over the best constant answer, and
cured when it gains 80 % of that. Prints each run with that share, its alarms and what they propose.
"""

from __future__ import annotations

import argparse
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from trainer import experiment, loop
from trainer.config import load, resolved
from trainer.config.scalars import inline
from trainer.console import Console
from trainer.data import Stream, Table
from trainer.experiment import Experiment
from trainer.monitor import Monitor

ROUNDS = 3
SICK, CURED = 0.5, 0.8  # of what the configuration without the fault gains
DATA = Path(__file__).parent.parent / "configs" / "data"

BASES = {
    "mlp": """
data: {name: digits, batch_size: 64}
model: {name: mlp, depth: 4, width: 64, init: {hidden: {name: kaiming_normal_, nonlinearity: relu}}}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 2e-3}
stop: {steps: 400}
""",
    "mlp_sgd": """
data: {name: digits, batch_size: 64}
model: {name: mlp, depth: 3, width: 64, init: {hidden: {name: kaiming_normal_, nonlinearity: relu}}}
loss: {name: cross_entropy}
optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
stop: {steps: 400}
""",
    "regression": """
data: {name: diabetes, batch_size: 32, standardize: true}
model:
  name: mlp
  depth: 3
  width: 32
  activation: tanh
  init: {hidden: {name: xavier_normal_, gain: auto}}
loss: {name: mse}
optimizer: {name: adam, lr: 2e-3}
stop: {steps: 400}
""",
    "circles": """
data: {name: circles, batch_size: 50}
model:
  name: mlp
  depth: 3
  width: 16
  init: {hidden: {name: kaiming_uniform_, nonlinearity: relu}}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 1e-2}
stop: {steps: 500}
""",
    "resnet": """
data: {name: digits, batch_size: 64}
model: {name: cnn, kind: resnet, channels: [8, 16]}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 2e-3}
stop: {steps: 250}
""",
    "plain_cnn": """
data: {name: digits, batch_size: 64}
model:
  name: cnn
  kind: resnet
  channels: [8, 16]
  blocks: 1
  skip: false
  norm: none
  init: {hidden: {name: kaiming_normal_, nonlinearity: relu}}
loss: {name: cross_entropy}
optimizer: {name: sgd, lr: 0.03, momentum: 0.9}
stop: {steps: 400}
""",
    "lenet": """
data: {name: digits, batch_size: 64}
model: {name: cnn, kind: lenet, norm: none}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 2e-3}
stop: {steps: 300}
""",
    "rnn": """
data: {name: adding_problem, length: 20, batch_size: 32}
model: {name: rnn, kind: rnn, hidden_size: 32, init: {recurrent: orthogonal_}}
loss: {name: mse}
optimizer: {name: adam, lr: 3e-3}
clip: {max_grad_norm: 1}
stop: {steps: 1000}
""",
    "lstm": """
data: {name: adding_problem, length: 40, batch_size: 32}
model:
  name: rnn
  kind: lstm
  hidden_size: 32
  forget_bias: 1.0
  init: {hidden: xavier_uniform_, recurrent: orthogonal_}
loss: {name: mse}
optimizer: {name: adam, lr: 1e-2}
clip: {max_grad_norm: 1}
stop: {steps: 800}
""",
    "gru_text": """
data: {name: text, file: FILE, context: 32, batch_size: 16}
model: {name: rnn, kind: gru, hidden_size: 64}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 5e-3}
stop: {steps: 300}
""",
    "transformer": """
data: {name: text, file: FILE, context: 32, batch_size: 16}
model: {name: transformer, layers: 4, width: 32}
loss: {name: cross_entropy}
optimizer: {name: adam, lr: 3e-3}
stop: {steps: 300}
""",
    "autoencoder": """
data: {name: digits, batch_size: 64, autoencode: true}
model: {name: autoencoder, widths: [64, 16]}
loss: {name: mse}
optimizer: {name: adam, lr: 3e-3}
stop: {steps: 400}
""",
}
NORMAL = "model.init.hidden={{name: normal_, std: {}}}"
LINEAR = ("mlp", "mlp_sgd", "regression", "circles", "autoencoder")
CONVOLUTIONS = ("plain_cnn", "lenet")
RECURRENT = ("rnn", "lstm", "gru_text")
ALL = (*LINEAR, "resnet", *CONVOLUTIONS, *RECURRENT, "transformer")
FAULTS: list[tuple[str, tuple[str, ...], list[str]]] = [  # name, bases, overrides
    (
        "sigmoids",
        ("mlp", "mlp_sgd", "regression", "circles"),
        ["model.activation=sigmoid", "model.depth=8"],
    ),
    ("sigmoids", CONVOLUTIONS, ["model.activation=sigmoid"]),
    ("sigmoids", ("autoencoder",), ["model.activation=sigmoid", "model.widths=[64,64,64,64,16]"]),
    (
        "deep_default",
        ("mlp", "mlp_sgd", "regression", "circles"),
        ["model.depth=24", "model.init.hidden=default"],
    ),
    ("deep_plain", ("plain_cnn",), ["model.blocks=8", "model.init.hidden=default"]),
    (
        "small_start",
        ("mlp", "mlp_sgd", "regression", "circles"),
        ["model.depth=6", NORMAL.format(0.01)],
    ),
    ("small_start", (*CONVOLUTIONS, "autoencoder"), [NORMAL.format(0.003)]),
    ("large_start", (*LINEAR, *CONVOLUTIONS), [NORMAL.format(1.0)]),
    (
        "large_start",
        ("transformer",),
        [NORMAL.format(1.0), "model.init.output={name: normal_, std: 1.0}"],
    ),
    ("large_start", RECURRENT, [NORMAL.format(3.0)]),
    (
        "huge_start",
        (*LINEAR, *CONVOLUTIONS, "resnet"),
        [NORMAL.format(10.0), "model.init.output={name: normal_, std: 10.0}"],
    ),
    (
        "dead",
        (*LINEAR[:2], "circles", "autoencoder", *CONVOLUTIONS),
        ["model.init.bias={name: constant_, val: -10.0}"],
    ),
    ("half_dead", ("mlp", "mlp_sgd", "circles"), ["model.init.bias={name: constant_, val: -3.0}"]),
    ("saturated", ("mlp", "mlp_sgd", "regression"), ["model.activation=tanh", NORMAL.format(2.0)]),
    (
        "constant",
        ("mlp", "mlp_sgd", "regression", "transformer"),
        ["model.init.hidden={name: constant_, val: 0.01}"],
    ),
    (
        "zeros",
        ("mlp", "mlp_sgd", "regression", "plain_cnn"),
        ["model.init.hidden=zeros_", "model.init.bias=zeros_"],
    ),
    ("rate_x1000", ALL, ["optimizer.lr=LR*1000"]),
    ("rate_x100", ALL, ["optimizer.lr=LR*100"]),
    ("rate_x30", ALL, ["optimizer.lr=LR*30"]),
    ("rate_/1e4", ALL, ["optimizer.lr=LR*0.0001"]),
    ("clip_1e-7", ("mlp_sgd", "plain_cnn"), ["clip.max_grad_norm=1e-7"]),
    ("decay", ("mlp", "mlp_sgd", "resnet", "transformer"), ["optimizer.weight_decay=5.0"]),
    (
        "decay_adamw",
        ("mlp", "transformer", "gru_text"),
        ["optimizer.name=adamw", "optimizer.weight_decay=100.0"],
    ),
    ("dropout", ("mlp", "mlp_sgd", "regression", "circles"), ["model.dropout=0.95"]),
    ("maximize", ("mlp", "mlp_sgd", "regression", "resnet", "rnn"), ["optimizer.maximize=true"]),
    ("momentum", ("mlp_sgd", "plain_cnn"), ["optimizer.momentum=0.999"]),
    (
        "schedule_falls",
        ("mlp", "mlp_sgd", "transformer"),
        ["schedule={name: exponentiallr, gamma: 0.7}"],
    ),
    (
        "schedule_rises",
        ("mlp", "mlp_sgd", "resnet"),
        ["schedule={name: exponentiallr, gamma: 1.05}"],
    ),
    ("warmup_rises", ("mlp_sgd",), ["schedule={name: exponentiallr, gamma: 1.02}"]),
    ("exponential", ("mlp", "mlp_sgd"), ["model.activation=exponential"]),
    ("unscaled", ("regression",), ["data.standardize=false", "optimizer={name: sgd, lr: 0.01}"]),
    (
        "recurrence_grows",
        ("rnn",),
        [
            "model.nonlinearity=relu",
            "model.init.recurrent={name: orthogonal_, gain: 1.8}",
            "clip.max_grad_norm=null",
            "optimizer={name: sgd, lr: 0.01}",
        ],
    ),
    ("recurrence_grows_tanh", ("rnn",), ["model.init.recurrent={name: normal_, std: 1.0}"]),
    (
        "recurrence_fades",
        ("rnn",),
        ["model.init.recurrent={name: orthogonal_, gain: 0.3}", "data.length=60"],
    ),
    ("closed_gates", ("lstm",), ["model.forget_bias=-6.0"]),
    ("deep_recurrent", ("rnn", "lstm", "gru_text"), ["model.layers=8"]),
    (
        "post_norm",
        ("transformer",),
        ["model.norm=post", "model.layers=12", "model.init.hidden=xavier_uniform_"],
    ),
    (
        "no_norm",
        ("transformer",),
        ["model.norm=none", "model.layers=8", "model.init.hidden={name: normal_, std: 0.3}"],
    ),
]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    overrides: tuple[str, ...]
    cost: float  # in the units trained on
    trivial: float  # that of the best constant answer
    alarms: tuple[str, ...]
    change: tuple[str, ...]  # that the first alarm which has one proposes

    def share(self, healthy: Outcome) -> float:
        """What it gains of what another one does; minus infinity where the cost is no number."""
        gain, of_all = 1 - self.cost / self.trivial, 1 - healthy.cost / healthy.trivial
        return gain / of_all if math.isfinite(self.cost) else -math.inf


@dataclass(frozen=True)
class Case:
    """A configuration with a fault."""

    base: str
    fault: str
    overrides: tuple[str, ...]
    seed: int

    def __str__(self) -> str:
        return f"{self.base}/{self.fault}, seed {self.seed}"


def run(case: Case, overrides: tuple[str, ...]) -> Outcome:
    """Trains the base of a case with these overrides; `LR*x` is x times its own learning rate."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        data = str(DATA / "sqlite_interface.txt")
        path.write_text("name: cure" + BASES[case.base].replace("FILE", data))
        rate = load(path, [], [experiment.check])[0].optimizer.lr
        given = [_with_rate(override, rate) for override in overrides]
        config, document = load(path, [*given, f"seed={case.seed}"], [experiment.check])
        made = experiment.build(config, document)
        monitor = Monitor(
            made.model, None, configuration=resolved(config), **config.monitor.model_dump()
        )
        training = loop.run(made, monitor, Console(quiet=True)).training
    alarms = [finding for finding in monitor.findings if finding.alarm]
    change = next((finding.change for finding in alarms if finding.change), {})
    return Outcome(
        overrides,
        training.cost if training.standardized is None else training.standardized,
        trivial(made),
        tuple(f"{f.verdict} ({f.cause.partition(':')[0]}) from {f.steps[0]}" for f in alarms),
        tuple(f"{key}={inline(value)}" for key, value in change.items()),
    )


def _with_rate(override: str, rate: float) -> str:
    key, _, times = override.partition("=LR*")
    return f"{key}={float(times) * rate:.3g}" if times else override


def trivial(made: Experiment) -> float:
    """The loss of the best constant answer."""
    assert isinstance(made.rows, Table | Stream)
    y = made.rows.y
    if y.dtype.is_floating_point:
        return float((y - y.mean(0)).double().square().mean())
    counts = torch.bincount(y.flatten()).double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())


def treat(case: Case) -> tuple[Outcome, list[Outcome]]:
    """The base without the fault, and what became of it with the fault and after each change."""
    healthy = run(case, ())
    outcomes = [run(case, case.overrides)]
    while len(outcomes) <= ROUNDS and outcomes[-1].share(healthy) < CURED:
        last = outcomes[-1]
        if not last.change:
            break
        changed = {override.partition("=")[0] for override in last.change}
        kept = tuple(o for o in last.overrides if o.partition("=")[0] not in changed)
        outcomes.append(run(case, kept + last.change))
    return healthy, outcomes


def cases(seeds: int, only: list[str]) -> Iterator[Case]:
    for fault, bases, overrides in FAULTS:
        for base in bases:
            if not only or any(part in f"{base}/{fault}" for part in only):
                for seed in range(seeds):
                    yield Case(base, fault, tuple(overrides), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help="of base/fault")
    asked = parser.parse_args()
    found, counts = [*cases(asked.seeds, asked.only)], Counter[str]()
    pool = partial(ProcessPoolExecutor, asked.jobs, get_context("spawn"))
    with pool() as processes:
        for case, (healthy, outcomes) in zip(found, processes.map(treat, found), strict=True):
            shares = [outcome.share(healthy) for outcome in outcomes]
            print(
                f"{case} ({healthy.cost:.3g} without it, {healthy.trivial:.3g} a constant answer)"
            )
            for outcome, share in zip(outcomes, shares, strict=True):
                print(f"  {share:7.2f}  {' '.join(outcome.overrides)}")
                print(f"           {'; '.join(outcome.alarms) or 'no alarm'}", flush=True)
            sick = shares[0] < SICK
            counts["alarms on runs that are not sick"] += not sick and bool(outcomes[0].alarms)
            counts["sick"] += sick
            counts["alarm"] += sick and bool(outcomes[0].alarms)
            counts["a change is proposed"] += sick and bool(outcomes[0].change)
            counts["cured by the first"] += sick and len(shares) > 1 and shares[1] >= CURED
            counts[f"cured by {ROUNDS} at most"] += sick and shares[-1] >= CURED
            counts["at least half as good"] += sick and shares[-1] >= SICK
    for what, number in counts.items():
        print(f"{what:34} {number}")


if __name__ == "__main__":
    main()
