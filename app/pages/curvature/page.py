"""Stationary points: whether a point is a minimum, a saddle, or not stationary at all."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.pages.curvature import charts, critical, random, training
from app.texts import plain, texts
from app.widgets.numbers import known, share

PAGE = "stationary"
DEFINITIONS = ("stationary", "index", "lanczos", "density", "traces", "layers")
EXACT = 2000


def render() -> None:
    """Draw the page."""
    views = {"point": (PAGE, _render_point), "training": (training.PAGE, training.render)}
    views |= {"random": (random.PAGE, random.render), "critical": (critical.PAGE, critical.render)}
    widgets.show_view(PAGE, views)


def _render_point(left: Any, right: Any) -> None:
    text = texts(PAGE)
    with left:
        chosen = widgets.subject()
        params = settings()
        ready = chosen.ready and params is not None
        if ready and params is not None:
            vectors = max(params["n_lanczos"], 12 * params["n_eigenvalues"]) + 6 * params["n_probes"]
            more = {"budget": params["time_budget"], "vectors": vectors, "derivatives": True}
            ready = widgets.cost(work(params), chosen.point, chosen.data, chosen.settings, **more)
        if widgets.run_button(PAGE, text("run"), ready=ready) and params is not None:
            start(chosen, params)
    widgets.answer(right, PAGE, draw, DEFINITIONS)


def settings() -> dict[str, Any] | None:
    """Write the settings of the estimator; return its keyword arguments, None while they are wrong."""
    form = widgets.Form(PAGE)
    params: dict[str, Any] = {"kind": form.choice("kind")}
    with st.expander(texts(PAGE)("more"), icon=":material/tune:"):
        left, middle, right = form.columns(3)
        params["n_eigenvalues"] = left.integer("n_eigenvalues", 5, 1, 100)
        params["n_probes"] = middle.integer("n_probes", 4, 2, 1000)
        params["n_lanczos"] = right.integer("n_lanczos", 40, 0, 2000, step=10)
        left, right = form.columns(2)
        params["gradient_tol"] = left.real("gradient_tol", 1e-3, 1e-12, format="%.1e")
        params["exact_below"] = right.integer("exact_below", EXACT, 0, 20_000, step=500)
        params["per_layer"] = form.toggle("per_layer")
        params["compare_traces"] = form.toggle("compare_traces", True)
        params["sampling"] = form.toggle("sampling", True)
        pattern = form.text("filter", placeholder=r"^layer4\.")
        params["parameters"] = pattern or None
        problem = check_pattern(pattern)
        if problem:
            st.error(plain(problem))
    params["time_budget"] = widgets.time_budget(PAGE)
    return None if problem else params


def work(params: dict[str, Any]) -> Any:
    """Count what a measurement takes, about."""
    with widgets.opening():
        from estimators import CurvatureEstimator

    return CurvatureEstimator(**params).cost()


def check_pattern(pattern: str) -> str | None:
    """Return a sentence when the filter on parameter names is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        return texts(PAGE)("filter.wrong", value=pattern, error=error)
    return None


def start(chosen: widgets.Subject, params: dict[str, Any]) -> None:
    """Queue the measurement."""
    from estimators import CurvatureEstimator

    estimator = CurvatureEstimator(**params, memory="default", **chosen.settings)
    points, show = [("model", chosen.point)], "result.eigenvalues_, result.residuals_, result.point_kind_"
    title = texts(PAGE)("job", model=chosen.point.label)
    widgets.start_fit(PAGE, title, estimator, points=points, data=chosen.data, show=show)


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(PAGE)
    _verdict(result)
    _numbers(result)
    picture = None
    if len(result.eigenvalues):
        picture = widgets.picture(text("heading.ends"), charts.eigenvalue_ends(result))
    if len(result.density[0]):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            widgets.heading(text("heading.density"))
            log = widgets.Form(PAGE).log(label_visibility="collapsed")
        picture = charts.density(result, log=log)
        widgets.show_chart(picture)
    shares, sums = st.columns(2)
    if np.isfinite(result.fractions).all():
        with shares:
            widgets.picture(text("heading.fractions"), charts.fractions(result))
    if len(result.traces) > 1:
        with sums:
            widgets.picture(text("heading.traces"), charts.traces(result))
    if result.layers:
        _layers(result)
    table = ends_table(result)
    if len(table):
        widgets.show_table(table, fold=text("heading.ends"))
    widgets.over_examples(result, text)
    widgets.notes(result.notes)
    method = text("method." + result.method)
    st.caption(text("products", count=result.n_products, method=method, parameters=result.n_parameters))
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, picture, table=table, name="curvature")


def _verdict(result: Any) -> None:
    text = texts(PAGE)
    icon = {"minimum": "south", "maximum": "north", "saddle": "swap_vert", "not stationary": "trending_down"}
    numbers = {"gradient": result.gradient_norm, "tol": result.gradient_tol}
    known_kind = result.point_kind if np.isfinite(result.gradient_norm) else "unknown"
    said = text(f"verdict.{known_kind}", **numbers, low=result.lambda_min, high=result.lambda_max)
    if result.point_kind == "not stationary" and np.isfinite(result.gradient_step_drop):
        said += " " + text("verdict.drop", drop=result.gradient_step_drop)
    box = st.warning if result.point_kind in ("not stationary", "undecided", "degenerate") else st.success
    box(said, icon=f":material/{icon.get(result.point_kind, 'help')}:")


def _numbers(result: Any) -> None:
    text = texts(PAGE)
    tol = float(result.settings.get("tol", np.nan))
    units, measured = text("help.lambda"), np.isfinite(result.gradient_norm)
    zero = text("help.zero", threshold=result.zero_threshold, tol=tol)
    _, errors = result.uncertainty_of("fractions")
    shown = [
        ("loss", f"{result.loss:.4g}", None),
        ("gradient_norm", f"{result.gradient_norm:.3g}" if measured else "", text("help.gradient_norm")),
        ("lambda_max", known(result, "lambda_max"), units),
        ("lambda_min", known(result, "lambda_min"), units),
        ("trace", known(result, "trace"), text("help.trace")),
        ("saddle_index", known(result, "saddle_index", share), text("help.saddle_index")),
        ("zero", share(float(result.fractions[1]), float(errors[1])), zero),
    ]
    with st.container(horizontal=True):
        for name, value, help_ in shown:
            if value:
                under = widgets.interval_under(result.sampling, name)
                st.metric(text(name), value, help=help_, width="content", **under)
    st.caption(text("plus_minus"))


def _layers(result: Any) -> None:
    text = texts(PAGE)
    searched = any(np.isfinite(row["lambda_max"]) for row in result.layers)
    options = ("trace", "mean", "lambda_max") if searched else ("trace", "mean")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        widgets.heading(text("heading.layers"))
        what = widgets.Form(PAGE).switch("layer", options, label_visibility="collapsed")
    widgets.show_chart(charts.layers(result, what=what))


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
