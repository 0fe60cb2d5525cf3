"""Every page with real results: charts large enough to read, maps that keep their shape, nothing cut, no error."""

from __future__ import annotations

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.browser.driving import DRAWN, settle  # noqa: E402
from tests.browser.results import ASKED  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
LEAST, LEAST_PANEL = 200, 90  # pixels on a side of what a chart draws: its panels together, and each
SHAPE = 0.05  # of one: how far a step along x may be from one along y where both are in one unit


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.name)
def test_charts_are_large_enough_and_keep_their_shape(filled, page, asked):
    page.goto(filled + asked.address)
    settle(page)
    charts = page.evaluate(DRAWN)
    assert charts and all(chart["plots"] for chart in charts)
    for chart in charts:
        plots = chart["plots"]
        for start, size in (("left", "width"), ("top", "height")):
            reach = max(plot[start] + plot[size] for plot in plots) - min(plot[start] for plot in plots)
            assert reach >= LEAST and min(plot[size] for plot in plots) >= LEAST_PANEL, chart
        assert all(abs(plot["aspect"] - 1) < SHAPE for plot in plots if plot["aspect"] is not None), chart
        assert not chart["cut"], chart
    assert page.get_by_test_id("stException").count() == 0
    assert page.complaints == []
