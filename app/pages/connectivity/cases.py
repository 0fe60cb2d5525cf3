"""The lecture's three cases, a view of the page Mode connectivity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import RANDOM, DataSpec, PointSpec, class_names
from app.charts import connectivity_pairs as charts
from app.export import non_defaults
from app.state import bound
from app.texts import texts
from app.widgets.pickers import architecture_picker
from app.work import jobs

PAGE = "connectivity.cases"
DEFINITIONS = ("cases", "barrier", "rise", "curve", "match")
JOINTS = ("linear", "aligned", "bezier", "polychain")
NETWORKS = 7  # trainings behind one pair of each case: two, two, and a parent with two shorter children
PATH_SAMPLES = 512
TRAINING_PASSES = 4  # a training epoch, in evaluations of the same examples


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the cases on the right."""
    text = texts("connectivity")
    with left:
        data = widgets.data_picker(PAGE, samples=1437)
        st.markdown(f"**{text('cases.architecture')}**")
        name = architecture_picker(PAGE)
        params = settings()
        ready = data is not None and name is not None and bool(params["joints"])
        point = None
        if ready and data is not None and name is not None:
            point = PointSpec(name, RANDOM, len(class_names(data.source)), data.image_size, 0)
            seeds, joints = params["n_seeds"], params["joints"]
            trained = seeds * (5 * params["train_epochs"] + 2 * params["fine_tune_epochs"]) * TRAINING_PASSES
            curves = sum(j in ("bezier", "polychain") for j in joints)
            # paths are measured on fewer examples than networks are trained on
            share = min(1.0, PATH_SAMPLES / (data.n_samples or PATH_SAMPLES))
            paths = round(3 * seeds * share * (2 * 21 * len(joints) + TRAINING_PASSES * params["epochs"] * curves))
            st.caption(text("cases.cost", networks=NETWORKS * seeds, paths=3 * seeds * len(joints)))
            widgets.cost(trained + paths, point, data, {"batch_norm": "recompute"})
        if widgets.run_button(PAGE, text("cases.run"), ready=ready) and point is not None and data is not None:
            start(point, data, params)
    with right:
        widgets.job_panel(PAGE, draw)
        widgets.definitions(text, DEFINITIONS)


def settings() -> dict[str, Any]:
    """Write the settings of the experiment; return keyword arguments of ``ConnectivityCases``."""
    text = texts("connectivity")
    row = st.columns(2)
    seeds = row[0].number_input(text("cases.seeds"), 1, 50, 3, help=text("cases.seeds.help"), **bound(PAGE, "seeds"))
    split = row[1].number_input(
        text("cases.split"), 0, 1_000_000, 0, help=text("cases.split.help"), **bound(PAGE, "steps")
    )
    row = st.columns(2)
    train = row[0].number_input(text("cases.train_epochs"), 1, 1000, 8, **bound(PAGE, "train_epochs"))
    tune = row[1].number_input(text("cases.fine_tune_epochs"), 1, 1000, 4, **bound(PAGE, "fine_tune_epochs"))
    joints = st.pills(
        text("cases.joints"),
        list(JOINTS),
        selection_mode="multi",
        default=["linear", "aligned", "bezier"],
        format_func=lambda j: text("cases.joint." + j),
        **bound(PAGE, "joints"),
    )
    row = st.columns(2)
    epochs = row[0].number_input(text("cases.epochs"), 0, 1000, 15, **bound(PAGE, "epochs"))
    seed = row[1].number_input(texts("common")("random_state"), 0, 10_000, 0, **bound(PAGE, "seed"))
    return {
        "n_seeds": int(seeds),
        "split_steps": int(split),
        "train_epochs": int(train),
        "fine_tune_epochs": int(tune),
        "joints": tuple(j for j in JOINTS if j in (joints or [])),
        "epochs": int(epochs),
        "random_state": int(seed),
    }


def start(point: PointSpec, data: DataSpec, params: dict[str, Any]) -> None:
    """Queue the experiment."""
    from estimators.experiments import ConnectivityCases

    experiment = ConnectivityCases(**params, memory="default")
    held_out = data.held_out(None)

    def work(handle: jobs.Handle) -> Any:
        experiment.fit(
            point.architecture,
            data.load(),
            held_out=held_out.load(),
            on_progress=handle.progress,
            on_partial=handle.partial,
        )
        return experiment.result_

    config = {
        "estimator": "ConnectivityCases",
        "params": params,
        "points": {"model": point.as_dict()},
        "data": data.as_dict(),
        "script": script(experiment, point, data, held_out),
    }
    title = texts("connectivity")("cases.job", model=point.architecture, seeds=params["n_seeds"])
    jobs.submit(PAGE, title, work, config=config)


def script(experiment: Any, point: PointSpec, data: DataSpec, held_out: DataSpec) -> str:
    """Return the Python program that reproduces the experiment."""
    listed = ", ".join(f"{name}={value!r}" for name, value in non_defaults(experiment).items())
    return "\n".join(
        [
            "from estimators import load_data",
            "from estimators.experiments import ConnectivityCases",
            "",
            data.code("data"),
            held_out.code("held_out"),
            f"experiment = ConnectivityCases({listed})",
            f"result = experiment.fit({point.architecture!r}, data, held_out=held_out)",
            "for verdict in result.verdicts_:",
            '    print(verdict["verdict"], "|", verdict["claim"], "|", verdict["reason"])',
            "",
        ]
    )


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts("connectivity")
    st.markdown(f"**{text('cases.heading.claims')}**")
    for verdict in result.verdicts:
        widgets.verdict(verdict["verdict"], f"{text('cases.claim.' + verdict['case'])} ({verdict['reason']}).")
    st.markdown(f"**{text('cases.heading.dots')}**")
    chart = charts.cases(result)
    widgets.show_chart(chart)
    st.markdown(f"**{text('cases.heading.profiles')}**")
    widgets.show_chart(charts.case_profiles(result))
    st.dataframe(summary(result), hide_index=True, height="content")
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, name="cases")


def summary(result: Any) -> pd.DataFrame:
    """Return the table: a row a case and path."""
    text = texts("connectivity")
    rows = [
        {
            text("cases.table.case"): text("cases.case." + s["case"]),
            text("cases.table.path"): text("cases.joint." + s["path"]),
            text("cases.table.mean"): f"{s['mean']:.3g}",
            text("cases.table.spread"): f"{s['std']:.2g}" if np.isfinite(s["std"]) else "–",
            text("cases.table.range"): f"{s['low']:.3g} – {s['high']:.3g}",
            text("cases.table.joined"): f"{s['joined']:.0%} of {s['n']}",
        }
        for s in result.summary
    ]
    return pd.DataFrame(rows)
