"""The library as a table: rename, download, delete with undo, and adding a file."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import state
from app.texts import texts
from app.widgets.entries import choose, delete_button, rename_box, undo_bar
from app.widgets.pickers import FILE, data_picker, file_point
from app.workspace import library


def table(page: str) -> None:
    """Write the library; a selected row can be renamed, downloaded or deleted."""
    text = texts("workbench")
    undo_bar(page)
    found = library.list_checkpoints()
    if not found:
        st.caption(text("library.empty"))
        return
    entry = choose(
        state.key(page, "library"),
        found,
        {
            text("library.name"): [c.name for c in found],
            text("library.architecture"): [c.architecture for c in found],
            text("library.accuracy"): [c.info.get("accuracy") for c in found],
            text("library.loss"): [c.info.get("loss") for c in found],
            text("library.parameters"): [c.info.get("parameters") for c in found],
            text("library.epochs"): [len(c.trajectory) for c in found],
            text("library.data"): [_data(c) for c in found],
            text("library.created"): [c.created[:16].replace("T", " ") for c in found],
        },
        {
            text("library.accuracy"): st.column_config.NumberColumn(format="percent"),
            text("library.loss"): st.column_config.NumberColumn(format="%.4g"),
            text("library.parameters"): st.column_config.NumberColumn(format="localized"),
        },
        text("library"),
    )
    if entry is None:
        st.caption(text("library.pick"))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rename_box(page, entry)
        st.download_button(
            text("download"),
            entry.path.read_bytes,
            file_name=f"{entry.name}{entry.path.suffix}",
            key=f"{page}.weights.{entry.id}",
            on_click="ignore",
            icon=":material/download:",
        )
        delete_button(page, entry)


def _data(entry: library.Checkpoint) -> str:
    source = str(entry.info.get("data", {}).get("source", ""))
    return source if source in ("", "digits") else Path(source).name


def add_file(page: str) -> None:
    """Add a checkpoint file to the library, after it has been loaded once to see that it fits."""
    text = texts("workbench")
    with st.expander(text("import"), icon=":material/upload_file:"):
        data = data_picker(f"{page}-import")
        point = file_point(f"{page}-import", data, FILE)
        name = st.text_input(text("name"), key=f"{page}.import.name")
        if st.button(text("import.run"), key=f"{page}.import.go", disabled=point is None) and point and data:
            kept = library.add_checkpoint(
                point.checkpoint or Path(),
                {"name": library.unused_name(name.strip() or point.label), **point.meta(data)},
            )
            st.success(text("import.done", name=kept.name))
