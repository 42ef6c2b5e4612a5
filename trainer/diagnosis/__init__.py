"""What is wrong with a run, where, since when and why: findings from records, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from trainer.diagnosis import (
    accumulating,
    arithmetic,
    behind,
    blow_up,
    collapse,
    conclusion,
    course,
    depth,
    ending,
    exploding,
    high_rate,
    plateau,
    remedies,
    stalled,
    standstill,
    starved,
    symmetry,
    through_time,
    underflow,
    units,
    unused,
)  # fmt: skip
from trainer.diagnosis.case import GONE_AFTER, Case
from trainer.diagnosis.history import PATIENCE_STEPS, History
from trainer.diagnosis.pace import Pace, say_rate
from trainer.diagnosis.symptom import Rule, Symptom
from trainer.diagnosis.thresholds import Thresholds
from trainer.finding import LEVELS, Finding
from trainer.record import StepRecord

OF_LAYERS: tuple[Rule, ...] = (  # seen only where the layers were observed
    depth.vanishing, depth.no_gradient, through_time.vanishing_over_time, collapse.signal_collapse,
    blow_up.signal_blow_up, units.dead_units, units.saturated, course.constant_output,
)  # fmt: skip
OF_NEIGHBOURS: tuple[Rule, ...] = (  # seen only where the step before was observed, too
    accumulating.accumulating_gradients,
)  # fmt: skip
OF_HISTOGRAMS: tuple[Rule, ...] = (symmetry.symmetric_units,)
OF_STEPS: tuple[Rule, ...] = (
    arithmetic.non_finite, exploding.exploding, underflow.underflow,
    starved.starved_update, unused.unused_parameter, high_rate.learning_rate_too_high,
    course.diverging, course.loss_spike, course.oscillating, stalled.stalled, plateau.plateau,
)  # fmt: skip
SHORT = re.compile(r"(?<![\d.])\d(\.\d+)?e\+0[1-5]\b")  # numbers that need no exponent
GONE_AFTER_STEPS = 10  # which the first records are closer than
# What led to numbers that are not finite is no longer in doubt; nor has it ended while it shows.
GROWING = ("exploding", "signal_blow_up", "learning_rate_too_high", "diverging")
# Rules of networks that do not learn.
IN_VAIN = (
    "vanishing", "no_gradient", "vanishing_over_time", "signal_collapse", "constant_output",
    "dead_units", "saturated", "starved_update", "stalled",
)  # fmt: skip


@dataclass
class Diagnosis:
    """Takes the records of a run in their order; says the same live and afterwards.

    `configuration` is the run's own (as a tree), from which changes are proposed; None without.
    `suspects` says whether a look at the layers may soon tell more: something is seen and not yet
    certain, a matrix gets zeros throughout, or the loss is where it began.
    """

    configuration: Mapping[str, Any] | None = None
    thresholds: Thresholds = Thresholds()
    suspects: bool = field(default=False, init=False)
    _history: History = field(default_factory=History)
    _cases: dict[str, Case] = field(default_factory=dict)  # by the name of their rule
    _raised: list[str] = field(default_factory=list)  # the names of those with a finding
    _ended: list[Finding] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """All so far: those that have ended, then the others in the order they were raised."""
        return [*self._ended, *(f for name in self._raised if (f := self._cases[name].finding))]

    def add(self, record: StepRecord) -> list[Finding]:
        """Takes the next record; the findings that it raised, raised to a higher level or ended."""
        history, changed = self._history, list[Finding]()
        with np.errstate(all="ignore"):
            history.add(record)
            rules = OF_STEPS
            if history.view is not None:
                rules = (*rules, *OF_LAYERS)
            if record.gradients.histograms is not None:
                rules = (*rules, *OF_HISTOGRAMS)
            if not math.isnan(record.carried_gradients):
                rules = (*rules, *OF_NEIGHBOURS)
            for rule in rules:
                changed += self._judge(rule.__name__, rule(history, self.thresholds))
            lost = record.loss != 0 and unused.lost_gradients(history)
            if any(finding.verdict == "non_finite" for finding in changed):
                for name in GROWING:
                    case = self._cases.get(name)
                    if case is not None and case.symptom is not None and case.finding is None:
                        changed.append(self._raise(name, case, case.symptom))
        cases = (self._cases.get(rule.__name__) for rule in OF_LAYERS)
        doubtful = any(case is not None and case.is_doubtful for case in cases)
        self.suspects = lost or _is_in_doubt(history) or doubtful
        return changed

    def end(self, step: int | None = None, loss: float | None = None) -> list[Finding]:
        """What is found because this step was the last one, where nothing else is wrong.

        `loss` is the median of those of the last steps. Where they are not known, the records tell.
        """
        history = self._history
        if not history.first_losses or any(f.alarm and not f.resolved for f in self.findings):
            return []
        steps = 1 + (history.record.step if step is None else step) - history.first_step
        last = min(history.loss, history.loss if loss is None else loss)
        end = conclusion.End(steps, min(last, history.recent_loss), last)
        with np.errstate(all="ignore"):
            symptom = ending.in_vain(history, end, self.thresholds)
            if symptom is None:
                return []
            for name, case in [*self._cases.items()]:  # information, which this is worse than
                if case.finding is not None and case.finding.verdict == symptom.verdict:
                    self._raised.remove(name)
                    del self._cases[name]
            self._cases[symptom.verdict] = Case(history.first_step)  # it is about the whole run
            return self._judge(symptom.verdict, replace(symptom, sightings=1))

    def forget(self) -> list[Finding]:
        """Those that have ended, which are then remembered no more: they have no bound."""
        ended, self._ended = self._ended, []
        return ended

    @property
    def _piles_up(self) -> bool:
        """Whether a loop was found that never sets its gradients to zero."""
        case = self._cases.get("accumulating_gradients")
        if case is None or case.finding is None or case.symptom is None:
            return False
        return case.symptom.category == "loop"

    def _judge(self, name: str, symptom: Symptom | None) -> list[Finding]:
        step = self._history.record.step
        case = self._cases.get(name)
        if symptom is None:
            return [] if case is None else self._missed(name, case, step)
        if case is None:
            case = self._cases[name] = Case(step)
        case.seen, case.missed, case.symptom = case.seen + 1, 0, symptom
        if case.finding is None:
            follows = "non_finite" in self._raised and not self._history.is_finite
            if case.seen < symptom.sightings or follows:
                return []  # after `non_finite`, what else is seen in such numbers repeats it
            return [self._raise(name, case, symptom)]
        higher = LEVELS.index(symptom.level) > LEVELS.index(case.finding.level)
        case.finding = replace(case.finding, steps=(case.first_step, step))
        if not higher:
            return []
        case.finding = replace(self._finding(case, symptom), steps=(case.first_step, step))
        return [case.finding]

    def _missed(self, name: str, case: Case, step: int) -> list[Finding]:
        case.missed += 1
        if case.finding is None:
            if "non_finite" not in self._raised:
                del self._cases[name]
            return []
        if case.missed < GONE_AFTER or name == "non_finite" or not self._history.is_finite:
            return []  # among numbers that are not finite a symptom cannot be seen to end
        if name in IN_VAIN and case.finding.alarm and standstill.in_vain(self._history):
            return []  # what they led to lasts
        now = self._history.recent_loss
        if name in GROWING and self._history.first_losses:
            falls = case.symptom is not None and case.symptom.category == "objective" and now < 0
            if now > self._history.first_loss or falls:
                return []  # nothing has ended while the loss is above the first ones
        # Of gradients that pile up later records may not tell: an end is seen early or never.
        since = step - case.finding.steps[1]
        if since < GONE_AFTER_STEPS and name != "accumulating_gradients":
            return []
        ended = replace(case.finding, resolved=True)
        self._ended.append(ended)
        self._raised.remove(name)
        self._history.raised.discard(name)
        del self._cases[name]
        return [ended]

    def _raise(self, name: str, case: Case, symptom: Symptom) -> Finding:
        case.finding = self._finding(case, symptom)
        self._raised.append(name)
        self._history.raised.add(name)
        return case.finding

    def _finding(self, case: Case, symptom: Symptom) -> Finding:
        history, change, pace = self._history, {}, Pace.of(self._history)
        category, cause = symptom.category, symptom.cause
        remedy = remedies.remedy(symptom.verdict, category)
        tried, where = [category], symptom.where
        found = behind.behind(
            history, symptom.verdict, category, self.configuration, self.thresholds
        )
        if found is not None:
            category, cause = found.category, f"{found.words}; {cause}"
            remedy = f"{found.remedy}; or {remedy}" if found.is_scale else found.remedy
            tried = [category, *tried] if found.is_scale else []
            if where is None or symptom.verdict in ("exploding", "signal_blow_up"):
                where = found.where or where  # of others it is what they are about
        if category == "learning rate" and self._piles_up and symptom.level != "info":
            tried, category, remedy = [], "loop", remedies.REMEDIES["loop"]
            cause = f"gradients pile up; {cause}"
        if category == "learning rate" and self.configuration is None:
            remedy += say_rate(symptom.verdict, history.record.optimizer, pace)
        if symptom.level != "info":  # what is no alarm asks for nothing
            own = self.configuration
            changes = (remedies.change(symptom.verdict, each, own, pace) for each in tried)
            change = next(filter(None, changes), {})
        return Finding(
            verdict=symptom.verdict,
            level=symptom.level,
            where=where,
            steps=(case.first_step, history.record.step),
            evidence=dict(symptom.evidence),
            cause=f"{category}: {SHORT.sub(_in_full, cause)}",
            remedy=remedy,
            change=change,
            confidence=symptom.confidence,
        )


def _in_full(number: re.Match[str]) -> str:
    return f"{float(number[0]):.0f}"


def _is_in_doubt(history: History) -> bool:
    """Whether the newest loss is hardly below that at the start, or back at it, after so many steps
    that a look at the layers is worth its time; or whatever it is, if dropouts take nearly all."""
    if history.steps < 2 * PATIENCE_STEPS:
        return False
    first = history.first_view
    dropped = first is not None and behind.too_much_dropped(first) is not None
    return dropped or history.loss >= standstill.STANDING * history.loss_at_start > 0
