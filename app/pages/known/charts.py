"""The ladder of the linear autoencoder: exact rungs, and what was measured and found on them."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from app.charts import theme
from app.charts.marks import names, tips
from app.texts import texts

text = texts("known")

_KINDS = {"loss": "at", "loss found from random starts": "found"}


def ladder_table(result: Any) -> pd.DataFrame:
    """Return one row a dot: index, loss, what it is."""
    rows = [row for row in result.rows if row["rung"] >= 0 and row["quantity"] in _KINDS]
    exact = {row["rung"]: row["expected"] for row in rows}
    table = [{"index": rung, "loss": loss, "kind": text("formula")} for rung, loss in exact.items()]
    table += [{"index": r["rung"], "loss": r["measured"], "kind": text(_KINDS[r["quantity"]])} for r in rows]
    return pd.DataFrame(table, columns=["index", "loss", "kind"])


def ladder(result: Any, *, height: int = 340) -> alt.LayerChart:
    """Draw loss against index: rungs are the formula, rings what was measured there, dots what searches found."""
    table = ladder_table(result)
    exact = table[table["kind"] == text("formula")]
    scale = alt.Scale(domain=[-0.5, 4.5], nice=False)
    x = alt.X("index:Q", title=text("axis.index"), axis=alt.Axis(tickMinStep=1, format="d"), scale=scale)
    y = alt.Y("loss:Q", title=text("axis.loss"), scale=theme.axis_scale(padding=20))
    kinds = [text("formula"), text("at"), text("found")]
    color = names("kind", dict(zip(kinds, (theme.NEUTRAL, theme.CATEGORICAL[0], theme.ACCENT), strict=True)))
    tooltip = tips(("kind:N", " "), ("index:Q", text("axis.index")), ("loss:Q", text("axis.loss"), ".10g"))
    # the legend shows each kind as it is drawn: a bar, a ring, a dot
    shape = alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds, range=["stroke", "circle", "circle"]))
    base = alt.Chart(table).encode(x=x, y=y, color=color, shape=shape, tooltip=tooltip)
    stairs = alt.Chart(exact).mark_line(strokeDash=[3, 4], strokeWidth=1, color=theme.NEUTRAL).encode(x=x, y=y)
    rungs = base.transform_filter(f"datum.kind == '{kinds[0]}'").mark_point(size=56**2, strokeWidth=2.5)
    rings = base.transform_filter(f"datum.kind == '{kinds[1]}'").mark_point(size=150, strokeWidth=2)
    dots = base.transform_filter(f"datum.kind == '{kinds[2]}'").mark_point(filled=True, size=45, opacity=1)
    words = ", ".join(
        text("alt.rung", loss=f"{loss:.4f}", index=index)
        for index, loss in zip(exact["index"], exact["loss"], strict=True)
    )
    return theme.describe(alt.layer(stairs, rungs, rings, dots), text("alt.ladder", points=words), height=height)
