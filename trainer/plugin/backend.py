"""The routes of the tab: what TensorBoard answers when its page asks."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard import plugin_util
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins.base_plugin import FrontendMetadata, TBPlugin
from werkzeug import Request

from trainer.plugin import questions
from trainer.plugin.questions import LARGEST, Refused, number, whole
from trainer.wire import PLUGIN, RECORDS_TAG

if TYPE_CHECKING:  # imported at the first question: TensorBoard starts without them
    from trainer.plugin.run import Run

STATIC = Path(__file__).parent / "static"
HELD_RUNS = 8  # whose numbers stay in memory
MAX_COLUMNS = 4096
MAX_HISTOGRAMS = 200  # over time


class Gradients(TBPlugin):  # type: ignore[misc]
    """The tab GRADIENTS."""

    plugin_name = PLUGIN

    def __init__(self, context: Any) -> None:
        self._provider = context.data_provider
        self._logdir = context.logdir
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    def is_active(self) -> bool:
        """False: TensorBoard itself looks for runs that have records, and shows the tab then."""
        return False

    def frontend_metadata(self) -> FrontendMetadata:
        """Where the page begins."""
        return FrontendMetadata(es_module_path="/index.js", tab_name="Gradients")

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """The routes; each file of the page is one of its own, so there is no path to escape by."""
        asked = {
            "/runs": self._runs,
            "/matrix": self._matrix,
            "/profile": self._profile,
            "/histogram": self._histogram,
            "/histograms": self._histograms,
            "/findings": self._findings,
        }
        files = {
            f"/{p.name}": questions.file(p) for p in STATIC.iterdir() if p.suffix in questions.TYPES
        }
        return files | {route: questions.answer(ask) for route, ask in asked.items()}

    def _runs(self, request: Request) -> Any:
        listed = self._listed(request, None)
        return [  # the version changes when there are more records
            {"run": run, "version": tags[RECORDS_TAG].max_wall_time}
            for run, tags in sorted(listed.items())
            if RECORDS_TAG in tags
        ]

    def _matrix(self, request: Request) -> Any:
        from trainer.plugin.grid import AXES

        first, last = (whole(request, name, None) for name in ("first", "last"))
        width = whole(request, "width", 1000)
        if not 1 <= width <= MAX_COLUMNS:
            raise Refused(400, f"width: expected 1 to {MAX_COLUMNS}")
        axis = request.args.get("axis", "even")
        if axis not in AXES:
            raise Refused(400, f"axis: expected one of {', '.join(AXES)}")
        fold, relative = questions.fold(request), questions.relative(request)
        run = self._asked_run(request)
        with run.measured(questions.measure(request)) as (measured, notes):
            grid = measured.grid
            columns = grid.columns(width, axis, first, last, relative, fold)
            steps = grid.steps
            about = {
                "rows": columns.rows,
                "modules": columns.modules,
                "relative": relative and grid.wide,
                "first": columns.first.tolist(),
                "last": columns.last.tolist(),
                "steps": [int(steps[0]), int(steps[-1])] if len(steps) else None,
                "observed": len(steps),
                "notes": notes + ([run.note] if run.note else []),
            }
        both = [columns.low] if columns.high is columns.low else [columns.low, columns.high]
        return questions.packed(about, *both)

    def _profile(self, request: Request) -> Any:
        step = whole(request, "step", LARGEST)
        fold, relative = questions.fold(request), questions.relative(request)
        with self._asked_run(request).measured(questions.measure(request)) as (measured, _):
            found = measured.grid.at(step, relative, fold)
            if found is None:
                return {"step": None, "rows": [], "low": [], "high": []}
            low, high = ([number(v) for v in side[0].tolist()] for side in (found.low, found.high))
            return {"step": int(found.first[0]), "rows": found.rows, "low": low, "high": high}

    def _histogram(self, request: Request) -> Any:
        from trainer.plugin import spectrum

        step, row = whole(request, "step", LARGEST), request.args.get("row", "")
        table, run = questions.table(request), self._asked_run(request)
        with run.measured(questions.measure(request)) as (measured, _):
            steps = measured.with_histograms[:]
        found = spectrum.newest(run.blocks.held, table, row, step, steps)
        if found is None:
            return {"step": None}
        at, statistics, tensors = found
        bins, counts = spectrum.magnitudes(statistics)
        return {
            "step": at,
            "tensors": tensors,
            "bins": bins,
            "counts": counts,
            "count": statistics.count,
            "zeros": statistics.zeros,
            "nans": statistics.nans,
            "infinities": statistics.infinities,
            "rms": number(statistics.rms),
            "largest": number(statistics.max_abs),
        }

    def _histograms(self, request: Request) -> Any:
        from trainer.plugin import spectrum

        row, width = request.args.get("row", ""), whole(request, "width", 60)
        if not 1 <= width <= MAX_HISTOGRAMS:
            raise Refused(400, f"width: expected 1 to {MAX_HISTOGRAMS}")
        table, run = questions.table(request), self._asked_run(request)
        with run.measured(questions.measure(request)) as (measured, _):
            steps = questions.evenly(measured.with_histograms, width)
        found = spectrum.over_time(run.blocks.held, table, row, steps)
        return {
            "steps": [step for step, _, _ in found],
            "counts": [spectrum.magnitudes(one) for _, one, _ in found],  # bins, their counts
            "count": [statistics.count for _, statistics, _ in found],
        }

    def _findings(self, request: Request) -> Any:
        with self._asked_run(request).judged() as (judged, _):
            return judged.tree()

    def _listed(self, request: Request, run: str | None) -> Any:
        return self._provider.list_tensors(
            plugin_util.context(request.environ),
            experiment_id=plugin_util.experiment_id(request.environ),
            plugin_name=PLUGIN,
            run_tag_filter=RunTagFilter([run] if run else None, [RECORDS_TAG]),
        )

    def _asked_run(self, request: Request) -> Run:
        from trainer.plugin.blocks import Logged

        name = request.args.get("run", "")
        listed = self._listed(request, name).get(name, {}).get(RECORDS_TAG)
        if listed is None:
            raise Refused(404, "run: it has no records, or none yet")
        experiment = plugin_util.experiment_id(request.environ)
        version = listed.max_step, listed.max_wall_time
        held = self._hold(experiment, name)
        with held.lock:
            if held.version != version:
                read = self._provider.read_tensors(
                    plugin_util.context(request.environ),
                    experiment_id=experiment,
                    plugin_name=PLUGIN,
                    downsample=LARGEST,
                    run_tag_filter=RunTagFilter([name], [RECORDS_TAG]),
                )
                logged = read[name][RECORDS_TAG]
                held.run.blocks.renew(Logged(d.step, d.wall_time, _content(d)) for d in logged)
                held.version = version
            return held.run

    def _hold(self, experiment: str, name: str) -> _Held:
        from trainer.plugin.run import Run

        with self._lock:
            held = self._held.pop((experiment, name), None)
            if held is None:
                local = self._logdir and os.path.isdir(self._logdir)
                held = _Held(Run(Path(self._logdir, name) if local else None))
            self._held[experiment, name] = held
            while len(self._held) > HELD_RUNS:
                self._held.popitem(last=False)
            return held


class _Held:
    """A run, and which version of it was read."""

    def __init__(self, run: Run) -> None:
        self.lock = threading.Lock()
        self.run = run
        self.version: tuple[int, float] | None = None


def _content(datum: Any) -> bytes:
    content = datum.numpy.item() if datum.numpy.size == 1 else b""
    return content if isinstance(content, bytes) else b""
