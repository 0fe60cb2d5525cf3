"""Names of widget state: one key scheme for every page, in the URL wherever a value can live there.

A widget bound to the URL keeps its value when the page is changed, reloaded or sent to somebody else.
Streamlit does that with ``bind="query-params"``; buttons, uploads and table selections cannot be bound.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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


# ---- what was asked, in full ----

_ASKED, _BEGUN, _FORM = "_asked", "_begun", "_form"


def note(name: str) -> None:
    """Note that a widget was asked for in this run."""
    st.session_state.setdefault(_ASKED, []).append(name)


def ask(*, in_frame: bool = False) -> None:
    """Begin the inputs of a page: nothing has been asked yet. What the frame has begun, the page goes on with."""
    if in_frame or not st.session_state.pop(_BEGUN, False):
        st.session_state[_ASKED] = []
    if in_frame:
        st.session_state[_BEGUN] = True


def asked() -> list[str]:
    """Return the keys of what was asked so far."""
    return list(st.session_state.get(_ASKED, ()))


def close_form() -> None:
    """Take what was asked since :func:`ask` as the form that a run of the page is made from."""
    values = {name: st.session_state.get(name) for name in asked()}
    st.session_state[_FORM] = json.loads(json.dumps(values, default=str))


def form() -> dict[str, Any]:
    """Return the values of the inputs that the page's run button closed, by their keys."""
    return dict(st.session_state.get(_FORM, {}))


def fill(values: Mapping[str, Any]) -> None:
    """Set the inputs to what :func:`form` once gave; before they are drawn."""
    for name, value in values.items():
        st.session_state[name] = value
