"""Writes records as TensorBoard events: all values of a step in one event of the run's folder."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer.record import MAGNITUDES, SIGN, StepRecord, TensorStatistics, bin_edges

FLUSH_SECONDS = 5


class Events:
    """The event file of one run; written by a thread, flushed every few seconds and on close."""

    def __init__(self, run_dir: Path) -> None:
        self._writer = EventFileWriter(str(run_dir), max_queue_size=1000, flush_secs=FLUSH_SECONDS)

    def text(self, tag: str, markdown: str) -> None:
        """Shows `markdown` in TensorBoard's TEXT tab."""
        metadata = SummaryMetadata()
        metadata.plugin_data.plugin_name = "text"
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=shape)
        value = Summary.Value(tag=f"{tag}/text_summary", metadata=metadata, tensor=tensor)
        self._writer.add_event(Event(summary=Summary(value=[value])))

    def write(self, record: StepRecord) -> None:
        """Adds one event with the record's scalars, and its histograms where it has them."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record)]
        if record.gradients.histograms is not None:
            for name in record.gradients.names:
                histogram = histogram_proto(record.gradients[name])
                values.append(Summary.Value(tag=f"gradient/{name}", histo=histogram))
        event = Event(step=record.step, wall_time=record.wall_time, summary=Summary(value=values))
        self._writer.add_event(event)

    def close(self) -> None:
        """Writes what is waiting and closes the file."""
        self._writer.close()


def scalars(record: StepRecord) -> Iterable[tuple[str, float]]:
    """The (tag, value) pairs of a record's scalars."""
    yield "loss/train", record.loss
    yield "learning_rate", record.learning_rate
    yield "gradient_norm/global", record.gradient_norm
    for name, norm in zip(record.gradients.names, record.gradients.norms(), strict=True):
        yield f"gradient_norm/{name}", norm
    for name, ratio in zip(record.parameters, record.update_ratio, strict=True):
        if not math.isnan(ratio):
            yield f"update_ratio/{name}", ratio
    for tag, value in (
        ("clip_coefficient", record.clip_coefficient),
        ("time/step_ms", record.step_ms),
        ("time/monitor_ms", record.monitor_ms),
    ):
        if not math.isnan(value):
            yield tag, value


def histogram_proto(statistics: TensorStatistics) -> HistogramProto:
    """The signed log histogram as TensorBoard has it: right edges ascending, no empty ends."""
    assert statistics.histogram is not None
    edges = bin_edges()
    edges[-1] = np.finfo(np.float64).max
    below = statistics.histogram[SIGN : SIGN + MAGNITUDES][::-1]
    above = statistics.histogram[:MAGNITUDES]
    counts = np.concatenate([below, [statistics.zeros], above])
    limits = np.concatenate([-edges[:-1][::-1], [0.0], edges[1:]])
    used = np.flatnonzero(counts)
    first, last = (used[0], used[-1]) if len(used) else (MAGNITUDES, MAGNITUDES)
    return HistogramProto(
        min=limits[max(first - 1, 0)],
        max=limits[last],
        num=statistics.finite,
        sum_squares=statistics.norm**2,
        bucket_limit=limits[first : last + 1],
        bucket=counts[first : last + 1],
    )
