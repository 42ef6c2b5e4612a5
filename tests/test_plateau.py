"""A gradient that goes where the loss is worse than it began: fires, and near misses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from records_by_hand import deep, record
from test_diagnosis import alarms, diagnosed
from test_trains import watched
from torch import Tensor, nn

from trainer.record import StepRecord

STEPS = (*range(11), 20, 30, 40, 50, 100, 150, 200)


def made(losses: tuple[float, float, float] = (-0.1, -0.01, -0.001), left: float = 5e-4,
         update: float = 1e-4) -> list[StepRecord]:  # fmt: skip
    """Records with the first loss, those of the steps to 50 and those after them."""
    rows = [[replace(each, weight_gradient=each.weight_gradient and (left if s else 1.0),
                     update=update if s else max(update, 1e-2)) for each in deep(3)]
            for s in STEPS]  # fmt: skip
    first, early, late = losses
    return [record(s, row, loss=first if s == 0 else early if s <= 50 else late)
            for s, row in zip(STEPS, rows, strict=True)]  # fmt: skip


def test_a_loss_that_rises_to_where_it_is_flat() -> None:
    found = diagnosed(made())["vanishing"]
    assert (found.level, found.where, found.steps[0]) == ("warning", None, 100)
    assert found.cause == (
        "plateau: 0.0005 of the first gradient is left where the loss is -0.01, -0.1 at first and "
        "never lower: what comes after the output is flat there (a sigmoid or a log?)"
    )
    assert "-log D in place of log(1 - D)" in found.remedy and not found.resolved
    assert found.evidence["gradient_over_first"] == pytest.approx(5e-4)
    assert alarms(made((0.1, 0.5, 0.6))) == {"vanishing"}


@pytest.mark.parametrize(
    "other",
    [
        {"left": 2e-3},  # as of what has been learnt
        {"losses": (-0.1, -0.101, -0.001)},  # it was better once
        {"losses": (0.1, 0.1, 0.1)},  # made to be constant
        {"losses": (0.0, 0.0, 0.0)},
        {"losses": (-0.1, 0.01, -0.001)},  # about zero, as a policy's gain
        {"update": 0.01},  # on a way on which it may have become certain
    ],
)
def test_near_misses(other: dict[str, object]) -> None:
    assert alarms(made(**other)) == set()  # type: ignore[arg-type]


def test_a_loss_that_was_above_zero_long_ago() -> None:
    early = made((-0.1, -0.01, -0.01))[:-3]
    early[5] = replace(early[5], loss=0.01)
    late = [replace(early[-1], step=s, loss=-0.001) for s in range(100, 8000, 50)]
    assert alarms([*early, *late]) == set()


def test_what_is_known_already_is_not_said_again() -> None:
    assert alarms(made((0.1, 0.5, 0.6), update=0.2)) == {"learning_rate_too_high"}


@pytest.mark.parametrize("saturating", [True, False])
def test_a_generator_whose_critic_is_sure(saturating: bool) -> None:
    """With log(1 - D) it is told; with -log D, which pulls the more, it is not."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    of_critic = torch.optim.Adam(critic.parameters(), 0.02)
    cross_entropy = nn.functional.binary_cross_entropy_with_logits

    def loss(step: int) -> Tensor:
        for _ in range(3):
            real, fake = torch.randn(64, 2) + 8, generator(torch.randn(64, 4)).detach()
            given, said = torch.cat([real, fake]), torch.ones(128, 1)
            said[64:] = 0
            of_critic.zero_grad()
            cross_entropy(critic(given), said).backward()
            of_critic.step()
        told = critic(generator(torch.randn(64, 4)))
        if saturating:  # log(1 - D)
            return -cross_entropy(told, torch.zeros(64, 1))
        return cross_entropy(told, torch.ones(64, 1))

    found = watched(generator, torch.optim.SGD(generator.parameters(), 0.01), loss, 260)
    told = [each.cause.split(":")[0] for each in found if each.verdict == "vanishing"]
    assert told == (["plateau"] if saturating else [])
    assert not saturating or "another network that is sure?" in found[-1].cause
