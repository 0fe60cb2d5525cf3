"""Runs: finished work on disk, to find again, compare, report and take along."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import state, widgets, workspace
from app.pages.runs import compare
from app.pages.runs.bundle import bundle
from app.pages.runs.compare import SHARES
from app.pages.runs.report import report
from app.state import kept
from app.texts import from_engine, plain, texts
from app.widgets.cache import stored_answers
from app.widgets.entries import attempt, choose, delete_button, rename_box, undo_bar
from app.work import jobs
from app.workspace import runs
from app.workspace.numbers import NUMBERS
from app.workspace.runs import Run

PAGE = "runs"


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    st.header(text("title"))
    st.caption(text("question"))
    undo_bar(PAGE)
    every = runs.list_runs()
    if every:
        found = filtered(every)
        chosen = table(found)
        if chosen:
            actions(chosen)
        else:
            st.caption(text("pick"))
        if len(chosen) == 1:
            details(chosen[0])
        elif len(chosen) > 1:
            compare.draw(chosen)
    else:
        st.info(text("empty"), icon=":material/history:")
    st.caption(text("workspace", path=plain(workspace.place())))
    stored_answers(PAGE)


def filtered(every: Sequence[Run]) -> list[Run]:
    """Ask for words, pages and tags; return the runs that have them all."""
    form = widgets.Form(PAGE)
    text = texts(PAGE)
    pages = list(dict.fromkeys(page_name(run.page) for run in every))
    tags = sorted({tag for run in every for tag in run.tags})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(text("search"), type="search", width=320, **kept(PAGE, "search"))
        on = set(form.many("pages", pages, words=str, width=260, private=True)) if len(pages) > 1 else set()
        having = set(form.many("tags", tags, words=str, width=260, private=True)) if tags else set()
    return [
        run for run in runs.matching(every, words) if (not on or page_name(run.page) in on) and having <= set(run.tags)
    ]


def table(found: Sequence[Run]) -> list[Run]:
    """Show runs with the numbers that any of them has; return the selected ones."""
    text = texts(PAGE)
    measured = [name for name in NUMBERS if any(name in run.numbers for run in found)]
    columns = {
        text("pinned"): [run.pinned for run in found],
        text("name"): [run.title for run in found],
        text("page"): [page_name(run.page) for run in found],
        text("tags"): [list(run.tags) for run in found],
        text("when"): [run.created[:16].replace("T", " ") for run in found],
        text("seconds"): [run.seconds for run in found],
        **{text(f"number.{name}"): [run.numbers.get(name) for run in found] for name in measured},
    }
    formats = {
        text("seconds"): st.column_config.NumberColumn(format="%.1f"),
        text("pinned"): st.column_config.CheckboxColumn(width="small"),
        text("tags"): st.column_config.ListColumn(),
        **{
            text(f"number.{name}"): st.column_config.NumberColumn(format="percent" if name in SHARES else "%.4g")
            for name in measured
        },
    }
    return choose(state.key(PAGE, "table"), found, columns, formats, text("title"), several=True)


def page_name(page: str) -> str:
    """Return the title of a page (``page`` or ``page.view``); its own name for one that is gone."""
    try:
        return texts(page.partition(".")[0])("nav")
    except (KeyError, ModuleNotFoundError):
        return page


def actions(chosen: Sequence[Run]) -> None:
    """Offer what can be done with one run or several."""
    text = texts(PAGE)
    first = chosen[0]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(chosen) == 1:
            if st.button(text("open"), type="primary", key=f"open-{first.id}", icon=":material/open_in_new:"):
                reopen(first)
            rename_box(PAGE, first)
            st.download_button(
                text("export"),
                lambda: bundle(first),
                file_name=f"{first.id}.zip",
                mime="application/zip",
                key=f"export-{first.id}",
                on_click="ignore",
                icon=":material/download:",
                help=text("export.help"),
            )
        every_pinned = all(run.pinned for run in chosen)
        st.button(
            text("unpin" if every_pinned else "pin"),
            key=f"pin-{first.id}",
            on_click=attempt,
            args=(PAGE, lambda: [run.change(pinned=not every_pinned) for run in chosen]),
            icon=":material/keep_off:" if every_pinned else ":material/keep:",
        )
        st.download_button(
            text("report"),
            lambda: report(chosen).encode(),
            file_name="loss-atlas-runs.html",
            mime="text/html",
            key=f"report-{first.id}-{len(chosen)}",
            on_click="ignore",
            icon=":material/article:",
            help=text("report.help"),
        )
        tag_box(chosen)
        delete_button(PAGE, chosen)


def tag_box(chosen: Sequence[Run]) -> None:
    """Offer a word to give to runs, or to take from those that all have it."""
    text = texts(PAGE)
    box = f"{PAGE}.tag.{chosen[0].id}"

    def change() -> None:
        word = str(st.session_state[box]).strip()
        if not word:
            return
        everywhere = all(word in run.tags for run in chosen)
        for run in chosen:
            others = [tag for tag in run.tags if tag != word]
            run.change(tags=others if everywhere else [*others, word])

    st.text_input(text("tag"), key=box, width=160, help=text("tag.help"), on_change=attempt, args=(PAGE, change))


def details(run: Run) -> None:
    """Show what made a run."""
    text = texts(PAGE)
    if run.script:
        st.code(run.script, language="python")
    with st.expander(text("made_by"), icon=":material/receipt_long:"):
        st.json(run.info, expanded=1)


def reopen(run: Run) -> None:
    """Load a run's result and show it on its page, whose inputs say what made it."""
    try:
        result = runs.load_result(run)
    except ValueError as error:
        st.error(from_engine(error))
        return
    config = run.info.get("config", {})
    jobs.adopt(run.page, run.title, result, config, run.id)
    state.fill(config.get("form", {}))
    widgets.go_to(run.page.partition(".")[0])
