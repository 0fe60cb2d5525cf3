"""What a result says it is, over its picture: of which network, on what, when, and whether the inputs still say so."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import state
from app.catalog import DataSpec, PointSpec
from app.texts import plain, said, texts
from app.work import jobs
from app.workspace import runs

_HOW = ("directions", "normalization", "path", "method", "kind")  # settings that change what a picture is of


def head(job: jobs.Job) -> None:
    """Write the head of a job's result."""
    text = texts("common")
    about = [said(name) for name in _about(job.config) if name]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(job.title)}**", width="content")
        if job.live:
            st.badge(text("head.preview"), icon=":material/hourglass:", color="orange")
        if differs(job):
            st.badge(text("head.differs"), icon=":material/edit:", color="orange")
            form = job.config["form"]
            st.button(
                text("head.restore"), key=f"restore-{job.id}", on_click=state.fill, args=(form,), type="tertiary",
                icon=":material/undo:",
            )  # fmt: skip
    when = _when(job)
    st.caption(plain(" · ".join([*about, when] if when else about)))


def differs(job: jobs.Job) -> bool:
    """Tell whether the inputs of the page say something else than those that made a result.

    What only one of the two has follows from another input that differs, or came with another version.
    """
    made, now = job.config.get("form") or {}, state.form()
    return any(made[name] != now[name] for name in made.keys() & now.keys())


def _about(config: dict[str, Any]) -> list[str]:
    """Return the networks, how they were looked at, and the data."""
    points = list(dict.fromkeys(PointSpec(**spec).label for spec in (config.get("points") or {}).values()))
    how = [str(config.get("params", {}).get(name) or "") for name in _HOW]
    data = config.get("data") or {}
    return [", ".join(points), *how, DataSpec(**data).label if data else ""]


def _when(job: jobs.Job) -> str:
    """Return when the result was kept; nothing while it is not."""
    if job.run_id is None:
        return ""
    try:
        return runs.Run.get(job.run_id).created[:16].replace("T", " ")
    except ValueError:  # deleted meanwhile
        return ""
