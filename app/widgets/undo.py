"""Undo of a deletion: what was deleted lies in the workspace's bin and is moved back."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import state, workspace
from app.texts import texts


def deleted(page: str, name: str, binned: Path) -> None:
    """Remember what was deleted last on a page."""
    state.remember(page, "binned", (name, str(binned)))


def undo_bar(page: str) -> None:
    """Offer to bring back what was deleted last on a page."""
    text, last = texts("common"), state.recall(page, "binned")
    if not last or not Path(last[1]).exists():
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(text("deleted", name=last[0]), width="content")
        st.button(
            text("undo"),
            key=state.key(page, "undo"),
            on_click=_undo,
            args=(page, last[1]),
            icon=":material/undo:",
        )


def _undo(page: str, path: str) -> None:
    workspace.restore(Path(path))
    state.remember(page, "binned", None)
