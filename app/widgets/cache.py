"""The cache of answers: what it holds, and how to make it smaller."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import state
from app.texts import plain, texts

_SIZES = ("100M", "1G", "5G")  # to choose from when reducing
_FRESH = 60  # seconds for which a look at the folder holds


def stored_answers(page: str) -> None:
    """Show size, age and limits of the cache once asked, with buttons to clear and reduce it."""
    text = texts("runs")
    with st.expander(text("cache"), icon=":material/database:"):
        if not st.toggle(text("cache.look"), key=state.key(page, "cache")):
            return  # looking walks the whole folder
        info = _look()
        st.write(
            text("cache.holds", entries=f"{info.entries:,}", size=f"{info.size / 1e6:,.1f}", path=plain(info.folder))
        )
        if info.oldest is not None:
            st.caption(text("cache.oldest", day=f"{info.oldest:%Y-%m-%d}"))
        st.caption(text("cache.limits", limit=f"{info.limit / 2**30:g}", days=info.max_age.days))
        with st.container(horizontal=True, vertical_alignment="bottom"):
            target = st.selectbox(text("cache.reduce"), _SIZES, key=state.key(page, "cache.size"), width=160)
            st.button(
                text("cache.reduce.go"),
                key=state.key(page, "cache.reduce"),
                on_click=_reduce,
                args=(target,),
                icon=":material/compress:",
            )
            st.button(
                text("cache.clear"),
                key=state.key(page, "cache.clear"),
                help=text("cache.clear.help"),
                on_click=_clear,
                icon=":material/delete:",
            )


@st.cache_data(ttl=_FRESH, show_spinner=False)
def _look() -> Any:
    from estimators import cache_info

    return cache_info()


def _clear() -> None:
    from estimators import clear_cache

    clear_cache()
    _look.clear()


def _reduce(size: str) -> None:
    from estimators import reduce_cache

    reduce_cache(size=size)
    _look.clear()
