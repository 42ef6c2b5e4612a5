"""A real TensorBoard with its fast data server shows a run while it is written, and its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard_server import Server, serve, session_groups
from test_events import made, simple_values

from trainer.events import Events
from trainer.events.histograms import Filled, log10_buckets

data_server = pytest.importorskip("tensorboard_data_server")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Events, Path]]:
    """A server of a folder with the run `one`, of which 30 steps are written so far."""
    if data_server.server_binary() is None:
        pytest.skip("there is no data server for this platform")
    logdir = tmp_path_factory.mktemp("logdir")
    events = Events(logdir / "one")
    events.text("config", "```yaml\nname: linear\n```")
    events.hyperparameters(
        {"lr": 0.1, "nesterov": True, "model": "linear"}, ["accuracy/validation"]
    )
    for step in range(30):
        events.write(made(step, histograms=step % 10 == 0, layers=True))
    with serve(logdir, "--load_fast=true", "--samples_per_plugin=gradients=0") as server:
        yield server, events, logdir / "one"
    events.close()


def test_everything_is_shown_while_the_run_goes_on(run: tuple[Server, Events, Path]) -> None:
    server, events, folder = run
    name = {"run": "one"}
    loss = server.until(lambda a: len(a) == 30, "plugin/scalars/scalars", tag="loss/train", **name)
    assert [step for _, step, _ in loss] == list(range(30))
    (path,) = folder.iterdir()
    tags = server.get("plugin/scalars/tags")["one"]
    for (tag, step), value in simple_values(path).items():
        assert tag in tags
        if step == 7:
            answer = server.get("plugin/scalars/scalars", tag=tag, **name)
            assert dict((s, v) for _, s, v in answer)[step] == pytest.approx(value, rel=1e-6)

    series = server.get("plugin/histograms/histograms", tag="gradient_log10/a.weight", **name)
    assert [step for _, step, _ in series] == [0, 10, 20]
    gradients = made(20, histograms=True, layers=True).gradients
    rows = log10_buckets(Filled.of([gradients])).each()[0]
    np.testing.assert_allclose(series[2][2], rows, rtol=1e-6)
    assert "activation_gradient_log10/a" in server.get("plugin/histograms/tags")["one"]

    (text,) = server.get("plugin/text/text", tag="config", **name)
    assert "name: linear" in text["text"] and "<code" in text["text"]

    layout = server.get("plugin/custom_scalars/layout")
    charts = {c["title"]: c for category in layout["category"] for c in category["chart"]}
    (norms,) = charts["gradient norm"]["multiline"]["tag"]
    lines = server.get("plugin/custom_scalars/scalars", tag=norms, **name)["tag_to_events"]
    assert lines.keys() == {"gradient_norm/a.weight", "gradient_norm/a.bias"}
    (ratios,) = charts["update ratio"]["multiline"]["tag"]
    lines = server.get("plugin/custom_scalars/scalars", tag=ratios, **name)["tag_to_events"]
    assert lines.keys() == {"update_ratio/a.weight", "update_ratio/a.bias"}


def test_the_run_is_in_the_hparams_tab_with_its_metrics_and_its_end(
    run: tuple[Server, Events, Path],
) -> None:
    server, events, _ = run
    experiment = server.until(
        lambda a: a["hparamInfos"], "plugin/hparams/experiment", {"experimentName": ""}
    )
    types = {info["name"]: info["type"] for info in experiment["hparamInfos"]}
    assert types == {"lr": "DATA_TYPE_FLOAT64", "nesterov": "DATA_TYPE_BOOL",
                     "model": "DATA_TYPE_STRING"}  # fmt: skip
    tags = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert tags == ["loss/train", "loss/validation", "gradient_norm/global", "accuracy/validation"]
    asked = session_groups("loss/train")

    def status(answer: Any) -> str:
        (group,) = answer["sessionGroups"]
        (session,) = group["sessions"]
        return str(session["status"])

    (group,) = server.get("plugin/hparams/session_groups", asked)["sessionGroups"]
    assert group["hparams"] == {"lr": 0.1, "nesterov": True, "model": "linear"}
    (session,) = group["sessions"]
    assert session["name"] == "one" and session["status"] != "STATUS_SUCCESS"
    last = next(m for m in session["metricValues"] if m["name"]["tag"] == "loss/train")
    assert last["trainingStep"] == 29
    assert last["value"] == pytest.approx(made(29, layers=True).loss)
    events.close()
    ended = server.until(
        lambda a: status(a) == "STATUS_SUCCESS", "plugin/hparams/session_groups", asked
    )
    assert status(ended) == "STATUS_SUCCESS"
