"""Pins: results kept beside the next ones, to compare on shared axes and one colour scale."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import state
from app.texts import texts

MAX_PINS = 4


def pinned(page: str) -> list[tuple[str, Any]]:
    """Return the pinned ``(label, result)`` of a page, oldest first."""
    return list(state.recall(page, "pins", []))


def pin(page: str, label: str, result: Any) -> None:
    """Keep a result; the oldest goes when there are more than four, the same label is replaced."""
    kept = [(name, value) for name, value in pinned(page) if name != label]
    state.remember(page, "pins", [*kept, (label, result)][-MAX_PINS:])


def unpin(page: str, label: str) -> None:
    """Let a pinned result go."""
    state.remember(page, "pins", [(name, value) for name, value in pinned(page) if name != label])


def pin_button(page: str, label: str, result: Any) -> None:
    """Offer to pin a result, or to let it go when it is pinned."""
    text = texts("common")
    if any(name == label for name, _ in pinned(page)):
        st.button(
            text("unpin"),
            icon=":material/keep_off:",
            key=f"{page}-unpin-{label}",
            on_click=unpin,
            args=(page, label),
        )
    else:
        st.button(
            text("pin"),
            icon=":material/keep:",
            key=f"{page}-pin-{label}",
            on_click=pin,
            args=(page, label, result),
            help=text("pin.help", count=MAX_PINS),
        )
