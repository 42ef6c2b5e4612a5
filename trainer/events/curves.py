"""Which records become points of TensorBoard's curves and histograms, and the events of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import (
    DATA_CLASS_SCALAR,
    DATA_CLASS_TENSOR,
    DataClass,
    Summary,
    SummaryMetadata,
)
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_FLOAT

from trainer.events.histograms import Buckets, Filled, log10_buckets, signed_buckets
from trainer.events.scalars import Scalars, scalars, tag_key
from trainer.events.thinning import Thinning
from trainer.record import COUNT, MAX_ABS, StepRecord, TensorTable

ALL_POINTS = 10_000  # so many points of a curve are written before they become sparser
ALL_HISTOGRAMS = 1_000
MOST_TEMPLATES = 256  # of events: one for each set of curves that have a value at a step


class Curves:
    """Makes the events of records, in order of their steps.

    TensorBoard keeps 1,000 points of a curve and reads every one that is written, so a long run
    writes only some. A record with a number that is not finite is counted apart (so the first
    10,000 of those are written too), and the last record is always written. All records are in the
    blocks that `trainer.wire.encode` makes.
    """

    def __init__(self) -> None:
        self._points, self._bad_points = Thinning(ALL_POINTS), Thinning(ALL_POINTS)
        self._histograms = Thinning(ALL_HISTOGRAMS)
        self._prefixes: dict[str, bytes] = {}  # of the tags whose metadata is written
        self._templates: dict[tuple[object, ...], _Template] = {}
        self._heads: dict[tuple[str, int, str], bytes] = {}  # of histograms
        self._last: StepRecord | None = None  # where it has no point yet

    def counts(self) -> list[int]:
        """How much was seen so far, on which it depends what is left out."""
        return [each.seen for each in (self._points, self._bad_points, self._histograms)]

    def resume(self, counts: Sequence[int]) -> None:
        """Leaves out what would have been left out after so much."""
        for each, count in zip(
            (self._points, self._bad_points, self._histograms), counts, strict=True
        ):
            each.seen = count

    def events(self, records: Sequence[StepRecord]) -> Iterator[bytes]:
        """The serialized events of the next records, where they get any."""
        summaries = self._scalar_summaries(records)
        have = [r.gradients.histograms is not None and self._histograms.keep() for r in records]
        histograms = self._histogram_summaries([*compress(records, have)])
        for record, has, summary in zip(records, have, summaries, strict=True):
            values = summary + next(histograms) if has else summary
            if values:
                yield event(record.step, record.wall_time, values)

    def last(self) -> Iterator[bytes]:
        """The event of the last record, unless it was written."""
        if self._last is not None:
            table = scalars([self._last])
            yield event(self._last.step, self._last.wall_time, self._fill(table, [0])[0])
            self._last = None

    def _scalar_summaries(self, records: Sequence[StepRecord]) -> list[bytes]:
        """Per record the serialized values of its scalars; none where it gets no point."""
        places: dict[tuple[object, ...], list[int]] = {}
        for place, record in enumerate(records):
            places.setdefault(tag_key(record), []).append(place)
        tables = [(scalars([records[i] for i in members]), members) for members in places.values()]
        bad = np.empty(len(records), bool)
        for table, members in tables:
            bad[members] = table.bad()
        kept = [(self._bad_points if b else self._points).keep() for b in bad.tolist()]
        self._last = None if not records or kept[-1] else records[-1]
        summaries = [b""] * len(records)
        for table, members in tables:
            rows = [row for row, place in enumerate(members) if kept[place]]
            for row, summary in zip(rows, self._fill(table, rows), strict=True):
                summaries[members[row]] = summary
        return summaries

    def _fill(self, table: Scalars, rows: list[int]) -> list[bytes]:
        """The serialized values of some rows of the table."""
        by_shown: dict[bytes, list[int]] = {}
        for row in rows:
            by_shown.setdefault(table.shown[row].tobytes(), []).append(row)
        filled: dict[int, bytes] = {}
        for key, members in by_shown.items():
            template = self._templates.get((key, table.tags))
            shown = table.shown[members[0]]
            if template is None:
                tags = [tag for tag, is_shown in zip(table.tags, shown, strict=True) if is_shown]
                if not self._prefixes.keys() >= set(tags):  # metadata goes with the first row only
                    prefixes = [self._prefix(tag, "scalars", DATA_CLASS_SCALAR) for tag in tags]
                    first = members.pop(0)
                    filled[first] = _Template(prefixes).fill(table.values[[first]][:, shown])[0]
                template = _Template([self._prefixes[tag] for tag in tags])
                if len(self._templates) >= MOST_TEMPLATES:
                    self._templates.clear()
                self._templates[key, table.tags] = template
            values = template.fill(table.values[members][:, shown])
            filled.update(zip(members, values, strict=True))
        return [filled[row] for row in rows]

    def _histogram_summaries(self, records: Sequence[StepRecord]) -> Iterator[bytes]:
        """Per record the serialized values of its histograms."""
        parts: list[list[bytes]] = [[] for _ in records]
        own = [record.gradients for record in records]
        both = {"gradient": signed_buckets, "gradient_log10": log10_buckets}
        self._add_histograms(both, own, parts)
        reached = [record.layers.gradients if record.layers else None for record in records]
        self._add_histograms({"activation_gradient_log10": log10_buckets}, reached, parts)
        return map(b"".join, parts)

    def _add_histograms(
        self,
        groups: Mapping[str, Callable[[Filled], Buckets]],
        tables: Sequence[TensorTable | None],
        parts: list[list[bytes]],
    ) -> None:
        """Adds the values of each table's rows to the parts of its record, group by group.

        All at once: a call for each tensor takes many times what its few numbers need.
        """
        present = [
            (place, table)
            for place, table in enumerate(tables)
            if table is not None and table.histograms is not None
        ]
        if not present:
            return
        filled = Filled.of([table for _, table in present])
        # Counts and edges are below this; beyond 2^24 a float32 has gaps between integers.
        exact = filled.moments[:, [COUNT, MAX_ABS]].max(initial=0) < 1 << 24
        number_type = "<f4" if exact else "<f8"
        for group, buckets in groups.items():
            rows, numbers = buckets(filled)
            content = rows.astype(number_type, copy=False).tobytes()
            names = ((place, name) for place, table in present for name in table.names)
            start, size = 0, len(content) // max(len(rows), 1)
            for (place, name), number in zip(names, numbers.tolist(), strict=True):
                if number:
                    end = start + size * number
                    parts[place] += (
                        self._head(f"{group}/{name}", number, number_type),
                        content[start:end],
                    )
                    start = end

    def _head(self, tag: str, number: int, number_type: str) -> bytes:
        """What stands before the content of a serialized histogram of so many rows."""
        key = tag, number, number_type
        head = self._heads.get(key)
        if head is None:
            is_new = tag not in self._prefixes
            prefix = self._prefix(tag, "histograms", DATA_CLASS_TENSOR)
            head = _histogram_head(prefix, number, number_type)
            if not is_new:  # metadata goes with the first histogram only
                self._heads[key] = head
        return head

    def _prefix(self, tag: str, plugin: str, data_class: DataClass) -> bytes:
        """A serialized Summary.Value that its number follows, with metadata when the tag is new."""
        known = self._prefixes.get(tag)
        if known is not None:
            return known
        self._prefixes[tag] = Summary.Value(tag=tag).SerializeToString()
        described: bytes = Summary.Value(
            tag=tag, metadata=metadata(plugin, data_class)
        ).SerializeToString()
        return described


class _Template:
    """The serialized values of scalars with given tags, made by copying and filling in numbers.

    Building protobuf objects for each takes some fifty times as long.
    """

    def __init__(self, prefixes: list[bytes]) -> None:
        values = [_field(b"\x0a", prefix + b"\x15" + bytes(4)) for prefix in prefixes]
        self._bytes = np.frombuffer(b"".join(values), np.uint8)
        ends = np.cumsum([len(value) for value in values])
        self._places = (ends[:, None] + np.arange(-4, 0)).ravel()  # of the float32 numbers

    def fill(self, values: NDArray[np.float32]) -> list[bytes]:
        """For each row of values its serialized Summary.Values."""
        filled = np.tile(self._bytes, (len(values), 1))
        numbers = np.ascontiguousarray(values, "<f4").view(np.uint8)
        filled[:, self._places] = numbers
        return [row.tobytes() for row in filled]


def event(step: int, wall_time: float, values: bytes) -> bytes:
    """A serialized Event of serialized Summary.Values that are marked as such."""
    head: bytes = Event(wall_time=wall_time, step=step).SerializeToString()
    return head + _field(b"\x2a", values)


def metadata(plugin: str, data_class: DataClass, content: bytes = b"") -> SummaryMetadata:
    """What TensorBoard has to know of a tag: who shows it and how it is stored."""
    plugin_data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return SummaryMetadata(plugin_data=plugin_data, data_class=data_class)


def _histogram_head(prefix: bytes, number: int, number_type: str) -> bytes:
    """A serialized Summary.Value of a tensor of rows of three numbers, which these follow."""
    content = number * 3 * int(number_type[-1])
    tensor = _rows_header(number, number_type) + b"\x22" + _varint(content)
    value = prefix + b"\x42" + _varint(len(tensor) + content) + tensor
    return b"\x0a" + _varint(len(value) + content) + value


@lru_cache(maxsize=256)
def _rows_header(number: int, number_type: str) -> bytes:
    """A serialized TensorProto of so many rows but for their content."""
    dtype = {"<f4": DT_FLOAT, "<f8": DT_DOUBLE}[number_type]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in (number, 3)])
    header: bytes = TensorProto(dtype=dtype, tensor_shape=shape).SerializeToString()
    return header


def _field(key: bytes, content: bytes) -> bytes:
    """A length-delimited field of a protobuf message: key, length as a varint, content."""
    return key + _varint(len(content)) + content


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    octets = bytearray()
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    octets.append(number)
    return bytes(octets)
