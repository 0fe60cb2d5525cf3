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
from app.state import bound
from app.texts import texts

PAGE = "home"
DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo_surface.npz"
TOUR = (
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
def demo(path: str) -> dict[str, Any] | None:
    """Read the example landscape: axes, losses, accuracies and its title."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError):
        return None
    notes = json.loads(str(arrays.pop("notes", "{}")))
    return {**arrays, "notes": notes}


def render() -> None:
    """Draw the page."""
    text, names = texts(PAGE), texts("navigation")
    st.header(text("title"))
    st.caption(text("question"))
    picture, words = st.columns([2.2, 1], gap="large")
    with picture:
        landscape()
    with words:
        st.subheader(text("start"))
        st.markdown(text("start.text"))
    st.subheader(text("tour"))
    with st.grid("auto", min_column_width=240, border=True):
        for page in TOUR:
            st.markdown(f"**{names(page)}**  \n{names(page + '.help')}")


@st.fragment
def landscape() -> None:
    """Draw the example; turning it reruns only this."""
    text, found = texts(PAGE), demo(str(DEMO))
    if found is None:
        st.caption(text("missing"))
        return
    result = SimpleNamespace(
        axes=(found["axis_0"], found["axis_1"]),
        losses=found["losses"],
        accuracies=found["accuracies"],
        settings=found["notes"],
    )
    azimuth = st.slider("Rotate", 0, 355, 35, step=5, label_visibility="collapsed", **bound(PAGE, "azimuth"))
    widgets.show_chart(charts.relief(result, azimuth=azimuth))
    st.caption(text("caption", title=found["notes"].get("title", "")))
