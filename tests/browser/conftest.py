"""One browser and one running app for these tests; a missing browser is a named skip, in CI a failure."""

from __future__ import annotations

import os
from contextlib import ExitStack

import pytest

from tests.browser.driving import FLAGS, browser_path, running_app, watched
from tests.browser.results import make


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


@pytest.fixture
def open_page(browser):
    """Open pages that are watched: at the end of the test each has complained of nothing and asked no other host."""
    with ExitStack() as pages:
        yield lambda **options: pages.enter_context(watched(browser, **options))


@pytest.fixture(scope="session")
def filled(browser, tmp_path_factory):
    """Give the address of an app with a real result on every page."""
    workspace = tmp_path_factory.mktemp("filled") / "workspace"
    with running_app(workspace, OMP_NUM_THREADS="1") as address:  # for work this small threads only wait for each other
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        make(page, address, workspace)
        page.close()
        yield address


@pytest.fixture
def page(open_page):
    """Yield one of them."""
    return open_page()
