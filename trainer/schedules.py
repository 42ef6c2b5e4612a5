"""Learning rates that change: any scheduler of torch.optim by name, after a warm-up."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from trainer import callables, optimizers
from trainer.config.problem import Problem, did_you_mean, shown
from trainer.config.schema import Schedule as Section

_BY_NAME: dict[str, type[Any]] = {
    name.lower(): thing
    for name, thing in vars(lr_scheduler).items()
    if inspect.isclass(thing) and issubclass(thing, lr_scheduler.LRScheduler)
    # These are made of others, or of functions, which YAML has no words for.
    if name not in ("LRScheduler", "ChainedScheduler", "SequentialLR", "LambdaLR")
    if name != "MultiplicativeLR" and not name.startswith("_")
}


def check(tree: dict[str, Any]) -> list[Problem]:
    """What is wrong with the section `schedule` that only torch can know."""
    section = tree.get("schedule")
    name = section.get("name") if isinstance(section, dict) else None
    if not isinstance(section, dict):
        return []
    arguments = {key: value for key, value in section.items() if key not in Section.model_fields}
    if name is None:
        message = "is an argument of a schedule, but the key 'name' names none"
        return [Problem(("schedule", key), message, True) for key in arguments]
    if not isinstance(name, str):
        return []
    thing = _BY_NAME.get(name.lower())
    if thing is None:
        known = [kind.__name__ for kind in _BY_NAME.values()]
        message = f"unknown schedule {shown(name)}{did_you_mean(name, known)}"
        return [Problem(("schedule", "name"), message)]
    given = ("optimizer", "last_epoch", "verbose")
    problems = callables.argument_problems(thing, arguments, ("schedule",), given=given)
    if thing is lr_scheduler.ReduceLROnPlateau:
        validation = tree.get("validation")
        if not isinstance(validation, dict) or not validation.get("fraction"):
            message = "ReduceLROnPlateau looks at the validation loss; set validation.fraction"
            problems.append(Problem(("schedule", "name"), message))
    return problems


def build(section: Section, optimizer: Optimizer, steps: int) -> Schedule:
    """The schedule of a configuration that `check` found no fault with.

    ValueError, with the key at fault, where torch refuses the arguments or would at some step.
    """
    changes = steps - section.warmup_steps  # of the rates, one after each update
    if section.name is not None and changes > 0:
        thing = _BY_NAME[section.name.lower()]
        for change, when in ((1, ""), (changes, f" where stop.steps is {steps}")):
            reason = _refusal(thing, section.arguments, optimizer, change)
            if reason is None:
                continue
            for key, value in section.arguments.items():
                # At fault is what would do if it were the number of steps.
                other = {**section.arguments, key: changes}
                if type(value) is int and not _refusal(thing, other, optimizer, change):
                    told = f"{thing.__name__} refuses {shown(value)}{when}"
                    raise ValueError(f"{key}: {told}: {reason}")
            raise ValueError(f"{thing.__name__} refuses these arguments{when}: {reason}")
    return Schedule(section, optimizer)


def _refusal(
    thing: type[Any], arguments: dict[str, Any], optimizer: Optimizer, change: int
) -> str | None:
    """What torch says against a scheduler of a stand-in, made or in its so many-th change."""
    stand_in = optimizers.make("sgd", [nn.Parameter(torch.zeros(1))], {"lr": 1.0})
    stand_in.defaults = optimizer.defaults
    stand_in.param_groups = [
        {key: value.clone() if isinstance(value, Tensor) else value for key, value in group.items()}
        for group in ({**group, "params": []} for group in optimizer.param_groups)
    ]
    vars(stand_in)["_opt_called"] = True
    try:
        made = thing(stand_in, **arguments)
        made.last_epoch = change - 1
        made.step(*([0.0] if thing is lr_scheduler.ReduceLROnPlateau else []))
    except Exception as error:  # whatever torch raises
        return str(error).partition("\n")[0] or type(error).__name__
    return None


class Schedule:
    """Sets the learning rate of each step: `step()` after an update, `validated()` with a loss."""

    def __init__(self, section: Section, optimizer: Optimizer) -> None:
        """TypeError or ValueError where torch does not accept the arguments."""
        # The loop calls the function inside optimizer.step, which torch does not see.
        vars(optimizer)["_opt_called"] = True
        self._plateau: lr_scheduler.ReduceLROnPlateau | None = None
        self._scheduler: lr_scheduler.LRScheduler | None = None
        if section.name is not None:
            made = _BY_NAME[section.name.lower()](optimizer, **section.arguments)
            if isinstance(made, lr_scheduler.ReduceLROnPlateau):
                self._plateau = made
            else:
                self._scheduler = made
        self._warmup = section.warmup_steps
        self._optimizer, self._groups = optimizer, optimizer.param_groups
        self._step = 0
        self._full = [group["lr"] for group in self._groups]
        self._scale()

    @property
    def constant(self) -> bool:
        """Whether no step changes the rate."""
        return self._scheduler is None and self._warmup == 0

    def step(self) -> None:
        """Sets the rate of the next step."""
        self._step += 1
        if self._step <= self._warmup:
            self._scale()
        elif self._scheduler is not None:
            self._scheduler.step()

    def validated(self, loss: float) -> None:
        """Tells a schedule that waits for the validation loss to stop falling."""
        if self._plateau is not None and self._step >= self._warmup:
            self._plateau.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """Where it is; the rates themselves are with the optimizer."""
        made = self._scheduler or self._plateau
        inner = None if made is None else made.state_dict()
        return {"step": self._step, "full": self._full, "inner": inner}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the state was taken, with an optimizer put back likewise."""
        self._step, self._full = state["step"], list(state["full"])
        self._groups = self._optimizer.param_groups  # the optimizer has made new ones
        made = self._scheduler or self._plateau
        if made is not None:
            made.load_state_dict(state["inner"])

    @property
    def has_own_rates(self) -> bool:
        """Whether its rates come from arguments of its own, whatever the optimizer's is."""
        return isinstance(self._scheduler, lr_scheduler.OneCycleLR | lr_scheduler.CyclicLR)

    def scale(self, rate: float, before: float) -> None:
        """Takes `rate` for what was `before`: the rate now, and all that comes of it."""

        def scaled(value: Any) -> Any:
            return rate if value == before else value * (rate / before)

        self._full = [scaled(value) for value in self._full]
        for group in self._groups:
            for key in ("lr", "initial_lr"):
                if key in group:
                    group[key] = scaled(group[key])
        for key in ("base_lrs", "_last_lr"):
            if hasattr(self._scheduler, key):
                setattr(self._scheduler, key, [scaled(v) for v in getattr(self._scheduler, key)])

    def _scale(self) -> None:
        """Step k of a warm-up has (k + 1) / (warm-up + 1) of the rate, so that none has zero."""
        if self._warmup:
            for group, full in zip(self._groups, self._full, strict=True):
                group["lr"] = full * min(1.0, (self._step + 1) / (self._warmup + 1))
