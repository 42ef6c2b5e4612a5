"""What TensorBoard shows of a run beside its numbers: text, hyperparameters, a layout of charts."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, DATA_CLASS_TENSOR, Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout
from tensorboard.plugins.custom_scalar.layout_pb2 import MultilineChartContent as Lines
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from trainer.events.curves import metadata
from trainer.wire import PLUGIN, RECORDS_TAG

# TensorBoard matches these from a tag's start; one chart has a line for each parameter or layer.
CHARTS = {
    "Parameters": {
        "gradient norm": r"gradient_norm/(?!global$)",
        "update ratio": r"update_ratio/",
    },
    "Layers": {
        "activation RMS": r"activation_rms/",
        "activation gradient RMS": r"activation_gradient_rms/",
        "signal fraction": r"signal_fraction/",
    },
}


def bytes_event(tag: str, plugin: str, content: bytes, step: int, wall_time: float) -> bytes:
    """A serialized Event with one byte string, for the plugin that understands it."""
    tensor = TensorProto(dtype=DT_STRING, string_val=[content], tensor_shape=TensorShapeProto())
    about = metadata(plugin, DATA_CLASS_TENSOR)
    summary = Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=tensor)])
    return _serialized(Event(step=step, wall_time=wall_time, summary=summary))


def scalars(values: Mapping[str, float], step: int) -> bytes:
    """A serialized Event with the value of each tag."""
    described = metadata("scalars", DATA_CLASS_SCALAR)
    points = [
        Summary.Value(tag=tag, metadata=described, simple_value=value)
        for tag, value in values.items()
    ]
    return _serialized(Event(step=step, wall_time=time.time(), summary=Summary(value=points)))


def text(tag: str, markdown: str, step: int) -> bytes:
    """A serialized Event that shows `markdown` in the TEXT tab."""
    return bytes_event(tag, "text", markdown.encode(), step, time.time())


def resumption(step: int) -> bytes:
    """A serialized Event before which a run goes on: TensorBoard forgets what it had from there."""
    log = SessionLog(status=SessionLog.START)
    return _serialized(Event(step=step, wall_time=time.time(), session_log=log))


def records_event(block: bytes, step: int, wall_time: float) -> bytes:
    """A serialized Event with a block of `trainer.wire.encode`."""
    return bytes_event(RECORDS_TAG, PLUGIN, block, step, wall_time)


def layout() -> bytes:
    """A serialized Event with the charts of the CUSTOM SCALARS tab."""
    categories = [
        Category(
            title=title, chart=[Chart(title=t, multiline=Lines(tag=[r])) for t, r in charts.items()]
        )
        for title, charts in CHARTS.items()
    ]
    content = Layout(category=categories).SerializeToString()
    return bytes_event("custom_scalars__config__", "custom_scalars", content, 0, time.time())


def hyperparameters(
    values: Mapping[str, bool | int | float | str], metrics: Sequence[str], varied: Collection[str]
) -> list[bytes]:
    """Serialized Events that put the run into the HPARAMS tab; metrics are tags of its scalars.

    Those of the values that are varied come first there. TypeError when a value is none of bool,
    int, float and str.
    """
    start = SessionStartInfo(start_time_secs=time.time())
    infos = []
    for name, value in values.items():
        # A bool is an int to Python, so it is asked for first.
        if isinstance(value, bool):
            start.hparams[name].bool_value, kind = value, api_pb2.DATA_TYPE_BOOL
        elif isinstance(value, int | float):
            start.hparams[name].number_value, kind = value, api_pb2.DATA_TYPE_FLOAT64
        elif isinstance(value, str):
            start.hparams[name].string_value, kind = value, api_pb2.DATA_TYPE_STRING
        else:
            wanted = "expected a bool, a number or a text"
            raise TypeError(f"hyperparameter '{name}': {wanted}, not {value!r}")
        infos.append(api_pb2.HParamInfo(name=name, type=kind, differs=name in varied))
    experiment = api_pb2.Experiment(
        time_created_secs=time.time(),
        hparam_infos=infos,
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics],
    )
    return [
        _session("experiment", HParamsPluginData(experiment=experiment)),
        _session("session_start_info", HParamsPluginData(session_start_info=start)),
    ]


def session_end(failed: bool) -> bytes:
    """A serialized Event that tells the HPARAMS tab how the run ended."""
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    return _session("session_end_info", HParamsPluginData(session_end_info=end))


def _session(name: str, data: HParamsPluginData) -> bytes:
    """The tab reads the metadata of the tag; its tensor has to be there and is empty."""
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)])
    value = Summary.Value(
        tag=f"_hparams_/{name}",
        metadata=metadata("hparams", DATA_CLASS_TENSOR, data.SerializeToString()),
        tensor=TensorProto(dtype=DT_FLOAT, tensor_shape=shape),
    )
    return _serialized(Event(wall_time=time.time(), summary=Summary(value=[value])))


def _serialized(message: Event) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]
