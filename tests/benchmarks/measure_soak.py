"""Three browser sessions submit and cancel for half an hour: are jobs lost, does memory grow, does a process stay behind?

    python -m tests.benchmarks.measure_soak --minutes 30 --write

Every job that the app's log says was asked for must have ended, in one way or another. What grew is the memory of the server
and of all that it has started, after a collection of garbage, between two moments at which nothing runs or waits: after the
first fifth, and at the end. Orphans are processes that the server started and that outlive it.
`--write` puts the table into docs/faults.md.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

from app.texts import texts
from tests.browser.driving import FLAGS, ROOT, browser_path, press, rested, running_app, server_of

# Small work of several kinds: a page and its inputs. Each has one main button; a choice is in the URL by its words.
QUESTIONS: tuple[tuple[str, dict[str, int | str]], ...] = (
    ("surface", {"resolution": 15}),
    ("surface", {"resolution": 41, "mode": "exact"}),
    ("sharpness", {"n_steps": 3, "n_restarts": 1, "n_draws": 4}),
    ("stationary", {"n_lanczos": 10, "n_probes": 2}),
    ("stationary", {"view": "random"}),
    ("escape", {"saddle": "strict_surface", "seeds": 2, "steps": 200}),
    ("workbench", {"epochs": 2, "samples": 256}),
)
RUN = '[data-testid="stMain"] button[kind="primary"]:not([disabled])'
SESSIONS, CANCELLED, CLOSED = 3, 0.4, 0.1  # shares of the jobs that are cancelled, and of tabs that are closed
PATIENCE = 15_000  # ms for a button that is in sight
MOST_WAITING = 6  # jobs, above which nobody asks for more
DRAIN = 900  # seconds in which the queue has to end
COLLECT = 3  # seconds for a collection of garbage
APP = ("-m", "tests.benchmarks.collecting_app")
PAGE = ROOT / "docs" / "faults.md"
START, END = "<!-- table: soak -->", "<!-- end of table: soak -->"


def family(process: int) -> set[int]:
    """Give the processes that a process has started, and theirs."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found, new = set(), {process}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(process: int) -> bool:
    """Tell whether a process runs, and is not one that only waits to be noticed."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def memory(server: int) -> float:
    """Collect the server's garbage; give the megabytes that it and all it has started hold, shared ones once."""
    os.kill(server, signal.SIGUSR1)
    time.sleep(COLLECT)
    held = 0
    for process in {server} | family(server):
        try:
            held += int(re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M)[1])
        except OSError:  # it has just ended
            continue
    return held * 1024 / 1e6


def ends(log: Path) -> dict[str, str | None]:
    """Give for every job that was asked for how it ended, None while it has not."""
    words = "".join(path.read_text(errors="replace") for path in sorted(log.parent.glob(f"{log.name}*"), reverse=True))
    asked = dict.fromkeys(re.findall(r"job (\w+) \(.*\) waits", words))
    return asked | {job: how for job, how in re.findall(r"job (\w+) \(.*\) ended: (\w+)", words) if job in asked}


def drain(log: Path) -> None:
    """Wait until every job that was asked for has ended, as long as people would."""
    deadline = time.monotonic() + DRAIN
    while None in ends(log).values() and time.monotonic() < deadline:
        time.sleep(1)


def address_of(page: str, inputs: dict[str, int | str]) -> str:
    """Give the address of a page with its inputs."""
    words = texts(page)
    said = {name: words(f"{name}.{value}") if isinstance(value, str) else value for name, value in inputs.items()}
    return f"{page}?{urlencode({f'{page}.{name}': value for name, value in said.items()})}"


def act(page, address: str, rng: random.Random, waiting: int) -> None:
    """Ask one question, look at it for a while, and cancel it at times; with enough of them waiting, only look."""
    page.goto(f"{address}/{address_of(*rng.choice(QUESTIONS))}")
    rested(page)
    if waiting < MOST_WAITING:
        page.locator(RUN).first.click(timeout=PATIENCE)
    page.wait_for_timeout(rng.uniform(200, 6000))
    cancel = page.get_by_role("button", name="Cancel")
    if rng.random() < CANCELLED and cancel.count():
        cancel.first.click(timeout=PATIENCE)
        page.wait_for_timeout(500)


def soak(folder: Path, minutes: float) -> dict[str, float | str]:
    """Do it; give what the table says."""
    from playwright.sync_api import Error, sync_playwright

    found: dict[str, float | str] = {}
    children: set[int] = set()
    refused: Counter[str] = Counter()
    held: list[float] = []
    with running_app(folder, program=APP) as address, sync_playwright() as playwright:
        server = server_of(address)
        log = folder / "logs" / "loss-atlas.log"
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        pages = [browser.new_context().new_page() for _ in range(SESSIONS)]
        rngs = [random.Random(seed) for seed in range(SESSIONS)]
        pages[0].goto(f"{address}/surface")
        press(pages[0], "Train two small networks")
        rested(pages[0])
        drain(log)
        for share in (0.2, 0.8):
            deadline = time.monotonic() + 60 * minutes * share
            while time.monotonic() < deadline:
                for k, rng in enumerate(rngs):
                    try:
                        act(pages[k], address, rng, waiting=list(ends(log).values()).count(None))
                    except Error as error:  # a button that went while it was pressed; the job's end is what counts
                        refused[f"{pages[k].url.partition('?')[0]}: {str(error).splitlines()[0][:100]}"] += 1
                    if rng.random() < CLOSED:
                        pages[k].context.close()
                        pages[k] = browser.new_context().new_page()
                    children |= family(server)
                print(f"{deadline - time.monotonic():.0f} s left, {len(ends(log))} jobs", file=sys.stderr, flush=True)
            drain(log)
            held.append(memory(server))
            children |= family(server)
        browser.close()
    time.sleep(3)
    how = Counter(str(end) for end in ends(log).values())
    errors = [line for line in log.read_text(errors="replace").splitlines() if " ERROR " in line]
    found["presses that found no button"] = sum(refused.values())
    found["jobs asked for"] = sum(how.values())
    found |= {f"{name}": how[name] for name in ("done", "cancelled", "failed")}
    found["lost (asked for, never ended)"] = how["None"]
    found["errors in the log"] = len(errors)
    found["places left in the queue"] = len([p for p in (folder / "queue").glob("*") if not p.name.startswith(".")])
    found["memory after a fifth and at the end"] = f"{held[0]:.0f} MB, {held[1]:.0f} MB"
    found["memory grown (asked: ≤ 100 MB)"] = f"{held[1] - held[0]:.0f} MB"
    found["processes started"], found["orphans"] = len(children), sum(map(alive, children))
    for message, times in refused.items():
        print(f"{times} × {message}", file=sys.stderr)
    for line in errors[:10]:
        print(line, file=sys.stderr)
    return found


def main() -> int:
    """Soak, print, and write where asked; 1 when something was lost or stayed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--write", action="store_true", help="write the table into docs/faults.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="loss-atlas-soak-"))
    found = soak(folder, options.minutes)
    lines = [
        f"| {options.minutes:g} minutes, {SESSIONS} browser sessions, {os.cpu_count()} cores | |",
        "| --- | ---: |",
    ]
    text = "\n".join([*lines, *(f"| {what} | {value} |" for what, value in found.items())])
    print(text)
    if options.write:
        page = PAGE.read_text()
        PAGE.write_text(f"{page.split(START)[0]}{START}\n{text}\n{END}{page.split(END)[1]}")
    return int(bool(found["lost (asked for, never ended)"] or found["orphans"]))


if __name__ == "__main__":
    sys.exit(main())
