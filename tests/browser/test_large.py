"""A model far too large to be tried in passing: choosing it builds nothing, and says what it would take."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.browser.driving import PATIENCE, rested, server_of

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc").exists(), reason="the server's memory is read from /proc"),
]
LARGE, SMALL = "vit_large_patch16_224", "test_vit"
CHOOSE = "/surface?subject.from=timm&subject.architecture="


def resident(process, name="VmRSS"):
    """Give a process's memory in MB, now or at its highest."""
    return int(re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())[1]) / 1024


def test_choosing_a_large_model_takes_no_memory_and_answers_at_once(app, page):
    address, _ = app
    process = server_of(address)
    page.goto(address + CHOOSE + SMALL)  # the engine is loaded, and every page's own imports
    expect(page.get_by_text("parameters. In memory")).to_be_visible(timeout=PATIENCE)
    rested(page)
    before = resident(process)
    page.get_by_role("button", name="Model", exact=True).click()
    box = page.get_by_role("combobox", name="Architecture")
    box.click()
    box.fill(LARGE)
    start = time.perf_counter()
    box.press("Enter")
    expect(page.get_by_text("303,115,274 parameters")).to_be_visible(timeout=PATIENCE)
    seconds = time.perf_counter() - start
    page.wait_for_timeout(5000)  # whatever might have been queued behind it would have begun
    grown = max(resident(process), resident(process, "VmHWM")) - before
    print(f"{LARGE}: answered in {seconds:.2f} s, the server grew by {grown:.0f} MB")
    assert grown < 500
    assert page.locator('[data-testid="stSidebar"] [role="progressbar"]').count() == 0
