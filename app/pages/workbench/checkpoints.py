"""The library as a table: rename, download, delete with undo, and adding a file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import streamlit as st

from app import state
from app.texts import texts
from app.widgets.pickers import FILE, data_picker, file_point
from app.widgets.undo import deleted, undo_bar
from app.workspace import library


def table(page: str) -> None:
    """Write the library; a selected row can be renamed, downloaded or deleted."""
    text = texts("workbench")
    undo_bar(page)
    found = library.list_checkpoints()
    if not found:
        st.caption(text("library.empty"))
        return
    rows = pd.DataFrame(
        {
            text("library.name"): [c.name for c in found],
            text("library.architecture"): [c.architecture for c in found],
            text("library.accuracy"): [c.meta.get("accuracy") for c in found],
            text("library.loss"): [c.meta.get("loss") for c in found],
            text("library.parameters"): [c.meta.get("parameters") for c in found],
            text("library.epochs"): [len(c.trajectory) for c in found],
            text("library.data"): [_data(c) for c in found],
            text("library.created"): [c.meta.get("created", "")[:16].replace("T", " ") for c in found],
        }
    )
    event = st.dataframe(
        rows,
        hide_index=True,
        key=state.key(page, "library"),
        on_select="rerun",
        selection_mode="single-row",
        column_config={
            text("library.accuracy"): st.column_config.NumberColumn(format="percent"),
            text("library.loss"): st.column_config.NumberColumn(format="%.4g"),
            text("library.parameters"): st.column_config.NumberColumn(format="localized"),
        },
        alt=text("library"),
    )
    selected = [i for i in event.selection.rows if i < len(found)]
    if not selected:
        st.caption(text("library.pick"))
        return
    entry = found[selected[0]]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(text("rename.label"), value=entry.name, key=f"{page}.rename.{entry.id}", width=280)
        st.button(
            text("rename"),
            key=f"{page}.rename-go.{entry.id}",
            on_click=_rename,
            args=(page, entry.id),
            icon=":material/edit:",
        )
        st.download_button(
            text("download"),
            entry.path.read_bytes,
            file_name=f"{entry.name}{entry.path.suffix}",
            key=f"{page}.weights.{entry.id}",
            on_click="ignore",
            icon=":material/download:",
        )
        st.button(
            text("delete"),
            key=f"{page}.delete.{entry.id}",
            on_click=_delete,
            args=(page, entry),
            icon=":material/delete:",
        )


def _data(entry: library.Checkpoint) -> str:
    source = str(entry.meta.get("data", {}).get("source", ""))
    return source if source in ("", "digits") else Path(source).name


def _delete(page: str, entry: library.Checkpoint) -> None:
    deleted(page, entry.name, library.delete_checkpoint(entry.id))


def _rename(page: str, checkpoint_id: str) -> None:
    library.rename_checkpoint(checkpoint_id, st.session_state[f"{page}.rename.{checkpoint_id}"])


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
