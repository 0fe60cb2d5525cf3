"""Tour: a sentence, a picture that is computed meanwhile, and the next step."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import widgets
from app.pages.tour.stops import STOPS
from app.state import key, recall, remember
from app.texts import texts
from app.work import jobs

PAGE = "tour"


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    st.header(text("title"))
    st.caption(text("question"))
    moved = bool(recall(PAGE, "moved"))
    remember(PAGE, "moved", False)
    name = widgets.Form(PAGE).switch("stop", tuple(STOPS), preset=moved, label_visibility="collapsed", width="stretch")
    st.markdown(f"#### {text(f'says.{name}')}")
    with st.container(horizontal=True, vertical_alignment="center"):
        _steps(name)
    widgets.job_panel(_owner(name), lambda result: _draw(name, result), empty=text("empty"))


def go(name: str) -> None:
    """Open a stop and begin what it computes, where that has not been computed yet."""
    st.session_state[key(PAGE, "stop")] = name
    remember(PAGE, "moved", True)
    newest = jobs.latest(_owner(name))
    if newest is None or newest.state in (jobs.FAILED, jobs.CANCELLED):
        jobs.submit(_owner(name), texts(PAGE)("job", stop=texts(PAGE)(f"stop.{name}")), STOPS[name].work, keep=False)


def _owner(name: str) -> str:
    return f"{PAGE}.{name}"


def _steps(name: str) -> None:
    """Write the way on: to this stop's picture, to the next stop, and to the page that asks it of any network."""
    text, order = texts(PAGE), list(STOPS)
    here = jobs.latest(_owner(name))
    look: dict[str, Any] = {"type": "primary", "icon": ":material/play_arrow:", "on_click": go}
    if here is None or here.state in (jobs.FAILED, jobs.CANCELLED):
        st.button(text("run"), key=key(PAGE, "run"), args=(name,), **look)
    elif name != order[-1]:
        after = order[order.index(name) + 1]
        said = text("next", stop=text(f"stop.{after}"))
        st.button(said, key=key(PAGE, "next"), args=(after,), **look | {"icon": ":material/arrow_forward:"})
    else:
        widgets.page_link("workbench", text("end"), icon=":material/construction:")
    page = STOPS[name].page
    widgets.page_link(page, text("deeper", page=texts(page)("nav")), icon=":material/zoom_in:")


def _draw(name: str, result: Any) -> None:
    """Draw what a stop has found so far; runs in a fragment."""
    charts, numbers = STOPS[name].show(result)
    if len(charts) == 1:
        widgets.show_chart(charts[0])
    else:
        widgets.in_pairs(charts)
    if numbers:
        st.markdown(texts(PAGE)(f"found.{name}", **numbers))
    widgets.settings_line(result)
