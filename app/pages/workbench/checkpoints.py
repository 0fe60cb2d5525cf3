"""The library as a table: rename, download, delete with undo, and adding a file or a recorded trajectory."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import state, widgets, workspace
from app.catalog import PointSpec
from app.texts import from_engine, plain, texts
from app.widgets.data import data_picker
from app.widgets.entries import choose, delete_button, rename_box, said, undo_bar
from app.widgets.form import Form
from app.widgets.pickers import architecture_picker, file_point, tried
from app.workspace import library


def table(page: str) -> None:
    """Write the library; a selected row can be renamed, downloaded or deleted."""
    text = texts("workbench")
    undo_bar(page)
    found = library.list_checkpoints()
    if not found:
        st.caption(text("library.empty"))
        return
    chosen = choose(
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
    if not chosen:
        st.caption(text("library.pick"))
        return
    (entry,) = chosen
    with st.container(horizontal=True, vertical_alignment="bottom"):
        widgets.measure_button(f"{page}.library", entry.id)
        rename_box(page, entry)
        st.download_button(
            text("download"),
            entry.path.read_bytes,
            file_name=f"{entry.name}{entry.path.suffix}",
            key=f"{page}.weights.{entry.id}",
            on_click="ignore",
            icon=":material/download:",
        )
        delete_button(page, [entry])


def _data(entry: library.Checkpoint) -> str:
    source = str(entry.info.get("data", {}).get("source", ""))
    return source if source in ("", "digits") else Path(source).name


def add_file(page: str) -> None:
    """Add a checkpoint file to the library, after it has been loaded once to see that it fits."""
    text = texts("workbench")
    with st.expander(text("import"), icon=":material/upload_file:"):
        data = data_picker(f"{page}-import")
        point = file_point(f"{page}-import", data)
        name = st.text_input(text("name"), key=f"{page}.import.name")
        if st.button(text("import.run"), key=f"{page}.import.go", disabled=point is None) and point and data:
            with said(), workspace.scratch() as folder:
                # Only the weights that were chosen are kept, so that the entry means the same wherever it is opened.
                weights = point.write(folder / library.WEIGHTS)
                meta = {"name": library.unused_name(name.strip() or point.label), **point.meta(data)}
                kept = library.add_checkpoint(weights, meta)
                st.success(text("import.done", name=plain(kept.name)))


def add_recording(page: str) -> None:
    """Add the folder of a CheckpointRecorder to the library, after its last point has been loaded once."""
    text = texts("workbench")
    with st.expander(text("recording"), icon=":material/timeline:"):
        form = Form(f"{page}.recording", page)
        folder = form.text("folder", private=True, placeholder="/home/me/runs/trajectory")
        if not folder:
            st.caption(text("recording.missing"))
            return
        point = _recorded(f"{page}.recording", folder)
        name = st.text_input(text("name"), key=f"{page}.recording.name")
        if st.button(text("import.run"), key=f"{page}.recording.go", disabled=point is None) and point:
            meta = {key: getattr(point, key) for key in ("architecture", "num_classes", "image_size")}
            title = library.unused_name(name.strip() or Path(folder).name)
            with said():
                kept = library.add_recording(Path(folder), {"name": title, **meta})
                st.success(text("import.done", name=plain(kept.name)))


def _recorded(page: str, folder: str) -> PointSpec | None:
    """Say what was recorded in a folder; give its last point where it can be loaded."""
    from estimators import read_recording

    text, form = texts("workbench"), Form(page, "workbench")
    try:
        recording = read_recording(folder)
    except ValueError as error:
        st.error(from_engine(error))
        return None
    steps, known = recording.history["step"], recording.settings
    st.caption(text("recording.found", count=len(recording), first=int(steps[0]), last=int(steps[-1])))
    architecture = known.get("architecture") or architecture_picker(page)
    if architecture is None:
        return None
    classes = known.get("num_classes") or form.integer("classes", 10, 1)
    size = known.get("image_size") or form.integer("image_size", 32, 8, 1024, step=8)
    point = PointSpec(architecture, f"file:{recording.checkpoints[-1]}", classes, size, 0, Path(folder).name)
    problem, notes, _ = tried(point)
    if problem:
        st.error(from_engine(problem))
        return None
    said = plain("; ".join(notes)) or "—"
    st.caption(text("recording.network", architecture=plain(architecture), classes=classes, notes=said))
    return point
