"""The tab's numbers are those of the records, whatever was logged and whatever is asked."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records_by_hand import Layer, deep, linear, record
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard_server import unpacked
from werkzeug.test import Client, TestResponse

from trainer.diagnosis import Diagnosis
from trainer.events import about
from trainer.events.file import EventFile
from trainer.plugin import blocks
from trainer.plugin.backend import Gradients
from trainer.plugin.grid import ABSENT, AXES, Fold, Grid, Part
from trainer.plugin.loader import Loader
from trainer.plugin.run import MOST_ENDED
from trainer.record import BINS, MOMENTS, StepRecord, TensorTable
from trainer.wire import PLUGIN, encode


class Tab:
    """The routes of the tab over a folder of runs, as TensorBoard's own loader reads it."""

    def __init__(self, logdir: Path) -> None:
        self._logdir = logdir
        flags = SimpleNamespace(samples_per_plugin={})
        Loader().fix_flags(flags)
        self._multiplexer = EventMultiplexer(tensor_size_guidance=flags.samples_per_plugin)
        provider = MultiplexerDataProvider(self._multiplexer, str(logdir))
        self.routes = (
            Loader()
            .load(SimpleNamespace(data_provider=provider, logdir=str(logdir)))
            .get_plugin_apps()
        )
        self.reload()

    def reload(self) -> None:
        self._multiplexer.AddRunsFromDirectory(str(self._logdir))
        self._multiplexer.Reload()

    def respond(self, route: str, method: str = "GET", **query: object) -> TestResponse:
        asked = {name: str(value) for name, value in query.items()}
        return Client(self.routes[route]).open("/", method=method, query_string=asked)

    def get(self, route: str, **query: object) -> Any:
        response = self.respond(route, **query)
        assert response.status_code == 200, response.get_data(as_text=True)
        content = response.get_data()
        return json.loads(content) if response.is_json else unpacked(content)


def write(folder: Path, *logged: list[StepRecord] | bytes) -> Path:
    """An event file with these blocks."""
    file = EventFile(folder)
    for number, block in enumerate(logged):
        if isinstance(block, bytes):
            file.add(about.records_event(block, number, time.time()))
        else:
            file.add(about.records_event(encode(block), block[0].step, time.time()))
    file.flush()
    file.close()
    return sorted(folder.glob("*tfevents*"))[-1]


def number(value: float | str | None) -> float:
    return ABSENT if value is None else float(value)


ODD = [
    *deep(3, backward=0.5),
    Layer(gradient=math.nan),
    linear(gradient=math.inf, rms=math.nan, weight_gradient=math.nan, update=math.inf),
    Layer(gradient=0.0, dead=1.0),
    Layer(gradient=None, rms=math.inf),
    linear(weight_gradient=None, gradient=1e-60),
]


def logged(found: StepRecord, statistic: str) -> dict[str, float]:
    """What TensorBoard's curves would show of a record, by name; nothing that does not apply."""
    table = found.gradients if statistic == "parameter_gradient" else found.layers.gradients
    if statistic.endswith("_gradient"):
        numbers = {}
        for name in table.names:
            row = table[name]
            finite = math.nan if row.nans else math.inf if row.infinities else row.rms
            numbers[name] = finite
        return numbers
    if statistic == "update_ratio":
        return dict(zip(found.parameters, found.update_ratio.tolist(), strict=True))
    values = found.layers.rms if statistic == "activation" else found.layers.zero_fraction
    pairs = list(zip(found.layers.names, values.tolist(), strict=True))
    return dict(pairs[found.layers.has_input :])


STATISTICS = ["activation_gradient", "parameter_gradient", "update_ratio", "activation"]
STATISTICS.append("zero_fraction")


@pytest.mark.parametrize("statistic", STATISTICS)
def test_every_number_is_the_records(tmp_path: Path, statistic: str) -> None:
    records = [
        record(step, ODD if step == 4 else deep(3, backward=0.3**step, dead=0.1 * step)[:5])
        for step in range(6)
    ]
    write(tmp_path / "run", records[:2], records[2:])
    tab = Tab(tmp_path)
    assert [run["run"] for run in tab.get("/runs")] == ["run"]
    whole = tab.get("/matrix", run="run", statistic=statistic)
    assert whole["first"] == whole["last"] == [0, 1, 2, 3, 4, 5] and whole["high"] is None
    cells = whole["low"]
    for place, found in enumerate(records):
        want = logged(found, statistic)
        profile = tab.get("/profile", run="run", statistic=statistic, step=found.step)
        assert profile["step"] == found.step
        for name, value in zip(profile["rows"], profile["low"], strict=True):
            assert np.array_equal(number(value), want.get(name, ABSENT), equal_nan=True), name
        for name, value in zip(whole["rows"], cells[place], strict=True):
            assert np.array_equal(value, want.get(name, ABSENT), equal_nan=True), name
        assert want.keys() <= set(whole["rows"])


def test_a_step_without_gradients_of_outputs_is_no_column_of_them(tmp_path: Path) -> None:
    """As where the forward pass alone was made again."""
    seen, again = record(3, deep(2)), record(4, deep(2, forward=0.5))
    nothing = TensorTable((), np.empty((0, MOMENTS)))
    again = replace(again, layers=replace(again.layers, gradients=nothing))
    write(tmp_path / "run", [seen, again])
    tab = Tab(tmp_path)
    assert tab.get("/matrix", run="run")["first"] == [3]
    assert tab.get("/matrix", run="run", statistic="activation")["first"] == [3, 4]


def test_relative_to_the_last_row(tmp_path: Path) -> None:
    write(tmp_path / "run", [record(3, deep(2, backward=0.25))])
    profile = Tab(tmp_path).get("/profile", run="run", relative="true")
    assert profile["rows"] == ["0", "1", "2", "3", "4"]
    assert profile["low"] == pytest.approx([1 / 16, 1 / 16, 1 / 4, 1 / 4, 1])


numbers = st.sampled_from([ABSENT, 0.0, 1e-30, 0.5, 1.0, 2e9, math.inf, math.nan])


@given(
    values=st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=40),
    width=st.integers(1, 12),
    axis=st.sampled_from(AXES),
    gaps=st.lists(st.integers(1, 50), min_size=40, max_size=40),
    relative=st.booleans(),
)
def test_merged_columns_hide_nothing(
    values: list[list[float]], width: int, axis: str, gaps: list[int], relative: bool
) -> None:
    grid, steps = Grid(), np.cumsum(gaps)[: len(values)]
    for step, row in zip(steps.tolist(), values, strict=True):
        grid.add([Part(np.array([step]), ("a", "b"), np.array([row]))])
    single = grid.columns(len(values), relative=relative)
    if not relative:
        want = np.array(values)[:, ["ab".index(name) for name in single.rows]]
        assert np.array_equal(single.low, want, equal_nan=True) and single.high is single.low
    columns = grid.columns(width, axis, relative=relative)
    assert len(columns.first) <= width and columns.rows == single.rows
    assert columns.first[0] == steps[0] and columns.last[-1] == steps[-1]
    for column, (first, last) in enumerate(zip(columns.first, columns.last, strict=True)):
        inside = single.low[(steps >= first) & (steps <= last)]
        for place in range(len(columns.rows)):
            there = [v for v in inside[:, place].tolist() if v != ABSENT]
            low, high = columns.low[column, place], columns.high[column, place]
            if any(math.isnan(value) for value in there):
                assert math.isnan(low) and math.isnan(high)
            elif math.inf in there:
                assert low == high == math.inf
            else:
                assert [low, high] == [min(there, default=ABSENT), max(there, default=ABSENT)]
    shown = {step for f, s in zip(columns.first, columns.last, strict=True)
             for step in steps if f <= step <= s}  # fmt: skip
    assert shown == set(steps.tolist()), "every step is in a column"


def test_a_zoom_shows_single_steps(tmp_path: Path) -> None:
    write(tmp_path / "run", [record(step, deep(2)) for step in range(0, 400, 2)])
    tab = Tab(tmp_path)
    assert len(tab.get("/matrix", run="run", width=10)["first"]) == 10
    zoomed = tab.get("/matrix", run="run", width=10, first=101, last=110)
    assert zoomed["first"] == zoomed["last"] == [102, 104, 106, 108, 110]
    assert zoomed["steps"] == [0, 398] and zoomed["observed"] == 200
    nothing = tab.get("/matrix", run="run", first=7, last=3)
    assert nothing["first"] == [] and nothing["rows"] == []


def test_what_was_logged_after_a_restart_counts(tmp_path: Path) -> None:
    write(tmp_path / "run", [record(s, deep(2), loss=1) for s in range(5)],
          [record(s, deep(2)) for s in range(5, 9)])  # fmt: skip
    tab = Tab(tmp_path)
    assert tab.get("/matrix", run="run")["last"][-1] == 8
    write(tmp_path / "run", [record(s, deep(2, backward=0.5)) for s in (3, 4, 6)])
    tab.reload()
    assert tab.get("/matrix", run="run")["first"] == [0, 1, 2, 3, 4, 6]
    assert tab.get("/profile", run="run", step=2)["low"][0] == 1
    assert tab.get("/profile", run="run", step=3)["low"][0] == 0.25
    assert tab.get("/findings", run="run")["records"] == 6


def test_blocks_are_renewed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads them meanwhile has those of before, and not some of them."""
    held, put, seen = blocks.Blocks(), blocks.Store.put, list[int]()

    def watched(store: blocks.Store, content: bytes) -> int:
        seen.append(len(held.held))
        return put(store, content)

    logged = [blocks.Logged(step, 0.0, bytes([step])) for step in range(3)]
    held.renew(logged)
    monkeypatch.setattr(blocks.Store, "put", watched)
    held.renew([*logged, blocks.Logged(3, 0.0, b"more"), blocks.Logged(4, 0.0, b"still more")])
    assert seen == [3, 3] and [block.step for block in held.held] == [0, 1, 2, 3, 4]


def test_only_new_blocks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(block: bytes, sheets: Callable[[bytes], Any] = blocks.sheets) -> Any:
        read.append(len(block))
        return sheets(block)

    monkeypatch.setattr(blocks, "sheets", counted)
    file = EventFile(tmp_path / "run")
    add = lambda step: file.add(about.records_event(encode([record(step, deep(2))]), step, step))  # noqa: E731
    for step in range(3):
        add(step)
    file.flush()
    tab = Tab(tmp_path)
    assert tab.get("/matrix", run="run")["observed"] == 3 and len(read) == 3
    add(3)
    file.flush()
    file.close()
    tab.reload()
    assert tab.get("/matrix", run="run")["observed"] == 4 and len(read) == 4


def test_findings_are_those_of_the_diagnosis(tmp_path: Path) -> None:
    records = [record(step, deep(6, backward=1e-3, signal=1e-3, update=1e-9)) for step in range(30)]
    diagnosis = Diagnosis({"model": {"name": "mlp"}})
    for found in records:
        diagnosis.add(found)
    assert diagnosis.findings, "else nothing is compared"
    write(tmp_path / "run", records)
    (tmp_path / "run" / "config.yaml").write_text("model: {name: mlp}\n")
    tab = Tab(tmp_path)
    told = tab.get("/findings", run="run")["findings"]
    assert [one["headline"] for one in told] == [one.headline for one in diagnosis.findings]
    assert [one["remedy"] for one in told] == [one.remedy for one in diagnosis.findings]
    assert [one["change"] for one in told] == [dict(one.change) for one in diagnosis.findings]


def test_of_findings_without_end_the_gravest_and_latest_are_told(tmp_path: Path) -> None:
    layers = deep(2, update=2e-4)  # too little to be stalled
    records = [record(0, layers)]
    for step in range(1, 300):  # gradients that pile up at times, then a loss that jumps
        grave = {"carried": 3.0 * (step // 3 % 2)} if step < 30 else {}
        calm = step < 30 or step % 6
        records.append(record(4 * step, layers, loss=1 if calm else 9, **grave))
    diagnosis = Diagnosis()
    for found in records:
        diagnosis.add(found)
    spikes = [one.headline for one in diagnosis.findings if one.level == "info"]
    grave = [one.headline for one in diagnosis.findings if one.level == "critical"]
    assert len(spikes) > MOST_ENDED and len(grave) > 2, "else nothing is left out"
    assert all(one.resolved for one in diagnosis.findings)
    write(tmp_path / "run", records[:100], records[100:])
    told = Tab(tmp_path).get("/findings", run="run")
    assert [one["headline"] for one in told["findings"]] == [
        *grave, *spikes[len(grave) - MOST_ENDED :]
    ]  # fmt: skip
    assert told["more"] == len(spikes) + len(grave) - MOST_ENDED


def test_a_configuration_that_cannot_be_read_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "run", [record(0, deep(2))])
    (tmp_path / "run" / "config.yaml").write_text("model: [")
    (note,) = Tab(tmp_path).get("/matrix", run="run")["notes"]
    assert "config.yaml" in note


def test_a_histogram_is_the_newest_up_to_the_step(tmp_path: Path) -> None:
    def counted(step: int, count: int) -> StepRecord:
        made = record(step, deep(1))
        counts = np.zeros((len(made.gradients.names), BINS), np.int64)
        counts[0, 250], counts[0, 512 + 250], counts[0, 260] = count, 2, 7
        return replace(made, gradients=replace(made.gradients, histograms=counts))

    write(tmp_path / "run", [counted(10, 5), record(15, deep(1))], [counted(20, 9)])
    tab = Tab(tmp_path)
    want = {"run": "run", "statistic": "parameter_gradient", "row": "0.weight"}
    for asked, step, count in ((0, 10, 5), (10, 10, 5), (19, 10, 5), (20, 20, 9), (99, 20, 9)):
        answer = tab.get("/histogram", step=asked, **want)
        assert answer["step"] == step and answer["bins"] == [250, 260]
        assert answer["counts"] == [count + 2, 7], "both signs"
    assert tab.get("/histogram", **want | {"row": "nothing"}) == {"step": None}


NAMES = [
    "<script>alert(1)</script>",
    "a/b\\c\"d'e",
    "x" * 10_000,
    "\u202eright to left",
    "🔥",
    "\n",
]


def test_names_come_back_as_they_are(tmp_path: Path) -> None:
    made = record(0, deep(2))
    layers = replace(made.layers, names=("input", *NAMES[:5]),
                     gradients=replace(made.layers.gradients, names=tuple(NAMES[:5])))  # fmt: skip
    folder = tmp_path / "a & <b>" / "🔥 'run'"
    write(folder, [replace(made, layers=layers)])
    tab = Tab(tmp_path)
    ((run, _),) = [listed.values() for listed in tab.get("/runs")]
    assert run == str(folder.relative_to(tmp_path))
    response = tab.respond("/matrix", run=run)
    assert response.content_type == "application/octet-stream"
    assert tab.get("/matrix", run=run)["rows"] == NAMES[:5]


def test_damaged_and_foreign_files_leave_the_rest(tmp_path: Path) -> None:
    good = [record(step, deep(2)) for step in range(3)]
    write(tmp_path / "garbage", good, b"GRAD\x02 and no more", b"")
    cut = write(tmp_path / "cut", good, [record(9, deep(2))])
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "events.out.tfevents.1.x").write_bytes(bytes(range(256)) * 8)
    write(tmp_path / "nothing", b"not ours")
    tab = Tab(tmp_path)
    assert [run["run"] for run in tab.get("/runs")] == ["cut", "garbage", "nothing"]
    garbage = tab.get("/matrix", run="garbage")
    assert garbage["first"] == [0] and len(garbage["notes"]) == 2
    assert tab.get("/matrix", run="cut")["first"] == [0, 1, 2]
    nothing = tab.get("/matrix", run="nothing")
    assert nothing["rows"] == [] and nothing["steps"] is None and len(nothing["notes"]) == 1
    assert tab.get("/profile", run="nothing")["step"] is None
    assert tab.get("/findings", run="nothing")["records"] == 0


@pytest.mark.parametrize(
    ("route", "query", "status"),
    [
        ("/matrix", {"run": "../run"}, 404),
        ("/matrix", {}, 404),
        ("/findings", {"run": "<b>"}, 404),
        ("/matrix", {"run": "run", "statistic": "loss"}, 400),
        ("/matrix", {"run": "run", "width": 0}, 400),
        ("/matrix", {"run": "run", "axis": "__class__"}, 400),
        ("/profile", {"run": "run", "step": "nan"}, 400),
        ("/histogram", {"run": "run", "statistic": ""}, 400),
    ],
)
def test_what_has_no_answer(tmp_path: Path, route: str, query: Any, status: int) -> None:
    write(tmp_path / "run", [record(0, deep(2))])
    response = Tab(tmp_path).respond(route, **query)
    assert response.status_code == status
    assert response.content_type.startswith("text/plain")


def test_nothing_is_changed_and_no_file_beside_the_page_is_served(tmp_path: Path) -> None:
    tab = Tab(tmp_path)
    assert tab.respond("/runs", method="POST").status_code == 405
    assert tab.get("/runs") == []
    assert not any("*" in route or "/" in route[1:] for route in tab.routes), "exact names only"
    page = tab.respond("/index.js")
    assert page.status_code == 200 and page.mimetype == "application/javascript"
    assert Gradients(SimpleNamespace(data_provider=None, logdir="")).is_active() is False


def test_a_users_own_sampling_stays() -> None:
    flags = SimpleNamespace(samples_per_plugin={PLUGIN: 7})
    Loader().fix_flags(flags)
    assert flags.samples_per_plugin == {PLUGIN: 7}


def test_tensorboard_starts_without_what_the_answers_need() -> None:
    code = (
        "import sys, types, trainer.plugin.loader as l;"
        "l.Loader().load(types.SimpleNamespace(data_provider=None, logdir='')).get_plugin_apps();"
        "print([m for m in ('torch', 'pydantic', 'trainer.diagnosis') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_folded_module_keeps_the_extremes_of_its_layers() -> None:
    grid = Grid()
    names = ("stem", "blocks.0.a", "blocks.1.a", "blocks.0.b", "head")
    values = np.array([[1, 2, 3, 4, 5.0], [1, ABSENT, 0, ABSENT, math.nan]])
    grid.add([Part(np.array([0, 1]), names, values)])
    one = grid.columns(10, fold=Fold(1))
    assert one.rows == ("stem", "blocks", "head")
    assert one.low[0].tolist() == [1, 2, 5] and one.high[0].tolist() == [1, 4, 5]
    assert one.low[1, 1] == one.high[1, 1] == 0 and math.isnan(one.low[1, 2])
    two = grid.columns(10, fold=Fold(2))
    assert two.rows == ("stem", "blocks.0", "blocks.1", "head")
    assert two.high[1, 1] == ABSENT and two.high[0].tolist() == [1, 4, 3, 5]
    merged = grid.columns(1, fold=Fold(1))
    assert merged.low[0, 1] == 0 and merged.high[0, 1] == 4
    assert grid.columns(1, fold=Fold(1, frozenset({"blocks"}))).rows == names
    just_one = grid.columns(10, fold=Fold(0, frozenset({"blocks.0"})))
    assert just_one.rows == ("stem", "blocks.0", "blocks.1.a", "head")
    assert just_one.low[0].tolist() == [1, 2, 3, 5] and just_one.high[0].tolist() == [1, 4, 3, 5]


def test_one_layer_has_none_to_be_compared_with(tmp_path: Path) -> None:
    write(tmp_path / "run", [record(0, [linear(gradient=0.25)])])
    answer = Tab(tmp_path).get("/matrix", run="run", relative="true")
    assert answer["low"].tolist() == [[0.25]] and answer["relative"] is False


def test_histograms_over_time_are_those_of_the_records(tmp_path: Path) -> None:
    def counted(step: int) -> StepRecord:
        made = record(step, deep(1))
        counts = np.zeros((len(made.gradients.names), BINS), np.int64)
        counts[0, 200 + step] = step + 1
        return replace(made, gradients=replace(made.gradients, histograms=counts))

    write(tmp_path / "run", [counted(0), record(1, deep(1)), counted(2)], [counted(3), counted(4)])
    tab = Tab(tmp_path)
    want = {"run": "run", "statistic": "parameter_gradient", "row": "0"}
    answer = tab.get("/histograms", **want)
    assert answer["steps"] == [0, 2, 3, 4]
    assert answer["counts"] == [[[200 + s], [s + 1]] for s in (0, 2, 3, 4)]
    assert tab.get("/histograms", width=2, **want)["steps"] == [0, 4]
    assert tab.respond("/histograms", width=0, **want).status_code == 400


def test_the_histogram_of_a_module_is_the_sum_of_its_layers(tmp_path: Path) -> None:
    made = record(0, deep(2)[:3])
    counts = np.zeros((3, BINS), np.int64)
    counts[0, 200], counts[1, [200, 512 + 210]], counts[2, 220] = 1000, [400, 600], 1000
    table = replace(made.layers.gradients, names=("a.0", "a.1", "ab"), histograms=counts)
    table = replace(table, moments=table.moments * [[1], [2], [1]])
    layers = replace(made.layers, names=("input", *table.names), gradients=table)
    write(tmp_path / "run", [replace(made, layers=layers)])
    tab = Tab(tmp_path)
    answer = tab.get("/histogram", run="run", row="a")
    assert answer["bins"] == [200, 210] and answer["counts"] == [1400, 600]
    assert answer["tensors"] == 2 and answer["count"] == 3000
    one, two = (table[name] for name in ("a.0", "a.1"))
    assert answer["rms"] == pytest.approx(math.hypot(one.norm, two.norm) / math.sqrt(3000))
    assert answer["largest"] == two.max_abs
    assert tab.get("/histogram", run="run", row="a.0")["bins"] == [200]
    assert tab.get("/histograms", run="run", row="a")["counts"] == [[[200, 210], [1400, 600]]]


def test_many_layers_get_fewer_columns_but_lose_no_spike() -> None:
    grid = Grid()
    for step in range(300):
        values = np.ones(1000)
        values[500] = 1e9 if step == 123 else 1.0
        grid.add([Part(np.array([step]), tuple(map(str, range(1000))), values[None])])
    columns = grid.columns(4000)
    assert columns.low.size <= 200_000 and columns.high.max() == 1e9
    assert columns.first[0] == 0 and columns.last[-1] == 299
