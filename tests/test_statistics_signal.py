"""What a layer's output says, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

from trainer import statistics
from trainer.statistics import kinds, operations, small, threads


@pytest.fixture(params=["kernel", "numpy", "torch"], autouse=True)
def backend(request, monkeypatch):
    module = {"kernel": threads, "numpy": small, "torch": operations}[request.param]

    def kind(tensors):
        return operations if module is small and not small.fits(tensors) else module

    monkeypatch.setattr(kinds, "kind_of", kind)


def by_unit(output: Tensor) -> np.ndarray:
    """(units, samples of each, positions), in the naive way."""
    dimension = 1 if output.dim() >= 4 else output.dim() - 1
    moved = output.detach().movedim(dimension, 0)
    values = np.array(moved.double().tolist())
    samples = len(output) if output.dim() >= 4 else -1
    return values.reshape(output.shape[dimension], samples, -1 if samples > 0 else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        (5,),
        (1, 4),
        (8, 3),
        (64, 257),
        (4, 6, 5),
        (3, 4, 5, 6),
        (2, 3, 1, 1),
        (2, 3, 2, 4, 5),
        (1, 3, 4, 4),
        (1, 3, 1, 1),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_against_numpy(shape, dtype, relu):
    output = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if relu and len(shape) > 1:
        output.select(1 if len(shape) >= 4 else -1, -1).fill_(-1)  # a unit that is dead
    output = (output.relu() if relu else output + 3).to(dtype)
    if len(shape) == 1:
        output_by_unit = by_unit(output[:, None])
    else:
        output_by_unit = by_unit(output)
    expected = reference.signal(output_by_unit, len(output_by_unit))
    actual = statistics.signal(output)
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)


def test_large_output_on_several_threads():
    output = torch.randn(300, 500).relu()
    expected = reference.signal(by_unit(output), 500)
    np.testing.assert_allclose(statistics.signal(output).numpy(), expected, rtol=1e-6)
    image = torch.randn(8, 16, 32, 32)
    expected = reference.signal(by_unit(image), 16)
    np.testing.assert_allclose(statistics.signal(image).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 1037), (6, 3, 30, 41), (5, 130, 2, 3), (2, 9, 25, 25)])
def test_units_that_are_summed_piece_by_piece(shape):
    output = torch.randn(shape, dtype=torch.float64).relu()
    by_hand = by_unit(output)
    expected = reference.signal(by_hand, len(by_hand))
    np.testing.assert_allclose(statistics.signal(output).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("first", [1e7, -1e7])
def test_a_first_sample_far_from_all_others(first):
    output = torch.randn(2000, 9, dtype=torch.float64)
    output[0] = first
    expected = reference.signal(by_unit(output), 9)
    np.testing.assert_allclose(statistics.signal(output).numpy(), expected, rtol=1e-10)
    output[1:] = first
    assert statistics.signal(output)[2] == 0


def test_the_same_bits_on_any_number_of_threads():
    threads_before = torch.get_num_threads()
    seen = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            made = torch.Generator().manual_seed(3)
            outputs = [torch.randn(s, generator=made) for s in ((300, 700), (8, 20, 30, 31))]
            alone = torch.stack([statistics.signal(each) for each in outputs])
            assert torch.equal(alone, statistics.signals(outputs))
            seen.append(alone)
    finally:
        torch.set_num_threads(threads_before)
    assert all(torch.equal(each, seen[0]) for each in seen)


def test_a_signal_far_below_the_mean():
    # the difference of two float32 sums would say 3e-4 whatever the signal
    noise = torch.randn(64, 32, dtype=torch.float64) * 1e-6
    fraction = statistics.signal((1 + noise).float())[2]
    assert fraction == pytest.approx(1e-6, rel=0.2)
    assert statistics.signal(torch.ones(64, 32))[2] == 0


def test_what_only_the_place_in_an_image_changes_is_no_signal():
    place = torch.linspace(1, 2, 64).reshape(1, 1, 8, 8)  # padding does so
    assert statistics.signal(place.expand(16, 3, 8, 8))[2] == 0
    noise = torch.randn(500, 3, 8, 8, dtype=torch.float64)
    expected = 0.1 / (float((place**2).mean()) + 0.01) ** 0.5
    assert statistics.signal(place + 0.1 * noise)[2] == pytest.approx(expected, rel=0.02)


def test_a_few_massive_units_do_not_hide_the_rest():
    output = torch.randn(50, 20)
    output[:, 3] = 1e6
    assert statistics.signal(output)[2] > 0.5


def test_strides_do_not_matter():
    image = torch.randn(4, 6, 5, 5)
    for same in (image.to(memory_format=torch.channels_last), image.clone().requires_grad_()):
        torch.testing.assert_close(statistics.signal(same), statistics.signal(image))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (0, 3, 4, 4), (2, 3, 0, 4)])
def test_no_values(shape):
    assert statistics.signal(torch.zeros(shape)).isnan().all()


def test_undefined_fractions():
    for output in (torch.tensor(2.0), torch.tensor([2.0]), torch.full((1, 5), -2.0)):
        rms, zeros, fraction, dead = statistics.signal(output)
        assert rms == 2 and zeros == dead == 0 and fraction.isnan()
    rms, zeros, fraction, dead = statistics.signal(torch.zeros(4, 5))
    assert rms == 0 and zeros == dead == 1 and fraction.isnan()


@pytest.mark.parametrize("shape", [(64, 5), (5, 3, 40), (4, 5, 30, 30), (700, 5)])
def test_dead_units_are_zero_in_every_sample(shape):
    """0 and -0 alike; what is zero but once is not dead, however small."""
    output, unit = torch.ones(shape), 1 if len(shape) == 4 else -1
    for index, value in enumerate((0.0, -0.0, 0.0)):
        output.select(unit, index).fill_(value)
    output.select(unit, 2)[(-1,) * (len(shape) - 1)] = 1e-30
    units = shape[unit]
    assert statistics.signal(output)[3] == pytest.approx(2 / units)
    assert statistics.signals([output, output])[:, 3].tolist() == [2 / units] * 2


@pytest.mark.parametrize("order", ["rising", "falling", "equal", "few", "any"])
def test_the_median_of_any_number_of_units(order):
    generator = torch.Generator().manual_seed(2)
    for units in [*range(1, 34), 1000]:
        spread = {
            "rising": torch.arange(units) / units,
            "falling": 1 - torch.arange(units) / units,
            "equal": torch.full((units,), 0.25),
            "few": torch.randint(3, (units,), generator=generator) / 3,
            "any": torch.rand(units, generator=generator),
        }[order].double()
        output = torch.stack([1 + spread, 1 - spread])  # std / RMS = spread / sqrt(1 + spread^2)
        expected = sorted((spread / (1 + spread * spread).sqrt()).tolist())[(units - 1) // 2]
        assert statistics.signal(output)[2] == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 33), (4, 5, 30, 30), (300, 300)])
def test_the_rms_is_finite_exactly_if_all_values_are(shape, dtype):
    for value in (torch.finfo(dtype).max, torch.finfo(dtype).min, torch.finfo(dtype).tiny):
        largest = torch.full(shape, value, dtype=dtype)
        rms = statistics.signals([largest, torch.ones(3, 4, dtype=dtype)])[0, 0]
        assert rms == pytest.approx(abs(value), rel=1e-6) or abs(value) < 1e-300
        for bad in (torch.nan, torch.inf, -torch.inf):
            output = largest.clone()
            output.view(-1)[-1] = bad
            assert not statistics.signal(output)[0].isfinite()


def test_bad_values():
    output = torch.ones(4, 5)
    output[0, 0] = torch.nan
    output[1, 1] = torch.inf
    assert not statistics.signal(output)[0].isfinite()
    assert statistics.signal(torch.arange(12).reshape(4, 3))[0] == pytest.approx(np.sqrt(506 / 12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_several_outputs_at_once_equal_one_at_a_time(dtype):
    shapes = [(64, 256), (1, 3), (7,), (4, 5, 6), (3, 8, 5, 5), (2, 3, 4, 4, 2), (300, 300), (5, 1)]
    outputs = [torch.randn(shape).relu().to(dtype) for shape in shapes]
    expected = torch.stack([statistics.signal(output) for output in outputs])
    torch.testing.assert_close(statistics.signals(outputs), expected, equal_nan=True)
    mixed = [*outputs, torch.randn(3, 3).double(), torch.zeros(0, 4)]
    expected = torch.stack([statistics.signal(output) for output in mixed])
    torch.testing.assert_close(statistics.signals(mixed), expected, equal_nan=True)
