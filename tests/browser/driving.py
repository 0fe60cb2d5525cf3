"""Starting the real app and driving it with a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

ROOT = Path(__file__).resolve().parents[2]
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


@contextmanager
def running_app(workspace: Path, *, seconds: float = 90.0) -> Iterator[str]:
    """Start ``python -m app`` on a free port with its own workspace; yield its address; end it by its id."""
    from app.__main__ import free_port

    port = free_port(8600)
    environment = {
        **os.environ,
        "LOSS_ATLAS_WORKSPACE": str(workspace),
        "LOSS_ATLAS_CACHE": str(workspace / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("LOSS_ATLAS_RAISE", None)
    workspace.mkdir(parents=True, exist_ok=True)
    with open(workspace / "server.txt", "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "--headless", "--port", str(port)], cwd=ROOT, env=environment,
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


def settle(page: Any, seconds: float = 120.0) -> None:
    """Wait until a page stands still: its script has ended, and every chart is drawn."""
    page.wait_for_selector('[data-testid="stMain"] [data-testid="stHeading"]', timeout=seconds * 1000)
    page.wait_for_function(SETTLED, timeout=seconds * 1000)
    page.wait_for_timeout(400)  # a chart that has just been given its width draws itself once more
    page.wait_for_function(SETTLED, timeout=seconds * 1000)
