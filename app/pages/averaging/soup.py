"""Averages of checkpoints from the library, a view of the page Weight averaging."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets, workspace
from app.catalog import DataSpec, PointSpec
from app.names import distinct
from app.pages.averaging import charts
from app.pages.averaging import views as averages
from app.texts import texts
from app.widgets import Form
from app.work import jobs
from app.work.work import restartable
from app.workspace import library

PAGE = "averaging.soup"
A_LINE = 21  # evaluations along the straight line between two networks, with those around its highest point
SOUPS = ("greedy_soup", "uniform_soup")
DEFINITIONS = ("soup", "swa", "ema", "statistics")


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the average on the right."""
    text = texts("averaging")
    with left:
        chosen = widgets.subject(several=True)
        data, engine = chosen.data, chosen.settings
        points = widgets.points_picker(PAGE, late, first=2, alone=True)
        params, keep = settings()
        ready = data is not None and len(points) >= 2
        if ready and data is not None:
            data = data.for_point(points[0])
            work: dict[str, Any] = {"vectors": 2 * len(points), "several_networks": True}
            ready = widgets.cost(taken(len(points), params["method"]), points[0], data, engine, **work)
        if widgets.run_button(PAGE, text("soup.run"), ready=ready) and data is not None:
            start(points, data, {**params, **engine}, keep)
    widgets.answer(right, PAGE, draw, DEFINITIONS, text="averaging")


def taken(count: int, method: str) -> int:
    """Count the evaluations of an average of so many networks, about: of a soup also the line between any two."""
    return 4 * count + (A_LINE * comb(count, 2) if method in SOUPS else 0)


def late(epochs: Sequence[Path]) -> Sequence[Path]:
    """Return the last quarter of a checkpoint's training epochs, two at least; none of fewer than three."""
    return epochs[min(len(epochs) - 2, round(0.75 * len(epochs))) :] if len(epochs) > 2 else ()


def settings() -> tuple[dict[str, Any], bool]:
    """Write the settings; return keyword arguments of ``SWAAverager`` and whether to keep the average."""
    form = Form(PAGE, "averaging")
    params: dict[str, Any] = {"method": form.choice("method")}
    if params["method"] == "greedy_soup":
        params["score"] = form.switch("score")
    if params["method"] == "ema":
        params["decay"] = form.real("decay", 0.9, 0.0, 0.99999, step=0.01, format="%.5g")
    return params, form.toggle("keep", True)


def start(points: list[PointSpec], data: DataSpec, params: dict[str, Any], keep: bool) -> None:
    """Queue the job."""
    from estimators import SWAAverager

    text = texts("averaging")
    method = text("method." + params["method"])
    checkpoints = [str(point.checkpoint) for point in points]
    name = text("soup.name", count="{count}", method=method.lower())  # said here: the worker serves no session
    widgets.start_fit(
        PAGE,
        text("soup.job", method=method, count=len(points)),
        SWAAverager(**params, memory="default"),
        points=[("model", points[0])],
        data=data,
        held_out=data.held_out(None),
        work=average,
        given={"members": points, "name": name if keep else None},
        extra={"points": {f"model_{i}": point.as_dict() for i, point in enumerate(points)}},
        setup=f"checkpoints = {checkpoints!r}",
        fit="checkpoints, data, model=model, held_out=held_out",
        show="*result.report_, sep='\\n'",
    )


@restartable
def average(
    handle: jobs.Handle,
    estimator: Any,
    points: tuple[PointSpec, ...],
    data: DataSpec,
    held_out: DataSpec,
    members: list[PointSpec],
    name: str | None,
) -> Any:
    """Average checkpoints, and keep the average where it has a name; runs in the worker thread."""
    estimator.fit(
        [str(member.checkpoint) for member in members],
        data.load(),
        model=points[0].load(),
        names=distinct([member.label for member in members]),
        held_out=held_out.load(),
        **handle.reports,
    )
    if name is not None:
        _keep(estimator, members, data, name.format(count=estimator.n_averaged_), handle.job.id)
    return estimator.result_


def _keep(averager: Any, points: list[PointSpec], data: DataSpec, name: str, job: str) -> None:
    from estimators import count_parameters

    row = averager.result_.row("average")
    first = points[0]
    meta = {
        "name": library.unused_name(name),
        **first.meta(data),
        "averaged": [point.label for point in points],
        "loss": row["train_loss"],
        "accuracy": row["held_out_accuracy"],
        "parameters": count_parameters(first.load()),
    }
    with workspace.scratch() as folder:
        weights = folder / library.WEIGHTS
        averager.save(weights)
        library.add_checkpoint(weights, meta, made_by=job)


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts("averaging")
    quantity, on, _ = averages.switches(PAGE, result, default="accuracy")
    widgets.notes(result.notes)
    finished = any(row["role"] == "average" for row in result.report)
    rows = [row for row in result.report if row["role"] == "member"]
    if finished:
        average, best = result.row("average")["held_out_accuracy"], max(r["held_out_accuracy"] for r in rows)
        if np.isfinite(average) and np.isfinite(best):
            outcome = "better" if average > best else "equal" if average == best else "worse"
            badge = {"better": ":green", "equal": ":gray", "worse": ":red"}[outcome]
            sentence = text("soup." + outcome, average=average, best=best)
            st.markdown(f"{badge}-badge[:material/join_inner:] {sentence}")
        with st.container(horizontal=True):
            st.metric(text("soup.count"), f"{result.n_averaged} / {len(rows)}", border=True)
            if result.barriers.size:
                st.metric(text("soup.highest"), f"{np.max(result.barriers):.3g} nats", border=True)
            averages.statistics(result)
    chart = widgets.picture(text("heading.members"), charts.members(result, quantity=quantity, on=on))
    if not finished:
        return
    if result.barriers.size:
        widgets.picture(text("heading.barriers"), charts.barriers(result))
    averages.table(result)
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, name="soup")
