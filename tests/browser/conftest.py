"""One browser and one running app for these tests; a missing browser is a named skip, in CI a failure."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from driving import FLAGS, browser_path, running_app


def no_browser(reason: str) -> None:
    """Skip with a reason, or fail where the browser must be there."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (required because CI is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    path = browser_path()
    if path is None:
        no_browser("no chromium on this machine: the browser tests did not run")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        no_browser("playwright is not installed: the browser tests did not run")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    if browser_path() is None:
        no_browser("no chromium on this machine: the browser tests did not run")
    workspace = tmp_path_factory.mktemp("browser") / "workspace"
    with running_app(workspace) as address:
        yield address, workspace


def note_console(page, message) -> None:
    """Note an error of the console; a file that could not be had is noted by its address instead."""
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        page.complaints.append(f"console: {message.text}")


def note_response(page, response) -> None:
    """Note a refused request. Streamlit itself looks for its server under each part of a deep link's path."""
    looking = response.url.endswith(("/_stcore/health", "/_stcore/host-config"))
    if response.status >= 400 and not looking:
        page.complaints.append(f"response {response.status}: {response.url}")


@pytest.fixture
def page(browser):
    """Yield a page that remembers what it complained about and whom it asked."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    opened.complaints, opened.requests = [], []
    opened.on("pageerror", lambda error: opened.complaints.append(f"page: {error}"))
    opened.on("console", lambda message: note_console(opened, message))
    opened.on("response", lambda response: note_response(opened, response))
    opened.on("request", lambda request: opened.requests.append(request.url))
    yield opened
    context.close()
