"""How likely a random critical point is a minimum, a view of the page Stationary points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.pages.curvature import charts
from app.state import form
from app.texts import texts
from app.work import jobs
from app.work.work import Work, restartable

PAGE = "stationary.random"
TEXTS = "stationary"


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the live count on the right."""
    text = texts(TEXTS)
    with left:
        form = widgets.Form(PAGE, TEXTS)
        one, other = form.columns(2)
        largest = one.integer("largest", 7, 2, 40)
        samples = other.integer("samples", 20_000, 100, 1_000_000, step=10_000)
        one, other = form.columns(2)
        shift = one.real("shift", 0.0, -3.0, 3.0, step=0.5)
        seed = other.integer("seed", 0, 0, 10**6)
        if widgets.run_button(PAGE, text("random.run")):
            start(largest, samples, shift, seed)
    widgets.answer(right, PAGE, draw, ("goe", "index"), text=TEXTS, unfold=True)


def start(largest: int, samples: int, shift: float, seed: int) -> None:
    """Queue the Monte-Carlo."""
    arguments = {"n_samples": samples, "shift": shift, "random_state": seed}
    dimensions = tuple(range(1, largest + 1))

    listed = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    script = (
        "from estimators import random_critical_points\n\n"
        f"result = random_critical_points({dimensions!r}, {listed})\n"
        "print(result.probability, result.low, result.high)\n"
    )
    config = {"estimator": "random_critical_points", "params": arguments, "script": script, "form": form()}
    work = Work.of(draw_matrices, dimensions=dimensions, arguments=arguments)
    jobs.submit(PAGE, texts(TEXTS)("random.job", d=largest), work, config=config)


@restartable
def draw_matrices(handle: jobs.Handle, dimensions: tuple[int, ...], arguments: dict[str, Any]) -> Any:
    """Draw random Hessians and count their signs; runs in the worker thread."""
    from estimators import random_critical_points

    return random_critical_points(dimensions, **arguments, **handle.reports)


def draw(result: Any) -> None:
    """Draw the counts so far; runs in a fragment."""
    text = texts(TEXTS)
    widgets.heading(text("random.heading"))
    _claim(result)
    chart = charts.minimum_probability(result)
    widgets.show_chart(chart)
    st.caption(text("random.law"))
    silent = int((np.asarray(result.n_minima) == 0).sum())
    if silent:
        st.caption(text("random.none", count=silent))
    table = numbers(result)
    widgets.show_table(table, fold=texts("common")("table"))
    widgets.take_along(PAGE, result, chart, table=table, name="random-critical-points")


def _claim(result: Any) -> None:
    """Judge the lecture's law at the largest dimension where minima were seen."""
    text = texts(TEXTS)
    seen = np.flatnonzero(result.n_minima)
    if not len(seen):
        return
    i = seen[-1]
    d, drawn, coins = int(result.dimensions[i]), float(result.probability[i]), float(result.independent[i])
    if result.shift:
        widgets.verdict("not clear here", text("random.claim.shift", shift=result.shift, d=d, drawn=drawn))
        return
    inside = result.low[i] <= coins <= result.high[i]
    state = "not clear here" if d < 2 else "supported" if inside else "not supported"
    widgets.verdict(state, text("random.claim", d=d, drawn=drawn, coins=coins))


def numbers(result: Any) -> pd.DataFrame:
    """Return one row a dimension."""
    text = texts(TEXTS)
    return pd.DataFrame(
        {
            text("table.d"): result.dimensions,
            text("matrices"): result.n_samples,
            text("minima"): result.n_minima,
            text("table.p"): [f"{p:.3g}" for p in result.probability],
            text("table.interval"): [
                f"{low:.2g} – {high:.2g}" for low, high in zip(result.low, result.high, strict=True)
            ],
            text("table.coins"): [f"{p:.3g}" for p in result.independent],
            text("table.goe"): [f"{p:.3g}" for p in result.goe],
            text("table.index"): [
                f"{m:.3f} ± {s:.2f}" for m, s in zip(result.index_mean, result.index_std, strict=True)
            ],
        }
    )
