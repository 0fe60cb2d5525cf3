"""Home: a real landscape at once, and what each page answers.

It imports neither torch nor an estimator, so that it is on screen while those still load.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import streamlit as st

from app import widgets
from app.charts import surface as charts
from app.charts import theme
from app.state import key
from app.texts import texts

PAGE = "home"
HEIGHT = 470
# In a checkout the example lies in assets/, beside the script that made it; a package carries a copy.
HERE = Path(__file__).resolve().parent
DEMO = (HERE.parents[2] / "assets" / "demo_surface.npz", HERE.parents[1] / "static" / "demo_surface.npz")
PAGES = (
    "tour",
    "known",
    "lecture",
    "workbench",
    "surface",
    "stationary",
    "sharpness",
    "connectivity",
    "averaging",
    "escape",
    "architectures",
    "runs",
)


@st.cache_data(show_spinner=False)
def demo() -> dict[str, Any] | None:
    """Read the example landscape; None where there is no readable one."""
    for path in DEMO:
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return {**arrays, "notes": json.loads(str(arrays["notes"]))}
        except (OSError, ValueError, KeyError):
            continue
    return None


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    st.header(text("title"))
    st.markdown(f":gray[{text('question')}]")
    picture, words = st.columns([2.4, 1], gap="large")
    with picture:
        landscape()
    with words:
        st.subheader(text("start"))
        st.markdown(text("start.text"))
        if st.button(text("go"), type="primary", icon=":material/play_arrow:", key=key(PAGE, "go"), width="stretch"):
            go()
        widgets.page_link("workbench", text("start.link"), icon=":material/arrow_forward:")
        numbers()
    st.subheader(text("tour"))
    with st.grid("auto", min_column_width=250, border=True) as grid:
        for page in PAGES:
            with grid.cell():
                widgets.page_link(page, f"**{texts(page)('nav')}**")
                st.caption(texts(page)("nav.help"))


def result(found: dict[str, Any]) -> SimpleNamespace:
    """Return the example as the charts want it."""
    notes = found["notes"]
    return SimpleNamespace(
        axes=(found["axis_0"], found["axis_1"]),
        losses=found["losses"],
        accuracies=found["accuracies"],
        markers=notes.get("markers"),
        axis_titles=notes.get("axis_titles"),
    )


def go() -> None:
    """Begin the tour: train a network and map the land around it, at once."""
    from app.pages.tour import page as tour

    tour.go("start")
    widgets.go_to(tour.PAGE)


@st.fragment
def landscape() -> None:
    """Draw the example; turning it reruns only this."""
    text, found = texts(PAGE), demo()
    if found is None:
        st.info(text("missing"), icon=":material/landscape:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        form = widgets.Form(PAGE)
        view = form.switch("view", ("relief", "map"))
        azimuth = 35
        if view == "relief":
            azimuth = form.slider("turn", 35, 0, 355, step=5, format="%d°", width=260)
    if view == "relief":
        widgets.show_chart(charts.relief(result(found), azimuth=azimuth, height=HEIGHT))
    else:
        widgets.show_chart(charts.heat_map(result(found), height=HEIGHT).properties(usermeta=theme.about(HEIGHT)))
    st.caption(text("caption"))


def numbers() -> None:
    """Show what was measured in the example."""
    text, found = texts(PAGE), demo()
    if found is None:
        return
    losses = np.asarray(found["losses"])
    finite = losses[np.isfinite(losses)]
    notes = found["notes"]
    with st.grid(2):
        st.metric(text("number.loss"), f"{notes['loss']:.3g} nats")
        st.metric(text("number.accuracy"), f"{notes['accuracy']:.1%}")
        st.metric(text("number.barrier"), f"{finite.max():.3g} nats")
        st.metric(text("number.points"), f"{losses.size:,}")
