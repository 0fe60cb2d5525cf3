"""Ways to take a result along: files and the script behind it."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import export
from app.texts import texts
from app.widgets.pins import pin_button
from app.work import jobs


def take_along(
    page: str, result: Any, chart: Any = None, *, name: str, pin: str = "", script: str | None = None, **files: Any
) -> None:
    """Write a row of ways to take a page's result along: a pin, files, and the script that makes it.

    Parameters
    ----------
    page : str
        Whose job made it.
    result, chart, name, files
        For :func:`downloads`.
    pin : str
        Label to pin the result under; none by default.
    script : str, optional
        That of the job whose result the page shows by default.
    """
    with st.container(horizontal=True):
        if pin:
            pin_button(page, pin, result)
        downloads(result, chart, name=name, key=page, **files)
        if script is None:
            job = jobs.shown(page)
            script = job.config.get("script", "") if job is not None else ""
        if script:
            copy_as_python(script, name=name, key=page)


def downloads(
    result: Any = None,
    chart: Any = None,
    *,
    table: pd.DataFrame | None = None,
    name: str = "loss-atlas",
    key: str = "",
    more: dict[str, Any] | None = None,
) -> None:
    """Offer a result and its picture as files; a file is made only when its button is pressed.

    Parameters
    ----------
    result : object with ``save(path)``, optional
        Gives NPZ, and CSV when no ``table`` is given.
    chart : altair chart, or callable that draws one, optional
        Gives PNG, SVG, PDF and the Vega-Lite JSON.
    table : DataFrame, optional
        The CSV.
    name : str
        File name without suffix.
    key : str
        Tells several of these on a page apart.
    more : dict, optional
        Other files: ``{"surface.obj": callable returning bytes}``.
    """
    text = texts("common")
    files: list[tuple[str, str, Any]] = []

    def drawn(kind: str, dark: bool = False) -> Any:
        return export.chart_bytes(chart() if callable(chart) else chart, kind, dark=dark)

    if chart is not None:
        dark = st.context.theme.type == "dark"
        for kind in ("png", "svg", "pdf"):
            files.append((kind.upper(), f"{name}.{kind}", lambda kind=kind: drawn(kind, dark)))
    if result is not None or table is not None:
        files.append(
            (
                "CSV",
                f"{name}.csv",
                lambda: export.table_csv(export.result_table(result) if table is None else table),
            )
        )
    if result is not None:
        files.append(("NPZ", f"{name}.npz", lambda: export.result_npz(result)))
    if chart is not None:
        files.append((text("download.chart_json"), f"{name}.vl.json", lambda: drawn("json")))
    files += [(file.rpartition(".")[2].upper(), file, make) for file, make in (more or {}).items()]
    with st.popover(text("download"), icon=":material/download:", key=f"downloads-{key or name}"):
        with st.container(horizontal=True):
            for label, file, make in files:
                st.download_button(
                    label,
                    make,
                    file_name=file,
                    mime=export.MIME.get(file.rpartition(".")[2], "application/octet-stream"),
                    key=f"download-{key or name}-{file}",
                    on_click="ignore",
                )
        st.caption(text("download.help"))


def copy_as_python(script: str, *, name: str = "loss-atlas", key: str = "") -> None:
    """Show the script that reproduces a result, with a copy button and a file."""
    text = texts("common")
    with st.popover(text("copy_python"), icon=":material/code:", key=f"python-{key or name}"):
        st.code(script, language="python", width=620)
        st.download_button(
            text("copy_python.file"),
            script.encode(),
            file_name=f"{name}.py",
            mime=export.MIME["py"],
            key=f"python-file-{key or name}",
            on_click="ignore",
            icon=":material/download:",
        )
