"""The relief turned by the mouse, in the browser alone."""

from __future__ import annotations

import numpy as np
import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.browser.driving import DRAWN, settle  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
DEGREES = 180  # around, over the width of the picture; half as many above the horizon over its height


def seen_from(page):
    """Give the angles of the eye, and the picture."""
    (chart,) = [chart for chart in page.evaluate(DRAWN) if chart["turned"]]
    told = chart["turned"]
    around, above = (np.degrees(np.arctan2(told[f"{a}_s"], told[f"{a}_c"])) % 360 for a in ("turn", "tilt"))
    return chart["plots"][0], float(around), float(above)


def test_the_relief_follows_the_mouse_without_asking_the_server(app, page):
    address, _ = app
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.goto(address)
    settle(page)
    canvas = page.get_by_test_id("stVegaLiteChart").locator("canvas")
    plot, around, above = seen_from(page)
    assert (around, above) == (pytest.approx(35), pytest.approx(30))
    before, box = canvas.screenshot(), canvas.bounding_box()
    x, y = box["x"] + plot["left"] + plot["width"] / 2, box["y"] + plot["top"] + plot["height"] / 2
    sent.clear()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + plot["width"] / 4, y + plot["height"] / 10, steps=5)
    page.mouse.up()
    page.wait_for_timeout(200)
    _, around, above = seen_from(page)
    assert around == pytest.approx(35 + DEGREES / 4, abs=1) and above == pytest.approx(30 + DEGREES / 20, abs=1)
    assert canvas.screenshot() != before
    page.mouse.dblclick(x, y)
    page.wait_for_timeout(200)
    _, around, above = seen_from(page)
    assert (around, above) == (pytest.approx(35), pytest.approx(30))
    assert sent == []
