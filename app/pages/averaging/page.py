"""Weight averaging: a run with and without averaging; soups and seeds are views of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.charts.theme import SCHEMES
from app.pages.averaging import charts
from app.pages.averaging import seeds as averaging_seeds
from app.pages.averaging import soup as averaging_soup
from app.pages.averaging import views as averages
from app.texts import said, texts
from app.widgets import Form
from app.widgets.pickers import TIMM
from app.work import jobs
from app.work.work import restartable
from app.workspace import library

PAGE = "averaging"
POLICIES = ("auto", "recompute", "batch")
DEFINITIONS = ("swa", "ema", "statistics", "sharp")
RESOLUTION = 15
AN_EPOCH, NETWORKS = 4, 4  # evaluations after an epoch, and networks whose sharpness is measured at the end
SAVED = {"sgd": "SGD", "swa": "SWA"}


def render() -> None:
    """Draw the page."""
    views = {"train": (PAGE, _render_training), "soup": (averaging_soup.PAGE, averaging_soup.render)}
    widgets.show_view(PAGE, views | {"seeds": (averaging_seeds.PAGE, averaging_seeds.render)})


def _render_training(left: DeltaGenerator, right: DeltaGenerator) -> None:
    text = texts(PAGE)
    with left:
        chosen = widgets.subject(several=True, policies=POLICIES)
        data, engine = chosen.data, chosen.settings
        point = widgets.point_picker(PAGE, data, label=text("start_point"), default=TIMM)
        if data is not None and point is not None:
            data = data.for_point(point)
        params, training, extras, keep = settings()
        ready = data is not None and point is not None
        if data is not None and point is not None:
            work: dict[str, Any] = {"networks": 2, "derivatives": True}
            work["train_batch_size"] = training["batch_size"]
            ready = widgets.cost(taken(training, extras), point, data, engine, several_networks=True, **work)
        if widgets.run_button(PAGE, text("run"), ready=ready) and data is not None and point is not None:
            start(point, data, {**params, **engine}, {**training, **extras}, keep)
    widgets.answer(right, PAGE, draw, DEFINITIONS)


def settings() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], bool]:
    """Write the settings; return those of the averager, of its training, of what is measured, and whether to keep."""
    form = Form(PAGE)
    row = form.columns(3)
    training: dict[str, Any] = {
        "epochs": row[0].integer("epochs", 20, 2, 1000),
        "lr": row[1].real("lr", 0.1, 1e-5, step=0.05),
        "batch_size": row[2].integer("batch", 64, 2, 4096),
    }
    with st.expander(texts(PAGE)("more"), icon=":material/join_inner:"):
        row = form.columns(2)
        params: dict[str, Any] = {
            "start": row[0].real("start", 0.75, 0.0, 0.99, step=0.05),
            "swa_lr": row[1].real("swa_lr", 0.05, 1e-5, step=0.01),
        }
        params["schedule"] = form.switch("schedule", width="stretch")
        row = form.columns(2)
        params["every"] = row[0].integer("every", 1, 1, 100)
        params["decay"] = row[1].real("decay", 0.999, 0.0, 0.99999, step=0.001, format="%.5g")
        plane = form.toggle("with_plane", True)
        sharp = form.toggle("with_sharp", True, label="with_sharpness")
        keep = form.toggle("keep", True)
    return params, training, {"plane_resolution": RESOLUTION if plane else 0, "sharpness": sharp}, keep


def taken(training: dict[str, Any], extras: dict[str, Any]) -> Any:
    """Count what a run takes, about: two trainings, their points and means after each epoch, a map, four measures."""
    with widgets.opening():
        from estimators import SharpnessEstimator, Work

    epochs = training["epochs"]
    work = Work(epochs=2 * epochs, evaluations=AN_EPOCH * epochs + extras["plane_resolution"] ** 2)
    measures = SharpnessEstimator(measures=("sharpness", "average", "lambda_max")).cost()
    return work + measures.times(NETWORKS) if extras["sharpness"] else work


def start(point: PointSpec, data: DataSpec, params: dict[str, Any], training: dict[str, Any], keep: bool) -> None:
    """Queue the job."""
    from estimators import SWAAverager

    listed = ", ".join(f"{name}={value!r}" for name, value in training.items() if value)
    widgets.start_fit(
        PAGE,
        texts(PAGE)("job", model=point.label, epochs=training["epochs"]),
        SWAAverager(**params, memory="default"),
        points=[("model", point)],
        data=data,
        held_out=data.held_out(None),
        work=average,
        given={"training": training, "keep": keep},
        extra={"training": training},
        call="train",
        fit=f"model, data, held_out=held_out, compare=True, {listed}",
        show="*result.report_, sep='\\n'",
    )


@restartable
def average(
    handle: jobs.Handle,
    estimator: Any,
    points: tuple[PointSpec, ...],
    data: DataSpec,
    held_out: DataSpec,
    training: dict[str, Any],
    keep: bool,
) -> Any:
    """Train with and without averaging, and keep both networks where asked; runs in the worker thread."""
    (point,) = points
    with handle.folder() as folder:
        estimator.train(
            point.load(),
            data.load(),
            held_out=held_out.load(),
            checkpoint_dir=folder / "epochs",
            compare=True,
            **handle.reports,
            **training,
        )
        if keep:
            _keep(estimator, point, data, training, folder, handle.job.id)
    return estimator.result_


def _keep(averager: Any, point: PointSpec, data: DataSpec, training: dict[str, Any], folder: Path, job: str) -> None:
    """Add the end of the plain run and the average to the library, each with its epochs."""
    from estimators import count_parameters, save_checkpoint

    runs = {"sgd": averager.plain_run_, "swa": averager.run_}
    for role, run in runs.items():
        row = averager.result_.row("average" if role == "swa" else role)
        meta = {
            "name": library.unused_name(f"{point.architecture} {SAVED[role]}"),
            **point.meta(data),
            "training": training,
            "start": point.as_dict(),
            "loss": row["train_loss"],
            "train_accuracy": row["train_accuracy"],
            "held_out_loss": row["held_out_loss"],
            "accuracy": row["held_out_accuracy"],
            "parameters": count_parameters(run.model),
        }
        weights = folder / f"{role}.safetensors"
        save_checkpoint(weights, averager.states_[role], meta)
        epochs = [Path(path) for path in run.checkpoints]
        library.add_checkpoint(weights, meta, epochs=epochs, made_by=f"{job} {role}")


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(PAGE)
    quantity, on, log = averages.switches(PAGE, result)
    widgets.notes(result.notes)
    if result.report:
        numbers(result)
    chart = widgets.picture(text("heading.history"), charts.history(result, quantity=quantity, on=on, log=log))
    if len(result.plane_losses):
        widgets.picture(text("heading.plane"), charts.plane(result, log=True, scheme=SCHEMES["Viridis"]))
        away = max((float(m["distance"]) for m in result.plane_markers), default=0.0)
        st.caption(text("plane.away", distance=away, length=float(np.ptp(result.plane_x))))
    if result.sharpness:
        sharpness(result)
    if not result.report:
        return
    averages.table(result)
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, name="averaging")


def numbers(result: Any) -> None:
    """Write what averaging gains over plain training, and what the statistics do."""
    text = texts(PAGE)
    roles = {row["role"] for row in result.report}
    with st.container(horizontal=True):
        if {"sgd", "average"} <= roles:
            plain, average = result.row("sgd"), result.row("average")
            gain, fall = (average[name] - plain[name] for name in ("held_out_accuracy", "held_out_loss"))
            share, loss = f"{average['held_out_accuracy']:.1%}", f"{average['held_out_loss']:.4g}"
            st.metric(text("swa_gain"), share, delta=f"{100 * gain:+.1f} pp", border=True)
            name, change = text("column.held_out_loss"), f"{fall:+.3g}"
            st.metric(name, loss, delta=change, delta_color="inverse", border=True)
        averages.statistics(result)


def sharpness(result: Any) -> None:
    """Write how sharp the end points and averages are."""
    text = texts(PAGE)
    widgets.heading(text("heading.sharpness"))
    _, errors = result.uncertainty_of("sharpness.average_sharpness")
    rows = pd.DataFrame(
        {
            text("column.point"): said(row["name"]),
            text("column.sharpness"): f"{row['sharpness']:.4g}",
            text("column.average_sharpness"): f"{row['average_sharpness']:.3g} ± {error:.1g}",
            text("column.lambda_max"): f"{row['lambda_max']:.4g}",
        }
        for row, error in zip(result.sharpness, errors, strict=True)
    )
    widgets.show_table(rows, alt=text("heading.sharpness"))
