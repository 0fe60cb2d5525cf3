"""How fast pages are while a job runs: every page opened in the real chromium, controls, memory over many reruns, the tour.

    python -m tests.benchmarks.measure_pages                 # medians of 20, within ten minutes on two quiet cores
    python -m tests.benchmarks.measure_pages --times 3 --reruns 20 --pages surface,runs --no-tour
    python -m tests.benchmarks.measure_pages --idle          # without the job, to see what it costs

First a new app takes the whole tour, with nothing beside it. Then a workspace is made with two small networks and a saved
result for several pages; a map that takes longer than the measurement waits in its queue, so an app that is started there
begins with it. Pages are opened from the sidebar, one after the other in rounds, and controls that only redraw are pressed.
Times are the browser's own. `--write` puts the table into docs/pages.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from app.main import PAGES
from app.texts import texts
from tests.benchmarks.machine import Reading, others
from tests.browser.driving import CHART, FLAGS, ROOT, browser_path, rested, running_app, server_of, tour

HEADING, SETTLED, CONTROL, FIRST, TOUR, GROWN = 0.5, 1.5, 0.5, 8.0, 120.0, 50.0  # what is asked: seconds, and MB
# Two words of a switch, pressed in turn.
CONTROLS = {
    "home": ("Map", "Relief"),
    "surface": ("Linear", "Logarithmic"),
    "sharpness": ("Linear", "Logarithmic"),
}
Pages = dict[str, list[tuple[float, float]]]  # seconds to the heading and until settled, of each opening
Row = tuple[str, float, str, list[float]]  # what, what is asked, its unit, what was found
STARTS = 3  # of a fresh app, each to its first picture
PAGE = ROOT / "docs" / "pages.md"
START, END = "<!-- table: pages -->", "<!-- end of table: pages -->"

# Press a link and look at each frame: when the heading stands there, and when nothing is left to draw.
OPEN = """
([name, title]) => new Promise(done => {
  const began = performance.now();
  let heading = null;
  const whole = () =>
    document.querySelector('[data-testid="stApp"]').getAttribute('data-test-script-state') === 'notRunning' &&
    !document.querySelector('[data-testid="stMain"] [data-stale="true"], [data-testid="stSkeleton"]') &&
    [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].every(c => c.querySelector('canvas, svg'));
  const look = () => {
    const now = performance.now() - began;
    const there = [...document.querySelectorAll('h1, h2')].some(h => h.innerText.trim() === title);
    if (there && heading === null) heading = now;
    if ((there && whole()) || now > 60000) return done([heading ?? now, now]);
    requestAnimationFrame(look);
  };
  [...document.querySelectorAll('[data-testid="stSidebarNavLink"]')].find(a => a.innerText.trim().endsWith(name)).click();
  requestAnimationFrame(look);
})
"""
# Press a control and wait until the picture was drawn anew and the script rests.
PRESS = """
(label) => new Promise(done => {
  const began = performance.now();
  const main = document.querySelector('[data-testid="stMain"]');
  const chart = '[data-testid="stVegaLiteChart"]';
  const holds = node => node.matches?.(chart) || node.querySelector?.(chart);
  let drawn = false;
  const watch = new MutationObserver(found => {
    drawn ||= found.some(change => change.target.closest(chart) || [...change.addedNodes].some(holds));
  });
  watch.observe(main, {childList: true, subtree: true, attributes: true});
  const look = () => {
    const now = performance.now() - began;
    const state = document.querySelector('[data-testid="stApp"]').getAttribute('data-test-script-state');
    if ((drawn && state === 'notRunning') || now > 60000) { watch.disconnect(); return done(now); }
    requestAnimationFrame(look);
  };
  [...main.querySelectorAll('button')].find(b => b.innerText.trim() === label).click();
  requestAnimationFrame(look);
})
"""


def prepare(folder: Path, busy: bool) -> None:
    """Fill a workspace: a network, a result for the pages that show one, and a long map in the queue."""
    os.environ["LOSS_ATLAS_WORKSPACE"], os.environ["LOSS_ATLAS_CACHE"] = str(folder), str(folder / "cache")
    from app.catalog import DataSpec, PointSpec
    from app.pages.surface.page import map_surface
    from app.work import jobs
    from app.work import training as training_jobs
    from app.work.work import Work
    from app.workspace import library, runs
    from estimators import CurvatureEstimator, ModeConnector, SharpnessEstimator, SurfaceMapper, count_parameters

    data = DataSpec(n_samples=512)
    for seed in (0, 1):
        settings = {"epochs": 3, "batch_size": 64, "lr": 0.1, "random_state": seed}
        job = training_jobs.submit(f"digits-{'ab'[seed]}", PointSpec(seed=seed), data, settings)
        jobs.get_queue().wait(600)
        assert job.error is None, job.error
    points = [PointSpec.from_checkpoint(entry) for entry in library.list_checkpoints()]
    models, examples = [point.load() for point in points], DataSpec(n_samples=64).load()
    assert count_parameters(models[0]) > 0
    measured = {
        "surface": SurfaceMapper(resolution=41, mode="adaptive").fit(models[0], examples),
        "sharpness": SharpnessEstimator(measures=("average", "profile"), n_draws=4).fit(models[0], examples),
        "stationary": CurvatureEstimator(n_probes=2, n_lanczos=10).fit(models[0], examples),
        "connectivity": ModeConnector(path="linear").fit(models, examples),
    }
    for page, estimator in measured.items():
        runs.save_run(page, f"{page} of digits-a", estimator.result_, {"script": "print()"}, seconds=1.0)
    if busy:
        mapper = SurfaceMapper(resolution=201, mode="exact")  # the largest that the page takes
        work = Work.of(
            map_surface, estimator=mapper, points=(points[0],), data=data, held_out=None, paths=[], marked={}
        )
        job = jobs.Job("surface", "A long map", work=work)
        job.write()
        job.queued.release()


def resident(process: int) -> float:
    """Give the megabytes of a process in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def take_tour(browser: Any) -> float:
    """Take the whole tour in a new app; give the seconds from opening it to the last picture."""
    with tempfile.TemporaryDirectory() as folder, running_app(Path(folder)) as address:
        page = browser.new_page()
        began = time.perf_counter()
        for stop in tour(page, address):
            print(f"tour: {stop} at {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
        seconds = time.perf_counter() - began
        page.close()
    return seconds


def first_page(browser: Any, folder: Path) -> float:
    """Start an app; give the seconds from the command to the first picture on its first page."""
    began = time.perf_counter()
    with running_app(folder) as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector(CHART)
        seconds = time.perf_counter() - began
        page.close()
    return seconds


def open_pages(page: Any, names: tuple[str, ...], times: int) -> Pages:
    """Open pages from the sidebar in rounds; give the seconds to each one's heading and until it has settled."""
    found: Pages = {name: [] for name in names}
    for turn in range(times + 1):
        for name in names:
            heading, settled = page.evaluate(OPEN, [texts(name)("nav"), texts(name)("title")])
            page.wait_for_timeout(200)
            if turn:  # in the first round what a page shows is read from disk
                found[name].append((heading / 1000, settled / 1000))
        print(f"round {turn} of {times}", file=sys.stderr, flush=True)
    return found


def press_control(page: Any, name: str, times: int) -> list[float]:
    """Press a page's control; give the seconds until each picture was there."""
    page.evaluate(OPEN, [texts(name)("nav"), texts(name)("title")])
    page.wait_for_timeout(1000)
    seconds = []
    for turn in range(times + times % 2):  # the switch ends where it was
        seconds.append(page.evaluate(PRESS, CONTROLS[name][turn % 2]) / 1000)
        page.wait_for_timeout(50)
    return seconds


def measure(options: argparse.Namespace) -> tuple[Pages, list[Row]]:
    """Measure all."""
    from playwright.sync_api import sync_playwright

    rows: list[Row] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        if not options.no_tour:
            rows.append(("the whole tour in a new app, nothing beside it", TOUR, "s", [take_tour(browser)]))
        folder = options.workspace or Path(tempfile.mkdtemp(prefix="loss-atlas-pages-"))
        if not (folder / "runs").is_dir():
            prepare(folder, busy=not options.idle)
        rows.append(
            (
                f"a started app to its first picture, {STARTS} starts",
                FIRST,
                "s",
                [first_page(browser, folder) for _ in range(STARTS)],
            )
        )
        with running_app(folder) as address:
            server = server_of(address)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(address)
            rested(page)
            pages = open_pages(page, options.pages, options.times)
            for name in CONTROLS:
                seconds = press_control(page, name, options.times)
                rows.append((f"a control that redraws, {texts(name)('nav')}", CONTROL, "s", seconds))
            before = resident(server)
            press_control(page, "sharpness", options.reruns)
            rows.append((f"memory over {options.reruns} reruns", GROWN, "MB", [resident(server) - before]))
            if not options.idle and not page.get_by_text("1 running").count():
                raise RuntimeError("the map must outlast the measurement, got one that has ended: give it more points.")
        browser.close()
    return pages, rows


def table(pages: Pages, rows: list[Row], said: str) -> str:
    """Give what was measured as tables in Markdown."""
    lines = [f"| page | heading (asked: ≤ {HEADING} s) | worst | settled (asked: ≤ {SETTLED} s) | worst |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    for name, found in pages.items():
        cells = [f"{value:.2f} s" for seconds in zip(*found, strict=True) for value in (median(seconds), max(seconds))]
        lines.append(f"| {' | '.join([texts(name)('nav'), *cells])} |")
    lines += ["", "| what | asked | median | worst |", "| --- | ---: | ---: | ---: |"]
    for what, asked, unit, found in rows:
        digits = ".2f" if asked < 10 else ".0f"
        lines.append(
            f"| {what} | ≤ {asked:g} {unit} | {median(found):{digits}} {unit} | {max(found):{digits}} {unit} |"
        )
    return "\n".join([*lines, "", said])


def main() -> int:
    """Measure, print, and write where asked; 1 when something is slower than asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    every = tuple(name for _, name, _ in PAGES)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--reruns", type=int, default=200)
    parser.add_argument("--pages", type=lambda words: tuple(words.split(",")), default=every)
    parser.add_argument("--idle", action="store_true", help="without a job")
    parser.add_argument("--no-tour", action="store_true", help="leave out the tour")
    parser.add_argument("--workspace", type=Path, help="one that an earlier call has made")
    parser.add_argument("--write", action="store_true", help="write the table into docs/pages.md")
    options = parser.parse_args()
    before = Reading.now()
    pages, rows = measure(options)
    beside = others(before, Reading.now())[1]
    job = "without a job" if options.idle else "with a map running"
    text = table(pages, rows, f"{os.cpu_count()} cores, pages {job}, medians of {options.times}; {beside}.")
    print(text)
    if options.write:
        page = PAGE.read_text()
        PAGE.write_text(f"{page.split(START)[0]}{START}\n{text}\n{END}{page.split(END)[1]}")
    slow = [
        name
        for name, found in pages.items()
        for k, asked in enumerate((HEADING, SETTLED))
        if median(one[k] for one in found) > asked
    ]
    slow += [what for what, asked, _, found in rows if median(found) > asked]
    print(f"slower than asked: {', '.join(slow) or 'nothing'}")
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
