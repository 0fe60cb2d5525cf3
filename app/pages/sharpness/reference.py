"""Flat or sharp? One model among reference networks of its kind, trained with small and with large batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.pages.sharpness import charts
from app.texts import texts
from app.widgets.jobs import aside
from app.work import jobs

PAGE = "sharpness"
JOB = "_sharpness_reference"  # a leading underscore keeps a job out of the sidebar
RECIPES = tuple((batch, seed) for seed in range(3) for batch in (16, 256))
EPOCHS = 60  # at most: each stops at the loss of the model it is compared with
LR = 0.05
LOWEST = 1e-3  # nats; a loss below it takes long to reach
COMPARED = ("lambda_max", "trace", "sharpness", "average_sharpness")


def block(owner: jobs.Job | None, result: Any) -> None:
    """Offer to train and measure reference networks; say where the model stands among them."""
    if owner is None or owner.live or not owner.config.get("points"):
        return
    text = texts(PAGE)
    with st.expander(text("reference"), icon=":material/balance:"):
        st.caption(text("reference.help", count=len(RECIPES)))
        look: dict[str, Any] = {"icon": ":material/play_arrow:", "on_click": start, "args": (owner, result)}
        st.button(text("reference.run"), key=f"{PAGE}.reference", **look)
        aside(JOB, owner, lambda job: draw(result, job.result))


def start(owner: jobs.Job, result: Any) -> None:
    """Queue the trainings and measurements."""
    from estimators import SharpnessEstimator

    point = PointSpec(**owner.config["points"]["model"])
    data = DataSpec(**owner.config["data"])
    estimator = SharpnessEstimator(**owner.config["params"] | {"sampling": False}, memory="default")
    loss = max(float(result.loss), LOWEST)
    title = texts(PAGE)("reference.job", model=point.label)
    config = {"of": owner.id}
    jobs.submit(JOB, title, lambda handle: measured(handle, point, data, estimator, loss), config=config, keep=False)


def measured(handle: jobs.Handle, point: PointSpec, data: DataSpec, estimator: Any, loss: float) -> list[Any]:
    """Train each reference network to a loss and measure it; runs in the worker thread."""
    from estimators import train

    examples, found = data.load(), []
    for k, (batch, seed) in enumerate(RECIPES):
        part = handle.part(k / len(RECIPES), (k + 1) / len(RECIPES))
        start = replace(point, weights="random", seed=seed).load()
        settings = {"batch_size": batch, "lr": LR, "epochs": EPOCHS, "stop_at_loss": loss, "random_state": seed}
        run = train(start, examples, on_progress=part.part(0.0, 0.7).progress, **settings)
        found.append(estimator.fit(run.model, examples, on_progress=part.part(0.7, 1.0).progress).result_)
        handle.partial(list(found))
    return found


def standing(result: Any, references: Sequence[Any]) -> list[tuple[str, int, int]]:
    """Return, for each measure, how many references are flatter than the model, and of how many."""
    rows = []
    for name in COMPARED:
        own = float(getattr(result, name))
        others = np.array([float(getattr(reference, name)) for reference in references])
        others = others[np.isfinite(others)]
        if np.isfinite(own) and len(others):
            rows.append((name, int((others < own).sum()), len(others)))
    return rows


def answer(rows: Sequence[tuple[str, int, int]]) -> str:
    """Return "flat", "sharp" or "between": outside all references by every measure, or not."""
    if rows and all(flatter == 0 for _, flatter, _ in rows):
        return "flat"
    if rows and all(flatter == count for _, flatter, count in rows):
        return "sharp"
    return "between"


def draw(result: Any, references: Sequence[Any]) -> None:
    """Write the answer, the rank by each measure, and the measures side by side."""
    text = texts(PAGE)
    rows = standing(result, references)
    st.markdown(f"**{text('reference.' + answer(rows))}**")
    for name, flatter, count in rows:
        st.markdown(text("reference.rank", measure=text(f"panel.{name}"), flatter=flatter, count=count))
    labels = [text("reference.label", batch=batch, seed=seed) for batch, seed in RECIPES]
    everyone = [(text("model"), result), *zip(labels, references, strict=True)]
    widgets.show_chart(charts.measures(everyone))
    st.caption(text("reference.note"))
