"""Sharpness: how fast the loss rises around a model, in several measures; and small against large batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import PointSpec
from app.pages.sharpness import batch, charts, reference
from app.pages.sharpness.batch import short
from app.texts import texts
from app.work import jobs

PAGE = "sharpness"
LANCZOS = 60  # vectors that the search for the largest eigenvalue and the trace keep, about
DEFINITIONS = ("worst", "adaptive", "m", "average", "curvature", "pac")
# Rows of the table: those that have words.
ROWS = texts(PAGE).options("row")
ANSWERS = ("sharpness", "average_sharpness", "lambda_max", "trace")


def render() -> None:
    """Draw the page."""
    widgets.show_view(PAGE, {"point": (PAGE, _render_point), "batch": (batch.PAGE, batch.render)})


def _render_point(left: DeltaGenerator, right: DeltaGenerator) -> None:
    text = texts(PAGE)
    with left:
        chosen = widgets.subject()
        params = settings()
        if not params["measures"]:
            st.error(text("nothing_chosen"))
        ready = chosen.ready and bool(params["measures"])
        if ready:
            more = {"budget": params["time_budget"], "vectors": LANCZOS, "derivatives": True}
            ready = widgets.cost(work(params), chosen.point, chosen.data, chosen.settings, **more)
        if widgets.run_button(PAGE, text("run"), ready=ready):
            start(chosen, params)
    widgets.answer(right, PAGE, draw, DEFINITIONS)


def settings() -> dict[str, Any]:
    """Write the settings of the estimator; return its keyword arguments."""
    with widgets.opening():
        from estimators import SHARPNESS_MEASURES

    text, form = texts(PAGE), widgets.Form(PAGE)
    wanted = form.several("measures", SHARPNESS_MEASURES, words=lambda name: text("measure." + name))
    params: dict[str, Any] = {"measures": "all" if len(wanted) == len(SHARPNESS_MEASURES) else wanted}
    params["sampling"] = form.toggle("sampling", True)
    with st.expander(text("ball"), icon=":material/adjust:"):
        params["adaptive"] = form.toggle("adaptive")
        left, right = form.columns(2)
        params["rho"] = left.real("rho", 0.05, 1e-6, step=0.05)
        params["norm"] = right.choice("norm")
        left, right = form.columns(2)
        params["n_steps"] = left.integer("n_steps", 30, 1, 500)
        params["n_restarts"] = right.integer("n_restarts", 10, 1, 50)
    with st.expander(text("around"), icon=":material/grain:"):
        params["noise"] = form.choice("noise")
        left, middle, right = form.columns(3)
        params["sigma"] = left.real("sigma", 0.01, 1e-6, step=0.01)
        params["n_draws"] = middle.integer("n_draws", 32, 4, 1000, step=2)
        params["m"] = right.integer("m", 128, 1, 100_000)
    params["time_budget"] = widgets.time_budget(PAGE)
    return params


def work(params: dict[str, Any]) -> Any:
    """Count what the chosen measures take, about."""
    from estimators import SharpnessEstimator

    return SharpnessEstimator(**params).cost()


def start(chosen: widgets.Subject, params: dict[str, Any]) -> None:
    """Queue the job."""
    from estimators import SharpnessEstimator

    estimator = SharpnessEstimator(**params, memory="default", **chosen.settings)
    widgets.start_fit(
        PAGE, texts(PAGE)("job", model=chosen.point.label), estimator, points=[("model", chosen.point)],
        data=chosen.data, show="result.result_.table()",
    )  # fmt: skip


def draw(result: Any) -> None:
    """Draw a partial or final result beside the pinned ones; runs in a fragment."""
    text = texts(PAGE)
    job = jobs.shown(PAGE)
    label = label_of(job)
    results = widgets.beside_pinned(PAGE, label, result)
    if len(results) == 1:
        metrics(result)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        form = widgets.Form(PAGE)
        log, quadratic = form.log(), form.toggle("quadratic", True)
    drawn = []
    if any(len(r.profile_radius) for _, r in results):
        rise = charts.rise_profile(results, log=log, quadratic=quadratic)
        drawn.append(widgets.picture(text("heading.rise"), rise))
        widgets.picture(text("heading.noise"), charts.noise_profile(results, log=log))
    beside = len(results) > 1 or not drawn
    if beside and any(np.isfinite(getattr(r, name)) for _, r in results for name in charts.PANELS):
        drawn.append(widgets.picture(text("heading.measures"), charts.measures(results)))
    st.caption(text("bound_note"))
    widgets.notes(result.notes)
    table = numbers(results)
    widgets.show_table(table, fold=text("heading.numbers"))
    widgets.over_examples(result, lambda name: text(f"row.{name}"))
    reference.block(job, result)
    widgets.settings_line(result, rho=result.settings.get("rho"))
    widgets.take_along(PAGE, result, drawn[0] if drawn else None, table=table, name="sharpness", pin=label)


def metrics(result: Any) -> None:
    """Write the measures that answer the page's question, each with what its ± is."""
    text = texts(PAGE)
    with st.container(horizontal=True):
        for name in ANSWERS:
            value = cell(result, name)
            if value:
                under = widgets.interval_under(result.sampling, name)
                st.metric(text(f"row.{name}"), value, width="content", **under)


def label_of(job: jobs.Job | None) -> str:
    """Name of the measured model: what pins and legends call it."""
    spec = (job.config.get("points") or {}).get("model") if job is not None else None
    return PointSpec(**spec).label if spec else texts(PAGE)("model")


def numbers(results: list[tuple[str, Any]]) -> pd.DataFrame:
    """Return the table: a row a measure, a column a model, uncertainties beside the values."""
    text = texts(PAGE)
    rows = []
    for name in ROWS:
        cells = [cell(result, name) for _, result in results]
        if any(cells):
            rows.append([text(f"row.{name}"), *(c or "–" for c in cells)])
    return pd.DataFrame(rows, columns=[text("row"), *(label for label, _ in results)])


def cell(result: Any, name: str) -> str:
    """Return one number with its uncertainty; empty when it was not measured."""
    text = texts(PAGE)
    parts = result.pac_bayes
    if name == "first_order":
        value = result.scaled_gradient_norm * float(result.settings.get("rho", np.nan))
    elif name == "pac_bayes_kl":
        value = float(parts.get("bound_kl", np.nan))
    elif name == "pac_bayes_parts":
        return ", ".join(short(parts[part], 3) for part in ("kl", "sigma", "delta")) if parts else ""
    else:
        value = float(getattr(result, name))
    if name in ("pac_bayes_bound", "pac_bayes_kl") and parts.get("prior_doubt"):
        return text("no_prior")
    if not np.isfinite(value):
        return ""
    shown = f"{value:.1%}" if name == "accuracy" else short(value)
    if name == "pac_bayes_bound" and parts.get("vacuous"):
        return text("vacuous", value=shown)
    if sign := result.bound_on(name):
        return f"{sign} {shown}"
    _, spread = result.uncertainty_of(name) or ("", np.nan)
    return f"{shown} ± {short(spread, 2)}" if np.isfinite(spread) else shown
