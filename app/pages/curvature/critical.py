"""Critical points of a small network, drawn as they are found: a view of the page Stationary points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.pages.curvature import critical_charts as charts
from app.texts import texts
from app.work import jobs
from app.work.work import restartable

PAGE = "stationary.critical"
LARGEST = 500
SIDES = {1: 1, 4: 2, 16: 4, 64: 8}  # features: side of the pooled image


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the live search on the right."""
    with left:
        chosen = settings()
        ready = chosen["n"] <= LARGEST
        if widgets.run_button(PAGE, texts(PAGE)("run"), ready=ready):
            start(chosen)
    widgets.answer(right, PAGE, draw, ("following", "index"), unfold=True)


def settings() -> dict[str, Any]:
    """Write the inputs; return them with the number of weights ``n``."""
    text = texts(PAGE)
    st.caption(text("about"))
    form = widgets.Form(PAGE)
    left, middle, right = form.columns(3)
    features = left.choice("features", SIDES, 4)
    hidden = middle.integer("hidden", 4, 1, 40)
    classes = right.integer("classes", 3, 2, 10)
    n = (features + 1) * hidden + (hidden + 1) * classes
    st.caption(text("size", n=n))
    if n > LARGEST:
        st.error(text("too_large", n=n))
    left, right = form.columns(2)
    chosen = {"n": n, "side": SIDES[features], "hidden": hidden, "classes": classes}
    chosen["largest"] = left.integer("largest", min(5, n - 1), 0, min(20, n - 1))
    chosen["starts"] = right.integer("starts", 12, 1, 500)
    left, right = form.columns(2)
    l2, seed = left.real("l2", 1e-3, 0.0, 1.0, step=1e-3), right.integer("seed", 0, 0, 10**6)
    return {**chosen, "l2": l2, "seed": seed}


def start(chosen: dict[str, Any]) -> None:
    """Queue the search."""
    from estimators import CriticalPointFinder

    finder = CriticalPointFinder(
        indices=tuple(range(chosen["largest"] + 1)),
        n_starts=chosen["starts"],
        l2=chosen["l2"],
        random_state=chosen["seed"],
        memory="default",
    )
    net_of = (chosen["side"] ** 2, chosen["hidden"], chosen["classes"], chosen["seed"])
    data_of = (chosen["side"], chosen["classes"])
    widgets.start_fit(
        PAGE, texts(PAGE)("job", n=chosen["n"], k=chosen["largest"]), finder,
        work=search, given={"net_of": net_of, "data_of": data_of},
        setup=f"net = small_net{net_of!r}\ndata = pooled_digits{data_of!r}", imports=("pooled_digits", "small_net"),
        fit="net, data", show="result.success_, result.spearman_",
    )  # fmt: skip


@restartable
def search(
    handle: jobs.Handle,
    estimator: Any,
    points: Any,
    data: None,
    held_out: None,
    net_of: tuple[int, ...],
    data_of: tuple[int, ...],
) -> Any:
    """Search for critical points of a small network; runs in the worker thread."""
    from estimators import pooled_digits, small_net

    return estimator.fit(small_net(*net_of), pooled_digits(*data_of), **handle.reports).result_


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(PAGE)
    if not result.found.any():
        st.info(text("none"))
        return
    rho = result.spearman
    if np.isfinite(rho["value"]):
        state = "supported" if rho["low"] > 0 else "not supported" if rho["high"] < 0 else "not clear here"
        widgets.verdict(state, text("claim", **rho))
    else:
        st.caption(text("claim.few"))
    with st.container(horizontal=True):
        st.metric(text("metric.found"), f"{int(result.found.sum())} / {len(result.found)}")
        st.metric(text("metric.distinct"), int(result.distinct.sum()))
        st.metric(text("metric.worst"), f"{result.gradient_norms[result.found].max():.1e}")
        if np.isfinite(rho["value"]):
            st.metric(
                text("metric.rho"),
                f"{rho['value']:.2f}",
                delta=text("metric.interval", low=rho["low"], high=rho["high"]),
                delta_color="off",
                delta_arrow="off",
            )
    chart = widgets.picture(text("heading.index"), charts.index_against_loss(result))
    st.caption(text("index.note", tol=result.tol))
    widgets.picture(text("heading.success"), charts.success(result))
    widgets.picture(text("heading.spectra"), charts.spectra(result))
    table = success_table(result)
    widgets.show_table(table, fold=texts("common")("table"))
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, table=table, name="critical-points")


def success_table(result: Any) -> pd.DataFrame:
    """Return one row an index: searches, successes with their interval, and the range of losses."""
    text = texts(PAGE)
    rows = []
    for row in result.success:
        losses = result.losses[result.distinct & (result.asked == row["index"])]
        told = {name: row[name] for name in ("index", "starts", "converged", "found", "distinct")}
        told["rate"] = f"{row['rate']:.0%} ({row['low']:.0%} – {row['high']:.0%})"
        told["loss"] = f"{losses.min():.4f} – {losses.max():.4f}" if len(losses) else "–"
        rows.append({text(f"table.{name}"): value for name, value in told.items()})
    return pd.DataFrame(rows)
