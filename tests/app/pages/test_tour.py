"""The tour: one press on Home trains and maps, and every stop has its sentence, its picture and the way on."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import main as frame
from app.pages.tour import stops
from app.texts import texts
from app.work import jobs
from estimators import SaddleEscaper


def tour(stop: str) -> AppTest:
    def draw(name):
        import streamlit as st

        from app.pages.tour import page

        if name and "tour.stop" not in st.session_state:
            page.go(name)
        page.render()

    return AppTest.from_function(draw, args=(stop,), default_timeout=60)


def finish(at: AppTest) -> AppTest:
    assert jobs.get_queue().wait(200)
    at.run()
    assert not at.exception
    return at


def described(at: AppTest) -> list[str]:
    return [json.loads(chart.proto.spec)["description"] for chart in at.get("vega_lite_chart")]


def test_home_begins_the_tour_with_one_press(monkeypatch):
    monkeypatch.setattr("app.pages.tour.stops.TRAINING", {**stops.TRAINING, "epochs": 1})
    at = AppTest.from_file(frame.__file__, default_timeout=60).run()
    at.button(key="home.go").click().run()
    assert not at.exception
    assert jobs.latest("tour.start") is not None
    at = finish(tour("start").run())
    assert jobs.latest("tour.start").state == jobs.DONE
    assert any(d.startswith("Relief of loss") for d in described(at))
    assert [point.label for point in stops.pair()] == list(stops.NAMES)


@pytest.mark.parametrize("name", ["escape"])
def test_a_stop_says_a_sentence_draws_a_picture_and_leads_on(name):
    at = finish(tour(name).run())
    assert jobs.latest(f"tour.{name}").error is None
    assert texts("tour")(f"says.{name}") in [m.value.removeprefix("#### ") for m in at.markdown]
    assert len(described(at)) == 1
    order = list(stops.STOPS)
    at.button(key="tour.next").click().run()
    assert not at.exception
    assert at.session_state["tour.stop"] == order[order.index(name) + 1]
    for job in jobs.live():
        job.cancel()


def test_a_race_that_still_runs_is_drawn_and_its_sentence_waits():
    race = SaddleEscaper(saddle="strict_surface", optimizers=("gd",), n_seeds=2, max_steps=20)
    charts, numbers = stops.STOPS["escape"].show(race.fit(None, None).result_)
    assert len(charts) == 1 and numbers == {}


def test_a_stop_opened_by_hand_computes_nothing_until_asked():
    def draw():
        from app.pages.tour.page import render

        render()

    at = AppTest.from_function(draw, default_timeout=60).run()
    assert not at.exception
    assert jobs.live() == [] and at.button(key="tour.run")


def test_every_stop_has_its_page_and_its_texts():
    text = texts("tour")
    for name, stop in stops.STOPS.items():
        assert frame.exists(stop.page)
        assert all(f"{kind}.{name}" in text for kind in ("stop", "says", "found"))


def test_a_race_that_has_just_begun_shows_nothing_yet():
    begun = SimpleNamespace(plane={}, optimizers=("gd",), escape_steps=np.full((1, 2, 1), np.inf))
    assert stops._show_escape(begun) == ([], {})
