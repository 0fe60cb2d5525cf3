"""Charts of a search for critical points: index against loss, spectra, success rates."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.charts.marks import decades, names, same, tips
from app.texts import texts

text = texts("stationary.critical")

AXIS = 130  # of a height, for the axis and the key inside it
# Both ends of viridis vanish on one of the two grounds.
VISIBLE = alt.SchemeParams("viridis", extent=[0.25, 0.9])


def index_against_loss(result: Any, *, height: int = 380) -> alt.LayerChart:
    """Draw every critical point found: its loss against its index, with the median of each index.

    Filled points are distinct; hollow ones repeat an earlier point up to a symmetry of the network.
    """
    rows = point_table(result)
    axis = alt.Axis(tickMinStep=1, format="d")
    scale = alt.Scale(domain=[min(result.asked) - 0.5, max(result.asked) + 0.5], nice=False)
    x = alt.X("index:Q", title=text("axis.index"), axis=axis, scale=scale)
    y = alt.Y("loss:Q", title=text("axis.loss"), scale=theme.axis_scale())
    tones = alt.Scale(scheme=VISIBLE, domain=[0, max(1, int(max(result.asked)))])
    color = alt.Color("index:Q", scale=tones, legend=None)
    told = (("gradient:Q", text("gradient"), ".1e"), ("steps:Q", text("steps")), ("kind:N", text("kind")))
    distinct = f"datum.kind == '{text('distinct')}'"
    dots = (
        alt.Chart(rows)
        .mark_point(size=70, strokeWidth=1.6)
        .encode(
            x=same(x, "at:Q"),
            y=y,
            color=color,
            fill=alt.condition(distinct, color, alt.value("transparent")),
            opacity=alt.condition(distinct, alt.value(0.85), alt.value(0.45)),
            tooltip=tips(("index:Q", text("axis.index")), ("loss:Q", text("axis.loss"), ".6g"), *told),
        )
    )
    ticks = alt.Chart(rows[rows["kind"] == text("distinct")])
    medians = ticks.mark_tick(orient="horizontal", size=44, thickness=2.5, color=theme.ACCENT).encode(
        x=x, y=alt.Y("median(loss):Q", title=text("axis.loss")), detail="index:N"
    )
    rho = result.spearman
    described = text(
        "alt.index", n=len(rows), value=f"{rho['value']:.2f}", low=f"{rho['low']:.2f}", high=f"{rho['high']:.2f}"
    )
    return theme.describe(alt.layer(dots, medians), described, height=height)


def point_table(result: Any) -> pd.DataFrame:
    """Return the points found, one a row, with a fixed sideways shift that tells equal indices apart."""
    kept = np.flatnonzero(result.found)
    order = np.argsort(np.argsort(kept))
    return pd.DataFrame(
        {
            "index": result.index[kept],
            "at": result.index[kept] + 0.16 * np.sin(2.4 * order),
            "loss": result.losses[kept],
            "gradient": result.gradient_norms[kept],
            "steps": result.steps[kept],
            "kind": np.where(result.distinct[kept], text("distinct"), text("repeat")),
        }
    )


def spectra(result: Any, *, row_height: int = 9) -> alt.Chart:
    """Draw the eigenvalues of each distinct critical point as a row of ticks, rows from low loss to high."""
    kept = np.flatnonzero(result.distinct)
    kept = kept[np.argsort(result.losses[kept], kind="stable")]
    signs = {True: text("negative"), False: text("positive")}
    rows = [
        (rank, float(value), signs[bool(value < 0)], float(result.losses[i]), int(result.index[i]))
        for rank, i in enumerate(kept)
        for value in result.eigenvalues[i]
    ]
    table = pd.DataFrame(rows, columns=["row", "value", "sign", "loss", "index"])
    largest = float(table["value"].abs().max()) if len(table) else 1.0
    scale = alt.Scale(type="symlog", constant=largest / 200)
    told = (("index:Q", text("axis.index")), ("loss:Q", text("axis.loss"), ".5g"))
    height = max(row_height * len(kept) + AXIS, theme.LEAST + 60)
    tall = min((height - AXIS) / max(len(kept), 1) - 1, 30)
    ticks = alt.Chart(table).mark_tick(thickness=1.4, size=tall, orient="vertical")
    chart = ticks.encode(
        x=alt.X("value:Q", title=text("axis.eigenvalue"), scale=scale, axis=decades(table["value"], largest / 200)),
        y=alt.Y("row:O", title=text("axis.row"), axis=alt.Axis(labels=False, ticks=False)),
        color=names("sign", {signs[True]: theme.ACCENT, signs[False]: theme.CATEGORICAL[0]}, "bottom"),
        tooltip=tips(("value:Q", text("axis.eigenvalue"), ".4g"), *told),
    )
    return theme.describe(chart, text("alt.spectra", n=len(kept)), height=height)


def success(result: Any, *, height: int = theme.LEAST) -> alt.LayerChart:
    """Draw the share of searches that reached the index asked, with its 95 % interval."""
    rows = pd.DataFrame(result.success)
    x = alt.X("index:O", title=text("axis.asked"), axis=alt.Axis(labelAngle=0))
    y = alt.Y("rate:Q", title=text("axis.rate"), scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%"))
    tooltip = tips(*((f"{name}:Q", text(f"table.{name}")) for name in ("starts", "converged", "found")))
    bars = alt.Chart(rows).mark_bar(color=theme.CATEGORICAL[0], opacity=0.75, size=22).encode(x=x, y=y, tooltip=tooltip)
    spread = alt.Chart(rows).mark_rule(color=theme.NEUTRAL, strokeWidth=2).encode(x=x, y="low:Q", y2="high:Q")
    total = f"{int(rows['found'].sum())}/{int(rows['starts'].sum())}"
    return theme.describe(alt.layer(bars, spread), text("alt.success", total=total), height=height)
