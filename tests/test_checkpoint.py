"""A checkpoint is read as it was written, or refused: whatever was done to its bytes."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from trainer import checkpoint
from trainer.checkpoint import ABOUT, LAST, STATE, WEIGHTS, DamagedError, load, newest, save

TIED = torch.arange(6.0).reshape(2, 3)
WRITTEN = {"a.weight": TIED, "b.weight": TIED, "view": TIED.t(), "count": torch.tensor(7)}
STATE_OF = {"rates": [0.1, 0.2], "moments": {0: torch.ones(3, dtype=torch.bfloat16)}, "none": None}


def saved(run_dir: Path, step: int, keep: int = 2) -> Path:
    return save(run_dir, step, WRITTEN, STATE_OF, {"events": 12}, keep)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = load(saved(tmp_path, 30))
    assert found.step == 30 and found.logs == {"events": 12} and found.run_dir == tmp_path
    assert found.weights.keys() == WRITTEN.keys()
    for name, values in WRITTEN.items():
        assert (
            torch.equal(found.weights[name], values) and found.weights[name].dtype == values.dtype
        )
    assert found.state["rates"] == [0.1, 0.2] and found.state["none"] is None
    assert torch.equal(found.state["moments"][0], torch.ones(3, dtype=torch.bfloat16))


def test_other_programs_read_the_weights(tmp_path: Path) -> None:
    with safe_open(saved(tmp_path, 1) / WEIGHTS, "pt") as file:  # type: ignore[no-untyped-call]
        assert set(file.keys()) == set(WRITTEN)
        assert torch.equal(file.get_tensor("view"), TIED.t())


def test_the_newest_stay_and_last_points_to_one(tmp_path: Path) -> None:
    for step in (5, 10, 100_000_000, 20):  # the last one went on from an older checkpoint
        saved(tmp_path, step)
    folder = tmp_path / checkpoint.FOLDER
    assert (folder / LAST).read_text() == "step-00000020\n"
    assert {path.name for path in folder.iterdir()} == {LAST, "step-00000020", "step-100000000"}
    found = newest(tmp_path, pytest.fail)
    assert found is not None and found.step == 20


def test_the_one_before_is_taken_where_the_newest_is_damaged(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    with (saved(tmp_path, 2) / STATE).open("r+b") as file:
        file.truncate(100)
    said: list[str] = []
    found = newest(tmp_path, said.append)
    assert found is not None and found.step == 1
    assert said == [f"{tmp_path}/checkpoints/step-00000002/state.pt: is damaged;"
                    " trying the one before"]  # fmt: skip
    assert newest(tmp_path / "nowhere", pytest.fail) is None


def test_what_cannot_be_written_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        saved(tmp_path, 2)
    assert [path.name for path in (tmp_path / checkpoint.FOLDER).iterdir() if path.is_dir()] == [
        "step-00000001"
    ]
    found = newest(tmp_path, pytest.fail)
    assert found is not None and found.step == 1


@pytest.mark.parametrize("name", [WEIGHTS, STATE, ABOUT])
def test_no_change_of_bytes_goes_unseen(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, 3)
    whole, lot = (path / name).read_bytes(), random.Random(0)
    changed = [whole[:length] for length in {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 2}]
    changed += [whole + b"x", whole[::-1], b"\0" * len(whole), b"\xff" * (checkpoint.LARGEST_ABOUT)]
    for _ in range(100):
        place = lot.randrange(len(whole) - 1)
        flipped = whole[place] ^ (1 << lot.randrange(8))
        changed.append(whole[:place] + bytes([flipped]) + whole[place + 1 :])
    for content in changed:
        (path / name).write_bytes(content)
        with pytest.raises(DamagedError):
            load(path)
    (path / name).write_bytes(whole)
    assert load(path).step == 3


def sealed(path: Path, **changes: object) -> None:
    """The checkpoint's description with changes and fitting checksums, as a liar would write it."""
    about = json.loads((path / ABOUT).read_text().partition("\n")[0])
    about["sha256"] = {name: checkpoint.checksum(path / name) for name in (WEIGHTS, STATE)}
    text = json.dumps(about | changes)
    (path / ABOUT).write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    for number, content in enumerate([pickle.dumps(Bomb()), b"not a pickle", b""]):
        path = saved(tmp_path, number)
        (path / STATE).write_bytes(content)
        sealed(path)
        with pytest.raises(DamagedError, match="cannot be read: "):
            load(path)
    path = saved(tmp_path, 9)
    torch.save({"bomb": Bomb()}, path / STATE)
    sealed(path)
    with pytest.raises(DamagedError, match="cannot be read: UnpicklingError"):
        load(path)
    assert not (tmp_path / "ran").exists()


def test_huge_declared_sizes_and_other_versions_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    for content in (
        (2**62).to_bytes(8, "little"),
        len(header).to_bytes(8, "little") + header.encode(),
    ):
        (path / WEIGHTS).write_bytes(content)
        sealed(path)
        with pytest.raises(DamagedError, match="cannot be read"):
            load(path)
    path = saved(tmp_path, 2)
    sealed(path, version=2)
    with pytest.raises(DamagedError, match="is of version 2; this program reads version 1"):
        load(path)


def test_swapped_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    one, other = (path / WEIGHTS).read_bytes(), (path / STATE).read_bytes()
    (path / WEIGHTS).write_bytes(other)
    (path / STATE).write_bytes(one)
    with pytest.raises(DamagedError, match="is damaged"):
        load(path)
