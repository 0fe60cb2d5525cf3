"""The lecture's three cases, a view of the page Mode connectivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import RANDOM, DataSpec, PointSpec
from app.charts import connectivity_pairs as charts
from app.texts import said, texts
from app.widgets import Form
from app.widgets.pickers import architecture_picker
from app.work import jobs
from app.work.work import restartable

PAGE = "connectivity.cases"
DEFINITIONS = ("cases", "barrier", "rise", "curve", "match")
NETWORKS = 7  # trainings behind one pair of each case: two, two, and a parent with two shorter children
PATH_SAMPLES = 512


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the cases on the right."""
    text = texts("connectivity")
    with left:
        data = widgets.subject(several=True).data
        if data is not None:
            data = data.drawn(Form(PAGE, "connectivity").integer("samples", 1437, 20, step=64))
        widgets.heading(text("cases.architecture"))
        name = architecture_picker(PAGE)
        params = settings()
        ready = data is not None and name is not None and bool(params["joints"])
        point = None
        if ready and data is not None and name is not None:
            point = PointSpec(name, RANDOM, len(data.class_names), data.image_size, 0)
            seeds, joints = params["n_seeds"], params["joints"]
            with widgets.opening():
                from estimators import Work

            epochs = seeds * (5 * params["train_epochs"] + 2 * params["fine_tune_epochs"])
            curves = sum(j in ("bezier", "polychain") for j in joints)
            # paths are measured on fewer examples than networks are trained on
            share = min(1.0, PATH_SAMPLES / (data.n_samples or PATH_SAMPLES))
            paths = Work(evaluations=2 * 21 * len(joints), epochs=params["epochs"] * curves).times(3 * seeds * share)
            st.caption(text("cases.cost", networks=NETWORKS * seeds, paths=3 * seeds * len(joints)))
            work = {"networks": 3, "derivatives": True}
            ready = widgets.cost(Work(epochs=epochs) + paths, point, data, {"batch_norm": "recompute"}, **work)
        if widgets.run_button(PAGE, text("cases.run"), ready=ready) and point is not None and data is not None:
            start(point, data, params)
    widgets.answer(right, PAGE, draw, DEFINITIONS, text="connectivity")


def settings() -> dict[str, Any]:
    """Write the settings of the experiment; return keyword arguments of ``ConnectivityCases``."""
    form = Form(PAGE, "connectivity")
    seeds, split = form.columns(2)
    train, tune = form.columns(2)
    joints = form.several("joints", default=("linear", "aligned", "bezier"))
    epochs, seed = form.columns(2)
    return {
        "n_seeds": seeds.integer("seeds", 6, 1, 50),
        "split_steps": split.integer("steps", 0, 0, 1_000_000),
        "train_epochs": train.integer("train_epochs", 8, 1, 1000),
        "fine_tune_epochs": tune.integer("fine_tune_epochs", 4, 1, 1000),
        "joints": joints,
        "epochs": epochs.integer("epochs", 15, 0, 1000),
        "random_state": seed.integer("seed", 0, 0, 10_000, label="random_state"),
    }


def start(point: PointSpec, data: DataSpec, params: dict[str, Any]) -> None:
    """Queue the experiment."""
    from estimators.experiments import ConnectivityCases

    widgets.start_fit(
        PAGE,
        texts("connectivity")("cases.job", model=point.architecture, seeds=params["n_seeds"]),
        ConnectivityCases(**params, memory="default"),
        data=data,
        held_out=data.held_out(None),
        work=compare,
        given={"architecture": point.architecture},
        extra={"points": {"model": point.as_dict()}},
        fit=f"{point.architecture!r}, data, held_out=held_out",
        show="*result.verdicts_, sep='\\n'",
    )


@restartable
def compare(
    handle: jobs.Handle, estimator: Any, points: Any, data: DataSpec, held_out: DataSpec, architecture: str
) -> Any:
    """Train and join the networks of every case; runs in the worker thread."""
    return estimator.fit(architecture, data.load(), held_out=held_out.load(), **handle.reports).result_


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts("connectivity")
    widgets.heading(text("cases.heading.claims"))
    for verdict in result.verdicts:
        widgets.verdict(verdict["verdict"], f"{text('cases.claim.' + verdict['case'])} ({said(verdict['reason'])}).")
    chart = widgets.picture(text("cases.heading.dots"), charts.cases(result))
    widgets.picture(text("cases.heading.profiles"), charts.case_profiles(result))
    widgets.show_table(summary(result), fold=texts("common")("table"))
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, name="cases")


def summary(result: Any) -> pd.DataFrame:
    """Return the table: a row a case and path."""
    text = texts("connectivity")
    rows = [
        {
            text("cases.table.case"): text("cases.case." + s["case"]),
            text("cases.table.path"): text("cases.joints." + s["path"]),
            text("cases.table.mean"): f"{s['mean']:.3g}",
            text("cases.table.spread"): f"{s['std']:.2g}" if np.isfinite(s["std"]) else "–",
            text("cases.table.range"): f"{s['low']:.3g} – {s['high']:.3g}",
            text("cases.table.joined"): text("cases.table.joined.of", share=f"{s['joined']:.0%}", n=s["n"]),
        }
        for s in result.summary
    ]
    return pd.DataFrame(rows)
