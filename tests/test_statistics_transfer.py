"""What crosses between device and host: nothing until `fetch`, and then one copy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from trainer import record, statistics
from trainer.statistics import kinds, operations, small, threads

WAITING = {"_local_scalar_dense", "nonzero", "item", "is_nonzero", "masked_select", "equal"}
WAITING |= {"unique_dim", "_unique2", "bincount", "index"}


class Operations(TorchDispatchMode):
    """The names of the operations, and the copies to the host among them."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []
        self.to_host = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        name = function.overloadpacket.__name__
        self.names.append(name)
        if name in ("_to_copy", "copy_"):
            source = arguments[1] if name == "copy_" else arguments[0]
            self.to_host += source.device.type != "cpu" and result.device.type == "cpu"
        return result


def observed_step(tensors):
    snapshot = statistics.Snapshot()
    squares = snapshot.take(tensors)
    moments, counts = statistics.summarize(tensors, histograms=True)
    changes = snapshot.changes(tensors)
    outputs = [statistics.signal(tensor) for tensor in tensors]
    return [squares, moments, counts, changes, *outputs]


@pytest.mark.parametrize("count", [10, 500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_torch_operations_never_wait(monkeypatch, count, dtype):
    monkeypatch.setattr(kinds, "kind_of", lambda tensors: operations)
    tensors = [torch.randn(3, 1 + i % 7).to(dtype) for i in range(count)]
    with Operations() as seen:
        observed_step(tensors)
    assert len(seen.names) > 20 and not WAITING & set(seen.names)


@pytest.mark.parametrize("count", [10, 500])
def test_one_copy_from_a_device(count):
    """torch's fake tensors are on a device that is not here; they refuse what needs a value."""
    with FakeTensorMode(), Operations() as seen:
        tensors = [torch.empty(3, 1 + i % 7, device="cuda") for i in range(count)]
        results = observed_step(tensors)
        assert {result.device.type for result in results} == {"cuda"}
        assert seen.to_host == 0
        host = operations.unpack(operations.pack(results).cpu(), results)
    assert seen.to_host == 1
    assert [(h.shape, h.dtype) for h in host] == [(r.shape, r.dtype) for r in results]


def test_packed_and_unpacked():
    kinds = [torch.float64, torch.uint8, torch.float32, torch.int64, torch.bfloat16, torch.bool]
    tensors = [(torch.randn(3, i % 4) * 9).to(kinds[i % 6]) for i in range(30)] + [torch.tensor(7)]
    for actual, expected in zip(
        operations.unpack(operations.pack(tensors), tensors), tensors, strict=True
    ):
        assert actual.dtype == expected.dtype and torch.equal(actual, expected)


def test_fetched_from_the_cpu_without_a_copy():
    tensors = [torch.arange(3.0), torch.ones(2, 2, dtype=torch.int64, requires_grad=False)]
    arrays = statistics.fetch(tensors)
    for array, tensor in zip(arrays, tensors, strict=True):
        assert np.shares_memory(array, tensor.numpy())


def test_the_way_of_each_tensor(monkeypatch):
    few, many = [torch.ones(3)], [torch.ones(200_000)]
    assert kinds.kind_of(many) is threads and kinds.kind_of(few) is threads  # it is loaded
    monkeypatch.delitem(sys.modules, threads.__name__)
    assert kinds.kind_of(few) is small
    assert kinds.kind_of([torch.ones(3, device="meta")]) is operations
    kinds._kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)  # its import fails
    try:
        assert kinds.kind_of(many) is operations and kinds.kind_of(few) is small
    finally:
        kinds._kernel.cache_clear()


def test_a_default_device_does_not_matter():
    tensors, output = [torch.ones(3), torch.ones(100_000)], torch.ones(4, 5)
    with torch.device("meta"):
        snapshot = statistics.Snapshot()
        results = [snapshot.take(tensors), *statistics.summarize(tensors, histograms=True)]
        results += [*snapshot.copies, snapshot.changes(tensors), statistics.signal(output)]
    assert {result.device.type for result in results} == {"cpu"}


def test_several_dtypes_at_once_keep_their_order():
    tensors = [
        torch.full((3,), float(i)).to(d) for i, d in enumerate([torch.half, torch.float] * 3)
    ]
    moments, counts = statistics.summarize(tensors, histograms=True)
    assert moments[:, record.MAX_ABS].tolist() == [0, 1, 2, 3, 4, 5]
    assert counts.sum(1).tolist() == [0, 3, 3, 3, 3, 3]
    snapshot = statistics.Snapshot()
    squares = snapshot.take(tensors)
    assert squares.tolist() == pytest.approx([0, 3, 12, 27, 48, 75])
    assert [copy.dtype for copy in snapshot.copies] == [tensor.dtype for tensor in tensors]


def test_a_few_values_need_no_numba():
    program = """
import sys, torch
from trainer import statistics
tensors = [torch.ones(1), torch.ones(2)]
snapshot = statistics.Snapshot()
snapshot.take(tensors)
statistics.summarize(tensors, histograms=True)
snapshot.changes(tensors)
statistics.signal(torch.ones(4, 2))
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_a_folder_for_compiled_code_and_without_threads(monkeypatch):
    tensors = [torch.randn(70_000)]
    expected = statistics.summarize(tensors, histograms=False)[0]
    real = threads.cfunc

    def nowhere(*arguments, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*arguments)

    monkeypatch.setattr(threads, "cfunc", nowhere)
    monkeypatch.setattr(threads, "_parallel", lambda: None)
    monkeypatch.setattr(threads, "_compiled", threads._compiled.__wrapped__)
    again = statistics.summarize(tensors, histograms=False)[0]
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
