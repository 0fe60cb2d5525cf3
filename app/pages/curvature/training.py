"""Curvature through a training of the library, a view of the page Stationary points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.pages.curvature import charts
from app.texts import texts
from app.widgets.numbers import plus_minus
from app.widgets.pickers import checkpoint_picker, quick_start
from app.work import jobs
from app.work.work import restartable
from app.workspace import library

PAGE = "stationary.training"
TEXTS = "stationary"
PRODUCTS = 35  # of one checkpoint: about 20 for λ_max and 15 for the trace
NEAR_EDGE = (0.7, 2.0)  # λ_max within these multiples of 2/η counts as at the edge


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the course of the curvature on the right."""
    text = texts(TEXTS)
    with left:
        entry = choose()
        chosen = widgets.subject(several=True)
        data, engine = chosen.data, chosen.settings
        number, switch = widgets.Form(PAGE, TEXTS).columns(2, vertical_alignment="bottom")
        every = number.integer("every", 1, 1, 1000)
        trace = switch.toggle("trace", True)
        ready = entry is not None and data is not None
        if ready:
            places = thinned(entry, every)
            with widgets.opening():
                from estimators import Work

            point, more = PointSpec.from_checkpoint(entry), {"vectors": PRODUCTS, "derivatives": True}
            ready = widgets.cost(Work(products=len(places) * PRODUCTS), point, data, engine, **more)
        if widgets.run_button(PAGE, text("training.run"), ready=ready) and entry is not None and data is not None:
            start(entry, data, every, trace, engine)
    widgets.answer(right, PAGE, draw, ("edge", "lanczos", "traces"), text=TEXTS)


def choose() -> library.Checkpoint | None:
    """Choose a training whose epochs were kept."""
    text = texts(TEXTS)
    widgets.heading(text("training.checkpoint"))
    found = [entry for entry in library.list_checkpoints() if len(entry.trajectory) > 1]
    if not found:
        st.caption(text("training.none"))
        quick_start(PAGE)
        return None
    return checkpoint_picker(PAGE, found)


def thinned(entry: library.Checkpoint, every: int) -> list[int]:
    """Return the places of the checkpoints to measure: every n-th, and the last."""
    count = len(entry.trajectory)
    return sorted({*range(0, count, every), count - 1})


def start(entry: library.Checkpoint, data: DataSpec, every: int, trace: bool, engine: dict[str, Any]) -> None:
    """Queue the measurement."""
    from estimators import CurvatureTracker, scheduled_rates

    point = PointSpec.from_checkpoint(entry)
    places = thinned(entry, every)
    paths = [entry.trajectory[i] for i in places]
    rates, momentum = scheduled_rates(entry.info.get("training", {}), places)
    if "rates" in entry.info:  # noted by a recorder, one a point
        rates = [float(entry.info["rates"][place]) for place in places]
    known = bool({"training", "rates"} & set(entry.info)) and bool(np.isfinite(rates).all())
    schedule = {"lr": rates, "momentum": momentum} if known else {}
    listed = ",\n    ".join(repr(str(path)) for path in paths)
    setup = f"checkpoints = [\n    {listed},\n]"
    fit = "checkpoints, data, model=model"
    if known:
        setup += f"\nrates = {[float(f'{rate:.6g}') for rate in rates]!r}"
        fit += f", lr=rates, momentum={momentum!r}"
    tracker = CurvatureTracker(trace=trace, memory="default", **engine)
    widgets.start_fit(
        PAGE, texts(TEXTS)("training.job", model=entry.name), tracker, points=[("model", point)], data=data,
        work=track, given={"paths": paths, "schedule": schedule},
        fit=fit, setup=setup, show="result.lambda_max_, result.edge_",
    )  # fmt: skip


@restartable
def track(
    handle: jobs.Handle,
    estimator: Any,
    points: tuple[PointSpec, ...],
    data: DataSpec,
    held_out: None,
    paths: list[Path],
    schedule: dict[str, Any],
) -> Any:
    """Measure the curvature at every checkpoint; runs in the worker thread."""
    return estimator.fit(paths, data.load(), model=points[0].load(), **schedule, **handle.reports).result_


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(TEXTS)
    job = jobs.shown(PAGE)
    if not np.isfinite(result.lambda_max).any():
        return
    _claim(result, final=job is not None and not job.live)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        widgets.heading(text("training.heading"))
        log = widgets.Form(PAGE, TEXTS).log(label_visibility="collapsed")
    chart = charts.through_training(result, log=log)
    widgets.show_chart(chart)
    if np.isfinite(result.traces).any():
        widgets.picture(text("training.heading.trace"), charts.trace_through_training(result))
    table = numbers(result)
    widgets.show_table(table, fold=texts("common")("table"))
    widgets.notes(result.notes)
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, table=table, name="curvature-through-training")


def _claim(result: Any, *, final: bool) -> None:
    text = texts(TEXTS)
    ratio = np.asarray(result.lambda_max) / np.asarray(result.edge)
    usable = np.isfinite(ratio) & np.isfinite(result.edge)
    if not usable.any():
        st.caption(text("training.no_rate"))
        return
    last, highest = float(ratio[usable][-1]), float(ratio[usable].max())
    if final:
        # One checkpoint at the edge may be chance; the end of the training has to be there.
        low, high = NEAR_EDGE
        state = "supported" if low <= last <= high else "not supported" if highest < low else "not clear here"
        widgets.verdict(state, text("training.claim", ratio=last, highest=highest))
    if result.settings.get("batch_norm") == "frozen":
        widgets.note(text("training.batch_norm"))
    st.caption(text("training.over", count=int((ratio[usable] > 1).sum()), total=int(usable.sum())))


def numbers(result: Any) -> pd.DataFrame:
    """Return one row a checkpoint."""
    text = texts(TEXTS)
    columns = {
        "table.epoch": [f"{s:.0f}" for s in result.steps],
        "table.loss": [f"{v:.4g}" for v in result.losses],
        "table.gradient": [f"{v:.3g}" for v in result.gradient_norms],
        "table.lambda_max": list(map(plus_minus, result.lambda_max, result.uncertainty_of("lambda_max")[1])),
        "table.trace": list(map(plus_minus, result.traces, result.uncertainty_of("traces")[1])),
        "table.edge": [f"{v:.4g}" if np.isfinite(v) else "∞" if v > 0 else "" for v in result.edge],
    }
    return pd.DataFrame({text(name): values for name, values in columns.items()}).replace("nan", "")
