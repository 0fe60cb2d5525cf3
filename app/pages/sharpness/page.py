"""Sharpness: how fast the loss rises around a model, in several measures; and small against large batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.catalog import PointSpec
from app.pages.sharpness import batch, charts
from app.pages.sharpness.batch import short
from app.texts import texts
from app.work import jobs

PAGE = "sharpness"
DEFINITIONS = ("worst", "adaptive", "m", "average", "curvature", "pac")
# Rows of the table: text key and the field, its error, or a function of the result where it is not a field.
ROWS = (
    "loss",
    "accuracy",
    "gradient_norm",
    "sharpness",
    "one_step",
    "first_order",
    "quadratic_rise",
    "lambda_max",
    "trace",
    "average_sharpness",
    "quadratic_average",
    "m_sharpness",
    "pac_bayes_bound",
    "pac_bayes_kl",
    "pac_bayes_parts",
    "sigma_tolerated",
)


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        view = widgets.view_switch(PAGE, {"point": PAGE, "batch": batch.PAGE})
    if view == "batch":
        batch.render(left, right)
        return
    with left:
        chosen = widgets.inputs(PAGE)
        params = settings()
        if not params["measures"]:
            st.error(text("nothing_chosen"))
        ready = chosen.ready and bool(params["measures"])
        if ready:
            widgets.cost(passes(params), chosen.point, chosen.data, chosen.settings)
        if widgets.run_button(PAGE, text("run"), ready=ready):
            start(chosen, params)
    with right:
        widgets.job_panel(PAGE, draw)
        widgets.definitions(text, DEFINITIONS)


def settings() -> dict[str, Any]:
    """Write the settings of the estimator; return its keyword arguments."""
    with st.spinner(texts("common")("opening")):  # torch, the first time
        from estimators import SHARPNESS_MEASURES

    text, form = texts(PAGE), widgets.Form(PAGE)
    wanted = form.several("measures", SHARPNESS_MEASURES, words=lambda name: text("measure." + name))
    params: dict[str, Any] = {"measures": "all" if len(wanted) == len(SHARPNESS_MEASURES) else wanted}
    with st.expander(text("ball"), icon=":material/adjust:"):
        params["adaptive"] = form.toggle("adaptive")
        left, right = form.columns(2)
        params["rho"] = left.real("rho", 0.05, 1e-6, step=0.05)
        params["norm"] = right.choice("norm", ("l2", "linf"))
        left, right = form.columns(2)
        params["n_steps"] = left.integer("n_steps", 30, 1, 500)
        params["n_restarts"] = right.integer("n_restarts", 10, 1, 50)
    with st.expander(text("around"), icon=":material/grain:"):
        params["noise"] = form.choice("noise", ("plain", "filter"))
        left, middle, right = form.columns(3)
        params["sigma"] = left.real("sigma", 0.01, 1e-6, step=0.01)
        params["n_draws"] = middle.integer("n_draws", 32, 4, 1000, step=2)
        params["m"] = right.integer("m", 128, 1, 100_000)
    return params


def passes(params: dict[str, Any]) -> int:
    """Forward passes that the chosen measures cost, about."""
    from estimators import SharpnessEstimator

    return SharpnessEstimator(**params).cost()


def start(chosen: widgets.Inputs, params: dict[str, Any]) -> None:
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
    job = jobs.latest(PAGE)
    label = label_of(job)
    results = [(name, kept) for name, kept in widgets.pinned(PAGE) if name != label] + [(label, result)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        form = widgets.Form(PAGE)
        log, quadratic = form.log(), form.toggle("quadratic", True)
    widgets.notes(result.notes)
    pictures: dict[str, Any] = {}
    if any(len(r.profile_radius) for _, r in results):
        widgets.heading(text("heading.rise"))
        pictures["rise"] = charts.rise_profile(results, log=log, quadratic=quadratic)
        widgets.show_chart(pictures["rise"])
        widgets.heading(text("heading.noise"))
        pictures["noise"] = charts.noise_profile(results, log=log)
        widgets.show_chart(pictures["noise"])
    if any(np.isfinite(getattr(r, name)) for _, r in results for name in charts.PANELS):
        widgets.heading(text("heading.measures"))
        pictures["measures"] = charts.measures(results)
        widgets.show_chart(pictures["measures"])
    widgets.heading(text("heading.numbers"))
    table = numbers(results)
    widgets.show_table(table)
    st.caption(text("bound_note"))
    widgets.settings_line(result, rho=result.settings.get("rho"))
    picture = next(iter(pictures.values()), None)
    widgets.take_along(PAGE, result, picture, table=table, name="sharpness", pin=label)


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
    _, spread = result.uncertainty_of(name) or ("", np.nan)
    return f"{shown} ± {short(spread, 2)}" if np.isfinite(spread) else shown
