"""Pins: results kept beside the next ones, to compare on shared axes and one colour scale."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import state
from app.texts import texts

MAX_PINS = 4


def pinned(page: str) -> list[tuple[str, Any]]:
    """Return the pinned ``(label, result)`` of a page, oldest first."""
    return list(state.recall(page, "pins", []))


def beside_pinned(page: str, label: str, result: Any) -> list[tuple[str, Any]]:
    """Return the pinned results of a page and, last, one that is shown now; no two have the same label."""
    kept = pinned(page)
    if any(value is result for _, value in kept):
        return kept
    return [*kept, (_unused(label, [name for name, _ in kept]), result)]


def pin(page: str, label: str, result: Any) -> None:
    """Keep a result; the oldest goes when there are more than four."""
    state.remember(page, "pins", beside_pinned(page, label, result)[-MAX_PINS:])


def unpin(page: str, result: Any) -> None:
    """Let a pinned result go."""
    state.remember(page, "pins", [(name, value) for name, value in pinned(page) if value is not result])


def pin_button(page: str, label: str, result: Any) -> None:
    """Offer to pin a result, or to let it go when it is pinned."""
    text = texts("common")
    if any(value is result for _, value in pinned(page)):
        st.button(
            text("unpin"),
            icon=":material/keep_off:",
            key=f"{page}-unpin-{label}",
            on_click=unpin,
            args=(page, result),
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


def _unused(label: str, taken: Sequence[str]) -> str:
    """Return a label, with a number where another result has it."""
    numbered = (f"{label} ({number})" for number in itertools.count(2))
    return next(name for name in itertools.chain([label], numbered) if name not in taken)
