"""Mode connectivity: a path between two minima; the map of many and the lecture's cases are views of the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import DataSpec
from app.charts import connectivity as charts
from app.charts.theme import SCHEMES
from app.pages.connectivity import cases as connectivity_cases
from app.pages.connectivity import minima as connectivity_map
from app.texts import plain, texts
from app.widgets import Form
from app.work import jobs
from app.work.work import restartable

PAGE = "connectivity"
POLICIES = ("auto", "recompute", "batch")
HELD_OUT = 0.25  # of the examples that a path is measured on, the held-out ones, about
DEFINITIONS = ("barrier", "rise", "curve", "match", "statistics")


def render() -> None:
    """Draw the page."""
    views = {"path": (PAGE, _render_path), "map": (connectivity_map.PAGE, connectivity_map.render)}
    widgets.show_view(PAGE, views | {"cases": (connectivity_cases.PAGE, connectivity_cases.render)})


def _render_path(left: DeltaGenerator, right: DeltaGenerator) -> None:
    text = texts(PAGE)
    with left:
        chosen = widgets.subject(policies=POLICIES).beside({"b": text("b")}, PAGE)
        params = settings()
        ready = chosen.ready
        if ready and chosen.points[0] == chosen.points[1]:
            st.warning(text("need_two"))
            ready = False
        elif ready and chosen.points[0].architecture != chosen.points[1].architecture:
            names = [p.architecture for p in chosen.points]
            st.error(text("need_two.architectures", a=plain(names[0]), b=plain(names[1])))
            ready = False
        if ready:
            work = {"networks": 2, "vectors": 3 * (2 + params.get("n_bends", 0)), "derivatives": "epochs" in params}
            several: dict[str, Any] = {"several_networks": True, **work}
            several["train_batch_size"] = params.get("train_batch_size", 32)
            ready = widgets.cost(taken(params), chosen.point, chosen.data, chosen.settings, **several)
        if widgets.run_button(PAGE, text("run"), ready=ready):
            start(chosen, params)
    widgets.answer(right, PAGE, draw, DEFINITIONS)


def settings() -> dict[str, Any]:
    """Write the settings of the path; return the keyword arguments of ``ModeConnector``."""
    form = Form(PAGE)
    params: dict[str, Any] = {"path": form.switch("path", None, "bezier", width="stretch")}
    if params["path"] != "linear":
        left, right = form.columns(2)
        params["n_bends"] = left.integer("n_bends", 1, 1, 10)
        params["epochs"] = right.integer("epochs", 15, 0, 1000)
    if form.toggle("align"):
        params["align"] = "weights"
    with st.expander(texts(PAGE)("more"), icon=":material/conversion_path:"):
        if params["path"] != "linear":
            row = form.columns(2)
            params["lr"] = row[0].real("lr", 0.1, 1e-5, step=0.05)
            params["train_batch_size"] = row[1].integer("train_batch", 32, 2, 4096, label="train_batch_size")
        row = form.columns(2)
        params["n_points"] = row[0].integer("n_points", 21, 3, 201, step=2)
        params["tolerance"] = row[1].real("tolerance", 0.1, 0.0, step=0.05)
        row = form.columns(2)
        side = row[0].integer("plane", 15, 0, 101, label="plane_resolution")
        members = row[1].integer("ensemble", 3, 0, 21, label="ensemble_points")
        params["sampling"] = form.toggle("sampling", True)
        params["plane_resolution"] = side if side >= 2 else 0
        params["ensemble_points"] = members if members >= 2 else 0
    return params


def taken(params: dict[str, Any]) -> Any:
    """Count what a run takes, about; fewer examples are held out than measured on."""
    with widgets.opening():
        from estimators import ModeConnector, Work

    return ModeConnector(**params).cost() + Work(evaluations=HELD_OUT * params["n_points"])


def start(chosen: widgets.Subject, params: dict[str, Any]) -> None:
    """Queue the job."""
    from estimators import ModeConnector

    text = texts(PAGE)
    (a, b), data = chosen.points, chosen.data
    widgets.start_fit(
        PAGE,
        text("job", path=text("path." + params["path"]), a=a.label, b=b.label),
        ModeConnector(**params, memory="default", **chosen.settings),
        points=[("model_a", a), ("model_b", b)],
        data=data,
        held_out=data.held_out(None),
        work=connect,
        fit="(model_a, model_b), data, held_out=held_out",
        show="result.barrier_, result.straight_barrier_, result.connected_",
    )


@restartable
def connect(handle: jobs.Handle, estimator: Any, points: Any, data: DataSpec, held_out: DataSpec) -> Any:
    """Find the path between two networks; runs in the worker thread."""
    ends = tuple(point.load() for point in points)
    return estimator.fit(ends, data.load(), held_out=held_out.load(), **handle.reports).result_


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(PAGE)
    quantity, on, log = _switches(result)
    widgets.notes(result.notes)
    finished = len(result.losses) > 0
    at = None
    if finished:
        verdict(result)
        at = Form(PAGE).slider("t", 0.5, 0.0, 1.0, step=0.01, label="at")
    profile = charts.profile(result, quantity=quantity, on=on, log=log, at=at)
    chart = widgets.picture(text("heading.profile"), profile)
    if not finished:
        return
    numbers(result, at)
    widgets.over_examples(result, text)
    if len(result.groups):
        matching(result)
    if len(result.plane_anchors):
        bent = result.n_bends > 0
        plane = charts.plane(result, log=True, scheme=SCHEMES["Viridis"], at=at)
        widgets.picture(text("heading.plane" if bent else "heading.plane.straight"), plane)
        if np.max(result.plane_distances) > 0.01 * result.distance:
            away = float(np.max(result.plane_distances))
            st.caption(text("plane.away", distance=away, length=result.distance))
    if len(result.history_losses):
        with st.expander(text("heading.training"), icon=":material/model_training:"):
            widgets.show_chart(charts.training(result))
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, name="path")


def _switches(result: Any) -> tuple[str, str, bool]:
    """Write what the profile shows; return quantity, examples and whether the scale is logarithmic."""
    form, on = Form(PAGE), "train"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = form.switch("quantity", ("losses", "accuracies"))
        if len(result.held_out_losses):
            on = form.switch("on", ("train", "held_out"), label="examples")
        scale = form.switch("scale", ("linear", "log"))
    return quantity, on, scale == "log"


def verdict(result: Any) -> None:
    """Say whether the path joins its ends."""
    text = texts(PAGE)
    if result.n_non_finite:
        st.error(text("not_finite", count=result.n_non_finite))
    else:
        state = "joined" if result.connected else "not_joined"
        badge = ":green-badge[:material/link:]" if result.connected else ":red-badge[:material/link_off:]"
        st.markdown(f"{badge} " + text(state, rise=result.rise_over_endpoints, tolerance=result.tolerance))


def numbers(result: Any, at: float) -> None:
    """Write the heights of the path, and the network at one position."""
    text = texts(PAGE)
    card: dict[str, Any] = {"border": True, "width": "content", "delta_color": "off", "delta_arrow": "off"}
    with st.container(horizontal=True):
        (_, error), extra = result.uncertainty_of("barrier"), result.n_refined
        points = text("barrier.help", count=len(result.t) + extra, shown=len(result.t), extra=extra)
        above = text("barrier.error", error=error) if np.isfinite(error) else None
        st.metric(text("barrier"), f"{result.barrier:.3g} nats", delta=above, help=points, **card)
        if np.isfinite(result.straight_barrier) and (result.n_bends or result.align):
            st.metric(text("straight_barrier"), f"{result.straight_barrier:.3g} nats", **card)
        if np.isfinite(result.aligned_barrier):
            st.metric(text("aligned_barrier"), f"{result.aligned_barrier:.3g} nats", **card)
        _, (low, high) = result.uncertainty_of("worst_t")
        between = text("worst.between", low=low, high=high) if np.isfinite(low) else None
        st.metric(text("worst"), f"{result.worst_t:.3f}", delta=between, help=text("worst.help"), **card)
        if result.distance > 0 and result.n_bends:
            ratio = result.path_length / result.distance
            st.metric(text("length"), f"{ratio:.3f}", help=text("length.help"), **card)
    with st.container(horizontal=True):
        near = {name: float(np.interp(at, result.t, getattr(result, name))) for name in ("losses", "accuracies")}
        st.metric(text("at.loss", t=at), f"{near['losses']:.3g} nats", **card)
        outside = None
        if len(result.held_out_accuracies):
            value = float(np.interp(at, result.t, result.held_out_accuracies))
            outside = f"{text('at.held_out')} {value:.1%}"
        st.metric(text("at.accuracy", t=at), f"{near['accuracies']:.1%}", delta=outside, **card)
        if np.isfinite(result.ensemble_accuracy):
            held = len(result.held_out_accuracies) > 0
            ends = result.held_out_accuracies if held else result.accuracies
            where = text("chart.on.held_out" if held else "chart.on.train")
            note = text("ensemble.help", where=where, loss=result.ensemble_loss, best=float(max(ends[0], ends[-1])))
            label = text("ensemble", count=len(result.ensemble_t))
            st.metric(label, f"{result.ensemble_accuracy:.1%}", help=note, **card)


def matching(result: Any) -> None:
    """Write what matching the units changed."""
    text = texts(PAGE)
    after = result.aligned_barrier if np.isfinite(result.aligned_barrier) else result.barrier
    before = result.straight_barrier
    widgets.heading(text("heading.alignment"))
    if np.isfinite(before) and np.isfinite(after) and before > 0:
        said = {"before": before, "after": after, "fall": after / before - 1, "change": result.alignment_change}
        said |= {"cos_before": result.similarity_before, "cos_after": result.similarity_after}
        said |= {"distance_before": result.distance_before, "distance_after": result.distance}
        st.caption(text("matching", **said))
    columns = ("units", "made_by", "tensors", "moved")
    table = pd.DataFrame({text(f"groups.{name}"): [row[name] for row in result.groups] for name in columns})
    percent = {text("groups.moved"): st.column_config.NumberColumn(format="percent")}
    said = {"fold": text("groups.title", count=len(table)), "alt": text("heading.alignment")}
    widgets.show_table(table, column_config=percent, **said)
