"""The numbers of a surface: what was found, models on the map, basins, comparison, files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.charts import surface as charts
from app.charts.grid import is_preview, unknown
from app.texts import texts
from app.widgets.jobs import aside
from app.work import jobs

PAGE = "surface"
EXTRA = "_surface_extra"


def metrics(result: Any) -> None:
    """Write the numbers of the map in a row."""
    text = texts(PAGE)
    losses = np.asarray(result.losses, float)
    known = np.asarray(result.evaluated) | np.isfinite(losses)
    # what lies between the points of a preview may be far off: only what was measured counts
    so_far = ".so_far" if is_preview(result) else ""
    finite = losses[np.isfinite(losses) & ~unknown(result, losses)]
    with st.container(horizontal=True):
        if np.isfinite(result.loss):
            st.metric(
                text("centre"), f"{result.loss:.4g}", width=190, **widgets.interval_under(result.sampling, "loss")
            )
            accurate = widgets.interval_under(result.sampling, "accuracy")
            st.metric(text("centre.accuracy"), f"{result.accuracy:.2%}", width=200, **accurate)
        if finite.size:
            st.metric(text(f"lowest{so_far}"), f"{finite.min():.4g}", width=150)
            st.metric(text(f"highest{so_far}"), f"{finite.max():.4g}", width=140)
        st.metric(text("not_finite"), f"{int((known & ~np.isfinite(losses)).sum())}", width=110)
        st.metric(text("evaluated"), f"{result.n_evaluated:,} / {losses.size:,}", width=160)
        if np.isfinite(result.largest_error):
            st.metric(text("error"), f"{result.largest_error:.2%}", help=text("error.help"), width=140)
        if np.size(result.explained_variance_ratio):
            walk = float(np.sum(result.random_walk_variance_ratio))
            st.metric(
                text("variance"), f"{float(np.sum(result.explained_variance_ratio)):.1%}", width=190,
                delta=text("variance.walk", share=walk) if walk else None, delta_color="off", delta_arrow="off",
                help=text("variance.help"),
            )  # fmt: skip
        if np.size(result.eigenvalues):
            listed = ", ".join(f"{v:.4g}" for v in np.ravel(result.eigenvalues))
            st.metric(text("eigenvalues"), listed, width=200)
    widgets.notes(result.notes)


def under(result: Any, x: float, y: float) -> float:
    """Return the map's value at the node nearest to a point; NaN outside the map."""
    picked = []
    for axis, value in zip(result.axes, (x, y), strict=True):
        axis = np.asarray(axis, float)
        step = abs(axis[1] - axis[0])
        if not axis[0] - step / 2 <= value <= axis[-1] + step / 2:
            return float("nan")
        picked.append(int(np.abs(axis - value).argmin()))
    return float(np.asarray(result.losses)[tuple(picked)])


def models(result: Any) -> None:
    """Write the table of models and checkpoints: where they lie, how far off, and their own loss."""
    text = texts(PAGE)
    rows = []
    entries = [(path["label"], path, k) for path in result.trajectories for k in range(len(path["x"]))]
    entries += [(marker["label"], {n: [v] for n, v in marker.items()}, 0) for marker in result.markers]
    on_plane = len(result.axes) == 2
    for label, columns, k in entries:
        row = {text("col.label"): label, text("col.step"): k, text("col.x"): columns["x"][k]}
        if on_plane:
            row[text("col.y")] = columns["y"][k]
        row[text("col.distance")] = columns["distance"][k]
        row[text("col.loss")] = columns["loss"][k]
        if on_plane:
            row[text("col.under")] = under(result, columns["x"][k], columns["y"][k])
        if "differs" in columns:
            row[text("col.differs")] = "≠" if columns["differs"][k] else ""
        row[text("col.accuracy")] = columns["accuracy"][k]
        rows.append(row)
    if not rows:
        return
    with st.expander(text("models"), icon=":material/route:", expanded=len(rows) <= 5):
        st.caption(text("models.help"))
        numbers = ("col.x", "col.y", "col.distance", "col.loss", "col.under")
        formats = {text(name): st.column_config.NumberColumn(format="%.4g") for name in numbers}
        formats[text("col.accuracy")] = st.column_config.NumberColumn(format="percent")
        widgets.show_table(pd.DataFrame(rows), column_config=formats)


def analysis(result: Any, mapper: Any) -> None:
    """Offer what can be read off a map: basins, basin width, convexity."""
    text = texts(PAGE)
    with st.expander(text("analysis"), icon=":material/straighten:"):
        _basins(result)
        if mapper is None:
            return
        with st.container(horizontal=True):
            st.button(
                text("width.run"), key=f"{PAGE}.width", icon=":material/open_with:", on_click=_measure,
                args=("width", mapper),
            )  # fmt: skip
            st.button(
                text("convexity.run"), key=f"{PAGE}.convexity", icon=":material/waves:", on_click=_measure,
                args=("convexity", mapper), help=text("convexity.help"),
            )  # fmt: skip
        aside(EXTRA, jobs.shown(PAGE), _found)


def _basins(result: Any) -> None:
    text = texts(PAGE)
    if importlib.util.find_spec("gudhi") is None:
        st.caption(text("basins.missing"))
        return
    from estimators import basins_of

    depth = widgets.Form(PAGE).slider("depth", 0.1, 0.0, 2.0, step=0.05, width=300)
    found = basins_of(result, min_persistence=depth)
    st.markdown(text("basins.one") if len(found) == 1 else text("basins.count", count=len(found), depth=f"{depth:g}"))
    if found:
        names = {"x": "col.x", "y": "col.y", "loss": "col.under", "pass_loss": "col.pass"}
        names["persistence"] = "col.persistence"
        shown = pd.DataFrame(found).replace([np.inf], np.nan).rename(columns={k: text(v) for k, v in names.items()})
        widgets.show_table(shown)


def _measure(kind: str, mapper: Any) -> None:
    def work(handle: jobs.Handle) -> Any:
        run = mapper.basin_width if kind == "width" else mapper.convexity
        return run(on_progress=handle.progress)

    job = jobs.shown(PAGE)
    config = {"kind": kind, "of": job.id if job is not None else ""}
    jobs.submit(EXTRA, texts(PAGE)(f"job.{kind}"), work, config=config, keep=False)


def _found(job: jobs.Job) -> None:
    """Write what was measured of the map."""
    text = texts(PAGE)
    if job.config["kind"] == "width":
        radii = np.asarray(job.result["radii"])
        inside = radii[np.isfinite(radii)]
        if inside.size:
            low, high = f"{inside.min():.3g}", f"{inside.max():.3g}"
            st.markdown(text("width.found", median=f"{np.median(inside):.3g}", low=low, high=high))
        if inside.size < radii.size:
            st.caption(text("width.open", count=radii.size - inside.size, all=radii.size))
    else:
        ratio = np.asarray(job.result["ratio"])
        middle = ratio[ratio.shape[0] // 2, ratio.shape[1] // 2]
        st.markdown(text("convexity.found", centre=f"{middle:.3g}", median=f"{np.nanmedian(ratio):.3g}"))
        widgets.show_chart(charts.ratio_map(job.result["axes"], ratio))


def compare(result: Any, job: jobs.Job | None, look: dict[str, Any]) -> None:
    """Offer to pin the map; draw the pinned ones beside it on one colour scale."""
    text = texts(PAGE)
    label = f"{job.title} · {job.id[:4]}" if job is not None else texts(PAGE)("title")
    if job is None or not job.live:
        widgets.pin_button(PAGE, label, result)
    shown = widgets.beside_pinned(PAGE, label, result)
    maps = [(name, one) for name, one in shown if look["quantity"] in charts.quantities(one)]
    if len(maps) < 2:
        return
    st.subheader(text("compare"))
    domain = charts.shared_domain([one for _, one in maps], look["quantity"], log=look["log"], clip=look["clip"])
    st.caption(text("compare.help", low=f"{domain[0]:.3g}", high=f"{domain[1]:.3g}"))
    shared = {name: look[name] for name in ("quantity", "log", "levels", "scheme")}
    widgets.in_pairs([charts.heat_map(one, **shared, domain=domain, title=name, height=430) for name, one in maps])


def table(result: Any) -> pd.DataFrame:
    """Return one row for each node, for CSV: coordinates, every quantity, whether it was evaluated, its error."""
    shape = np.shape(result.losses)
    axes = [np.asarray(a, float) for a in result.axes]
    columns: dict[str, Any] = {}
    if len(shape) == 2 and len(axes) == 1:  # several seeds of a profile
        axes = [np.arange(shape[0]), *axes]
        names = ["seed", "coordinate_1"]
    else:
        names = [f"coordinate_{k + 1}" for k in range(len(axes))]
    for name, values in zip(names, np.meshgrid(*axes, indexing="ij"), strict=True):
        columns[name] = values.ravel()
    columns |= {q: charts.values_of(result, q).ravel() for q in charts.quantities(result)}
    columns["evaluated"] = np.asarray(result.evaluated).ravel()
    columns["error_estimate_log_loss"] = np.asarray(result.error_estimate).ravel()
    return pd.DataFrame(columns)


def meshes(result: Any, look: dict[str, Any]) -> dict[str, Callable[[], bytes]]:
    """Return the mesh files a plane can be written to; none without meshio."""
    if len(result.axes) != 2 or importlib.util.find_spec("meshio") is None:
        return {}

    def make(kind: str) -> Callable[[], bytes]:
        def content() -> bytes:
            from estimators import write_mesh

            with TemporaryDirectory() as folder:
                file = Path(folder) / f"surface.{kind}"
                return write_mesh(result, file, quantity=look["quantity"], log=look["log"]).read_bytes()

        return content

    return {f"surface.{kind}": make(kind) for kind in ("obj", "stl", "vtk")}


def mesh_note(result: Any) -> None:
    """Say what mesh files are for, or what they need."""
    if len(result.axes) == 2:
        missing = importlib.util.find_spec("meshio") is None
        st.caption(texts(PAGE)("mesh.missing" if missing else "mesh.help"))
