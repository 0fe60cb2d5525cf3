"""Names of widget state: one key scheme for every page, in the URL wherever a value can live there.

A widget bound to the URL keeps its value when the page is changed, reloaded or sent to somebody else.
Streamlit does that with ``bind="query-params"``; buttons, uploads and table selections cannot be bound.
"""

from __future__ import annotations

from typing import Any

import streamlit as st


def key(page: str, name: str) -> str:
    """Return the widget key of ``name`` on ``page``; it is also its name in the URL."""
    return f"{page}.{name}"


def bound(page: str, name: str) -> dict[str, Any]:
    """Return the keyword arguments that keep a widget's value in the URL.

    Examples
    --------
    >>> bound("surface", "resolution")
    {'key': 'surface.resolution', 'bind': 'query-params'}
    """
    return {"key": key(page, name), "bind": "query-params"}


def kept(page: str, name: str) -> dict[str, Any]:
    """Return the keyword arguments that keep a value for the session, out of the URL (paths, long texts)."""
    return {"key": key(page, name), "persist_state": "session"}


def remember(page: str, name: str, value: Any) -> None:
    """Store a value of this session under a page's own name (for values no widget holds)."""
    st.session_state[key(page, name)] = value


def recall(page: str, name: str, default: Any = None) -> Any:
    """Return what :func:`remember` stored, or ``default``."""
    return st.session_state.get(key(page, name), default)
