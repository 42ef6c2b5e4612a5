"""Batches hold every row once a pass, in an order of their own, and go on where they were."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.data.batches import Batch, Batches, weighting
from trainer.data.table import Table


def numbered(rows: int, weighted: bool = False) -> Table:
    """Rows whose inputs, targets and weights tell their number."""
    x = torch.arange(rows, dtype=torch.float64)[:, None]
    return Table(x, 10 * x, x[:, 0] + 1 if weighted else None)


def taken(batches: Batches, count: int) -> list[Batch]:
    return list(itertools.islice(batches, count))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 45), st.booleans(), st.booleans(), st.integers(0, 99))
def test_a_pass_holds_every_row_once(
    rows: int, batch_size: int, shuffle: bool, weighted: bool, seed: int
) -> None:
    batches = Batches(numbered(rows, weighted), batch_size, shuffle, "sum", seed)
    sizes = [min(batch_size, rows - start) for start in range(0, rows, batch_size)]
    for _ in range(3):
        found = taken(batches, len(sizes))
        assert [len(batch.x) for batch in found] == sizes
        numbers = torch.cat([batch.x for batch in found]).flatten().tolist()
        assert sorted(numbers) == list(range(rows))
        if not shuffle or len(sizes) == 1:
            assert numbers == list(range(rows))
        for batch in found:
            assert torch.equal(batch.y, 10 * batch.x)
            weights = batch.grad_losses(torch.zeros(len(batch.x), dtype=torch.float64))
            assert weights is None if not weighted else torch.equal(weights, batch.x[:, 0] + 1)


def orders(seed: int, passes: int) -> list[list[float]]:
    batches = Batches(numbered(50), 7, True, "sum", seed)
    return [torch.cat([b.x for b in taken(batches, 8)]).flatten().tolist() for _ in range(passes)]


def test_each_pass_and_seed_has_its_own_order() -> None:
    found = [order for seed in (0, 1, 2) for order in orders(seed, 4)]
    assert len({tuple(order) for order in found}) == 12
    assert orders(1, 4) == found[4:8]


def test_every_row_comes_first_about_as_often() -> None:
    first = torch.tensor([orders(seed, 1)[0][0] for seed in range(2000)]).long()
    counts = torch.bincount(first, minlength=50)
    # Chi-squared with 49 degrees of freedom: 85.4 has a probability of 0.001.
    assert float(((counts - 40) ** 2 / 40).sum()) < 85.4


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 30), st.integers(1, 31), st.booleans(), st.integers(0, 70))
def test_a_restored_position_gives_the_same_batches(
    rows: int, batch_size: int, shuffle: bool, drawn: int
) -> None:
    first, second = (Batches(numbered(rows), batch_size, shuffle, "sum", 5) for _ in range(2))
    taken(first, drawn)
    taken(second, 3)  # a position that is given up
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict() == {"drawn": drawn}
    for mine, other in zip(taken(first, 12), taken(second, 12), strict=True):
        assert torch.equal(mine.x, other.x) and torch.equal(mine.y, other.y)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 4, 2)])
def test_mean_weights_sum_to_one(weighted: bool, shape: tuple[int, ...]) -> None:
    weights = torch.tensor([1.0, 0.0, 3.0]) if weighted else None
    losses = torch.rand(shape)
    found = weighting(weights, "mean")(losses)
    assert found is not None and found.shape == losses.shape
    per_row = torch.ones(3) if weights is None else weights
    naive = [
        float(per_row[i]) * float(value)
        for i in range(3)
        for value in losses[i].reshape(-1).tolist()
    ]
    total = float(per_row.sum()) * losses[0].numel()
    assert float((found * losses).sum()) == pytest.approx(sum(naive) / total, rel=1e-6)


def test_the_last_smaller_batch_has_its_own_mean() -> None:
    """Weights are made once per shape and shared by batches, but not between shapes."""
    batches = Batches(numbered(5), 3, True, "mean", 0)
    found: list[Tensor | None] = [b.grad_losses(torch.zeros(len(b.x))) for b in taken(batches, 4)]
    assert [w.tolist() for w in found if w is not None] == [
        pytest.approx([1 / size] * size) for size in (3, 2, 3, 2)
    ]
