"""The map of minima, a view of the page Mode connectivity."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.charts import connectivity_pairs as charts
from app.names import distinct
from app.texts import texts
from app.widgets import Form
from app.work import jobs
from app.work.work import restartable

PAGE = "connectivity.map"
POLICIES = ("auto", "recompute", "batch")
DEFINITIONS = ("barrier", "groups", "cka", "statistics")
MOST_EPOCHS = 20


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the map on the right."""
    text = texts("connectivity")
    with left:
        chosen = widgets.subject(several=True, policies=POLICIES)
        data, engine = chosen.data, chosen.settings
        points = widgets.points_picker(PAGE, epochs, first=6)
        params = settings()
        ready = data is not None and len(points) >= 2
        if ready and data is not None:
            data = data.for_point(points[0])
            pairs = comb(len(points), 2)
            st.caption(text("map.cost", pairs=pairs))
            work: dict[str, Any] = {"networks": len(points), "vectors": 2 * len(points)}
            work["several_networks"] = True
            ready = widgets.cost(taken(len(points), params), points[0], data, engine, **work)
        if widgets.run_button(PAGE, text("map.run"), ready=ready) and data is not None:
            start(points, data, params, engine)
    widgets.answer(right, PAGE, draw, DEFINITIONS, text="connectivity")


def taken(count: int, params: dict[str, Any]) -> Any:
    """Count what a map of so many networks takes, about."""
    with widgets.opening():
        from estimators import MinimaMapper

    return MinimaMapper(**params).cost(count)


def epochs(kept: Sequence[Path]) -> Sequence[Path]:
    """Return some of a checkpoint's training epochs, evenly spread."""
    return [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MOST_EPOCHS)).astype(int))]


def settings() -> dict[str, Any]:
    """Write the settings of the map; return keyword arguments of ``MinimaMapper``."""
    form = Form(PAGE, "connectivity")
    align = form.toggle("align")
    compare, layout = form.columns(2)
    points, tolerance = form.columns(2)
    return {
        "align": "weights" if align else None,
        "compare": compare.choice("compare"),
        "layout": layout.choice("layout"),
        "n_points": points.integer("n_points", 11, 3, 101, step=2),
        "tolerance": tolerance.real("tolerance", 0.1, 0.0, step=0.05),
    }


def start(points: list[PointSpec], data: DataSpec, params: dict[str, Any], engine: dict[str, Any]) -> None:
    """Queue the job."""
    from estimators import MinimaMapper

    names = distinct([p.label for p in points])
    listed = [(f"model_{i}", point) for i, point in enumerate(points)]
    pairs = ", ".join(f"{name!r}: {variable}" for name, (variable, _) in zip(names, listed, strict=True))
    widgets.start_fit(
        PAGE,
        texts("connectivity")("map.job", count=len(points)),
        MinimaMapper(**params, memory="default", **engine),
        points=listed,
        data=data,
        work=measure,
        given={"names": names},
        setup=f"models = {{{pairs}}}",
        fit="models, data",
        show="result.barriers_",
    )


@restartable
def measure(handle: jobs.Handle, estimator: Any, points: Any, data: DataSpec, held_out: None, names: list[str]) -> Any:
    """Join every two networks; runs in the worker thread."""
    models = {name: point.load() for name, point in zip(names, points, strict=True)}
    return estimator.fit(models, data.load(), **handle.reports).result_


def draw(result: Any) -> None:
    """Draw a partial or final map; runs in a fragment."""
    text = texts("connectivity")
    off = np.asarray(result.barriers)[~np.eye(len(result.names), dtype=bool)]
    with st.container(horizontal=True):
        st.metric(text("map.groups"), len(set(np.asarray(result.clusters).tolist())), border=True, width="content")
        if np.isfinite(off).any():
            st.metric(text("map.lowest"), f"{np.nanmin(off):.3g} nats", border=True, width="content")
            st.metric(text("map.highest"), f"{np.nanmax(off):.3g} nats", border=True, width="content")
    chart = None
    if len(result.layout):
        chart = widgets.picture(text("map.heading.layout"), charts.layout(result))
        st.caption(text("map.share", share=result.layout_share, tolerance=result.tolerance))
    widgets.heading(text("map.heading.matrix"))
    options = [q for q in charts.MATRICES if q != "cka" or np.isfinite(result.cka).any()]
    form = Form(PAGE, "connectivity")
    quantity = form.switch("matrix", options, label_visibility="collapsed")
    grid = charts.matrix(result, quantity=quantity)
    widgets.show_chart(grid)
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart if chart is not None else grid, name="minima")
