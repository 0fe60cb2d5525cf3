"""Runs: finished work on disk."""

from __future__ import annotations

import streamlit as st

from app import export, state, widgets, workspace
from app.state import kept
from app.texts import from_engine, plain, texts
from app.widgets.cache import stored_answers
from app.widgets.entries import attempt, choose, delete_button, rename_box, undo_bar
from app.work import jobs
from app.workspace import runs

PAGE = "runs"


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    st.header(text("title"))
    st.caption(text("question"))
    undo_bar(PAGE)
    found = runs.list_runs()
    if not found:
        st.info(text("empty"), icon=":material/history:")
        st.caption(text("workspace", path=plain(workspace.place())))
        stored_answers(PAGE)
        return
    term = st.text_input(text("search"), type="search", width=320, **kept(PAGE, "search")).strip().lower()
    found = [run for run in found if term in f"{run.title} {run.page}".lower()]
    chosen = choose(
        state.key(PAGE, "table"),
        found,
        {
            text("pinned"): [run.pinned for run in found],
            text("name"): [run.title for run in found],
            text("page"): [page_name(run.page) for run in found],
            text("when"): [run.created[:16].replace("T", " ") for run in found],
            text("seconds"): [run.seconds for run in found],
        },
        {
            text("seconds"): st.column_config.NumberColumn(format="%.1f"),
            text("pinned"): st.column_config.CheckboxColumn(width="small"),
        },
        text("title"),
    )
    if chosen is not None:
        actions(chosen)
    else:
        st.caption(text("pick"))
    st.caption(text("workspace", path=plain(workspace.place())))
    stored_answers(PAGE)


def page_name(page: str) -> str:
    """Return the title of a page (``page`` or ``page.view``); its own name for one that is gone."""
    try:
        return texts(page.partition(".")[0])("nav")
    except (KeyError, ModuleNotFoundError):
        return page


def actions(run: runs.Run) -> None:
    """Offer what can be done with one run, and show what made it."""
    text = texts(PAGE)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button(text("open"), type="primary", key=f"open-{run.id}", icon=":material/open_in_new:"):
            reopen(run)
        rename_box(PAGE, run)
        st.button(
            text("unpin" if run.pinned else "pin"),
            key=f"pin-{run.id}",
            on_click=attempt,
            args=(PAGE, lambda: run.change(pinned=not run.pinned)),
            icon=":material/keep_off:" if run.pinned else ":material/keep:",
        )
        st.download_button(
            text("export"),
            lambda: everything(run),
            file_name=f"{run.id}.zip",
            mime="application/zip",
            key=f"export-{run.id}",
            on_click="ignore",
            icon=":material/download:",
        )
        delete_button(PAGE, run)
    script = run.info.get("config", {}).get("script", "")
    if script:
        st.code(script, language="python")
    with st.expander(text("made_by"), icon=":material/receipt_long:"):
        st.json(run.info, expanded=1)


def reopen(run: runs.Run) -> None:
    """Load a run's result and show it on its page."""
    try:
        result = runs.load_result(run)
    except ValueError as error:
        st.error(from_engine(error))
        return
    jobs.adopt(run.page, run.title, result, run.info.get("config", {}), run.id)
    widgets.go_to(run.page.partition(".")[0])


def everything(run: runs.Run) -> bytes:
    """Return a run as one ZIP: configuration, numbers, script."""
    files = {path.name: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    script = run.info.get("config", {}).get("script", "")
    return export.zip_files(files | ({"reproduce.py": script.encode()} if script else {}))
