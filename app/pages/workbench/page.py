"""Workbench: choose, train, keep."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.pages.workbench import charts, checkpoints
from app.state import bound, key
from app.texts import texts
from app.widgets.jobs import duration
from app.widgets.pickers import TIMM, data_picker, point_picker
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


def inputs(text: Any) -> None:
    """Write the inputs of a training and queue it."""
    slot = st.container()
    data = data_picker(PAGE, samples=1437, splits=("train", "test"))
    with slot:
        point = point_picker(PAGE, data, label=text("start"), default=TIMM)
    st.markdown(f"**{text('training')}**")
    row = st.columns(3)
    epochs = row[0].number_input(text("epochs"), min_value=1, max_value=1000, value=8, **bound(PAGE, "epochs"))
    batch = row[1].number_input(text("batch"), min_value=2, value=64, step=16, **bound(PAGE, "batch"))
    rate = row[2].number_input(text("lr"), min_value=1e-6, value=0.1, format="%g", step=0.01, **bound(PAGE, "lr"))
    with st.expander(texts("common")("engine"), icon=":material/tune:"):
        optimizer = st.selectbox(
            text("optimizer"),
            ["sgd", "adamw"],
            format_func=lambda o: text("optimizer." + o),
            **bound(PAGE, "optimizer"),
        )
        row = st.columns(3)
        decay = row[0].number_input(
            text("weight_decay"), min_value=0.0, value=5e-4, format="%g", step=1e-4, **bound(PAGE, "decay")
        )
        rho = row[1].number_input(
            text("sam"), min_value=0.0, value=0.0, step=0.05, help=text("sam.help"), **bound(PAGE, "sam")
        )
        seed = row[2].number_input(text("seed"), min_value=0, value=0, step=1, **bound(PAGE, "order"))
    name = st.text_input(text("name"), placeholder=suggestion(point, data), key=key(PAGE, "name"))
    if widgets.run_button(PAGE, text("run"), ready=point is not None and data is not None):
        settings = {
            "epochs": int(epochs),
            "batch_size": int(batch),
            "lr": float(rate),
            "optimizer": str(optimizer),
            "weight_decay": float(decay),
            "sam_rho": float(rho),
            "random_state": int(seed),
        }
        training_jobs.submit(library.unused_name(name.strip() or suggestion(point, data)), point, data, settings)
        st.rerun()


def suggestion(point: PointSpec | None, data: DataSpec | None) -> str:
    """Return a name for a checkpoint a person did not name."""
    if point is None or data is None:
        return ""
    return f"{point.architecture} on {data.source.rstrip('/').rpartition('/')[2]}"


def draw(result: training_jobs.TrainingResult) -> None:
    """Draw the curves so far, or the finished ones with what they led to."""
    text = texts(PAGE)
    job = jobs.latest(PAGE)
    if result.checkpoint_id is not None:
        seconds = duration(job.elapsed) if job is not None else "…"
        settings = result.settings
        held_out = settings.get("accuracy")
        st.success(
            text(
                "done",
                name=result.name,
                accuracy="…" if held_out is None else f"{held_out:.1%}",
                n=settings.get("held_out_examples", "the"),
                seconds=seconds,
            ),
            icon=":material/check_circle:",
        )
    log = st.toggle(text("log"), **bound(PAGE, "log"))
    loss, accuracy = st.columns(2)
    with loss:
        st.markdown(f"**{text('loss')}**")
        widgets.show_chart(charts.curves(result.history, "loss", log=log))
    with accuracy:
        st.markdown(f"**{text('accuracy')}**")
        widgets.show_chart(charts.curves(result.history, "accuracy"))
    if job is not None and job.config.get("script"):
        widgets.copy_as_python(job.config["script"], name="training", key=PAGE)
