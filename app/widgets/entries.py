"""Things kept on disk, as a table: choose one, call it otherwise, delete it, and bring it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from app import state, workspace
from app.texts import from_engine, plain, texts
from app.widgets.frame import show_table
from app.workspace import Entry

Kept = TypeVar("Kept", bound=Entry)


def choose(
    key: str,
    found: Sequence[Kept],
    columns: Mapping[str, Sequence[Any]],
    formats: Mapping[str, Any],
    alt: str,
    *,
    several: bool = False,
) -> list[Kept]:
    """Show entries as a table, a row each; return those whose rows are selected.

    Parameters
    ----------
    key : str
        Of the table.
    found : sequence of Entry
    columns : mapping
        Title of each column and its values.
    formats : mapping
        ``st.column_config`` of some.
    alt : str
        Name for a screen reader.
    several : bool, default=False
        Whether more than one can be selected.
    """
    event = show_table(
        pd.DataFrame(columns),
        height="auto",
        key=key,
        on_select="rerun",
        selection_mode="multi-row" if several else "single-row",
        column_config=dict(formats),
        alt=alt,
    )
    return [found[i] for i in event.selection.rows if i < len(found)]


def rename_box(page: str, entry: Entry) -> None:
    """Offer to call an entry otherwise; the words are the page's ``rename`` and ``rename.label``."""
    text, box = texts(page), f"{page}.rename.{entry.id}"
    st.text_input(text("rename.label"), value=entry.title, key=box, width=280)
    st.button(
        text("rename"),
        key=f"{page}.rename-go.{entry.id}",
        on_click=attempt,
        args=(page, lambda: entry.rename(st.session_state[box])),
        icon=":material/edit:",
    )


def delete_button(page: str, entries: Sequence[Entry]) -> None:
    """Offer to move entries to the bin; they are remembered for undo."""

    def delete() -> None:
        gone: list[tuple[str, str]] = []
        for entry in entries:
            gone.append((entry.title, str(entry.delete())))
            state.remember(page, "binned", list(gone))

    text = texts(page)
    st.button(
        text("delete") if len(entries) == 1 else text("delete.several", count=len(entries)),
        key=f"{page}.delete.{entries[0].id}",
        on_click=attempt,
        args=(page, delete),
        icon=":material/delete:",
    )


def attempt(page: str, change: Callable[[], Any]) -> None:
    """Change something in the workspace; what stops it is said by the page's `undo_bar`."""
    try:
        change()
    except (OSError, ValueError) as error:  # a full disk, or an entry that another process has just deleted
        state.remember(page, "refused", str(error))


@contextmanager
def said() -> Iterator[None]:
    """Say beside a button what stopped a change of the workspace."""
    try:
        yield
    except (OSError, ValueError) as error:
        st.error(from_engine(error), icon=":material/error:")


def undo_bar(page: str) -> None:
    """Say what stopped the last change on a page; offer to bring back what was deleted last."""
    text, last = texts("common"), state.recall(page, "binned")
    refused = state.recall(page, "refused")
    if refused:
        st.error(from_engine(refused), icon=":material/error:")
        state.remember(page, "refused", None)
    there = [(name, path) for name, path in last or () if Path(path).exists()]
    if not there:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(text("deleted", name=plain(", ".join(name for name, _ in there))), width="content")
        st.button(
            text("undo"),
            key=state.key(page, "undo"),
            on_click=attempt,
            args=(page, lambda: _undo(page, [path for _, path in there])),
            icon=":material/undo:",
        )


def _undo(page: str, paths: Sequence[str]) -> None:
    for path in paths:
        workspace.restore(Path(path))
    state.remember(page, "binned", None)
