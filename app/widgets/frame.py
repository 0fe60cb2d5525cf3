"""What every page looks the same in: its head, its one button, its charts, its definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import altair as alt
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import state
from app.state import key
from app.texts import from_engine, made_with, plain, texts

SCREENFUL = 24  # rows of a table
_GOING = "_going"  # in the session: the page that was asked for, until it is there


def page_header(page: str, text: Callable[..., str]) -> tuple[DeltaGenerator, DeltaGenerator]:
    """Write the title and the question of a page; return its two columns, inputs left and picture right.

    Parameters
    ----------
    page : str
        Page name, kept for keys.
    text : callable
        The page's :func:`app.texts.texts`; the keys ``title`` and ``question`` are used.
    """
    state.ask()
    st.header(text("title"))
    st.caption(text("question"))
    with st.container(key="page-columns"):
        left, right = st.columns([1, 2.4], gap="large")
    return left.container(key=f"{page}-inputs"), right.container(key=f"{page}-result")


def run_button(page: str, label: str, *, ready: bool = True, name: str = "run") -> bool:
    """Return True when the page's main button was pressed; greyed while an input is wrong.

    What was asked above it is the form that a run is made from.
    """
    state.close_form()
    return st.button(
        label,
        type="primary",
        icon=":material/play_arrow:",
        key=key(page, name),
        disabled=not ready,
        width="stretch",
    )


def show_chart(chart: Any, *, chart_key: str | None = None, on_select: Any = "ignore", **options: Any) -> Any:
    """Draw a chart at the width of its column; its ``description`` is its name for a screen reader.

    Returns
    -------
    The selection when ``on_select`` is ``"rerun"`` or a callback, else the element.
    """
    meta = getattr(chart, "usermeta", None)
    if isinstance(meta, dict) and "widest" in meta:
        options.setdefault("width", meta["widest"])
    shapes = getattr(chart, "datasets", None)
    if not isinstance(shapes, dict):
        return st.altair_chart(chart, key=chart_key, on_select=on_select, **options)
    # Shapes given by name go around altair, which would check every corner of every cell for half a second.
    bare = chart.copy(deep=False)
    bare.datasets = alt.Undefined
    specification = bare.to_dict()
    specification["datasets"] = {**specification.get("datasets", {}), **shapes}
    return st.vega_lite_chart(specification, key=chart_key, on_select=on_select, **options)


def picture(words: str, chart: Any) -> Any:
    """Draw a chart under a heading; return it, to be taken along."""
    heading(words)
    show_chart(chart)
    return chart


def in_pairs(charts: Sequence[Any]) -> None:
    """Draw charts two in a row."""
    for start in range(0, len(charts), 2):
        for column, chart in zip(st.columns(2), charts[start : start + 2], strict=False):
            with column:
                show_chart(chart)


def settings_line(result: Any, **more: Any) -> None:
    """Write in one line what a result was computed with: data, examples, batch-norm policy, seed."""
    words = made_with({**(getattr(result, "settings", None) or {}), **more})
    if words:
        st.caption(plain(words))


def opening() -> AbstractContextManager[None]:
    """Say that something is opened meanwhile: the first time, the engine brings torch along."""
    return st.spinner(texts("common")("opening"))


def heading(words: str) -> None:
    """Write the heading of one picture or table."""
    st.markdown(f"**{words}**")


def show_table(table: Any, *, fold: str = "", **options: Any) -> Any:
    """Write a table, every row in sight where they fit a screen, a dash for what is missing; return what is selected.

    With ``fold`` it lies in a fold of that name: numbers behind a picture, for those who ask for them.
    """
    look = {"hide_index": True, "height": "content" if len(table) <= SCREENFUL else "auto", "placeholder": "–"}
    with st.expander(fold, icon=":material/table:") if fold else nullcontext():
        return st.dataframe(table, **{**look, **options})


def note(words: str) -> None:
    """Write what has to be known to read a result."""
    st.caption(f":orange[:material/info:] {words}")


def notes(said: Sequence[str]) -> None:
    """Write what the engine notes about a result, a line each."""
    for words in said:
        note(from_engine(words))


def definitions(text: Callable[..., str], names: Sequence[str], *, expanded: bool = False) -> None:
    """Explain numbers in a fold: term, what it is, and paper, from the texts ``def.NAME.*`` of a page."""
    with st.expander(texts("common")("definitions"), icon=":material/menu_book:", expanded=expanded):
        for name in names:
            term, meaning, source = (text(f"def.{name}.{part}") for part in ("term", "text", "source"))
            st.markdown(f"**{term}.** {meaning}" + (f"  \n:small[:gray[{source}]]" if source else ""))


_VERDICTS = {
    "supported": ("green", ":material/check_circle:"),
    "not supported": ("red", ":material/cancel:"),
    "not clear here": ("orange", ":material/help:"),
    "not comparable": ("gray", ":material/block:"),
    "not tested": ("gray", ":material/radio_button_unchecked:"),
}


def verdict(state: str, sentence: str) -> None:
    """Show whether what was measured supports a claim.

    Parameters
    ----------
    state : {"supported", "not supported", "not clear here", "not comparable", "not tested"}
    sentence : str
        The claim and the number it rests on.
    """
    if state not in _VERDICTS:
        raise ValueError(f"state must be one of {sorted(_VERDICTS)}, got {state!r}. Choose one of them.")
    color, icon = _VERDICTS[state]
    st.markdown(f":{color}-badge[{icon} {texts('common')('verdict.' + state)}] {sentence}")


def go_to(page: str) -> None:
    """Switch to another page by its name. The frame notes the pages of this run in the session."""
    pages = st.session_state.get("_pages", {})
    if page in pages:
        st.session_state[_GOING] = page
        # without an address of its own Streamlit refuses to leave a page whose inputs stand in the URL
        st.switch_page(pages[page], query_params={})


def go_on(here: str) -> None:
    """Go where :func:`go_to` has not arrived.

    A timer of the page that was to be left, in the same moment as the switch, wins: Streamlit runs that page once more.
    """
    page = st.session_state.pop(_GOING, here)
    if page != here:
        go_to(page)


def page_link(page: str, label: str, icon: str | None = None) -> None:
    """Write a link to another page; plain words where that page does not exist."""
    pages = st.session_state.get("_pages", {})
    if page in pages:
        st.page_link(pages[page], label=label, icon=icon)
    else:
        st.markdown(label)
