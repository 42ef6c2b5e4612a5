"""Any optimizer of torch.optim can be named, is checked before use and steps as torch steps it."""

import copy
import inspect
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from trainer import optimizers
from trainer.config.problem import Problem
from trainer.config.schema import Optimizer as Section

CLASSES = [
    thing
    for thing in vars(torch.optim).values()
    if inspect.isclass(thing) and issubclass(thing, torch.optim.Optimizer)
    if thing is not torch.optim.Optimizer
]
CPU = torch.device("cpu")


def problems(**keys: Any) -> list[Problem]:
    return optimizers.check({"optimizer": {"lr": 0.1, **keys}}, CPU)


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4, 4)]  # two dimensions each, for Muon
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(step: int, sparse: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    dense = [torch.randn(p.shape, generator=generator) for p in parameters()]
    return [g.to_sparse() for g in dense] if sparse else dense


def test_there_is_something_to_name() -> None:
    assert {c.__name__ for c in CLASSES} >= {"SGD", "Adam", "AdamW", "RMSprop", "LBFGS", "Adagrad"}


@pytest.mark.parametrize("thing", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("spell", [str, str.lower, str.upper], ids=["as is", "lower", "upper"])
def test_every_class_by_name_in_any_case(thing: type, spell: Any) -> None:
    name = spell(thing.__name__)
    assert problems(name=name) == []
    made = optimizers.build(Section(name=name, lr=0.25), parameters())
    assert type(made) is thing
    assert made.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("thing", CLASSES, ids=lambda c: c.__name__)
def test_steps_are_torchs_own_bit_for_bit(thing: type[torch.optim.Optimizer]) -> None:
    ours, theirs = parameters(), parameters()
    mine = optimizers.build(Section(name=thing.__name__, lr=0.05), ours)
    reference: Any = thing(theirs, lr=0.05)  # type: ignore[call-arg]
    if optimizers.needs_closure(mine):
        for optimizer, values in ((mine, ours), (reference, theirs)):

            def closure(values: list[nn.Parameter] = values) -> torch.Tensor:
                loss = sum((v * v).sum() for v in values)
                for value in values:
                    value.grad = 2 * value.detach()
                return torch.as_tensor(loss)

            for _ in range(3):
                optimizers.closure_step(optimizer, closure)
    else:
        step = optimizers.step_function(mine)
        for index in range(4):
            for values, advance in ((ours, step), (theirs, reference.step)):
                sparse = thing is torch.optim.SparseAdam
                for value, gradient in zip(values, gradients(index, sparse), strict=True):
                    value.grad = gradient
                advance()
    before = parameters()
    for mine_, theirs_, start in zip(ours, theirs, before, strict=True):
        assert torch.equal(mine_, theirs_)
        assert not torch.equal(mine_, start)
        assert mine_.requires_grad


def test_arguments_reach_torch() -> None:
    section = Section.model_validate(
        {"name": "adamw", "lr": 1, "betas": [0.5, 0.75], "weight_decay": 0, "amsgrad": True}
    )
    group = optimizers.build(section, parameters()).param_groups[0]
    assert group["betas"] == (0.5, 0.75)
    assert (group["lr"], group["weight_decay"], group["amsgrad"]) == (1, 0, True)


MISTAKES: list[tuple[dict[str, Any], str, str]] = [
    ({"name": "adm"}, "name", "unknown optimizer 'adm'; did you mean 'Adam'?"),
    ({"name": "sgd", "momentun": 0}, "momentun",
     "SGD has no such argument; did you mean 'momentum'?"),
    ({"name": "sgd", "params": 0}, "params",
     "SGD has no such argument; known: dampening, differentiable, foreach, fused, lr, maximize,"
     " momentum, nesterov, weight_decay"),
    ({"name": "sgd", "nesterov": "no"}, "nesterov",
     "expected bool for this argument of SGD, got 'no'"),
    ({"name": "sgd", "nesterov": 1}, "nesterov", "expected bool for this argument of SGD, got 1"),
    ({"name": "sgd", "momentum": None}, "momentum",
     "expected float for this argument of SGD, got null"),
    ({"name": "sgd", "momentum": True}, "momentum",
     "expected float for this argument of SGD, got true"),
    ({"name": "sgd", "foreach": "x"}, "foreach",
     "expected bool | None for this argument of SGD, got 'x'"),
    ({"name": "adam", "betas": 0.9}, "betas",
     "expected tuple[float, float] for this argument of Adam, got 0.9"),
    ({"name": "adam", "betas": [0.9]}, "betas",
     "expected tuple[float, float] for this argument of Adam, got a list of 1"),
    ({"name": "adam", "betas": [0.9, 2]}, "betas",
     "Adam refuses a list of 2: Invalid beta parameter at index 1: 2"),
    ({"name": "adam", "eps": float("nan")}, "eps", "expected a finite number, got .nan"),
    ({"name": "adam", "weight_decay": -1}, "weight_decay",
     "Adam refuses -1: Invalid weight_decay value: -1"),
    ({"name": "lbfgs", "max_iter": 1.5}, "max_iter",
     "expected int for this argument of LBFGS, got 1.5"),
    # what torch says only in the first step
    ({"name": "lbfgs", "line_search_fn": "strong"}, "line_search_fn",
     "LBFGS refuses 'strong': only 'strong_wolfe' is supported"),
    ({"name": "json:loads"}, "s", "missing: an argument of loads without a default"),
    ({"name": "nowhere.at_all:Thing"}, "name",
     "cannot import 'nowhere.at_all' (ModuleNotFoundError: No module named 'nowhere')"),
    ({"name": "torch.optim:Sgd"}, "name", "module 'torch.optim' has no 'Sgd'; did you mean 'SGD'?"),
    ({"name": "math:pi"}, "name", "'math:pi' is a float, which cannot be called"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "key", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(keys: dict[str, Any], key: str, message: str) -> None:
    found = {p.path: p.message for p in problems(**keys)}
    assert found.pop(("optimizer", key)) == message
    assert set(found) <= {("optimizer", "lr")}  # json.loads has none


def test_the_argument_at_fault_is_found_among_others() -> None:
    [problem] = problems(name="sgd", nesterov=True, momentum=-2, weight_decay=0.1)
    assert problem == Problem(
        ("optimizer", "momentum"), "SGD refuses -2: Invalid momentum value: -2"
    )
    [problem] = problems(name="sgd", foreach=True, fused=True)
    reason = "`fused` and `foreach` cannot be `True` together."
    assert problem == Problem(("optimizer",), f"SGD refuses these arguments: {reason}")


def test_lr_is_left_to_the_schema() -> None:
    for lr in (0, -1, "x", None, float("nan")):
        assert problems(name="adam", lr=lr) == []


@pytest.mark.parametrize(
    "tree", [{}, {"optimizer": None}, {"optimizer": {"name": 3}}, {"optimizer": []}]
)
def test_any_tree_is_put_up_with(tree: dict[str, Any]) -> None:
    assert optimizers.check(tree, CPU) == []


def plain_sgd(params: list[nn.Parameter], lr: float, *, scale: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD(params, lr=lr * scale)


def not_an_optimizer(params: list[nn.Parameter], lr: float) -> int:
    return 3


def raises(params: list[nn.Parameter], lr: float, value: int = 0) -> None:
    raise KeyError(value)


def test_the_users_own() -> None:
    name = f"{__name__}:plain_sgd"
    assert problems(name=name, scale=2) == []
    section = Section.model_validate({"name": name, "lr": 0.5, "scale": 4})
    assert optimizers.build(section, parameters()).param_groups[0]["lr"] == 2.0
    [problem] = problems(name=name, scal=2)
    assert problem.message == "plain_sgd has no such argument; did you mean 'scale'?"
    [problem] = problems(name=f"{__name__}:not_an_optimizer")
    assert problem.message.endswith("not_an_optimizer made a int, which is no torch Optimizer")
    [problem] = problems(name=f"{__name__}:raises")
    assert problem.message == "raises refuses these arguments: 0"


def test_the_check_draws_no_random_number_and_keeps_modes() -> None:
    state = copy.deepcopy(torch.get_rng_state())
    problems(name="adam")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


LAZY = """
import sys, torch
from trainer import optimizers
for name in {names}:
    assert not optimizers.check({{"optimizer": {{"name": name, "lr": 0.1}}}}, torch.device("cpu"))
assert "torch._dynamo" not in sys.modules
"""


def test_making_and_stepping_does_not_load_the_compiler() -> None:
    code = LAZY.format(names=[c.__name__ for c in CLASSES])
    subprocess.run([sys.executable, "-c", code], check=True)
