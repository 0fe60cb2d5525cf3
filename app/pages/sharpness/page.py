"""Sharpness: how fast the loss rises around a model, in several measures; and small against large batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import export, widgets
from app.catalog import PointSpec
from app.pages.sharpness import charts
from app.pages.sharpness.batch import PAGE as BATCH
from app.pages.sharpness.batch import render as render_batch
from app.pages.sharpness.batch import short
from app.state import bound
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
    # Streamlit wants either a default or a value set from outside, not both.
    with left:
        view = widgets.view_switch(PAGE, {"point": PAGE, "batch": BATCH})
    if view == "batch":
        render_batch(left, right)
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

    text = texts(PAGE)
    names = list(SHARPNESS_MEASURES)
    measures = st.pills(
        text("measures"),
        names,
        selection_mode="multi",
        default=names,
        format_func=lambda name: text("measure." + name),
        help=text("measures.help"),
        **bound(PAGE, "measures"),
    )
    with st.expander(text("ball"), icon=":material/adjust:"):
        adaptive = st.toggle(text("adaptive"), help=text("adaptive.help"), **bound(PAGE, "adaptive"))
        row = st.columns(2)
        rho = row[0].number_input(
            text("rho"),
            min_value=1e-6,
            value=0.05,
            step=0.05,
            format="%.4g",
            help=text("rho.help"),
            **bound(PAGE, "rho"),
        )
        norm = row[1].selectbox(
            text("norm"), ["l2", "linf"], format_func=lambda n: text("norm." + n), **bound(PAGE, "norm")
        )
        row = st.columns(2)
        n_steps = row[0].number_input(text("n_steps"), 1, 500, 30, **bound(PAGE, "n_steps"))
        n_restarts = row[1].number_input(text("n_restarts"), 1, 50, 10, **bound(PAGE, "n_restarts"))
    with st.expander(text("noise"), icon=":material/grain:"):
        noise = st.selectbox(
            text("noise.kind"),
            ["plain", "filter"],
            format_func=lambda n: text("noise." + n),
            **bound(PAGE, "noise"),
        )
        row = st.columns(3)
        sigma = row[0].number_input(
            text("sigma"),
            min_value=1e-6,
            value=0.01,
            step=0.01,
            format="%.4g",
            help=text("sigma.help"),
            **bound(PAGE, "sigma"),
        )
        n_draws = row[1].number_input(text("n_draws"), 4, 1000, 32, step=2, **bound(PAGE, "n_draws"))
        m = row[2].number_input(text("m"), 1, 100_000, 128, **bound(PAGE, "m"))
    wanted = tuple(name for name in names if name in (measures or []))
    return {
        "measures": "all" if len(wanted) == len(names) else wanted,
        "adaptive": bool(adaptive),
        "rho": float(rho),
        "norm": str(norm),
        "n_steps": int(n_steps),
        "n_restarts": int(n_restarts),
        "noise": str(noise),
        "sigma": float(sigma),
        "n_draws": int(n_draws),
        "m": int(m),
    }


def passes(params: dict[str, Any]) -> int:
    """Forward passes that the chosen measures cost, about."""
    from estimators import SharpnessEstimator

    return SharpnessEstimator(**params).cost()


def start(chosen: widgets.Inputs, params: dict[str, Any]) -> None:
    """Queue the job."""
    from estimators import SharpnessEstimator

    point, data = chosen.point, chosen.data
    estimator = SharpnessEstimator(**params, memory="default", **chosen.settings)

    def work(handle: jobs.Handle) -> Any:
        estimator.fit(point.load(), data.load(), on_progress=handle.progress, on_partial=handle.partial)
        return estimator.result_

    script = export.script(estimator, points=[("model", point)], data=data, show="result.result_.table()")
    config = export.config(estimator, points=[("model", point)], data=data, script=script)
    jobs.submit(PAGE, texts(PAGE)("job", model=point.label), work, config=config)


def draw(result: Any) -> None:
    """Draw a partial or final result beside the pinned ones; runs in a fragment."""
    text = texts(PAGE)
    job = jobs.latest(PAGE)
    label = label_of(job)
    results = [(name, kept) for name, kept in widgets.pinned(PAGE) if name != label] + [(label, result)]
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
        quadratic = st.toggle(text("quadratic"), value=True, **bound(PAGE, "quadratic"))
    for note in result.notes:
        st.caption(f":orange[:material/info:] {note}")
    pictures: dict[str, Any] = {}
    if any(len(r.profile_radius) for _, r in results):
        st.markdown(f"**{text('heading.rise')}**")
        pictures["rise"] = charts.rise_profile(results, log=log, quadratic=quadratic)
        widgets.show_chart(pictures["rise"])
        st.markdown(f"**{text('heading.noise')}**")
        pictures["noise"] = charts.noise_profile(results, log=log)
        widgets.show_chart(pictures["noise"])
    if any(np.isfinite(getattr(r, name)) for _, r in results for name in charts.PANELS):
        st.markdown(f"**{text('heading.measures')}**")
        pictures["measures"] = charts.measures(results)
        widgets.show_chart(pictures["measures"])
    st.markdown(f"**{text('heading.numbers')}**")
    table = numbers(results)
    st.dataframe(table, hide_index=True, height="content")
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
