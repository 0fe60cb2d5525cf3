"""Starting the real app, opening watched pages of it in a real browser, and what people do there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240_000  # ms; a machine shared with others is slow, a healthy one never waits this long
CHART = '[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg'
HEADING = '[data-testid="stMain"] [data-testid="stHeading"]'
DRAWN = Path(__file__).with_name("charts.js").read_text()  # what the charts in sight have drawn
RESTS = "[data-testid='stApp'][data-test-script-state='notRunning']"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SETTLED = """() =>
  document.querySelector('[data-testid="stApp"]')?.getAttribute('data-test-script-state') === 'notRunning' &&
  !document.querySelector('[data-testid="stMain"] [data-stale="true"], [data-testid="stSkeleton"]') &&
  [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')]
    .every(chart => !chart.checkVisibility() || chart.querySelector('canvas, svg'))
"""


def browser_path() -> str | None:
    """Return a chromium on this machine, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return found
    return None


# ---- the app ----


@contextmanager
def running_app(
    workspace: Path, *, program: Sequence[str] = ("-m", "app"), seconds: float = 90.0, **variables: str
) -> Iterator[str]:
    """Start the app on a free port with its own workspace; yield its address; end it by its id.

    `variables` are those of its environment besides.
    """
    from app.__main__ import free_port

    port = free_port(8600)
    environment = {
        **os.environ,
        "LOSS_ATLAS_WORKSPACE": str(workspace),
        "LOSS_ATLAS_CACHE": str(workspace / "cache"),
        "PYTHONUNBUFFERED": "1",
        **variables,
    }
    environment.pop("LOSS_ATLAS_RAISE", None)
    workspace.mkdir(parents=True, exist_ok=True)
    with open(workspace / "server.txt", "w") as output:
        process = subprocess.Popen(
            [sys.executable, *program, "--headless", "--port", str(port)], cwd=ROOT, env=environment,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(address, process, seconds)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until the server answers; an early death or silence is an error."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the app ended with status {process.returncode} before it answered")
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise RuntimeError(f"the app did not answer on {address} within {seconds:.0f} s")


def server_of(address: str) -> int:
    """Give the process that listens on an address of :func:`running_app`."""
    port = address.rpartition(":")[2].encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--port" in words and port in words:
            return int(entry.name)
    raise RuntimeError(f"a process must listen on {address}, got none.")


def checkpoints(workspace: Path) -> list[dict[str, Any]]:
    """Give what the library holds, oldest first."""
    found = [json.loads(path.read_text()) for path in (workspace / "checkpoints").glob("2*/meta.json")]
    return sorted(found, key=lambda meta: meta["created"])


def runs(workspace: Path) -> dict[Path, dict[str, Any]]:
    """Give the saved runs by their folders."""
    return {path.parent: json.loads(path.read_text()) for path in (workspace / "runs").glob("2*/run.json")}


# ---- a page that is watched ----


@contextmanager
def watched(browser: Any, **options: Any) -> Iterator[Any]:
    """Yield a page in a context of its own; at its end it must have complained of nothing and asked no other host.

    ``options`` are those of Playwright's ``new_context``; until the end ``page.complaints`` says what there is so far.
    """
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    page = context.new_page()
    page.complaints = complaints = []
    asked: list[str] = []
    page.on("pageerror", lambda error: complaints.append(f"page: {error}"))
    page.on("console", lambda message: complaints.extend(_error_of(message)))
    page.on("response", lambda response: complaints.extend(_refusal_of(response)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    try:
        yield page
    finally:
        context.close()
    hosts = {urlparse(url).hostname for url in asked} - {None, "127.0.0.1"}
    assert complaints == [], complaints
    assert hosts == set(), f"asked other hosts: {hosts}"


def _error_of(message: Any) -> list[str]:
    """Give an error of the console; a file that could not be had is told by its address instead."""
    told = message.type == "error" and not message.text.startswith("Failed to load resource")
    return [f"console: {message.text}"] if told else []


def _refusal_of(response: Any) -> list[str]:
    """Give a refused request. Streamlit itself looks for its server under each part of a deep link's path."""
    looking = response.url.endswith(("/_stcore/health", "/_stcore/host-config"))
    return [f"response {response.status}: {response.url}"] if response.status >= 400 and not looking else []


# ---- what people do ----


def rested(page: Any) -> None:
    """Wait until the page has its heading and its script rests."""
    page.wait_for_selector(HEADING, timeout=PATIENCE)
    page.wait_for_selector(RESTS, timeout=PATIENCE)


def settle(page: Any, seconds: float = 120.0) -> None:
    """Wait until a page stands still: its script has ended, and every chart is drawn."""
    page.wait_for_selector('[data-testid="stMain"] [data-testid="stHeading"]', timeout=seconds * 1000)
    page.wait_for_function(SETTLED, timeout=seconds * 1000)
    page.wait_for_timeout(400)  # a chart that has just been given its width draws itself once more
    page.wait_for_function(SETTLED, timeout=seconds * 1000)


def go(page: Any, name: str) -> None:
    """Open a page from the sidebar."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
    page.get_by_role("heading", name=name, exact=True).wait_for(timeout=PATIENCE)
    rested(page)


def press(page: Any, name: str) -> None:
    """Press a button of the page as soon as it can be pressed."""
    page.get_by_test_id("stMain").get_by_role("button", name=name, exact=True).first.click(timeout=PATIENCE)


def choose(page: Any, name: str) -> None:
    """Take one of a few choices that are all in sight."""
    page.get_by_test_id("stMain").get_by_role("radio", name=name, exact=True).first.click(timeout=PATIENCE)


def write(page: Any, label: str, value: object) -> None:
    """Write into an input of the page and press Enter."""
    box = page.get_by_test_id("stMain").get_by_label(label, exact=True).first
    box.fill(str(value))
    box.press("Enter")
    rested(page)


def until(page: Any, condition: Callable[[], Any], what: str, seconds: float = PATIENCE / 1000) -> None:
    """Wait for something on disk; the page's events go on meanwhile."""
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, f"{what} did not happen within {seconds:.0f} s"
        page.wait_for_timeout(200)


def tour(page: Any, address: str) -> Iterator[str]:
    """Take the tour, from the button on Home; yield each stop once its picture is whole and its sentence there."""
    from app.pages.tour.stops import STOPS
    from app.texts import texts

    words, order = texts("tour"), list(STOPS)
    page.goto(address)
    press(page, texts("home")("go"))
    for stop in order:
        if stop != order[0]:
            press(page, words("next", stop=words(f"stop.{stop}")))
        page.get_by_role("heading", name=words(f"says.{stop}")).wait_for(timeout=PATIENCE)
        page.get_by_test_id("stMain").get_by_text(_filled(words(f"found.{stop}"))).wait_for(timeout=PATIENCE)
        page.wait_for_selector(CHART, timeout=PATIENCE)
        page.locator('[data-testid="stSidebar"] [class*="st-key-stop-"]').first.wait_for(
            state="detached", timeout=PATIENCE
        )
        yield stop


def _filled(sentence: str) -> re.Pattern[str]:
    """Give what a sentence is with its braces filled."""
    return re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(sentence.replace("**", ""))))


def no_error_shown(page: Any) -> None:
    """Nothing on the page says that something went wrong."""
    assert page.get_by_test_id("stException").count() == 0
    assert page.locator('[data-testid="stAlertContentError"]').all_inner_texts() == []
