"""The queue in the real app: seen on every page, reordered, stopped, and there again after kill -9."""

from __future__ import annotations

import os
import signal

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

from app.catalog import DataSpec, PointSpec  # noqa: E402
from app.pages.surface.page import map_surface  # noqa: E402
from app.work.job import Job  # noqa: E402
from app.work.work import Work  # noqa: E402
from estimators import SurfaceMapper  # noqa: E402
from tests.browser.driving import PATIENCE, running_app, server_of  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def ask(name: str, place: int) -> None:
    """Leave a map in the queue, as an app that was killed does."""
    mapper = SurfaceMapper(mode="exact", resolution=151, random_state=place, memory="default")
    on = {"points": (PointSpec(),), "data": DataSpec(n_samples=256), "held_out": None, "paths": [], "marked": {}}
    job = Job("surface", name, id=name, position=float(place), work=Work.of(map_surface, estimator=mapper, **on))
    job.write()
    job.queued.release()


def seen(page) -> list[str]:
    """Return what the sidebar lists, in its order."""
    expect(page.get_by_text("You can change pages")).to_be_visible(timeout=PATIENCE)
    rows = page.locator('[data-testid="stSidebar"] [class*="st-key-stop-"]')
    classes = rows.evaluate_all("rows => rows.map(row => row.className)")
    return [words.partition("st-key-stop-")[2].split()[0] for words in classes]


def test_the_queue_is_on_every_page_can_be_changed_and_survives_kill_9(open_page, tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_ATLAS_WORKSPACE", str(tmp_path))
    for place, name in enumerate(("first", "second", "third", "fourth")):
        ask(name, place)
    with running_app(tmp_path) as address:
        page = open_page()
        page.goto(f"{address}/runs")
        expect(page.get_by_text("1 running, 3 waiting")).to_be_visible(timeout=PATIENCE)
        assert seen(page) == ["first", "second", "third", "fourth"]
        ends = page.locator('[data-testid="stSidebar"] [class*="st-key-stop-"]').all()
        assert len({round(end.bounding_box()["x"]) for end in ends}) == 1  # each at the end of its own line
        page.locator(".st-key-ahead-fourth button").first.click()
        expect(page.locator('[data-testid="stSidebar"]').get_by_text("3. fourth")).to_be_visible(timeout=PATIENCE)
        page.locator(".st-key-stop-second button").first.click()
        expect(page.get_by_text("1 running, 2 waiting")).to_be_visible(timeout=PATIENCE)
        page.close()  # what it would say of a server that is gone is right
        os.kill(server_of(address), signal.SIGKILL)
    with running_app(tmp_path) as address:
        page = open_page()
        page.goto(f"{address}/sharpness")
        left = page.get_by_test_id("stMain").get_by_text("They go on: first, fourth, third")
        expect(left).to_be_visible(timeout=PATIENCE)
        assert seen(page) == ["first", "fourth", "third"]
        page.close()
