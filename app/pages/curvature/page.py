"""Stationary points: whether a point is a minimum, a saddle, or not stationary at all."""

from __future__ import annotations

import importlib
import importlib.util
import re
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import export, widgets
from app.pages.curvature import charts
from app.pages.curvature import random as stationary_random
from app.pages.curvature import training as stationary_training
from app.state import bound
from app.texts import texts
from app.widgets.numbers import plus_minus, share
from app.work import jobs

PAGE = "stationary"
CRITICAL = "app.pages.curvature.critical"
KINDS = ("hessian", "ggn", "fisher", "empirical_fisher")
DEFINITIONS = ("stationary", "index", "lanczos", "density", "traces", "layers")
PRODUCT_PASSES = 10  # forward passes a Hessian-vector product costs, about
EXACT = 2000
VIEWS = {
    "point": PAGE,
    "training": stationary_training.PAGE,
    "random": stationary_random.PAGE,
    "critical": "stationary.critical",
}


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    views = ["point", "training", "random"] + (["critical"] if importlib.util.find_spec(CRITICAL) else [])
    with left:
        view = widgets.view_switch(PAGE, VIEWS, views)
    if view == "training":
        stationary_training.render(left, right)
    elif view == "random":
        stationary_random.render(left, right)
    elif view == "critical":
        importlib.import_module(CRITICAL).render(left, right)
    else:
        _render_point(left, right)


def _render_point(left: Any, right: Any) -> None:
    text = texts(PAGE)
    with left:
        chosen = widgets.inputs(PAGE)
        params, products = settings()
        ready = chosen.ready and params is not None
        if ready:
            widgets.cost(products, chosen.point, chosen.data, chosen.settings, passes=PRODUCT_PASSES)
        if widgets.run_button(PAGE, text("run"), ready=ready) and params is not None:
            start(chosen, params)
    with right:
        widgets.job_panel(PAGE, draw)
        widgets.definitions(text, DEFINITIONS)


def settings() -> tuple[dict[str, Any] | None, int]:
    """Write the settings of the estimator; return its keyword arguments and about how many products they cost."""
    text = texts(PAGE)
    kind = st.selectbox(
        text("kind"), KINDS, format_func=lambda k: text("matrix." + k), help=text("kind.help"), **bound(PAGE, "kind")
    )
    with st.expander(text("more"), icon=":material/tune:"):
        row = st.columns(3)
        n_eigenvalues = row[0].number_input(
            text("n_eigenvalues"), 1, 100, 5, help=text("n_eigenvalues.help"), **bound(PAGE, "n_eigenvalues")
        )
        n_probes = row[1].number_input(
            text("n_probes"), 2, 1000, 4, help=text("n_probes.help"), **bound(PAGE, "n_probes")
        )
        n_lanczos = row[2].number_input(
            text("n_lanczos"), 0, 2000, 40, step=10, help=text("n_lanczos.help"), **bound(PAGE, "n_lanczos")
        )
        row = st.columns(2)
        gradient_tol = row[0].number_input(
            text("gradient_tol"),
            min_value=1e-12,
            value=1e-3,
            format="%.1e",
            help=text("gradient_tol.help"),
            **bound(PAGE, "gradient_tol"),
        )
        exact_below = row[1].number_input(
            text("exact_below"), 0, 20_000, EXACT, step=500, help=text("exact_below.help"), **bound(PAGE, "exact_below")
        )
        per_layer = st.toggle(text("per_layer"), help=text("per_layer.help"), **bound(PAGE, "per_layer"))
        compare = st.toggle(text("compare_traces"), value=True, **bound(PAGE, "compare_traces"))
        pattern = st.text_input(
            text("filter"), placeholder=r"^layer4\.", help=text("filter.help"), **bound(PAGE, "filter")
        ).strip()
        problem = check_pattern(pattern)
        if problem:
            st.error(problem)
    params = {
        "kind": str(kind),
        "n_eigenvalues": int(n_eigenvalues),
        "n_probes": int(n_probes),
        "n_lanczos": int(n_lanczos),
        "gradient_tol": float(gradient_tol),
        "exact_below": int(exact_below),
        "per_layer": bool(per_layer),
        "compare_traces": bool(compare),
        "parameters": pattern or None,
    }
    probes = int(n_probes)
    ends = 10 * int(n_eigenvalues)
    products = ends + probes * (int(n_lanczos) + 4 + (6 if compare else 0)) + (300 if per_layer else 0)
    return (None if problem else params), products


def check_pattern(pattern: str) -> str | None:
    """Return a sentence when the filter on parameter names is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        return texts(PAGE)("filter.wrong", value=pattern, error=error)
    return None


def start(chosen: widgets.Inputs, params: dict[str, Any]) -> None:
    """Queue the measurement."""
    from estimators import CurvatureEstimator

    point, data = chosen.point, chosen.data
    estimator = CurvatureEstimator(**params, memory="default", **chosen.settings)

    def work(handle: jobs.Handle) -> Any:
        estimator.fit(point.load(), data.load(), on_progress=handle.progress, on_partial=handle.partial)
        return estimator.result_

    show = "result.eigenvalues_, result.residuals_, result.point_kind_"
    script = export.script(estimator, points=[("model", point)], data=data, show=show)
    config = export.config(estimator, points=[("model", point)], data=data, script=script)
    jobs.submit(PAGE, texts(PAGE)("job", model=point.label), work, config=config)


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(PAGE)
    _verdict(result)
    _numbers(result)
    pictures: dict[str, Any] = {}
    if len(result.eigenvalues):
        st.markdown(f"**{text('heading.ends')}**")
        pictures["ends"] = charts.eigenvalue_ends(result)
        widgets.show_chart(pictures["ends"])
    if len(result.density[0]):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.markdown(f"**{text('heading.density')}**")
            log = (
                st.segmented_control(
                    text("scale"),
                    ["log", "linear"],
                    format_func=lambda s: text("scale." + s),
                    default="log",
                    required=True,
                    label_visibility="collapsed",
                    **bound(PAGE, "scale"),
                )
                == "log"
            )
        pictures["density"] = charts.density(result, log=log)
        widgets.show_chart(pictures["density"])
    shares, sums = st.columns(2)
    if np.isfinite(result.fractions).all():
        with shares:
            st.markdown(f"**{text('heading.fractions')}**")
            pictures["fractions"] = charts.fractions(result)
            widgets.show_chart(pictures["fractions"])
    if len(result.traces) > 1:
        with sums:
            st.markdown(f"**{text('heading.traces')}**")
            pictures["traces"] = charts.traces(result)
            widgets.show_chart(pictures["traces"])
    if result.layers:
        pictures["layers"] = _layers(result)
    table = ends_table(result)
    if len(table):
        st.dataframe(table, hide_index=True, height="content")
    for note in result.notes[1:] if result.point_kind == "not stationary" else result.notes:
        st.caption(f":orange[:material/info:] {note}")
    method = text("method." + result.method)
    st.caption(text("products", count=result.n_products, method=method, parameters=result.n_parameters))
    widgets.settings_line(result)
    picture = pictures.get("density") or pictures.get("ends")
    widgets.take_along(PAGE, result, picture, table=table, name="curvature")


def _verdict(result: Any) -> None:
    text = texts(PAGE)
    icon = {"minimum": "south", "maximum": "north", "saddle": "swap_vert", "not stationary": "trending_down"}
    said = text(
        f"verdict.{result.point_kind}",
        gradient=result.gradient_norm,
        tol=result.gradient_tol,
        low=result.lambda_min,
        high=result.lambda_max,
    )
    if result.point_kind == "not stationary" and np.isfinite(result.gradient_step_drop):
        said += " " + text("verdict.drop", drop=result.gradient_step_drop)
    box = st.warning if result.point_kind in ("not stationary", "undecided", "degenerate") else st.success
    box(said, icon=f":material/{icon.get(result.point_kind, 'help')}:")


def _numbers(result: Any) -> None:
    text = texts(PAGE)
    tol = float(result.settings.get("tol", np.nan))
    units = text("help.lambda")
    shown = [
        ("loss", f"{result.loss:.4g}", None),
        ("gradient_norm", f"{result.gradient_norm:.3g}", text("help.gradient_norm")),
        ("lambda_max", plus_minus(result.lambda_max, result.lambda_max_residual), units),
        ("lambda_min", plus_minus(result.lambda_min, result.lambda_min_residual), units),
        ("trace", plus_minus(result.trace, result.trace_stderr), text("help.trace")),
        ("saddle_index", share(result.saddle_index, result.saddle_index_stderr), text("help.saddle_index")),
        (
            "zero",
            share(float(result.fractions[1]), float(result.fractions_stderr[1])),
            text("help.zero", threshold=result.zero_threshold, tol=tol),
        ),
    ]
    with st.container(horizontal=True):
        for name, value, help_ in shown:
            if value:
                st.metric(text(name), value, help=help_, width="content")


def _layers(result: Any) -> Any:
    text = texts(PAGE)
    options = ["trace", "mean"]
    if any(np.isfinite(row["lambda_max"]) for row in result.layers):
        options.append("lambda_max")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown(f"**{text('heading.layers')}**")
        what = st.segmented_control(
            text("layer.what"),
            options,
            format_func=lambda w: text("layer." + w),
            default="trace",
            required=True,
            label_visibility="collapsed",
            **bound(PAGE, "layer"),
        )
    chart = charts.layers(result, what=str(what))
    widgets.show_chart(chart)
    return chart


def ends_table(result: Any) -> pd.DataFrame:
    """Return the eigenvalues at the ends with their residuals, one a row."""
    text = texts(PAGE)
    states = [
        text("converged") if ok else text("negligible") if zero else text("open")
        for ok, zero in zip(result.converged, result.negligible, strict=True)
    ]
    relative = np.asarray(result.residuals) / np.maximum(np.abs(result.eigenvalues), 1e-300)
    return pd.DataFrame(
        {
            text("table.value"): [f"{v:.6g}" for v in result.eigenvalues],
            text("table.residual"): [f"{r:.2g}" for r in result.residuals],
            text("table.relative"): [f"{r:.1e}" for r in relative],
            text("table.state"): states,
        }
    )
