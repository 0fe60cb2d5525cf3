"""The map of minima, a view of the page Mode connectivity."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import export, widgets
from app.catalog import DataSpec, PointSpec
from app.charts import connectivity_pairs as charts
from app.state import bound
from app.texts import texts
from app.widgets.pickers import quick_start
from app.work import jobs
from app.workspace import library

PAGE = "connectivity.map"
POLICIES = ("auto", "recompute", "batch")
DEFINITIONS = ("barrier", "groups", "cka", "statistics")
MOST_EPOCHS = 20


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the map on the right."""
    text = texts("connectivity")
    with left:
        points = pick()
        data = widgets.data_picker(PAGE)
        params = settings()
        with st.expander(texts("common")("engine"), icon=":material/tune:"):
            engine = widgets.engine_settings(PAGE, POLICIES)
        ready = data is not None and len(points) >= 2
        if ready and data is not None:
            data = data.for_point(points[0])
            pairs = comb(len(points), 2)
            st.caption(text("map.cost", pairs=pairs))
            widgets.cost(pairs * params["n_points"] + 2 * len(points), points[0], data, engine, several_networks=True)
        if widgets.run_button(PAGE, text("map.run"), ready=ready) and data is not None:
            start(points, data, params, engine)
    with right:
        widgets.job_panel(PAGE, draw)
        widgets.definitions(text, DEFINITIONS)


def pick() -> list[PointSpec]:
    """Choose checkpoints of one architecture; an empty list, with the reason beside it, while there are too few."""
    text = texts("connectivity")
    found = {entry.id: entry for entry in library.list_checkpoints()}
    if len(found) < 1:
        st.caption(text("map.need"))
        quick_start(PAGE)
        return []
    chosen = st.multiselect(
        text("map.models"),
        list(found),
        default=list(found)[:6],
        format_func=lambda i: found[i].label if i in found else i,
        help=text("map.models.help"),
        **bound(PAGE, "models"),
    )
    entries = [found[i] for i in chosen if i in found]
    points = [PointSpec.from_checkpoint(entry) for entry in entries]
    if (
        entries
        and entries[0].trajectory
        and st.toggle(text("map.epochs"), help=text("map.epochs.help"), **bound(PAGE, "epochs"))
    ):
        kept = entries[0].trajectory
        kept = [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MOST_EPOCHS)).astype(int))]
        points += [PointSpec.from_checkpoint(entries[0], path.stem) for path in kept]
    kinds = sorted({p.architecture for p in points})
    if len(kinds) > 1:
        st.error(text("map.mixed", count=len(kinds), names=", ".join(kinds)))
        return []
    if len(points) < 2:
        st.caption(text("map.need"))
        if len(found) < 2:
            quick_start(PAGE)
        return []
    return points


def settings() -> dict[str, Any]:
    """Write the settings of the map; return keyword arguments of ``MinimaMapper``."""
    text = texts("connectivity")
    align = st.toggle(text("align"), help=text("align.help"), **bound(PAGE, "align"))
    row = st.columns(2)
    compare = row[0].selectbox(
        text("map.compare"),
        ["features", "outputs"],
        format_func=lambda c: text("map.compare." + c),
        **bound(PAGE, "compare"),
    )
    layout = row[1].selectbox(
        text("map.layout"),
        ["distance", "barrier", "cka"],
        format_func=lambda name: text("map.layout." + name),
        **bound(PAGE, "layout"),
    )
    row = st.columns(2)
    n_points = row[0].number_input(text("map.n_points"), 3, 101, 11, step=2, **bound(PAGE, "n_points"))
    tolerance = row[1].number_input(
        text("tolerance"), min_value=0.0, value=0.1, step=0.05, format="%.4g", help=text("tolerance.help"),
        **bound(PAGE, "tolerance"),
    )  # fmt: skip
    return {
        "align": "weights" if align else None,
        "compare": str(compare),
        "layout": str(layout),
        "n_points": int(n_points),
        "tolerance": float(tolerance),
    }


def start(points: list[PointSpec], data: DataSpec, params: dict[str, Any], engine: dict[str, Any]) -> None:
    """Queue the job."""
    from estimators import MinimaMapper

    mapper = MinimaMapper(**params, memory="default", **engine)
    names = unique([p.label for p in points])

    def work(handle: jobs.Handle) -> Any:
        models = {name: point.load() for name, point in zip(names, points, strict=True)}
        mapper.fit(models, data.load(), on_progress=handle.progress, on_partial=handle.partial)
        return mapper.result_

    listed = [(f"model_{i}", point) for i, point in enumerate(points)]
    pairs = ", ".join(f"{name!r}: {variable}" for name, (variable, _) in zip(names, listed, strict=True))
    script = export.script(
        mapper, points=listed, data=data, setup=f"models = {{{pairs}}}", fit="models, data", show="result.barriers_"
    )
    config = export.config(mapper, points=listed, data=data, script=script)
    jobs.submit(PAGE, texts("connectivity")("map.job", count=len(points)), work, config=config)


def unique(names: list[str]) -> list[str]:
    """Give names that occur more than once a number."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


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
        st.markdown(f"**{text('map.heading.layout')}**")
        chart = charts.layout(result)
        widgets.show_chart(chart)
        st.caption(text("map.share", share=result.layout_share, tolerance=result.tolerance))
    st.markdown(f"**{text('map.heading.matrix')}**")
    options = [q for q in charts.MATRICES if q != "cka" or np.isfinite(result.cka).any()]
    quantity = st.segmented_control(
        text("map.matrix"),
        options,
        format_func=lambda q: text("map.matrix." + q),
        default="barriers",
        required=True,
        label_visibility="collapsed",
        **bound(PAGE, "matrix"),
    )
    grid = charts.matrix(result, quantity=str(quantity))
    widgets.show_chart(grid)
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart if chart is not None else grid, name="minima")
