"""The experiment "small batch against large batch", a view of the page Sharpness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import RANDOM, DataSpec, PointSpec
from app.pages.sharpness import charts
from app.state import form
from app.texts import texts
from app.widgets.pickers import architecture_picker
from app.work import jobs
from app.work.work import Work, restartable

PAGE = "sharpness.batch"
DEFINITIONS = ("pairs", "worst", "average", "curvature", "pac")
MEASURES = ("sharpness", "average", "lambda_max", "trace", "pac_bayes")  # of each run


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the experiment on the right."""
    text = texts("sharpness")
    with left:
        chosen = widgets.subject(several=True)
        data = chosen.data
        widgets.heading(text("batch.architecture"))
        name = architecture_picker(PAGE)
        params = settings(data)
        ready = data is not None and name is not None and params is not None
        point = None
        if data is not None and name is not None:
            point = PointSpec(name, RANDOM, len(data.class_names), data.image_size, 0)
        if ready and point is not None and params is not None:
            runs = 2 * params["n_seeds"]
            with widgets.opening():
                from estimators import SharpnessEstimator

            work = SharpnessEstimator(measures=MEASURES, n_probes=6).cost().times(runs)
            ready = widgets.cost(work, point, data, {}, vectors=60, derivatives=True)
            st.caption(text("batch.cost", runs=runs))
        if widgets.run_button(PAGE, text("batch.run"), ready=ready) and point is not None and params is not None:
            start(point, data, params)
    widgets.answer(right, PAGE, draw, DEFINITIONS, text="sharpness")


def settings(data: DataSpec | None) -> dict[str, Any] | None:
    """Write the settings of the experiment; None, with the reason beside it, while they are wrong."""
    text = texts("sharpness")
    form = widgets.Form(PAGE, "sharpness")
    left, middle, right = form.columns(3)
    small = left.integer("small", 16, 1, 100_000)
    large = middle.integer("large", 256, 2, 100_000)
    seeds = right.integer("seeds", 3, 1, 50)
    left, right = form.columns(2)
    target = left.real("target", 0.05, 1e-4, step=0.01)
    epochs = right.integer("epochs", 100, 1, 10_000)
    left, right = form.columns(2)
    lr = left.real("lr", 0.05, 1e-5, step=0.01)
    rule = right.choice("rule")
    problem = None
    if small >= large:
        problem = text("batch.order")
    elif data is not None and data.n_samples is not None and small >= data.n_samples:
        problem = text("batch.too_large")
    if problem:
        st.error(problem)
        return None
    return {
        "small": small, "large": large, "n_seeds": seeds, "target_loss": target, "lr": lr, "lr_rule": rule,
        "epochs": epochs,
    }  # fmt: skip


def start(point: PointSpec, data: DataSpec, params: dict[str, Any]) -> None:
    """Queue the experiment."""
    held_out = data.held_out(None)
    config = {
        "estimator": "batch_size_experiment",
        "params": params,
        "points": {"model": point.as_dict()},
        "data": data.as_dict(),
        "script": script(point, data, held_out, params),
        "form": form(),
    }
    sizes = {"small": params["small"], "large": params["large"], "seeds": params["n_seeds"]}
    title = texts("sharpness")("batch.job", model=point.architecture, **sizes)
    work = Work.of(compare, point=point, data=data, held_out=held_out, params=params)
    jobs.submit(PAGE, title, work, config=config)


@restartable
def compare(handle: jobs.Handle, point: PointSpec, data: DataSpec, held_out: DataSpec, params: dict[str, Any]) -> Any:
    """Train with small and large batches and measure both; runs in the worker thread."""
    from estimators.experiments import batch_size_experiment

    return batch_size_experiment(
        lambda seed: replace(point, seed=seed).load(),
        data.load(),
        held_out.load(),
        memory="default",
        **handle.reports,
        **params,
    )


def script(point: PointSpec, data: DataSpec, held_out: DataSpec, params: dict[str, Any]) -> str:
    """Return the Python program that reproduces the experiment."""
    listed = ",\n    ".join(f"{name}={value!r}" for name, value in params.items())
    return "\n".join(
        [
            "from estimators import load_data, load_model",
            "from estimators.experiments import batch_size_experiment",
            "",
            data.code("data"),
            held_out.code("held_out"),
            "",
            "",
            "def make_model(seed):",
            f"    return load_model({point.architecture!r}, num_classes={point.num_classes}, "
            f"image_size={point.image_size}, random_state=seed)",
            "",
            "",
            f"result = batch_size_experiment(\n    make_model,\n    data,\n    held_out,\n    {listed},\n)",
            "for claim in result.claims:",
            '    print(claim["key"], claim["verdict"], claim["effect"], claim["low"], claim["high"])',
            "",
        ]
    )


def draw(result: Any) -> None:
    """Draw the runs so far, the verdicts and the tables; runs in a fragment."""
    text = texts("sharpness")
    if not result.rows:
        st.caption(text("batch.first"))
        return
    widgets.heading(text("batch.claims"))
    for claim in result.claims:
        widgets.verdict(claim["verdict"], f"{text('claim.' + claim['key'])} {effect(claim)}")
    st.caption(text("batch.caution"))
    chart = widgets.picture(text("batch.heading"), charts.experiment(result))
    widgets.notes(result.notes)
    widgets.show_table(averages(result), fold=text("batch.averages"))
    table = pd.DataFrame(result.rows)
    widgets.show_table(table, fold=text("batch.runs"))
    widgets.settings_line(result, random_state=result.settings.get("random_state"))
    widgets.take_along(PAGE, result, chart, table=table, name="batch-size")


def effect(claim: dict[str, Any]) -> str:
    """Return the measured effect of one claim in words."""
    text = texts("sharpness")
    if not (np.isfinite(claim["low"]) and np.isfinite(claim["high"])):
        return text("effect.none")
    kind = "tau" if claim["key"] == "flat_generalises" else ("ratio" if claim["ratio"] else "difference")
    numbers = {name: short(claim[name], 3) for name in ("effect", "low", "high")}
    return text(f"effect.{kind}", **numbers, level=f"{100 * claim['confidence']:.0f}", n=claim["n"])


def short(value: float, digits: int = 4) -> str:
    """Return a number with few digits, without an exponent where it has up to six, and a true minus sign."""
    return f"{float(f'{value:.{digits}g}'):,g}".replace("-", "−")


def averages(result: Any) -> pd.DataFrame:
    """Return mean and spread of each quantity for both batch sizes."""
    text = texts("sharpness")

    def shown(row: dict[str, Any], group: str) -> str:
        mean, spread = row[f"{group}_mean"], row[f"{group}_std"]
        if not np.isfinite(mean):
            return "–"
        return short(mean) + (f" ± {short(spread, 2)}" if np.isfinite(spread) else "")

    rows = [[text(f"column.{row['quantity']}"), shown(row, "small"), shown(row, "large")] for row in result.summary()]
    heads = [text("quantity")]
    heads += [f"{text('batch.' + group)} ({result.settings.get(group)})" for group in ("small", "large")]
    return pd.DataFrame(rows, columns=heads)
