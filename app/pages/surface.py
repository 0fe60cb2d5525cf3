"""Surface: the loss on a plane through the weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from app import export, jobs, widgets
from app.charts import surface as charts
from app.charts.theme import SCHEMES
from app.state import bound
from app.texts import texts

PAGE = "surface"
LARGEST = 201 * 201


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        chosen = widgets.inputs(PAGE)
        row = st.columns(2)
        side = int(
            row[0].number_input(
                text("resolution"), min_value=1, value=21, step=2, **bound(PAGE, "resolution")
            )
        )
        span = float(
            row[1].number_input(
                text("span"),
                min_value=0.01,
                value=1.0,
                step=0.25,
                help=text("span.help"),
                **bound(PAGE, "span"),
            )
        )
        points = side * side
        if points > LARGEST:
            st.error(text("too_large", points=points, limit=LARGEST))
        if chosen.ready:
            widgets.cost(points, chosen.point, chosen.data, chosen.settings)
        if widgets.run_button(PAGE, text("run"), ready=chosen.ready and points <= LARGEST):
            start(chosen, side, span)
    with right:
        widgets.job_panel(PAGE, draw)
        widgets.definitions(
            [
                tuple(text(f"def.{name}.{part}") for part in ("term", "text", "source"))
                for name in ("filter", "centre")
            ]
        )


def start(chosen: widgets.Inputs, side: int, span: float) -> None:
    """Queue the job. Everything the worker needs is decided here; it never calls ``st``."""
    from estimators import SurfaceMapper

    point, data = chosen.point, chosen.data
    mapper = SurfaceMapper(resolution=side, span=span, memory="default", **chosen.settings)

    def work(handle: jobs.Handle) -> Any:
        mapper.fit(point.load(), data.load(), on_progress=handle.progress, on_partial=handle.partial)
        return mapper.result_

    script = export.script(mapper, points=[("model", point)], data=data, show="result.losses_")
    config = export.config(mapper, points=[("model", point)], data=data, script=script)
    jobs.submit(PAGE, texts(PAGE)("job", model=point.label, n=side), work, config=config)


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment, so these widgets rerun only this panel."""
    text = texts(PAGE)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        log = (
            st.segmented_control(
                text("scale"),
                ["log", "linear"],
                format_func=lambda s: text("scale." + s),
                default="log",
                required=True,
                **bound(PAGE, "scale"),
            )
            == "log"
        )
        scheme = SCHEMES[st.selectbox(text("scheme"), list(SCHEMES), width=140, **bound(PAGE, "scheme"))]
        levels = st.slider(text("levels"), 0, 30, 12, width=160, **bound(PAGE, "levels"))
        azimuth = st.slider(text("rotation"), 0, 355, 35, step=5, width=160, **bound(PAGE, "azimuth"))
    flat, relief = st.columns(2)
    chart = charts.heat_map(result, log=log, levels=levels, scheme=scheme)
    with flat:
        widgets.show_chart(chart)
    with relief:
        widgets.show_chart(charts.relief(result, log=log, scheme=scheme, azimuth=azimuth))
    losses = np.asarray(result.losses)
    finite = losses[np.isfinite(losses)]
    with st.container(horizontal=True):
        if finite.size:
            st.metric(text("lowest"), f"{finite.min():.4g}")
            st.metric(text("highest"), f"{finite.max():.4g}")
        st.metric(text("not_finite"), f"{losses.size - finite.size} / {losses.size}")
    widgets.settings_line(result)
    job = jobs.latest(PAGE)
    with st.container(horizontal=True):
        widgets.downloads(result, chart, name="surface", key=PAGE)
        if job is not None and job.config.get("script"):
            widgets.copy_as_python(job.config["script"], name="surface", key=PAGE)
