"""The page in a browser: it draws, follows what is chosen and what is logged, and asks nobody else.

Needs Playwright and a Chromium: `pip install -e '.[browser]'` and a `chromium` on the path, or
`playwright install chromium`. Without them the tests are skipped; with TRAINER_REQUIRE_BROWSER=1,
as in .ci/run, they fail.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from records_by_hand import deep, linear, record
from tensorboard_server import Server, serve
from test_plugin import NAMES, ODD, STATISTICS, write

from trainer.record import BINS, StepRecord
from trainer.summary import UNFALLEN, WELL

REQUIRED = os.environ.get("TRAINER_REQUIRE_BROWSER") == "1"
ENABLE = "to test the page: pip install -e '.[browser]' && playwright install chromium"
if REQUIRED:
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason=ENABLE)

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
HOSTILE = "<img src=x onerror=alert(1)>"
LONG = deep(200, backward=0.5, signal=0.5, update=1e-9)
RUNS = [  # names of folders
    "\u202eright to left",
    "/".join(["long" * 60] * 10),
    "a \"quoted\" 'run' & more",
    "🔥",
    "%3Cb%3E #?=+",
]


def well(step: int) -> StepRecord:
    """Of a training that goes as it should."""
    return record(step, deep(3), loss=1 / (1 + step))


def nested(step: int) -> StepRecord:
    """Of layers with a path and histograms."""
    made = record(step, deep(2, backward=0.5))
    counts = np.zeros((len(made.layers.gradients.names), BINS), np.int64)
    counts[:, 200 + step] = 1000
    names = ("stem", "=2+3.a", "=2+3.b", "blocks.0", "blocks.1")
    gradients = replace(made.layers.gradients, names=names, histograms=counts)
    return replace(made, layers=replace(made.layers, names=("input", *names), gradients=gradients))


def named(place: int) -> StepRecord:
    """Of layers with names that nobody would give, one of which is the first that has a NaN."""
    made = record(0, deep(2))
    gradients = replace(made.layers.gradients, names=tuple(NAMES[:5]))
    rms = np.where(np.arange(6) > place, np.nan, made.layers.rms)
    layers = replace(made.layers, names=("input", *NAMES[:5]), gradients=gradients, rms=rms)
    return replace(made, layers=layers)


def jumping(step: int) -> StepRecord:
    """Of one layer, with a loss that jumps at times."""
    return record(4 * step, [linear(gradient=0.25)], loss=9 if step % 6 == 5 else 1)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    sick = deep(6, backward=1e-3, signal=1e-3, update=1e-9)
    write(folder / "sick", [record(step, sick) for step in range(30)])
    write(folder / "well", [well(step) for step in range(40)])
    write(folder / "deep", [record(step, LONG) for step in range(10)])
    write(folder / HOSTILE, [record(0, deep(1))])
    write(folder / "single", [jumping(step) for step in range(400)])
    write(folder / "odd", [record(step, ODD) for step in range(3)], b"GRAD\x02 and no more")
    for place, run in enumerate(RUNS):
        write(folder / "named" / run, [named(place)])
    (folder / "foreign").mkdir()
    (folder / "foreign" / "events.out.tfevents.1.x").write_bytes(bytes(range(256)) * 8)
    write(folder / "nested", [nested(step) for step in range(0, 50, 10)])
    return folder


@pytest.fixture(scope="module")
def address(logdir: Path) -> Iterator[str]:
    with serve(logdir) as server:
        server.until(lambda runs: len(runs) == 12, "plugin/gradients/runs")
        yield server.address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        try:
            path = shutil.which("chromium")
            yield started.chromium.launch(executable_path=path, args=FLAGS)
        except playwright.Error as error:
            if REQUIRED:
                raise
            pytest.skip(f"{ENABLE}: {error}")


class Page:
    """The tab with a view; `faults` are console errors and requests to anybody else."""

    def __init__(self, browser: Any, address: str, dark: bool = False, **view: object) -> None:
        self.faults: list[str] = []
        theme = "dark" if dark else "light"
        self.page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=theme)
        self.page.on("console", lambda m: m.type == "error" and self.faults.append(m.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", lambda request: self._request(request.url, address))
        self.page.goto(f"{address}/#gradients&view={quote(urlencode(view))}")
        self.frame = self.page.frame_locator("iframe")
        self.expect("#profile-title", "Over depth")

    def _request(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.faults.append(url)

    def expect(self, selector: str, text: str) -> None:
        playwright.expect(self.frame.locator(selector).first).to_contain_text(text, timeout=30_000)

    def note_texts(self) -> None:
        """Has `texts` take down what is written on any canvas from here on, and where."""
        self.frame.locator("html").evaluate(
            """() => {
                window.texts = [];
                const write = CanvasRenderingContext2D.prototype.fillText;
                CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
                    const wide = this.measureText(text).width;
                    texts.push([text, y, wide, this.canvas.width]);
                    write.call(this, text, x, y);
                };
            }"""
        )

    def texts(self) -> list[tuple[str, float, float, float]]:
        """Each with its height, its width and that of its canvas."""
        return [tuple(one) for one in self.frame.locator("html").evaluate("() => texts")]

    def colours(self) -> int:
        """How many colours the first map has."""
        script = """canvas => new Set(new Uint32Array(canvas.getContext('2d').getImageData(
            0, 0, canvas.width, canvas.height).data.buffer)).size"""
        return int(self.frame.locator(".map canvas").first.evaluate(script))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_sick_run_says_so_at_once(browser: Any, address: str, dark: bool) -> None:
    page = Page(browser, address, dark, run="sick")
    page.expect(".verdict", "critical: vanishing")
    page.expect("#findings", "critical: vanishing")
    assert page.colours() > 10
    theme = page.frame.locator("html").get_attribute("data-theme")
    assert theme == ("dark" if dark else "light")
    assert not page.faults


def test_a_loss_that_has_not_fallen_is_said_as_in_the_report(browser: Any, address: str) -> None:
    page = Page(browser, address, run="nested")
    page.expect(".verdict.info", f"i {UNFALLEN} (5 steps looked at)")
    page.frame.locator("#run").select_option("well")
    page.expect(".verdict.ok", f"✓ {WELL} (")
    assert not page.faults


def test_the_run_that_was_written_last_is_shown_first(browser: Any, address: str) -> None:
    page = Page(browser, address)
    runs = Server(address).get("plugin/gradients/runs")
    latest = max(runs, key=lambda run: run["version"])["run"]
    page.expect("section h2", latest)
    playwright.expect(page.frame.locator("#run")).to_have_attribute("title", latest)
    assert latest != runs[0]["run"]
    assert not page.faults


def test_two_runs_and_the_address(browser: Any, address: str) -> None:
    page = Page(browser, address, run="sick")
    page.frame.locator("#other").select_option("well")
    page.expect("section:nth-child(2) .verdict", "nothing is wrong")
    page.frame.locator("#statistic").select_option("update_ratio")
    page.frame.locator("#axis").select_option("log")
    page.expect("#profile-title", "step 29")
    page.frame.locator("#findings button").first.click()
    page.expect(".said", "step 0")
    page.frame.locator("#pin").press("Enter")
    page.frame.locator("#profile text", has_text="compared: step 0").nth(1).wait_for()
    url = page.page.url
    again = Page(browser, address)
    again.page.goto("about:blank")
    again.page.goto(url)
    again.expect("section:nth-child(2) .verdict", "nothing is wrong")
    assert again.frame.locator("#statistic").input_value() == "update_ratio"
    assert again.frame.locator("#axis").input_value() == "log"
    again.expect("#profile-title", "step 0")
    again.frame.locator("#profile text", has_text="compared: step 0").nth(1).wait_for()
    assert not page.faults and not again.faults


def test_by_keyboard_and_by_dragging(browser: Any, address: str) -> None:
    page = Page(browser, address, run="well", row="2")
    page.expect(".said", "2, step 39")
    page.frame.locator(".map").first.press("ArrowLeft")
    page.frame.locator(".map").first.press("ArrowUp")
    page.expect(".said", "1, step 38")
    box = page.frame.locator(".map").first.bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] / 2 + 200, box["y"] + 10)
    page.page.mouse.up()
    page.expect("#whole", "all steps")
    playwright.expect(page.frame.locator("#whole")).to_be_visible()
    page.frame.locator(".map").first.press("Escape")
    playwright.expect(page.frame.locator("#whole")).to_be_hidden()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 10)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] + 90, box["y"] - 90)
    page.page.mouse.up()
    playwright.expect(page.frame.locator("#whole")).to_be_visible()
    assert "last%3D39" in page.page.url, "a drag beyond the edge ends there"
    page.frame.locator(".map").first.press("Escape")
    playwright.expect(page.frame.locator("#whole")).to_be_hidden()
    page.frame.locator(".map").first.click(button="right")
    assert "step" not in page.page.url, "nothing was chosen"
    assert not page.faults


def test_another_run_has_other_steps_and_rows(browser: Any, address: str) -> None:
    page = Page(browser, address, run="well", row="2", step=35, first=30, last=39, beside=31)
    page.expect(".said", "2, step 35")
    page.frame.locator("#filter").fill("nobody")
    page.expect(".said", "no row has this in its name")
    page.frame.locator("#filter").fill("")
    page.frame.locator("#run").select_option("nested")
    page.expect("#histogram-title", "Gradient of stem, values at step 40")
    page.expect("#profile", "start: step 0")
    assert page.colours() > 3
    assert not any(name in page.page.url for name in ("first", "last", "step", "beside"))
    zoom = Page(browser, address, run="nested", first=41, last=49)
    zoom.expect(".said", "no step in this zoom")
    zoom.frame.locator(".map").first.press("ArrowLeft")
    assert not page.faults and not zoom.faults


def test_after_an_outage_all_is_asked_for_again(browser: Any, address: str) -> None:
    page = Page(browser, address, run="well")
    page.expect(".verdict", WELL)
    page.page.route("**/plugin/gradients/**", lambda route: route.abort())
    page.frame.locator("#run").select_option("sick")
    page.expect("#note", "Failed to fetch")
    page.page.unroute_all()
    page.expect("section h2", "sick")
    page.expect(".verdict", "critical: vanishing")
    playwright.expect(page.frame.locator("#note")).to_have_text("")


def test_the_chosen_row_is_in_sight(browser: Any, address: str) -> None:
    page = Page(browser, address, run="deep")
    rows = page.frame.locator(".map").first
    seen = "map => [map.scrollTop, map.scrollHeight - map.clientHeight]"
    top = "map => map.getBoundingClientRect().top"
    rows.evaluate("map => { map.scrollTop = 1e6; window.scrollTo(0, 1e6); }")
    assert rows.evaluate(top) < 0
    page.frame.locator("#findings button").first.evaluate("button => button.click()")
    page.expect(".said", "0, step 0")
    # Where a browser scrolls to is a whole number of its pixels, where an element is need not be.
    assert rows.evaluate(top) > -1 and rows.evaluate(seen)[0] == 0
    page = Page(browser, address, run="deep", row="399")
    rows = page.frame.locator(".map").first
    rows.press("ArrowDown")
    at, end = rows.evaluate(seen)
    assert 0 < end - 10 < at
    page.note_texts()
    rows.press("ArrowUp")
    page.expect(".said", "399, step 9")
    heights = [y for _, y, *_ in page.texts()[:20]]
    assert heights[0] >= 5, "the first name is whole"
    assert (np.diff(heights) >= 11).all(), "and no name is written over another"


def test_focus_and_selected_text_stay_while_a_run_grows(
    browser: Any, address: str, logdir: Path
) -> None:
    page = Page(browser, address, run="deep")
    page.expect("#findings", "(steps 0 to 9)")
    page.frame.locator("#findings button").first.evaluate(
        """button => {
            button.focus();
            window.option = document.querySelector('#run option');
            getSelection().selectAllChildren(document.querySelector('#findings p span'));
        }"""
    )
    selected = page.frame.locator("html").evaluate("() => getSelection().toString()")
    write(logdir / "deep", [record(step, LONG) for step in range(10, 20)])
    page.expect("#findings", "(steps 0 to 19)")
    kept = "() => [document.activeElement.tagName, getSelection().toString(), option.isConnected]"
    assert page.frame.locator("html").evaluate(kept) == ["BUTTON", selected, True]
    assert selected
    assert not page.faults


def test_what_is_renewed_is_as_what_it_is_made_like(browser: Any, address: str) -> None:
    page = Page(browser, address, run="well")
    page.expect("#meaning", "steps of training")
    made = """async (page, [before, after]) => {
        const {renew} = await import('./renew.js');
        const [old, wanted] = [before, after].map((text) => {
            const element = document.createElement('div');
            element.innerHTML = text;
            return element;
        });
        renew(old, wanted);
        return old.innerHTML;
    }"""
    for before, after in (
        ('<b class="alarm" title="a">one</b>', "<b>two</b>"),
        ("<i>one</i> and", '<b id="x">one</b><p>more</p>'),
        ("<b>one</b><b>two</b>", "text"),
    ):
        assert page.frame.locator("html").evaluate(made, [before, after]) == after


def test_keys_mean_what_they_do_elsewhere(browser: Any, address: str) -> None:
    page = Page(browser, address, run="well", first=10, last=30)
    rows = page.frame.locator(".map").first
    rows.press("Control+p")
    rows.press("Alt+ArrowLeft")
    page.frame.locator("#filter").press("p")
    page.frame.locator("#filter").press("Escape")
    page.frame.locator("#axis").press("Escape")
    page.expect("#meaning", "steps of training")
    assert "beside" not in page.page.url and "step" not in page.page.url
    playwright.expect(page.frame.locator("#whole")).to_be_visible()
    rows.click()
    page.page.keyboard.press("Space")
    page.expect("#play", "stop")
    page.page.keyboard.press("Space")
    page.expect("#play", "play")
    rows.press("p")
    assert "beside" in page.page.url
    assert not page.faults


def test_names_are_text(browser: Any, address: str) -> None:
    page = Page(browser, address, run=HOSTILE, row=HOSTILE)
    page.expect("section h2", HOSTILE)
    assert page.frame.locator("img").count() == 0
    assert not page.faults


def test_a_running_training_is_followed(browser: Any, address: str, logdir: Path) -> None:
    page = Page(browser, address, run="well")
    map_before = page.frame.locator(".map canvas").first.element_handle()
    write(logdir / "well", [well(step) for step in range(40, 60)])
    page.expect("#profile-title", "step 59")
    assert map_before.evaluate("canvas => canvas.isConnected"), "the map stays: no flicker"
    rows = page.frame.locator(".map").first
    rows.press("ArrowLeft")
    page.expect("#profile-title", "step 58")
    assert "step%3D58" in page.page.url
    rows.press("ArrowRight")
    page.expect("#profile-title", "step 59")
    assert "step" not in page.page.url, "the newest is followed again"
    rows.press("ArrowLeft")
    rows.press("Escape")
    page.expect("#profile-title", "step 59")
    assert "step" not in page.page.url
    assert not page.faults


def test_folding_and_what_is_exported(browser: Any, address: str, tmp_path: Path) -> None:
    page = Page(browser, address, run="nested", relative="false")
    page.frame.locator("#fold").select_option("1")
    playwright.expect(page.frame.locator(".map").first).to_have_attribute(
        "aria-label", re.compile("3 rows")
    )
    with page.page.expect_download() as table:
        page.frame.locator("#csv").press("Enter")
    with table.value.path().open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows[::5]] == ["stem", "'=2+3", "blocks"], "no formula"
    assert [row["first_step"] for row in rows[:5]] == ["0", "10", "20", "30", "40"]
    answer = Server(address).get("plugin/gradients/matrix", run="nested", fold="1")
    low, high = answer["low"], answer["high"]
    assert [float(row["smallest"]) for row in rows] == low.T.ravel().tolist()
    assert [float(row["largest"]) for row in rows] == high.T.ravel().tolist()
    assert (low < high).any(), "else nothing was folded"
    page.note_texts()
    with page.page.expect_download() as picture:
        page.frame.locator("#png").press("Enter")
    content = picture.value.path().read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) > 3000
    written = [text for text, *_ in page.texts()]
    assert written[:2] == ["nested", f"i {UNFALLEN} (5 steps looked at)"]
    assert " ".join(written[2:]) == page.frame.locator("#meaning").inner_text()
    assert not page.faults


def test_a_long_verdict_is_exported_in_lines(browser: Any, address: str) -> None:
    page = Page(browser, address, run="sick")
    page.page.set_viewport_size({"width": 700, "height": 900})
    page.expect(".verdict", "critical: vanishing")
    said = page.frame.locator(".verdict").inner_text()
    page.note_texts()
    with page.page.expect_download():
        page.frame.locator("#png").press("Enter")
    texts = page.texts()
    assert all(wide <= whole for *_, wide, whole in texts)
    lines = [text for text, *_ in texts[1:]]
    assert " ".join(lines) == f"{said} {page.frame.locator('#meaning').inner_text()}"
    assert said not in lines, "it has more than one"
    assert not page.faults


def test_a_module_is_folded_and_unfolded_by_itself(browser: Any, address: str) -> None:
    page = Page(browser, address, run="nested", relative="false", row="blocks.1", step=20)
    page.expect("#histogram-title", "blocks.1")
    page.expect("#histogram", "1,000 values")
    rows = page.frame.locator(".map").first
    rows.press("-")
    playwright.expect(rows).to_have_attribute("aria-label", re.compile("4 rows"))
    page.expect(".said", "blocks, step 20")
    page.expect("#histogram", "2,000 values of 2 tensors")
    page.expect("#profile", "blocks: ")
    assert "turned%3Dblocks" in page.page.url
    tall = (rows.bounding_box()["height"] - 20) / 4
    page.note_texts()
    rows.press("ArrowRight")
    page.expect(".said", "blocks, step 30")
    assert {"stem", "=2+3.a", "=2+3.b", "blocks +"} <= {text for text, *_ in page.texts()}
    rows.click(position={"x": 20, "y": 1.5 * tall})
    playwright.expect(rows).to_have_attribute("aria-label", re.compile("3 rows"))
    rows.click(position={"x": 20, "y": 2.5 * tall})
    playwright.expect(rows).to_have_attribute("aria-label", re.compile("4 rows"))
    page.expect("#histogram-title", "Gradient of blocks.0, values at step 30")
    assert not page.faults


def test_histograms_over_time_and_an_earlier_step(browser: Any, address: str) -> None:
    page = Page(browser, address, run="nested", row="blocks.0", step=20)
    page.expect("#profile", "start: step 0")
    page.frame.locator("#pin").press("Enter")
    page.expect("#profile", "compared: step 20")
    page.expect("#spread-title", "at 5 steps")
    page.frame.locator("#spread canvas").press("ArrowRight")
    page.expect("#histogram-title", "step 30")
    page.expect("#profile", "compared: step 20")
    assert "beside%3D20" in page.page.url
    assert not page.faults


def test_one_layer_is_shown_by_its_own_numbers_and_many_findings_cut(
    browser: Any, address: str
) -> None:
    page = Page(browser, address, run="single")
    page.expect("#findings li:last-child", "more that are over")
    assert page.frame.locator("#findings button").count() < 40
    assert page.frame.locator("#meaning").inner_text().endswith("steps of training to the right")
    assert not page.faults


@pytest.mark.parametrize("place", range(5))
def test_any_name_of_a_run_or_a_layer_is_text(browser: Any, address: str, place: int) -> None:
    page = Page(browser, address, run=f"named/{RUNS[place]}")
    page.expect("section h2", RUNS[place])
    # What is written from right to left turns nothing around it.
    name = f"\u2068{NAMES[place]}\u2069" if "\u202e" in NAMES[place] else NAMES[place]
    page.expect(".verdict", f"non_finite in {name} (step 0)")
    page.frame.locator("#findings button").first.press("Enter")
    page.expect(".said", f"{name}, step 0")
    page.expect("#histogram-title", name)
    said = page.frame.locator(".said").evaluate("line => [line.scrollWidth, line.clientWidth]")
    assert said[0] <= said[1], "step and value are seen, however long the name"
    assert page.frame.locator("body script").count() == 0
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.frame.locator("html").evaluate(f"() => {overflow}") == 0, "nothing is pushed aside"
    assert not page.faults


def test_what_is_not_finite_and_a_damaged_block_are_shown(browser: Any, address: str) -> None:
    page = Page(browser, address, run="odd", step=0)
    page.expect("#note", "left out what follows step")
    page.expect(".verdict", "NaN or infinity")
    for statistic in STATISTICS:
        page.frame.locator("#statistic").select_option(statistic)
        page.expect("#profile-title", "step 0")
        assert page.colours() > 3
    assert not page.faults
