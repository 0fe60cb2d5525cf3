"""The language of the interface: chosen in the sidebar, kept in the URL and so over a reload."""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.texts import LANGUAGES, default_language, texts

KEY = "language"


def chosen_language() -> str | None:
    """Return the language of the session at hand; None in a thread that serves none."""
    return st.session_state.get(KEY) if get_script_run_ctx(suppress_warning=True) else None


def language_switch() -> None:
    """Offer the languages."""
    asked = st.query_params.get(KEY)
    if KEY not in st.session_state:
        st.session_state[KEY] = asked if asked in LANGUAGES else default_language()
    chosen = st.segmented_control(
        texts("common")("language"),
        LANGUAGES,
        format_func=LANGUAGES.get,
        key=KEY,
        required=True,
        label_visibility="collapsed",
        on_change=_keep_choices,
    )
    # Always there, not only where it is not the default: the words of choices, which the URL holds, are in it.
    if st.query_params.get(KEY) != chosen:
        st.query_params[KEY] = chosen


def _keep_choices() -> None:
    """Set every choice once more: the browser knows it by its words, which are about to change."""
    for key, value in st.session_state.items():
        chosen = isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))
        if key != KEY and chosen:
            st.session_state[key] = value
