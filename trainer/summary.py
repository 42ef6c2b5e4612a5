"""What a run's findings add up to: the state of each layer, and what is to be done."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from trainer.config.scalars import inline
from trainer.finding import LEVELS, Finding
from trainer.record import COUNT, LayerTable, StepRecord, owner

WHOLE_MODEL = "(whole model)"
LATEST = 5  # losses whose median is the last
LEAST_FALL = 0.02  # of the first loss
WELL, UNFALLEN = "nothing is wrong", "nothing was found, but the loss has not fallen"
SHOWN = 16  # layers, and findings, of one report


class Seen(NamedTuple):
    """The numbers of a layer's output at the newest look; None where they are not known."""

    gradient_rms: float | None = None  # of d(loss)/d(output)
    output_rms: float | None = None
    signal_fraction: float | None = None  # how much of it depends on the sample


class State(NamedTuple):
    """A layer with the findings that name it or one of its parameters."""

    layer: str
    findings: tuple[Finding, ...]
    is_reached: bool = True  # whether one of its parameters ever got a gradient, if it has any
    seen: Seen = Seen()

    @property
    def level(self) -> str:
        """The highest level among the findings that have not ended; without any `ok`, or `no
        gradient` where none ever came."""
        levels = [finding.level for finding in self.findings if not finding.resolved]
        return max(levels, key=LEVELS.index, default="ok" if self.is_reached else "no gradient")

    def __str__(self) -> str:
        said = dict.fromkeys(
            f"{f.verdict} ({'resolved' if f.resolved else f.level})" for f in self.findings
        )
        return ", ".join(said) or self.level


class Summary:
    """What was looked at in a run, from its records in their order; and what findings mean to it.

    Layers come in order of execution, then those of which only parameters are known.
    """

    def __init__(self, unit: str = "") -> None:
        """`unit` is that of the losses, as `loss_unit` gives it."""
        self.records = 0
        self.steps: tuple[int, int] | None = None  # of the first and the last record
        self._unit = unit
        self._losses: list[float] = []  # the first, and the latest
        self._executed: dict[str, None] = {}
        self._owners: dict[str, str] = {}  # the layer of each parameter
        self._reached = dict[str, bool]()  # layers with parameters: whether one ever had a gradient
        # What the newest records named: nearly always the same.
        self._layers: tuple[tuple[str, ...], ...] = ()
        self._parameters: tuple[tuple[str, ...], ...] = ()
        self._look: LayerTable | None = None  # the newest

    def add(self, record: StepRecord) -> None:
        """Takes the next record."""
        self.records += 1
        self.steps = (self.steps or (record.step,))[0], record.step
        if not math.isnan(record.loss):
            self._losses = [*self._losses[:1], *self._losses[1:][-LATEST + 1 :], record.loss]
        layers = record.layers
        self._look = layers or self._look
        if layers is not None and (layers.names, layers.kinds) != self._layers:
            self._layers = layers.names, layers.kinds
            self._executed |= dict.fromkeys(layers.names[row] for row in layers.rows)
        if (record.parameters, record.gradients.names) != self._parameters:
            self._parameters = record.parameters, record.gradients.names
            self._owners |= {name: _layer(name) for name in record.parameters}
            for name in record.parameters:
                self._reached.setdefault(_layer(name), False)
            self._reached |= dict.fromkeys(map(_layer, record.gradients.names), True)

    def states(self, findings: Iterable[Finding]) -> list[State]:
        """Each layer's state, and before them that of the whole model where something is wrong."""
        layers = dict.fromkeys([*self._executed, *self._owners.values()])
        named: dict[str, list[Finding]] = {WHOLE_MODEL: [], **{layer: [] for layer in layers}}
        for finding in findings:
            where = WHOLE_MODEL if finding.where is None else finding.where
            place = where if where in named else self._owners.get(where, where)
            named.setdefault(place, []).append(finding)
        if not named[WHOLE_MODEL]:
            del named[WHOLE_MODEL]
        seen = {} if self._look is None else _seen(self._look)
        return [
            State(layer, tuple(found), self._reached.get(layer, True), seen.get(layer, Seen()))
            for layer, found in named.items()
        ]

    def lines(self, findings: Sequence[Finding]) -> list[str]:
        """The report of a run: one line when nothing was found, else layers, then findings."""
        if self.steps is None:
            return ["diagnosis: no step was looked at"]
        first, last = self.steps
        looked = f"{self.records:,} steps looked at, from {first} to {last}"
        losses = self._first_and_last_loss()
        if losses is not None:
            looked += f"; loss {losses[0]:.3g} to {losses[1]:.3g}{self._unit}"
        if not findings:
            return [f"diagnosis: {WELL if self.has_fallen else UNFALLEN} ({looked})"]
        number = f"{len(findings)} finding" + "s" * (len(findings) > 1)
        lines = [f"diagnosis: {number} ({looked})", *table(self.states(findings))]
        ordered = sorted(findings, key=lambda f: (f.resolved, -LEVELS.index(f.level)))
        tried = set[str]()
        for finding in ordered[:SHOWN]:
            change = overrides(finding)
            lines += ["", *described(finding, "as above" if change and change in tried else change)]
            tried.add(change)
        if len(ordered) > SHOWN:
            lines += ["", f"and {len(ordered) - SHOWN} more findings"]
        return lines

    @property
    def has_fallen(self) -> bool:
        """Whether the loss has fallen; True where it had nothing to learn, or nobody told it."""
        losses = self._first_and_last_loss()
        if losses is None or losses == (0, 0):
            return True
        return losses[1] < losses[0] - LEAST_FALL * abs(losses[0])

    def _first_and_last_loss(self) -> tuple[float, float] | None:
        """The first, and the median of the latest, since batches differ; None without two."""
        if len(self._losses) < 2:
            return None
        return self._losses[0], median(self._losses[1:])

    def tree(self, findings: Sequence[Finding]) -> dict[str, Any]:
        """The same as values of JSON, with every finding and every layer; a number that is not
        finite is a text."""
        losses = self._first_and_last_loss()
        return {
            "records": self.records,
            "steps": self.steps and list(self.steps),
            "loss": losses and [*map(_value, losses)],
            "findings": [json.loads(finding.to_json()) for finding in findings],
            "layers": [
                {
                    "layer": state.layer,
                    "state": state.level,
                    "verdicts": [finding.verdict for finding in state.findings],
                    **{name: _value(number) for name, number in state.seen._asdict().items()},
                }
                for state in self.states(findings)
            ],
        }


def loss_unit(configuration: Mapping[str, Any] | None) -> str:
    """What is said behind a loss that is trained on, where results are in another unit."""
    data = (configuration or {}).get("data") or {}
    scales = data.get("standardize") and ":" not in data["name"]  # where it may mean anything
    return " of standardized targets" if scales and not data.get("classes") else ""


def _layer(parameter: str) -> str:
    """The layer of a parameter; a model that is one itself is `model`."""
    return owner(parameter) or "model"


def _value(number: float | None) -> float | str | None:
    """The number as JSON has it, which knows no infinity and no NaN."""
    return number if number is None or math.isfinite(number) else str(number)


def _seen(look: LayerTable) -> dict[str, Seen]:
    """The numbers of each layer."""
    gradients = look.gradients
    with np.errstate(invalid="ignore"):
        rms = gradients.norms() / np.sqrt(gradients.moments[:, COUNT])
    gradient = dict(zip(gradients.names, rms.tolist(), strict=True))
    return {
        look.names[row]: Seen(
            gradient.get(look.names[row]),
            float(look.rms[row]),
            None if np.isnan(look.signal_fraction[row]) else float(look.signal_fraction[row]),
        )
        for row in look.rows
    }


def _gradients(states: Iterable[State]) -> str:
    """The gradients of some layers in words, from the smallest to the largest."""
    reached = [state.seen.gradient_rms for state in states if state.is_reached]
    known = [rms for rms in reached if rms is not None]
    if not known:
        return ""
    largest = max(known, key=lambda rms: (math.isnan(rms), rms))  # NaN is beyond all numbers
    least, most = (f"{rms:.1g}" for rms in (np.fmin.reduce(known), largest))
    return f"; gradient {least}" if least == most else f"; gradients {least} to {most}"


def table(states: Sequence[State]) -> list[str]:
    """A line for each layer; of many, for those that have something to say."""
    named = [state for state in states if state.findings or not state.is_reached]
    shown = list(states if len(states) <= SHOWN else named[:SHOWN])
    rows = [(state.layer, f"{state}{_gradients([state])}") for state in shown]
    if len(named) > len(shown):
        rows.append((f"{len(named) - len(shown)} more", "not ok"))
    if len(states) > SHOWN and len(states) > len(named):
        others = [state for state in states if not state.findings and state.is_reached]
        rows.append((f"{len(others)} others", f"ok{_gradients(others)}"))
    width = max(len(layer) for layer, _ in rows)
    return [f"  {layer:{width}}  {state}" for layer, state in rows]


def described(finding: Finding, change: str) -> list[str]:
    """What is wrong, why, what helps and what to write on the command line, a line each."""
    known = {name: value for name, value in finding.evidence.items() if not math.isnan(value)}
    evidence = ", ".join(f"{name} {value:.4g}" for name, value in known.items())
    rows = {
        "seen": evidence,
        "why": finding.cause,
        "do": finding.remedy,
        "try": change,
    }
    return [finding.headline, *(f"  {name:4}  {text}" for name, text in rows.items() if text)]


def overrides(finding: Finding) -> str:
    """The change that a finding proposes, as arguments of a POSIX shell's command line."""
    return " ".join(f"{key}={shlex.quote(inline(value))}" for key, value in finding.change.items())


def markdown(findings: Iterable[Finding]) -> str:
    """The findings as a list in Markdown."""
    items = []
    for finding in findings:
        change = overrides(finding)
        said = f"- **{finding.headline}**: {finding.cause}; {finding.remedy}"
        items.append(f"{said}; try `{change}`" if change else said)
    return "\n".join(items)
