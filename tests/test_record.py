"""Records survive their wire format bit for bit, and damaged bytes are refused as such."""

import json
import math
import struct
import zlib
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trainer.record import BINS, MOMENTS, SIGNALS, LayerTable, StepRecord, TensorTable
from trainer.wire import block as block_module
from trainer.wire import decode, encode, reading, sheet
from trainer.wire.layout import MAGIC, NUMBERS, layout_of

texts = st.lists(st.text(max_size=8), max_size=4, unique=True).map(tuple)
patterns = st.integers(0, 2**64 - 1)  # of a float64: every NaN, zero and denormal among them
floats = patterns.map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])


def float_arrays(*shape: int) -> st.SearchStrategy:
    return arrays(np.uint64, shape, elements=patterns).map(lambda bits: bits.view(np.float64))


@st.composite
def histograms(draw, rows: int) -> np.ndarray:
    counts = np.zeros((rows, BINS), np.int64)
    used = st.tuples(st.integers(0, BINS - 1), st.integers(1, 2**63 - 1))
    for row in range(rows):
        for place, count in draw(st.lists(used, max_size=4)):
            counts[row, place] = count
    return counts


@st.composite
def tables(draw) -> TensorTable:
    names = draw(texts)
    counts = draw(st.none() | histograms(len(names)))
    return TensorTable(names, draw(float_arrays(len(names), MOMENTS)), counts)


dtype_names = st.sampled_from(["float32", "bfloat16"])
tensor_shapes = st.lists(st.integers(0, 2**40), max_size=3).map(tuple)


def some(elements: st.SearchStrategy, names: tuple[str, ...]) -> st.SearchStrategy:
    """As many as there are names."""
    return st.lists(elements, min_size=len(names), max_size=len(names)).map(tuple)


@st.composite
def layer_tables(draw) -> LayerTable:
    names = draw(texts)
    columns = [draw(float_arrays(len(names))) for _ in range(SIGNALS)]
    kinds, dtypes = draw(some(st.text(max_size=8), names)), draw(some(dtype_names, names))
    return LayerTable(names, kinds, dtypes, *columns, draw(tables()))


@st.composite
def records(draw) -> StepRecord:
    parameters = draw(texts)
    return StepRecord(
        step=draw(st.integers(-(2**63), 2**63 - 1)),
        **{name: draw(floats) for name in NUMBERS},
        gradients=draw(tables()),
        parameters=parameters,
        optimizer=draw(st.text(max_size=8)),
        shapes=draw(some(tensor_shapes, parameters)),
        dtypes=draw(some(dtype_names, parameters)),
        parameter_rms=draw(float_arrays(len(parameters))),
        update_ratio=draw(float_arrays(len(parameters))),
        unchanged_fraction=draw(float_arrays(len(parameters))),
        layers=draw(st.none() | layer_tables()),
    )


def bits(thing: object) -> object:
    """Something that compares equal where all bits do, arrays with their shape and type."""
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.dtype.str, thing.tobytes()
    if isinstance(thing, float):
        return struct.pack("<d", thing)
    if isinstance(thing, TensorTable | LayerTable | StepRecord):
        return type(thing), {f.name: bits(getattr(thing, f.name)) for f in fields(thing)}
    return thing


def some_records(count: int = 5) -> list[StepRecord]:
    table = TensorTable(
        ("W", "b"), np.arange(2.0 * MOMENTS).reshape(2, -1), np.eye(2, BINS, 3, int)
    )
    numbers = {name: 0.5 for name in NUMBERS}
    return [
        StepRecord(
            step=k,
            **numbers,
            optimizer="SGD",
            gradients=table,
            parameters=("W", "b"),
            shapes=((3, 1), ()),
            dtypes=("float32", "float64"),
            parameter_rms=np.ones(2),
            update_ratio=np.ones(2),
            unchanged_fraction=np.zeros(2),
        )
        for k in range(count)
    ]


def block_of(header: object, body: bytes = b"", number: int = 1) -> bytes:
    text = json.dumps(header).encode()
    return MAGIC + zlib.compress(struct.pack("<II", len(text), number) + text + body)


def test_the_statistics_of_a_tensor() -> None:
    values = np.array([3.0, -4.0, 0.0, np.nan, np.inf, 1.0])
    finite = np.abs(values[np.isfinite(values)])
    row = [6, np.sqrt((finite**2).sum()), finite.sum(), finite.max(), 1, 1, 1]
    table = TensorTable(("w",), np.array([row]))
    assert table["w"].finite == 4
    assert table["w"].mean_abs == pytest.approx(finite.mean())
    assert table["w"].rms == pytest.approx(np.sqrt((finite**2).mean()))


@settings(max_examples=60, deadline=None)
@given(st.lists(records(), max_size=5), st.lists(st.integers(0, 4), max_size=8))
def test_decode_undoes_encode_bit_for_bit(some: list[StepRecord], order: list[int]) -> None:
    # Repeated, so that records of one layout stand between others.
    wanted = some + [some[index % len(some)] for index in order if some]
    assert [bits(r) for r in decode(encode(wanted))] == [bits(r) for r in wanted]


def test_the_comparison_can_fail() -> None:
    one, other = some_records(2)
    assert bits(one) != bits(other)
    assert bits(np.array([0.0])) != bits(np.array([-0.0]))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_block_is_refused(data: st.DataObject) -> None:
    block = bytearray(encode(some_records()))
    place = data.draw(st.integers(0, len(block) - 1))
    block[place] ^= data.draw(st.integers(1, 255))
    try:
        read = decode(bytes(block))
    except ValueError as error:
        assert "no readable block of step records" in str(error)
    else:  # a few bits of a zlib stream mean nothing
        assert [bits(r) for r in read] == [bits(r) for r in some_records()]


@pytest.mark.parametrize(
    ("magic", "new"),
    [
        (b"GRAD\x03", ("opponents",)),
        (b"GRAD\x02", ("loss_before", "strangers", "opponents")),
    ],
)
def test_a_block_of_before_is_read_without_its_newest_numbers(
    magic: bytes, new: tuple[str, ...]
) -> None:
    records = some_records()
    plain = zlib.decompress(encode(records)[len(MAGIC) :])
    header, count = struct.unpack_from("<II", plain)
    start, width = 8 + header + 12 * count, sum(layout_of(records[0]).widths())
    shape = 8, width, count
    octets = np.frombuffer(plain, np.uint8, math.prod(shape), start).reshape(shape)
    older = np.delete(octets, [*map(NUMBERS.index, new)], axis=1).tobytes()
    block = magic + zlib.compress(plain[:start] + older + plain[start + octets.size :])
    unknown = dict.fromkeys(new, math.nan)
    assert [*map(bits, decode(block))] == [bits(replace(r, **unknown)) for r in records]


@given(st.integers(0, 400))
def test_a_block_that_is_cut_off_is_refused(length: int) -> None:
    block = encode(some_records())
    with pytest.raises(ValueError, match="no readable block"):
        decode(block[: min(length, len(block) - 1)])


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_block_are_refused(noise: bytes) -> None:
    for block in (noise, MAGIC + noise, MAGIC + zlib.compress(noise), encode([]) + noise + b"x"):
        with pytest.raises(ValueError, match="no readable block"):
            decode(block)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([["W"], True]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(json_values, st.binary(max_size=64), st.integers(0, 3))
def test_any_header_ends_in_records_or_a_value_error(
    header: object, body: bytes, number: int
) -> None:
    good = ["SGD", ["W"], True, ["W"], [[3]], ["float32"], None, [], [], [], False]
    replaced = [[*good[:at], header, *good[at + 1 :]] for at in range(len(good))]
    for layouts in (header, [header], *([layout] for layout in replaced)):
        try:
            read = decode(block_of(layouts, body, number))
        except ValueError as error:
            assert "no readable block" in str(error)
        else:
            assert len(read) == number


def test_a_header_that_is_nested_without_end_is_refused() -> None:
    text = b"[" * 200_000
    block = MAGIC + zlib.compress(struct.pack("<II", len(text), 1) + text)
    with pytest.raises(ValueError, match="no readable block"):
        decode(block)


def test_small_bytes_do_not_become_large_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reading, sheet):
        monkeypatch.setattr(module, "MAX_BLOCK_BYTES", 1 << 20)
    with pytest.raises(ValueError, match="too large"):
        decode(MAGIC + zlib.compress(bytes(10 << 20)))
    # 100 rows of histograms without a count are 200 bytes here and 8 kB each in memory.
    layout = ["", [str(k) for k in range(200)], True, [], [], [], None, [], [], [], False]
    numbers = 8 * (len(NUMBERS) + MOMENTS * 200)
    body = struct.pack("<Iq", 0, 0) + bytes(numbers) + bytes(400) + b"\x01"
    with pytest.raises(ValueError, match="histograms are too large"):
        decode(block_of([layout], body))
    monkeypatch.setattr(reading, "MAX_BLOCK_BYTES", 1 << 30)
    assert decode(block_of([layout], body))[0].gradients.histograms.sum() == 0


def test_encode_refuses_what_decode_would(monkeypatch: pytest.MonkeyPatch) -> None:
    record = some_records(1)[0]
    vars(record)["update_ratio"] = np.ones(3)
    with pytest.raises(ValueError, match="step 0: its arrays and names differ in length"):
        encode([record])
    monkeypatch.setattr(block_module, "MAX_BLOCK_BYTES", 100)
    with pytest.raises(ValueError, match="bytes is over 100; split it"):
        encode(some_records())
