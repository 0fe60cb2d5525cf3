"""The language is switched in the sidebar, and stays over a page, a reload and in a link."""

from __future__ import annotations

import pytest

from tests.browser.driving import PATIENCE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_korean_stays_over_a_choice_a_page_and_a_reload(app, page):
    address, _ = app
    page.goto(f"{address}/?home.view=Map")
    expect(page.get_by_role("heading", name="Start here")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("Turn the landscape")).to_have_count(0)
    page.get_by_test_id("stSidebar").get_by_role("radio", name="한국어").click()
    expect(page.get_by_role("heading", name="여기서 시작하세요")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("경관 돌리기")).to_have_count(0)  # still the map, not the relief
    assert "language=ko" in page.url

    page.get_by_test_id("stSidebarNav").get_by_role("link", name="둘러보기", exact=True).click()
    expect(page.get_by_role("heading", name="둘러보기", exact=True)).to_be_visible(timeout=PATIENCE)
    page.reload()
    expect(page.get_by_role("heading", name="둘러보기", exact=True)).to_be_visible(timeout=PATIENCE)
    assert "language=ko" in page.url

    page.get_by_test_id("stSidebar").get_by_role("radio", name="English").click()
    expect(page.get_by_role("heading", name="Tour", exact=True)).to_be_visible(timeout=PATIENCE)
