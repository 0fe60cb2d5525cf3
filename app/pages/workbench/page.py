"""Workbench: choose, train, keep."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import widgets
from app.catalog import RANDOM, DataSpec, PointSpec
from app.pages.workbench import charts, checkpoints
from app.state import key
from app.texts import plain, texts
from app.widgets import Form
from app.widgets.jobs import duration
from app.widgets.pickers import TIMM
from app.work import jobs
from app.work import training as training_jobs
from app.workspace import library

PAGE = training_jobs.PAGE


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        inputs(text)
    with right:
        widgets.job_panel(PAGE, draw, empty=text("empty"))
    st.subheader(text("library"))
    checkpoints.table(PAGE)
    checkpoints.add_file(PAGE)
    checkpoints.add_recording(PAGE)


def inputs(text: Any) -> None:
    """Write the inputs of a training and queue it."""
    slot = st.container()
    widgets.heading(texts("common")("data"))
    data = widgets.data_picker(PAGE, samples=1437, splits=("train", "test"))
    with slot:
        point = widgets.point_picker(PAGE, data, label=text("start"), default=TIMM)
    widgets.heading(text("training"))
    form = Form(PAGE)
    row = form.columns(3)
    settings: dict[str, Any] = {
        "epochs": row[0].integer("epochs", 8, 1, 1000),
        "batch_size": row[1].integer("batch", 64, 2, step=16),
        "lr": row[2].real("lr", 0.1, 1e-6, step=0.01, format="%g"),
    }
    with st.expander(texts("common")("engine"), icon=":material/tune:"):
        settings["optimizer"] = form.choice("optimizer")
        row = form.columns(3)
        settings["weight_decay"] = row[0].real("decay", 5e-4, 0.0, step=1e-4, format="%g", label="weight_decay")
        settings["sam_rho"] = row[1].real("sam", 0.0, 0.0, step=0.05)
        settings["random_state"] = row[2].integer("order", 0, 0, label="seed")
    name = st.text_input(text("name"), placeholder=suggestion(point, data), key=key(PAGE, "name"))
    if widgets.run_button(PAGE, text("run"), ready=point is not None and data is not None):
        training_jobs.submit(library.unused_name(name.strip() or suggestion(point, data)), point, data, settings)
        st.rerun()


def suggestion(point: PointSpec | None, data: DataSpec | None) -> str:
    """Return a name for a checkpoint a person did not name."""
    if point is None or data is None:
        return ""
    said = texts(PAGE)("name.suggested", model=point.architecture, data=data.source.rstrip("/").rpartition("/")[2])
    return said + (f", seed {point.seed}" if point.weights == RANDOM else "")


def draw(result: Any) -> None:
    """Draw the curves so far, or the finished ones with what they led to."""
    text = texts(PAGE)
    job = jobs.shown(PAGE)
    if result.checkpoint_id is not None:
        seconds = duration(job.elapsed) if job is not None else "…"
        settings = result.settings
        held_out = "…" if settings.get("accuracy") is None else f"{settings['accuracy']:.1%}"
        examples = settings.get("held_out_examples", "…")
        said = text("done", name=plain(result.name), accuracy=held_out, n=examples, seconds=seconds)
        st.success(said, icon=":material/check_circle:")
        widgets.measure_button(PAGE, result.checkpoint_id)
    log = Form(PAGE).toggle("log")
    loss, accuracy = st.columns(2)
    with loss:
        widgets.picture(text("loss"), charts.curves(result.history, "loss", log=log))
    with accuracy:
        widgets.picture(text("accuracy"), charts.curves(result.history, "accuracy"))
    if job is not None and job.config.get("script"):
        widgets.copy_as_python(job.config["script"], name="training", key=PAGE)
