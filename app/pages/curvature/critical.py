"""Critical points of a small network, drawn as they are found: a view of the page Stationary points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.pages.curvature import critical_charts as charts
from app.state import bound
from app.texts import texts
from app.work import jobs

PAGE = "stationary.critical"
LARGEST = 500
SIDES = {1: 1, 4: 2, 16: 4, 64: 8}  # features: side of the pooled image


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the live search on the right."""
    with left:
        chosen = settings()
        ready = chosen["n"] <= LARGEST
        if widgets.run_button(PAGE, texts("stationary.critical")("run"), ready=ready):
            start(chosen)
    with right:
        critical_points_panel()


def critical_points_panel() -> None:
    """Show the newest search: points as they are found, success rates, spectra, definitions."""
    text = texts("stationary.critical")
    widgets.job_panel(PAGE, draw)
    widgets.definitions(text, ("following", "index"), expanded=jobs.latest(PAGE) is None)


def settings() -> dict[str, Any]:
    """Write the inputs; return them with the number of weights ``n``."""
    text = texts("stationary.critical")
    st.caption(text("about"))
    row = st.columns(3)
    features = row[0].selectbox(text("side"), list(SIDES), index=1, help=text("side.help"), **bound(PAGE, "features"))
    hidden = int(row[1].number_input(text("hidden"), 1, 40, 4, **bound(PAGE, "hidden")))
    classes = int(row[2].number_input(text("classes"), 2, 10, 3, **bound(PAGE, "classes")))
    n = (int(features) + 1) * hidden + (hidden + 1) * classes
    st.caption(text("size", n=n))
    if n > LARGEST:
        st.error(text("too_large", n=n))
    row = st.columns(2)
    largest = int(
        row[0].number_input(
            text("largest"), 0, min(20, n - 1), min(5, n - 1), help=text("largest.help"), **bound(PAGE, "largest")
        )
    )
    starts = int(row[1].number_input(text("starts"), 1, 500, 12, **bound(PAGE, "starts")))
    row = st.columns(2)
    l2 = float(
        row[0].number_input(
            text("l2"), 0.0, 1.0, 1e-3, step=1e-3, format="%.4g", help=text("l2.help"), **bound(PAGE, "l2")
        )
    )
    seed = int(row[1].number_input(text("seed"), 0, 10**6, 0, **bound(PAGE, "seed")))
    side = SIDES[int(features)]
    return {
        "n": n, "side": side, "hidden": hidden, "classes": classes, "largest": largest, "starts": starts, "l2": l2,
        "seed": seed,
    }  # fmt: skip


def start(chosen: dict[str, Any]) -> None:
    """Queue the search."""
    from estimators import CriticalPointFinder, pooled_digits, small_net

    finder = CriticalPointFinder(
        indices=tuple(range(chosen["largest"] + 1)),
        n_starts=chosen["starts"],
        l2=chosen["l2"],
        random_state=chosen["seed"],
        memory="default",
    )

    def work(handle: jobs.Handle) -> Any:
        net = small_net(chosen["side"] ** 2, chosen["hidden"], chosen["classes"], chosen["seed"])
        data = pooled_digits(chosen["side"], chosen["classes"])
        finder.fit(net, data, on_progress=handle.progress, on_partial=handle.partial)
        return finder.result_

    script = (
        "from estimators import CriticalPointFinder, pooled_digits, small_net\n\n"
        f"net = small_net({chosen['side'] ** 2}, {chosen['hidden']}, {chosen['classes']}, {chosen['seed']})\n"
        f"data = pooled_digits({chosen['side']}, {chosen['classes']})\n"
        f"result = CriticalPointFinder(\n    indices={finder.indices!r}, n_starts={finder.n_starts}, l2={finder.l2!r}, "
        f"random_state={finder.random_state}\n).fit(net, data)\n"
        "print(result.success_, result.spearman_)\n"
    )
    params = {k: v for k, v in finder.get_params(deep=False).items() if k != "memory"}
    config = {"estimator": "CriticalPointFinder", "params": params, "script": script}
    title = texts("stationary.critical")("job", n=chosen["n"], k=chosen["largest"])
    jobs.submit(PAGE, title, work, config=config)


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts("stationary.critical")
    if not result.found.any():
        st.info(text("none"))
        return
    rho = result.spearman
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
    st.markdown(f"**{text('heading.index')}**")
    chart = charts.index_against_loss(result)
    widgets.show_chart(chart)
    st.caption(text("index.note", tol=result.tol))
    if np.isfinite(rho["value"]):
        state = "supported" if rho["low"] > 0 else "not supported" if rho["high"] < 0 else "not clear here"
        widgets.verdict(state, text("claim", **rho))
    else:
        st.caption(text("claim.few"))
    st.markdown(f"**{text('heading.success')}**")
    widgets.show_chart(charts.success(result))
    table = success_table(result)
    st.dataframe(table, hide_index=True, height="content")
    st.markdown(f"**{text('heading.spectra')}**")
    widgets.show_chart(charts.spectra(result))
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, chart, table=table, name="critical-points")


def success_table(result: Any) -> pd.DataFrame:
    """Return one row an index: searches, successes with their interval, and the range of losses."""
    text = texts("stationary.critical")
    rows = []
    for row in result.success:
        losses = result.losses[result.distinct & (result.asked == row["index"])]
        rows.append(
            {
                text("table.index"): row["index"],
                text("table.starts"): row["starts"],
                text("table.converged"): row["converged"],
                text("table.found"): row["found"],
                text("table.distinct"): row["distinct"],
                text("table.rate"): f"{row['rate']:.0%} ({row['low']:.0%} – {row['high']:.0%})",
                text("table.loss"): f"{losses.min():.4f} – {losses.max():.4f}" if len(losses) else "–",
            }
        )
    return pd.DataFrame(rows)
