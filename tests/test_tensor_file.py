"""The files of tensors against the library that made the format."""

from pathlib import Path

import google_crc32c
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainer.checkpoints.tensor_file import KINDS, NotFinite, TensorFile, checksum

ODD = {
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
    "strided": torch.arange(24.0).reshape(4, 6)[::2, ::3],
    "conjugate": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj(),
    "not finite": torch.tensor([float("nan"), float("inf"), -0.0]),
    'a "name" \\ with ünïcode': torch.tensor([True, False]),
}


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    bits = [t.resolve_conj().contiguous().view(-1).view(torch.uint8) for t in (found, expected)]
    return found.dtype is expected.dtype and found.shape == expected.shape and torch.equal(*bits)


@pytest.mark.parametrize("copied", [False, True])
def test_the_library_reads_what_is_written(tmp_path: Path, copied: bool) -> None:
    path = tmp_path / "a.safetensors"
    kinds = {str(k): torch.arange(5, dtype=torch.float32).to(k) for k in KINDS}
    held = {**ODD, **kinds}
    file = TensorFile(held)
    if copied:
        file.copy()
    told = file.write(path)
    found = load_file(path)
    assert found.keys() == held.keys()
    assert all(same(found[name], tensor) for name, tensor in held.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    content = path.read_bytes()
    assert told == {"bytes": len(content), "crc32c": google_crc32c.value(content)}
    assert checksum(path) == told["crc32c"]


def test_a_file_without_tensors(tmp_path: Path) -> None:
    TensorFile({}).write(tmp_path / "none")
    assert load_file(tmp_path / "none") == {}


def test_what_was_there_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for size in (500_000, 1000):
        TensorFile({"a": torch.ones(size)}).write(path)
        assert load_file(path)["a"].numel() == size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("size", "at"), [(1000, 77), (1_500_000, -1)])
def test_what_is_not_finite_is_found(
    tmp_path: Path, kind: torch.dtype, bad: float, size: int, at: int
) -> None:
    good = torch.linspace(-5, 5, size).abs().to(kind)
    TensorFile({"a": good}).write(tmp_path / "good", finite=True)
    assert same(load_file(tmp_path / "good")["a"], good)
    if (kind.is_floating_point or kind.is_complex) and kind.itemsize > 1:
        good[at] = bad
        with pytest.raises(NotFinite):
            TensorFile({"b": torch.zeros(3), "a": good}).write(tmp_path / "bad", finite=True)
    TensorFile({"a": good}).write(tmp_path / "any")
    assert same(load_file(tmp_path / "any")["a"], good)


def test_a_sum_that_overflows_is_of_finite_numbers(tmp_path: Path) -> None:
    TensorFile({"a": torch.full((1000,), 3e38)}).write(tmp_path / "a", finite=True)


def test_only_a_copy_stays_as_it_was(tmp_path: Path) -> None:
    tensor = torch.ones(3)
    copied, other = TensorFile({"a": tensor}), TensorFile({"a": tensor})
    copied.copy()
    tensor.zero_()
    for name, file in (("copied", copied), ("other", other)):
        file.write(tmp_path / name)
    assert load_file(tmp_path / "copied")["a"].tolist() == [1.0, 1.0, 1.0]
    assert load_file(tmp_path / "other")["a"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.eye(2).to_sparse(), "a: no checkpoint can hold a tensor of torch.sparse_coo"),
        (torch.ones(1, dtype=torch.complex128), "no checkpoint can hold values of torch.complex12"),
    ],
)
def test_what_no_file_can_hold(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        TensorFile({"a": tensor})
