"""The statistics against plain numpy: every backend, every dtype, every oddity."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer import record, statistics
from trainer.record import BINS, MAGNITUDES, SIGN
from trainer.statistics import kinds, operations, small, threads

BACKENDS = {"kernel": threads, "numpy": small, "torch": operations}
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTEGERS = {
    torch.float32: torch.int32,
    torch.float64: torch.int64,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
EXACT = [record.COUNT, record.MAX_ABS, record.ZEROS, record.NANS]
EXACT += [record.INFINITIES]
SUMS = [record.NORM, record.SUM_ABS]


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request, monkeypatch):
    module = BACKENDS[request.param]

    def kind(tensors):
        return operations if module is small and not small.fits(tensors) else module

    monkeypatch.setattr(kinds, "kind_of", kind)
    return request.param


def random_bits(seed: int, size: int, dtype: torch.dtype) -> Tensor:
    """Every bit pattern is as likely as any other: all exponents, denormals, NaNs of both kinds."""
    integers = INTEGERS[dtype]
    limits = torch.iinfo(integers)
    random = np.random.default_rng(seed)
    bits = random.integers(limits.min, limits.max, size, dtype=np.int64, endpoint=True)
    return torch.from_numpy(bits).to(integers).view(dtype)


def special(dtype: torch.dtype) -> Tensor:
    """Zeros, limits, denormals, infinities, quiet and signalling NaNs."""
    info = torch.finfo(dtype)
    numbers = [0.0, -0.0, 1.0, -1.0, info.max, info.min, info.tiny, -info.smallest_normal]
    numbers += [info.tiny / 2, torch.inf, -torch.inf, torch.nan]
    values = torch.tensor(numbers, dtype=dtype)
    exponent = torch.tensor(torch.inf, dtype=dtype).view(INTEGERS[dtype])
    odd = torch.stack([exponent + 1, exponent * 0 + 1, -(exponent * 0 + 1)]).view(dtype)
    return torch.cat([values, odd])  # a signalling NaN, the smallest denormal, a negative NaN


def check(tensors: list[Tensor]) -> None:
    moments, counts = statistics.summarize(tensors, histograms=True)
    assert moments.dtype == torch.float64 and counts.dtype == torch.int64
    assert counts.shape == (len(tensors), BINS)
    for tensor, row, bins in zip(tensors, moments.numpy(), counts.numpy(), strict=True):
        values = reference.as_float64(tensor)
        expected = reference.moments(values)
        np.testing.assert_array_equal(row[EXACT], expected[EXACT])
        # A sum of 70,000 float64 on one thread is right to some 1e-12.
        np.testing.assert_allclose(row[SUMS], expected[SUMS], rtol=1e-11)
        np.testing.assert_array_equal(bins, reference.histogram(values))
    plain, nothing = statistics.summarize(tensors, histograms=False)
    assert nothing is None
    torch.testing.assert_close(plain, moments, rtol=0, atol=0)


tensors_of_values = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=torch.float64).to(dtype),
    st.lists(st.floats(width=64) | st.floats(-10, 10) | st.just(0.0), max_size=40),
    st.sampled_from(DTYPES),
)
tensors_of_bits = st.builds(
    random_bits, st.integers(0, 2**32), st.integers(0, 300), st.sampled_from(DTYPES)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(tensors_of_values | tensors_of_bits, min_size=1, max_size=5))
def test_made_up_tensors(tensors):
    check(tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("flush", [False, True])
def test_special_values(dtype, flush):
    values = special(dtype)
    denormals = torch.full((70,), 1, dtype=INTEGERS[dtype]).view(dtype)
    expected = reference.moments(reference.as_float64(denormals))
    try:
        torch.set_flush_denormal(flush)
        moments, counts = statistics.summarize([values, denormals], histograms=True)
    finally:
        torch.set_flush_denormal(False)
    assert moments[0, record.ZEROS] == 2
    assert moments[0, record.NANS] == 3
    assert moments[0, record.INFINITIES] == 2
    assert counts[0].sum() == len(values) - 7
    assert moments[1, record.ZEROS] == 0 and counts[1].sum() == 70
    if dtype is not torch.float64:  # there no number could hold the result
        np.testing.assert_allclose(moments[1].numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 2047, 8191, 8192, 10_241, 65_536, 65_537, 131_073, 270_000])
def test_sizes_about_the_blocks(dtype, size):
    check_fast([torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype)])


def check_fast(tensors: list[Tensor]) -> None:
    """As `check`, with the reference's histogram by numpy's own, for large tensors."""
    moments, counts = statistics.summarize(tensors, histograms=True)
    for tensor, row, bins in zip(tensors, moments.numpy(), counts.numpy(), strict=True):
        values = reference.as_float64(tensor)
        np.testing.assert_allclose(row, reference.moments(values), rtol=1e-9)
        edges = np.append(reference.bin_edges()[:-1], np.finfo(np.float64).max)
        finite = values[np.isfinite(values) & (values != 0)]
        for sign, offset in ((1, 0), (-1, SIGN)):
            expected = np.histogram(np.abs(finite[np.sign(finite) == sign]), edges)[0]
            np.testing.assert_array_equal(bins[offset : offset + MAGNITUDES], expected)
        assert bins.sum() == finite.size


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_far_below_the_largest(dtype):
    # more octaves than are counted in pairs, with zeros among them, over several blocks
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-120, 20, (150_000,), generator=generator).double()
    values = torch.randn(150_000, generator=generator).double() * torch.exp2(exponents)
    values[::7] = 0.0
    values[3::1000] = -0.0
    check_fast([values.to(dtype), values[:70_000].to(dtype), torch.zeros(9000, dtype=dtype)])
    values[100] = torch.nan
    values[80_000] = torch.inf
    check_fast([values.to(dtype)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_few_values(dtype):
    # counted in 16 bits, of which a block of one value uses most
    same, small = torch.full((200_000,), -3.0), torch.full((65_536,), 2.0**-20)
    small[0], halves = 2.0**14, torch.tensor([1.0, -1.0]).repeat(32_768)
    check_fast([each.to(dtype) for each in (same, small, halves, halves.sort()[0])])


def test_blocks_of_random_bits():
    check_fast([random_bits(1, 100_000, dtype) for dtype in DTYPES])


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_float64_of_every_magnitude(scale):
    values = torch.tensor([3.0, -4.0, 0.0, 1e-3], dtype=torch.float64) * scale
    check(
        [
            values,
            torch.ones(3, dtype=torch.float64),
            torch.full((70_000,), scale, dtype=torch.float64),
        ]
    )


def test_shapes_and_layouts():
    weight = torch.randn(6, 4, dtype=torch.float32)
    indices = torch.tensor([[0, 2, 2, 4]])
    sparse = torch.sparse_coo_tensor(indices, torch.randn(4, 4), (5, 4), check_invariants=True)
    check(
        [
            torch.tensor(-2.5),
            torch.empty(0),
            torch.empty(3, 0, 2),
            weight.T,
            weight[::2, 1:],
            torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
            torch.randn(4).expand(3, 4),
            sparse,
            torch.randn(5, dtype=torch.complex64),
            torch.randn(5, dtype=torch.complex64).conj(),
            torch.randn(5, dtype=torch.complex64).conj().imag,
            torch.arange(-3, 5),
            torch.tensor([True, False]),
            torch.full((4,), torch.nan),
            torch.nn.Parameter(torch.randn(3)),
        ]
    )


def test_no_tensors():
    moments, counts = statistics.summarize([], histograms=True)
    assert moments.shape == (0, 7) and counts.shape == (0, BINS)
    snapshot = statistics.Snapshot()
    assert snapshot.take([]).shape == (0,) and snapshot.copies == []
    assert snapshot.changes([]).shape == (0, 2)
    assert statistics.fetch([]) == []


finite_lists = st.lists(
    st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-6), max_size=60
)


def bins_of(tensor: Tensor) -> Tensor:
    counts = statistics.summarize([tensor], histograms=True)[1]
    assert counts is not None
    return counts[0]


@settings(max_examples=30, deadline=None)
@given(finite_lists, finite_lists, st.randoms(use_true_random=False))
def test_histograms_as_sets_of_values(one, other, random):
    a, b = torch.tensor(one), torch.tensor(other)
    moments, counts = statistics.summarize([a, torch.cat([a, b])], histograms=True)
    elsewhere = [record.ZEROS, record.NANS, record.INFINITIES]
    torch.testing.assert_close(
        counts.sum(1) + moments[:, elsewhere].sum(1).long(), torch.tensor([len(a), len(a) + len(b)])
    )
    assert torch.equal(bins_of(a) + bins_of(b), bins_of(torch.cat([a, b])))
    shuffled = list(one)
    random.shuffle(shuffled)
    assert torch.equal(bins_of(torch.tensor(shuffled)), bins_of(a))
    assert torch.equal(bins_of(2 * a), bins_of(a).roll(2))
    assert torch.equal(bins_of(-a), bins_of(a).roll(SIGN))


@settings(max_examples=30, deadline=None)
@given(st.lists(tensors_of_values, min_size=1, max_size=4))
def test_snapshot_and_changes(tensors):
    tensors = [tensor.nan_to_num(0, 1, -1).clamp(-1e4, 1e4) for tensor in tensors]
    expected = [np.sum(reference.as_float64(tensor) ** 2) for tensor in tensors]
    snapshot = statistics.Snapshot()
    squares, copies = snapshot.take(tensors), snapshot.copies
    np.testing.assert_allclose(squares.numpy(), expected, rtol=1e-6, atol=1e-300)
    before = [reference.as_float64(tensor) for tensor in tensors]
    for tensor in tensors:
        tensor.mul_(1.5).add_(0.25)
    changes = snapshot.changes(tensors)
    after = [reference.as_float64(tensor) for tensor in tensors]
    pairs = list(zip(after, before, strict=True))
    expected = [(np.sum((a - b) ** 2), np.sum(a == b)) for a, b in pairs]
    np.testing.assert_allclose(changes.numpy(), expected, rtol=1e-6)
    snapshot.take(tensors)
    assert snapshot.copies is copies
    assert all(torch.equal(copy, tensor) for copy, tensor in zip(copies, tensors, strict=True))
    sizes = [(0.0, tensor.numel()) for tensor in tensors]
    assert snapshot.changes(tensors).tolist() == [*map(list, sizes)]


def test_snapshot_of_a_large_parameter_is_a_copy():
    parameter = torch.nn.Parameter(torch.randn(3, 70_000))
    transposed = torch.randn(7, 5).T
    snapshot = statistics.Snapshot()
    squares, copies = snapshot.take([parameter, transposed]), snapshot.copies
    assert not copies[0].requires_grad and torch.equal(copies[0], parameter)
    assert copies[0].data_ptr() != parameter.data_ptr() and torch.equal(copies[1], transposed)
    torch.testing.assert_close(squares[0], parameter.detach().double().square().sum())
    with torch.no_grad():
        parameter[1] += 0.5
        transposed -= 1
    changes = snapshot.changes([parameter, transposed])
    expected = torch.tensor([[70_000 / 4, 140_000], [35, 0]]).double()
    torch.testing.assert_close(changes, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [9, 100_001])
def test_what_stays_the_same_is_counted_bit_for_bit(dtype, size):
    """A last bit counts as a change, as does the sign of a zero; a NaN that stays does not."""
    values = torch.full((size,), 3.0, dtype=dtype)
    values[1], values[2], values[3] = torch.nan, 0.0, torch.inf
    tensors = [values, torch.empty(0, dtype=dtype)]
    snapshot = statistics.Snapshot()
    snapshot.take(tensors)
    values[2] = -0.0
    values[5:].view(INTEGERS[dtype]).add_(1)
    assert snapshot.changes(tensors)[:, 1].tolist() == [4, 0]


def test_bad_parameters_do_not_raise():
    tensors = [torch.tensor([1.0, torch.nan]), torch.tensor([torch.inf]), torch.ones(2)]
    snapshot = statistics.Snapshot()
    squares, changes = snapshot.take(tensors), snapshot.changes(tensors)
    assert squares[0].isnan() and squares[1].isinf() and squares[2] == pytest.approx(2)
    assert changes[:2, 0].isnan().all() and changes[:, 1].tolist() == [2, 1, 2]
    assert changes[2, 0] == 0


def test_changes_of_what_has_another_form_are_not_known():
    snapshot = statistics.Snapshot()
    snapshot.take([torch.ones(2), torch.ones(2), torch.ones(2)])
    changes = snapshot.changes([torch.ones(3), 2 * torch.ones(2), torch.ones(2).double()])
    expected = [[np.nan] * 2, [2, 0], [np.nan] * 2]
    np.testing.assert_allclose(changes.numpy(), expected, rtol=1e-12)


def test_a_snapshot_of_tensors_that_get_other_values_other_memory_or_another_form():
    """As when a model is loaded, cast or pruned between two steps."""
    tensors = [torch.nn.Parameter(torch.ones(70_000)), torch.nn.Parameter(torch.ones(3))]
    snapshot = statistics.Snapshot()

    def assert_equal(found: Tensor, expected: list) -> None:
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)

    assert_equal(snapshot.take(tensors), [70_000, 3])
    tensors[0].data = torch.full((70_000,), 2.0)
    assert_equal(snapshot.changes(tensors), [[70_000, 0], [0, 3]])
    assert_equal(snapshot.take(tensors), [280_000, 3])
    tensors[1].data = tensors[1].data.bfloat16()
    assert_equal(snapshot.take(tensors), [280_000, 3])
    assert_equal(snapshot.changes(tensors), [[0, 70_000], [0, 3]])
    tensors[0].data = tensors[0].data[:10]
    assert_equal(snapshot.take(tensors), [40, 3])
    assert_equal(snapshot.take(tensors[1:]), [3])
    assert len(snapshot.copies) == 1


def test_nothing_else_is_touched():
    tensors = [torch.randn(300, 300, requires_grad=True), torch.randn(5)]
    versions = [tensor._version for tensor in tensors]
    expected = [tensor.detach().clone() for tensor in tensors]
    state, threads_before = torch.get_rng_state(), torch.get_num_threads()
    statistics.summarize(tensors, histograms=True)
    snapshot = statistics.Snapshot()
    snapshot.take(tensors)
    snapshot.changes(tensors)
    statistics.signal(tensors[0])
    assert torch.equal(state, torch.get_rng_state())
    assert threads_before == torch.get_num_threads()
    assert versions == [tensor._version for tensor in tensors]
    assert all(torch.equal(a, b) for a, b in zip(expected, tensors, strict=True))
