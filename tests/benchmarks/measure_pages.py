"""How fast pages are while a job runs: every page opened in the real chromium, a control, and memory over many reruns.

    python -m tests.benchmarks.measure_pages                 # medians of 20
    python -m tests.benchmarks.measure_pages --times 3 --reruns 20 --pages surface,runs
    python -m tests.benchmarks.measure_pages --idle          # without the job, to see what it costs

A workspace is made with one small network and a saved result for several pages; a map that takes longer than the measurement
waits in its queue, so the app begins with it. Then each page is opened from the sidebar, and a control that only redraws
is pressed. Times are the browser's own. `--write` puts the table into docs/pages.md.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.machine import Reading, others
from tests.browser.driving import FLAGS, ROOT, browser_path, running_app

PAGES = (
    "home", "known", "workbench", "surface", "stationary", "sharpness", "connectivity", "averaging", "escape",
    "architectures", "runs",
)  # fmt: skip
ASKED = {"heading": 0.5, "settled": 1.5, "control": 0.5, "memory": 50.0}
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
  const chart = main.querySelector('[data-testid="stVegaLiteChart"]');
  let drawn = false;
  const watch = new MutationObserver(() => { drawn = true; });
  watch.observe(chart, {childList: true, subtree: true, attributes: true});
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
        mapper = SurfaceMapper(resolution=301, mode="exact", batch_size=512)
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


def server_of(address: str) -> int:
    """Give the process that listens on an address."""
    port = address.rpartition(":")[2]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"app" in words and port.encode() in words:
                return int(entry.name)
    raise RuntimeError(f"a process must listen on port {port}, got none.")


def measure(options: argparse.Namespace, folder: Path) -> list[tuple[str, str, float, float]]:
    """Open pages and press a control; give rows of page, what, median and worst, in seconds or megabytes."""
    from playwright.sync_api import sync_playwright

    from app.texts import texts

    rows = []
    with running_app(folder) as address, sync_playwright() as playwright:
        server = server_of(address)
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_selector('[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg')
        rows.append(("home", "first", time.perf_counter() - began, time.perf_counter() - began))
        names = {name: (texts(name)("nav"), texts(name)("title")) for name in PAGES}
        for name in options.pages:  # torch and the last results are read once
            page.evaluate(OPEN, list(names[name]))
            page.wait_for_timeout(500)
        away = {"home": "runs"}
        for name in options.pages:
            found = []
            for _ in range(options.times):
                page.evaluate(OPEN, list(names[away.get(name, "home")]))
                page.wait_for_timeout(200)
                found.append(page.evaluate(OPEN, list(names[name])))
                page.wait_for_timeout(200)
            for k, what in enumerate(("heading", "settled")):
                seconds = [pair[k] / 1000 for pair in found]
                rows.append((name, what, statistics.median(seconds), max(seconds)))
            print(*rows[-2:], file=sys.stderr, flush=True)
        page.evaluate(OPEN, list(names["sharpness"]))
        page.wait_for_timeout(1000)
        before, seconds = resident(server), []
        for n in range(options.reruns):
            seconds.append(page.evaluate(PRESS, ("Linear", "Logarithmic")[n % 2]) / 1000)
            page.wait_for_timeout(50)
        rows.append(("sharpness", "control", statistics.median(seconds), max(seconds)))
        grown = resident(server) - before
        rows.append(("sharpness", "memory", grown, grown))
        browser.close()
    return rows


def table(rows: list[tuple[str, str, float, float]], options: argparse.Namespace, busy: str) -> str:
    """Give the rows as a table in Markdown."""
    lines = ["| page | what | asked | median | worst |", "| --- | --- | ---: | ---: | ---: |"]
    for page, what, median, worst in rows:
        unit = "MB" if what == "memory" else "s"
        name = {
            "heading": "heading",
            "settled": "settled",
            "control": "a control that redraws",
            "memory": f"memory over {options.reruns} reruns",
            "first": "first page of a fresh app",
        }[what]
        asked = ASKED.get(what, 8.0)
        digits = ".0f" if what == "memory" else ".2f"
        lines.append(f"| {page} | {name} | ≤ {asked:g} {unit} | {median:{digits}} {unit} | {worst:{digits}} {unit} |")
    job = "without a job" if options.idle else "with a map running"
    lines += ["", f"{os.cpu_count()} cores, {job}, {options.times} times each; beside it {busy}."]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and write where asked; 1 when something is slower than asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--reruns", type=int, default=200)
    parser.add_argument("--pages", type=lambda words: tuple(words.split(",")), default=PAGES)
    parser.add_argument("--idle", action="store_true", help="without a job")
    parser.add_argument("--workspace", type=Path, help="one that an earlier call has made")
    parser.add_argument("--write", action="store_true", help="write the table into docs/pages.md")
    options = parser.parse_args()
    folder = options.workspace or Path(tempfile.mkdtemp(prefix="loss-atlas-pages-"))
    if not (folder / "runs").is_dir():
        prepare(folder, busy=not options.idle)
    before = Reading.now()
    rows = measure(options, folder)
    text = table(rows, options, others(before, Reading.now())[1])
    print(text)
    if options.write:
        page = PAGE.read_text()
        PAGE.write_text(f"{page.split(START)[0]}{START}\n{text}\n{END}{page.split(END)[1]}")
    return int(any(median > ASKED.get(what, 8.0) for _, what, median, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
