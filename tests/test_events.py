"""What TensorBoard's own readers find in an event file is what the records hold."""

import math
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import (
    EventFileLoader,
    RawEventFileLoader,
)
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter
from tensorboard.util import tensor_util

from trainer.events import Events, curves
from trainer.events.curves import Thinning
from trainer.events.file import EventFile
from trainer.events.histograms import Filled, log10_buckets, signed_buckets
from trainer.record import (
    BINS,
    INPUT,
    SIGN,
    UNDEFINED,
    LayerTable,
    StepRecord,
    TensorTable,
    is_told,
)
from trainer.wire import decode

NAN, INF = math.nan, math.inf


def table_of(tensors: dict[str, np.ndarray], histograms: bool) -> TensorTable:
    """The statistics of float32 tensors, written down plainly."""
    moments, counts = [], np.zeros((len(tensors), BINS), np.int64)
    for row, values in enumerate(tensors.values()):
        finite = values[np.isfinite(values)].astype(np.float64)
        size = np.abs(finite)
        moments.append([
            values.size, math.sqrt((size**2).sum()), size.sum(), size.max(initial=0.0),
            (finite == 0).sum(), np.isnan(values).sum(), np.isinf(values).sum(),
        ])  # fmt: skip
        for value in finite[finite != 0].tolist():
            bits = struct.unpack("<I", struct.pack("<f", abs(value)))[0]
            counts[row, (bits >> 22) + (SIGN if value < 0 else 0)] += 1
    rows = np.array(moments, np.float64).reshape(len(tensors), 7)
    return TensorTable(tuple(tensors), rows, counts if histograms else None)


def made(
    step: int, seed: int = 0, histograms: bool = False, layers: bool = False, **numbers: float
) -> StepRecord:
    """A record of a network with parameters `a.weight` and `a.bias` and layers `a` and `b`."""
    random = np.random.default_rng([seed, step])
    draw = lambda *shape: random.normal(size=shape).astype(np.float32) * 1e-3  # noqa: E731
    tensors = {"a.weight": draw(40), "a.bias": draw(5)}
    activations = None
    if layers:
        reached = table_of({"a": draw(30)}, histograms)
        fractions = random.random((4, 3))
        kinds = (INPUT, "Linear", "ReLU")
        activations = LayerTable(("input", "a", "b"), kinds, ("float32",) * 3, *fractions, reached)
    given_numbers = {
        "wall_time": 1.7e9 + step, "loss": random.random(), "learning_rate": 0.1,
        "gradient_norm": random.random(), "clip_coefficient": NAN, "step_ms": 1.5,
        "monitor_ms": 0.25, "carried_gradients": 0.0,
    } | numbers  # fmt: skip
    return StepRecord(
        step=step, **given_numbers, gradients=table_of(tensors, histograms),
        optimizer="SGD", parameters=("a.weight", "a.bias"), shapes=((40,), (5,)),
        dtypes=("float32", "float32"), parameter_rms=np.array([1.0, 2.0]),
        update_ratio=random.random(2), unchanged_fraction=random.random(2), layers=activations,
    )  # fmt: skip


def written(folder: Path, records: list[StepRecord]) -> Path:
    events = Events(folder)
    for record in records:
        events.write(record)
    events.close()
    (path,) = folder.iterdir()
    return path


def values(path: Path) -> Iterator[tuple[Event, Summary.Value]]:
    """Every value in the file as it stands there, with the event that has it."""
    for data in RawEventFileLoader(str(path)).Load():
        event = Event.FromString(data)
        for value in event.summary.value:
            yield event, value


def simple_values(path: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event, value in values(path)
        if value.WhichOneof("value") == "simple_value"
    }


def test_every_scalar_is_written_in_one_event_and_as_a_float32(tmp_path: Path) -> None:
    records = [made(k, layers=k % 2 == 0, clip_coefficient=0.5 + k) for k in range(7)]
    path = written(tmp_path, records)
    wanted = {}
    for r in records:
        wanted |= {("loss/train", r.step): r.loss, ("learning_rate", r.step): 0.1,
                   ("gradient_norm/global", r.step): r.gradient_norm,
                   ("clip_coefficient", r.step): r.clip_coefficient,
                   ("time/step_ms", r.step): 1.5, ("time/monitor_ms", r.step): 0.25}  # fmt: skip
        for index, name in enumerate(r.parameters):
            wanted["gradient_norm/" + name, r.step] = r.gradients[name].norm
            wanted["update_ratio/" + name, r.step] = r.update_ratio[index]
        for index, name in enumerate(r.layers.names if r.layers else ()):
            if r.layers.kinds[index] == INPUT:  # no layer: it has no curves
                continue
            wanted["activation_rms/" + name, r.step] = r.layers.rms[index]
            wanted["activation_zero_fraction/" + name, r.step] = r.layers.zero_fraction[index]
            wanted["signal_fraction/" + name, r.step] = r.layers.signal_fraction[index]
        for name in r.layers.gradients.names if r.layers else ():
            rms = r.layers.gradients[name].rms
            wanted["activation_gradient_rms/" + name, r.step] = rms
    assert simple_values(path) == {key: np.float32(value) for key, value in wanted.items()}
    events = [(e.step, e.wall_time) for e, v in values(path) if v.tag == "loss/train"]
    assert events == [(r.step, r.wall_time) for r in records]
    parsed = [Event.FromString(data) for data in RawEventFileLoader(str(path)).Load()]
    having = [e.step for e in parsed if any(v.HasField("simple_value") for v in e.summary.value)]
    assert having == [r.step for r in records]


def test_a_number_that_does_not_apply_is_left_out_and_a_bad_one_is_not(tmp_path: Path) -> None:
    bad = np.array([1.0, NAN, INF, 3.0], np.float32)
    fine = made(0, step_ms=NAN)
    record = made(1, loss=UNDEFINED, gradient_norm=INF, learning_rate=NAN)
    tensors = {"a.weight": bad, "a.bias": np.array([-INF, 0], np.float32)}
    vars(record)["gradients"] = table_of(tensors, True)
    vars(record)["update_ratio"] = np.array([NAN, NAN])
    vars(record)["parameter_rms"] = np.array([0.0, NAN])
    vars(record)["clip_coefficient"] = UNDEFINED  # 0 / 0 has that sign on some machines
    huge, untold = made(2, loss=1e300), made(3, loss=NAN)
    found = simple_values(written(tmp_path, [fine, record, huge, untold]))
    absent = {"clip_coefficient", "time/step_ms", "gradient_nonfinite/a.weight"}
    assert not absent & {tag for tag, step in found if step == 0}
    assert math.isnan(found["loss/train", 1]) and found["gradient_norm/global", 1] == INF
    assert math.isnan(found["gradient_norm/a.weight", 1])
    assert found["gradient_norm/a.bias", 1] == INF
    assert found["gradient_nonfinite/a.weight", 1] == 2
    assert ("update_ratio/a.weight", 1) not in found, "of a parameter that is all zeros"
    assert math.isnan(found["update_ratio/a.bias", 1])
    assert ("learning_rate", 1) not in found and ("clip_coefficient", 1) not in found
    assert found["loss/train", 2] == INF, "beyond float32"
    assert ("loss/train", 3) not in found, "the loop told no loss"


def test_metadata_is_right_and_with_the_first_value_of_a_tag_only(tmp_path: Path) -> None:
    records = [made(k, histograms=True, layers=k > 1, step_ms=1.0 if k else NAN) for k in range(5)]
    first: dict[str, Summary.Value] = {}
    for _, value in values(written(tmp_path, records)):
        if value.tag not in ("records", "custom_scalars__config__"):
            assert value.HasField("metadata") == (value.tag not in first), value.tag
        first.setdefault(value.tag, value)
    known = {
        "loss/train": ("scalars", 1), "time/step_ms": ("scalars", 1),
        "activation_rms/a": ("scalars", 1), "gradient/a.weight": ("histograms", 2),
        "gradient_log10/a.bias": ("histograms", 2),
        "activation_gradient_log10/a": ("histograms", 2),
        "records": ("gradients", 2), "custom_scalars__config__": ("custom_scalars", 2),
    }  # fmt: skip
    assert known.keys() <= first.keys()
    for tag, (plugin, data_class) in known.items():
        metadata = first[tag].metadata
        assert (metadata.plugin_data.plugin_name, metadata.data_class) == (plugin, data_class), tag
        # TensorBoard's own loader takes them as what they are meant to be.
    (path,) = tmp_path.iterdir()
    loaded = {v.tag: v for e in EventFileLoader(str(path)).Load() for v in e.summary.value}
    assert all(v.HasField("tensor") for v in loaded.values())


def test_the_slow_data_provider_finds_every_value(tmp_path: Path) -> None:
    records = [made(k, histograms=k % 3 == 0, layers=True) for k in range(20)]
    path = written(tmp_path / "run", records)
    guidance = {"scalars": 0, "tensors": 0, "histograms": 0}
    multiplexer = EventMultiplexer(size_guidance=guidance, tensor_size_guidance=dict.fromkeys(
        ("scalars", "histograms", "gradients"), 0))  # fmt: skip
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider, context = MultiplexerDataProvider(multiplexer, str(tmp_path)), RequestContext()
    asked = {"experiment_id": "", "downsample": 10_000, "run_tag_filter": RunTagFilter(["run"])}
    scalar_series = provider.read_scalars(context, plugin_name="scalars", **asked)["run"]
    found = {(tag, d.step): d.value for tag, series in scalar_series.items() for d in series}
    assert found == simple_values(path)
    tensors = provider.read_tensors(context, plugin_name="histograms", **asked)["run"]
    assert len(tensors) == 5  # two each of the parameters, one layer
    for record in records[::3]:
        for name in record.gradients.names:
            count = record.gradients[name].count
            for group in ("gradient", "gradient_log10"):
                (rows,) = [d.numpy for d in tensors[f"{group}/{name}"] if d.step == record.step]
                assert rows[:, 2].sum() == count
    (blocks,) = provider.read_tensors(context, plugin_name="gradients", **asked)["run"].values()
    steps = [r.step for datum in blocks for r in decode(datum.numpy.item())]
    assert steps == list(range(20))


def test_a_mark_has_no_answer_until_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, goes_on = EventFile.flush, threading.Event()

    def slow(file: EventFile) -> None:
        goes_on.wait(5)
        flush(file)

    events = Events(tmp_path)
    monkeypatch.setattr(EventFile, "flush", slow)
    events.scalars(0, {"loss/validation": 1.0})
    told = events.mark(False)
    assert told(False) is None
    goes_on.set()
    answer = told(True)
    (file,) = tmp_path.iterdir()
    assert answer is not None and answer == told(False)
    assert answer["bytes"] == {file.name: file.stat().st_size}
    events.close()


def test_scalars_are_found_by_tensorboard(tmp_path: Path) -> None:
    events = Events(tmp_path)
    points = [(0, 2.5, 0.1), (50, 0.5, 0.8), (120, float("nan"), 0.9)]
    for step, loss, share in points:
        events.scalars(step, {"loss/validation": loss, "accuracy/validation": share})
    events.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    for column, tag in enumerate(("loss/validation", "accuracy/validation"), start=1):
        read = [n for point in found.Scalars(tag) for n in (point.step, point.value)]
        expected = [n for point in points for n in (point[0], point[column])]
        assert read == pytest.approx(expected, rel=1e-6, nan_ok=True)
        assert found.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"


def test_all_records_are_in_the_blocks_whatever_the_curves_leave_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "ALL_POINTS", 100)
    records = [made(k, loss=UNDEFINED if k == 333 else 1.0) for k in range(1000)]
    path = written(tmp_path, records)
    shown = sorted(step for tag, step in simple_values(path) if tag == "loss/train")
    fine = [k for k in range(1000) if k != 333]
    kept = {*fine[:100], *fine[100:200:2], *fine[200:400:4], *fine[400:800:8], *fine[800::16]}
    assert shown == sorted(kept | {333, 999})
    blocks = [v.tensor.string_val[0] for _, v in values(path) if v.tag == "records"]
    assert [e.step for e, v in values(path) if v.tag == "records"] == [
        decode(block)[0].step for block in blocks
    ]
    read = [record for block in blocks for record in decode(block)]
    assert [r.step for r in read] == list(range(1000))
    assert [r.loss for r in read if r.step != 333] == [1.0] * 999
    assert is_told(read[333].loss) and math.isnan(read[333].loss)
    for one, other in zip(read, records, strict=True):
        assert one.gradients.moments.tobytes() == other.gradients.moments.tobytes()


@given(st.integers(1, 50), st.integers(1, 3000))
def test_thinning_keeps_all_at_first_and_half_a_first_per_doubling(first: int, things: int) -> None:
    thinning = Thinning(first)
    kept = [k for k in range(things) if thinning.keep()]
    assert kept[:first] == list(range(min(first, things)))
    doublings = max(0, math.ceil(math.log2(things / first)))
    assert len(kept) <= first + (first / 2 + 1) * doublings
    assert len(kept) >= min(things, first) + (first / 2 - 1) * (doublings - 1) or doublings == 0


def test_a_long_run_is_a_third_of_what_a_value_per_event_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 100,000 steps to a twentieth; bytes of SummaryWriter: an event per scalar, framed in 16.
    monkeypatch.setattr(curves, "ALL_POINTS", 500)
    records = [made(k) for k in range(5000)]
    own = written(tmp_path / "own", records).stat().st_size
    other = 0
    for r in records:
        tags = ["loss/train", "learning_rate", "gradient_norm/global", "time/step_ms",
                "time/monitor_ms", "gradient_norm/a.weight", "gradient_norm/a.bias",
                "update_ratio/a.weight", "update_ratio/a.bias"]  # fmt: skip
        for tag in tags:
            value = Summary.Value(tag=tag, simple_value=1.5)
            event = Event(step=r.step, wall_time=r.wall_time, summary=Summary(value=[value]))
            other += event.ByteSize() + 16
    assert own < other / 3


def is_in(value: float, rows: np.ndarray, k: int) -> bool:
    return rows[k, 0] <= value < rows[k, 1] or (k == len(rows) - 1 and value == rows[k, 1])


float32s = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(arrays(np.float32, st.integers(0, 40), elements=float32s), max_size=4))
def test_log_histograms_count_every_value_where_it_lies(tensors: list[np.ndarray]) -> None:
    table = table_of({str(k): values for k, values in enumerate(tensors)}, True)
    for values_, rows in zip(tensors, log10_buckets(Filled.of([table])).each(), strict=True):
        size = np.abs(values_[np.isfinite(values_) & (values_ != 0)].astype(np.float64))
        assert rows.shape[1:] == (3,) and len(rows) <= 64
        assert rows[:, 2].sum() == len(size)
        if len(size):
            assert (rows[:, 0] <= rows[:, 1]).all() and (rows[1:, 0] == rows[:-1, 1]).all()
            assert rows[0, 2] > 0 and rows[-1, 2] > 0 and rows[-1, 1] == np.log10(size.max())
            # Compared as powers of ten and with a margin, since log10 rounds.
            for k, count in enumerate(rows[:, 2]):
                low, high = rows[k, 0] - 1e-9, rows[k, 1] + 1e-9
                inside = (np.log10(size) >= low) & (np.log10(size) <= high)
                assert inside.sum() >= count


@settings(max_examples=100, deadline=None)
@given(st.lists(arrays(np.float32, st.integers(0, 40), elements=float32s), max_size=4))
def test_signed_histograms_count_every_value_where_it_lies(tensors: list[np.ndarray]) -> None:
    table = table_of({str(k): values for k, values in enumerate(tensors)}, True)
    for values_, rows in zip(tensors, signed_buckets(Filled.of([table])).each(), strict=True):
        finite = values_[np.isfinite(values_)].astype(np.float64)
        assert rows.shape[1:] == (3,) and len(rows) <= 33
        assert rows[:, 2].sum() == len(finite)
        if len(finite):
            assert (rows[:, 0] <= rows[:, 1]).all() and (rows[1:, 0] == rows[:-1, 1]).all()
            assert rows[0, 0] <= finite.min() and finite.max() <= rows[-1, 1]
            for k, count in enumerate(rows[:, 2]):
                # A negative value on an edge belongs to the bucket on its left.
                inside = (finite >= rows[k, 0]) & (finite <= rows[k, 1])
                strictly = (finite > rows[k, 0]) & (finite < rows[k, 1])
                assert strictly.sum() <= count <= inside.sum()


def test_wide_histograms_add_neighbours_and_narrow_ones_stay_exact() -> None:
    wide = np.float32(2.0) ** np.arange(-149, 128).astype(np.float32)
    rows = log10_buckets(Filled.of([table_of({"w": wide}, True)])).rows
    assert 32 <= len(rows) <= 64 and rows[:, 2].sum() == len(wide)
    assert rows[0, 0] == pytest.approx(np.log10(2.0**-149))
    narrow = np.array([1.0, 1.4, 1.5, 1.9, -2.0], np.float32)
    rows = log10_buckets(Filled.of([table_of({"n": narrow}, True)])).rows
    edges = np.log10([1.0, 1.5, 2.0, 2.0])
    np.testing.assert_allclose(rows[:, 0], edges[:-1])
    np.testing.assert_allclose(rows[:, 1], edges[1:])
    assert rows[:, 2].tolist() == [2, 2, 1]
    both = table_of({"n": np.array([0, 0, 1.0, -0.75], np.float32)}, True)
    rows = signed_buckets(Filled.of([both])).rows
    assert rows[rows[:, 2] > 0].tolist() == [
        [-1.0, -0.75, 1.0],
        [-1.5 * 2**-8, 1.5 * 2**-8, 2.0],
        [1.0, 1.0, 1.0],
    ]


@pytest.mark.parametrize(("count", "dtype"), [(None, np.float32), (2**24 + 1, np.float64)])
def test_the_type_of_a_histogram_holds_its_counts(
    tmp_path: Path, count: int | None, dtype: type
) -> None:
    record = made(3, histograms=True)
    if count:
        record.gradients.histograms[0, 200] = record.gradients.moments[0, 0] = count
        record.gradients.moments[0, 3] = 1
    path = written(tmp_path, [record])
    found = {v.tag: tensor_util.make_ndarray(v.tensor) for _, v in values(path)
             if v.HasField("tensor") and not v.tensor.string_val}  # fmt: skip
    for group, buckets in (("gradient", signed_buckets), ("gradient_log10", log10_buckets)):
        for name, rows in zip(
            record.gradients.names, buckets(Filled.of([record.gradients])).each(), strict=True
        ):
            assert found[f"{group}/{name}"].dtype == dtype
            np.testing.assert_array_equal(found[f"{group}/{name}"], rows.astype(dtype))
            np.testing.assert_array_equal(found[f"{group}/{name}"][:, 2], rows[:, 2])
