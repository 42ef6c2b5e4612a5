"""How fast the tab GRADIENTS answers and draws, and how much memory TensorBoard takes.

    python scripts/benchmark_plugin.py [--layers 1000] [--steps 10000] [--long 100000]

The first run has that many layers at that many observed steps and is asked for over HTTP after its
numbers were loaded once, then opened in headless Chromium (needs the extra `browser`). The second
has ten layers at `--long` steps, all observed: of TensorBoard's processes the resident memory is
read after every statistic, the histograms and the findings were asked for, and that of one
without the plugin, over the same folder, is taken from it. Beside it stands the event file's size.
The start is timed from the command to the address, with and without the plugin by turns. Runs are
made up, with noise in every size of a gradient.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from records_by_hand import deep, record  # noqa: E402
from tensorboard_server import Server, serve  # noqa: E402

from trainer.events import about  # noqa: E402
from trainer.events.file import EventFile  # noqa: E402
from trainer.record import TensorTable  # noqa: E402
from trainer.wire import encode  # noqa: E402

BLOCK = 50  # records
ROUNDS = 15
CURSOR_MOVES = 240
LOADED_SECONDS = 20  # after which TensorBoard has read the folder
STATISTICS = ("parameter_gradient", "update_ratio", "activation", "zero_fraction")


def noise(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Factors around 1."""
    return np.exp(random.normal(scale=0.1, size=shape))


def noisy(table: TensorTable, random: np.random.Generator) -> TensorTable:
    """The same tensors with other sizes."""
    moments = table.moments.copy()
    moments[:, 1:4] *= noise(random, (len(table.names), 1))
    return replace(table, moments=moments)


def write(folder: Path, layers: int, steps: int) -> int:
    """A run of so many layers and steps; the bytes of its event file."""
    made = record(0, deep(layers // 2)[:layers])
    random = np.random.default_rng(0)
    file = EventFile(folder)
    for start in range(0, steps, BLOCK):
        records = []
        for step in range(start, min(start + BLOCK, steps)):
            layers_now = replace(
                made.layers, gradients=noisy(made.layers.gradients, random),
                rms=made.layers.rms * noise(random, made.layers.rms.shape),
            )  # fmt: skip
            ratio = made.update_ratio * noise(random, made.update_ratio.shape)
            records.append(
                replace(made, step=step, wall_time=1e9 + step, layers=layers_now,
                        gradients=noisy(made.gradients, random), update_ratio=ratio)
            )  # fmt: skip
        file.add(about.records_event(encode(records), start, time.time()))
        file.flush()
    file.close()
    return sum(path.stat().st_size for path in folder.iterdir())


def milliseconds(call: Callable[[], object], rounds: int = ROUNDS) -> tuple[float, float]:
    """Median and slowest."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken), max(taken)


def resident(process_of: str) -> int:
    """Bytes that the processes with this text in their command line hold now."""
    lines = subprocess.run(["ps", "-eo", "rss,args"], capture_output=True, text=True).stdout
    return sum(int(line.split()[0]) * 1024 for line in lines.splitlines() if process_of in line)


def start_up(folder: Path, table: list[list[str]]) -> None:
    taken: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for plugin in taken:
            start = time.perf_counter()
            with serve(folder, plugin=plugin):
                taken[plugin].append(time.perf_counter() - start)
    with_it, without = (statistics.median(taken[plugin]) for plugin in (True, False))
    table.append(["start with the plugin", f"{with_it:.2f} s",
                  f"{1000 * (with_it - without):+.0f} ms to one without; aim 100"])  # fmt: skip


def answers(server: Server, table: list[list[str]]) -> None:
    start = time.perf_counter()
    server.get("plugin/gradients/matrix", run="large", width="1000")
    table.append(["first question: loads the run", f"{time.perf_counter() - start:.1f} s", ""])
    start = time.perf_counter()
    server.get("plugin/gradients/findings", run="large")
    table.append(["first question for findings", f"{time.perf_counter() - start:.1f} s", ""])
    for route, query in {
        "matrix": {"width": "1000"},
        "matrix, relative": {"width": "1000", "relative": "true"},
        "matrix, folded": {"width": "1000", "fold": "1"},
        "profile": {"step": "5000"},
        "findings": {},
    }.items():
        path = f"plugin/gradients/{route.split(',')[0]}"
        median, slowest = milliseconds(lambda p=path, q=query: server.get(p, run="large", **q))
        table.append([f"answer: {route}", f"{median:.0f} ms", f"slowest {slowest:.0f}; aim 500"])


def page(server: Server, table: list[list[str]]) -> None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        table.append(["page", "not measured", "needs pip install -e '.[browser]'"])
        return
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.goto(f"{server.address}/#gradients")
        frame = opened.frame_locator("iframe")
        frame.locator(".said").filter(has_text="click").wait_for(timeout=120_000)
        element: Any = opened.locator("iframe").element_handle()
        inner = element.content_frame()
        # From the page's first byte to its first cells, with a warm server.
        inner.evaluate("location.reload()")
        opened.wait_for_timeout(500)
        frame.locator(".said").filter(has_text="click").wait_for(timeout=120_000)
        inner = opened.locator("iframe").element_handle().content_frame()
        first = inner.evaluate("performance.getEntriesByName('first picture')[0].startTime")
        table.append(["first picture", f"{first:.0f} ms", "aim 1000"])
        frames = inner.evaluate(
            """async (moves) => {
                const map = document.querySelector('.map'), box = map.getBoundingClientRect();
                const times = [];
                for (let move = 0; move < moves; move++) {
                    map.dispatchEvent(new PointerEvent('pointermove', {bubbles: true,
                        clientX: box.left + 250 + move, clientY: box.top + 20 + move % 300}));
                    times.push(await new Promise(requestAnimationFrame));
                }
                return times;
            }""",
            CURSOR_MOVES,
        )
        rate = 1000 * (len(frames) - 1) / (frames[-1] - frames[0])
        worst = max(b - a for a, b in zip(frames, frames[1:], strict=False))
        table.append(["moving the cursor", f"{rate:.0f} frames/s", f"longest frame {worst:.0f} ms"])
        browser.close()


def memory(folder: Path, size: int, steps: int, table: list[list[str]]) -> None:
    for fast in ("true", "false"):
        taken = {}
        for plugin in (False, True):
            with serve(folder, f"--load_fast={fast}", plugin=plugin) as server:
                if plugin:
                    ask_all(server, steps)
                else:
                    time.sleep(LOADED_SECONDS)
                taken[plugin] = resident(str(folder))
        grown = taken[True] - taken[False]
        table.append([f"memory of {steps} steps, load_fast={fast}", f"{grown / 1e6:.0f} MB",
                      f"{grown / size:.1f} times the {size / 1e6:.0f} MB file; aim 2"])  # fmt: skip


def ask_all(server: Server, steps: int) -> None:
    route = "plugin/gradients/"
    seen = server.until(lambda answer: answer["observed"] == steps, route + "matrix", run="long")
    assert seen["observed"] == steps, seen["observed"]
    for statistic in STATISTICS:
        server.get(route + "matrix", run="long", statistic=statistic)
    server.get(route + "histograms", run="long", row="0")
    server.get(route + "findings", run="long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=100_000, help="steps of the second run")
    arguments = parser.parse_args()
    table: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        large, long = Path(place) / "large", Path(place) / "long"
        size = write(large / "large", arguments.layers, arguments.steps)
        table.append(["event file", f"{size / 1e6:.0f} MB", f"{arguments.layers} layers"])
        with serve(large) as server:
            start = time.perf_counter()
            server.until(lambda runs: bool(runs), "plugin/gradients/runs")
            time.sleep(max(0, LOADED_SECONDS - (time.perf_counter() - start)))
            answers(server, table)
            page(server, table)
        for line in table:
            print("  ".join(part.ljust(40) for part in line).rstrip(), flush=True)
        done = len(table)
        (Path(place) / "empty").mkdir()
        start_up(Path(place) / "empty", table)
        size = write(long / "long", 10, arguments.long)
        memory(long, size, arguments.long, table)
        for line in table[done:]:
            print("  ".join(part.ljust(40) for part in line).rstrip(), flush=True)


if __name__ == "__main__":
    main()
