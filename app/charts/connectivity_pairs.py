"""Charts of many minima: pairs as a matrix and as a map, and the lecture's three cases.

Functions take a ``MapResult`` or a ``CasesResult`` of ``estimators`` and return an Altair chart.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.charts.connectivity import COLORS, OTHER
from app.charts.marks import band, names, one_unit, rule, shared, tips
from app.texts import texts

text = texts("connectivity")

WORDS = 220  # pixels of a name beside or under a matrix
FARTHEST = 0.3  # of half the map: how far from its point a name may stand
SYMLOG = {"type": "symlog", "constant": 0.01}
MATRICES = {
    "barriers": (".3f", {"scheme": "viridis", **SYMLOG}),
    "distances": (".3g", {"scheme": "viridis"}),
    "cka": (".3f", {"scheme": "viridis"}),
}


def matrix(result: Any, *, quantity: str = "barriers") -> alt.LayerChart:
    """Draw one number a pair: barrier, distance or CKA.

    Parameters
    ----------
    result : MapResult
    quantity : str
        A key of :data:`MATRICES`.
    """
    if quantity not in MATRICES:
        raise ValueError(f"quantity must be one of {', '.join(MATRICES)}, got {quantity!r}. Choose one of them.")
    form, scale = MATRICES[quantity]
    title = shared(f"matrix.{quantity}")
    values = np.asarray(getattr(result, quantity), float)
    i, j = (index.ravel() for index in np.indices(values.shape))
    called = np.array(result.names, dtype=object)
    table = pd.DataFrame({"a": called[i], "b": called[j], "value": values.ravel()})
    table = table[np.isfinite(table["value"])]
    axis = alt.Axis(labelLimit=WORDS)
    base = alt.Chart(table).encode(
        x=alt.X("b:N", title=None, sort=list(called), axis=axis),
        y=alt.Y("a:N", title=None, sort=list(called), axis=axis),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("value:Q", title=title, scale=alt.Scale(**scale)),
        tooltip=tips(("a:N",), ("b:N",), ("value:Q", title, ".4g")),
    )
    layers: list[alt.Chart] = [cells]
    if len(called) <= 12:
        low, high = (float(table["value"].min()), float(table["value"].max())) if len(table) else (0.0, 1.0)
        middle = (low + high) / 2
        if "type" in scale:
            middle = np.sinh((np.arcsinh(low / 0.02) + np.arcsinh(high / 0.02)) / 2) * 0.02
        tone = alt.condition(f"datum.value > {middle}", alt.value("#1b1f24"), alt.value("#ffffff"))
        layers.append(base.mark_text(fontSize=12).encode(text=alt.Text("value:Q", format=form), color=tone))
    off = values[~np.eye(len(values), dtype=bool)]
    low, high = (f"{np.nanmin(off):.3g}", f"{np.nanmax(off):.3g}") if np.isfinite(off).any() else ("…", "…")
    words = min(WORDS, 6 * max(map(len, called), default=0))  # stand upright under the columns
    size = max(theme.LEAST, min(520, 60 * len(called))) + words
    described = shared("alt.matrix", quantity=title, count=len(called), low=low, high=high)
    return theme.describe(alt.layer(*layers), described, height=size)


def layout(result: Any) -> alt.LayerChart:
    """Draw the map of minima: networks placed by their distances, edges coloured by barrier, groups by colour.

    Parameters
    ----------
    result : MapResult
        With its layout.
    """
    place, called = np.asarray(result.layout, float), list(result.names)
    nodes = pd.DataFrame({"x": place[:, 0], "y": place[:, 1], "name": called, "loss": result.losses})
    nodes = nodes.assign(group=[str(c + 1) for c in result.clusters], accuracy=result.accuracies)
    edges = pd.DataFrame(
        [
            (*place[i], *place[j], result.barriers[i, j], f"{called[i]} – {called[j]}")
            for i in range(len(called))
            for j in range(i + 1, len(called))
            if np.isfinite(result.barriers[i, j])
        ],
        columns=["x", "y", "x2", "y2", "barrier", "pair"],
    )
    edges = edges.sort_values("barrier", ascending=False)  # low barriers are drawn last, on top
    middle, half = (place.max(0) + place.min(0)) / 2, max(0.62 * np.ptp(place, axis=0).max(), 1e-9)
    across, up = one_unit(*((m - half, m + half) for m in middle))
    x, y = alt.X("x:Q", title=None, axis=None, scale=across), alt.Y("y:Q", title=None, axis=None, scale=up)
    barrier, tones = text("chart.barrier"), alt.Scale(scheme="viridis", reverse=True, **SYMLOG)
    links = (
        alt.Chart(edges)
        .mark_rule(opacity=0.75)
        .encode(
            x=x,
            y=y,
            x2="x2:Q",
            y2="y2:Q",
            color=alt.Color("barrier:Q", title=barrier, scale=tones),
            strokeWidth=alt.condition(f"datum.barrier <= {result.tolerance}", alt.value(4), alt.value(1.4)),
            tooltip=tips(("pair:N",), ("barrier:Q", barrier, ".4g")),
        )
    )
    base = alt.Chart(nodes).encode(x=x, y=y)
    numbers = (("loss:Q", None, theme.LOSS_FORMAT), ("accuracy:Q", None, theme.ACCURACY_FORMAT))
    dots = base.mark_point(filled=True, size=240, opacity=1, stroke="white", strokeWidth=2).encode(
        fill=alt.Fill("group:N", title=text("chart.group"), scale=alt.Scale(range=list(theme.CATEGORICAL))),
        tooltip=tips(("name:N",), ("group:N", text("chart.group")), *numbers),
    )
    named = nodes.assign(y=_apart(place, half))
    named = named[named["y"] - nodes["y"] < FARTHEST * half]
    written = alt.Chart(named).encode(x=x, y=y, text="name:N")
    labels = written.mark_text(fontSize=12, fontWeight="bold", color=theme.NEUTRAL)
    count = len(set(result.clusters))
    return theme.describe(
        alt.layer(links, dots, labels).resolve_scale(color="independent"),
        shared("alt.layout", count=len(called), groups=count),
        height=theme.SQUARE,
        usermeta=theme.about(theme.SQUARE),
    )


def _apart(place: np.ndarray, half: float) -> np.ndarray:
    """Heights of the names: above their points, higher where another name is already there."""
    step, width = 0.09 * half, 0.35 * half
    heights = np.zeros(len(place))
    taken: list[tuple[float, float]] = []
    for i in np.argsort(place[:, 1]):
        height = place[i, 1] + 1.1 * step
        for x, y in taken:
            if abs(x - place[i, 0]) < width and abs(y - height) < step:
                height = y + step
        heights[i] = height
        taken.append((place[i, 0], height))
        taken.sort(key=lambda pair: pair[1])
    return heights


def _case(name: str) -> str:
    return text(f"cases.case.{name}")


def _joint(name: str) -> str:
    return text(f"cases.joints.{name}")


def _joint_colors(result: Any) -> dict[str, str]:
    return {_joint(path): COLORS.get(path, OTHER) for path in dict.fromkeys(row["path"] for row in result.rows)}


def cases(result: Any) -> alt.LayerChart:
    """Draw the barrier of every pair as a dot, its mean as a bar, by case and path, with the tolerance.

    Parameters
    ----------
    result : CasesResult
    """
    table = pd.DataFrame(
        [{"case": _case(r["case"]), "path": _joint(r["path"]), "barrier": r["barrier"], "pair": r["seed"] + 1}
         for r in result.rows]
    )  # fmt: skip
    table = table[np.isfinite(table["barrier"])]
    tones = _joint_colors(result)
    order = [_case(c) for c in dict.fromkeys(r["case"] for r in result.rows)]
    axis = alt.Axis(values=[0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30], format="~g")
    along = {"title": text("chart.barrier"), "scale": alt.Scale(**SYMLOG, domainMin=0), "axis": axis}
    x = alt.X("barrier:Q", **along)
    y = alt.Y("case:N", title=None, sort=order, axis=alt.Axis(labelLimit=240, grid=True, tickBand="extent"))
    offset = alt.YOffset("path:N", sort=list(tones), scale=alt.Scale(paddingOuter=0.4))
    color = names("path", tones)
    base = alt.Chart(table).encode(x=x, y=y, yOffset=offset, color=color)
    tooltip = tips(("case:N",), ("path:N",), ("pair:Q",), ("barrier:Q", text("chart.barrier"), ".4g"))
    means = alt.Chart(table).encode(x=alt.X("mean(barrier):Q", **along), y=y, yOffset=offset, color=color)
    said = "; ".join(f"{_case(s['case'])}, {_joint(s['path'])}: {s['mean']:.3g}" for s in result.summary)
    return theme.describe(
        alt.layer(
            rule(x, result.tolerance),
            means.mark_tick(thickness=3, size=20),
            base.mark_point(filled=True, size=60, opacity=0.75).encode(tooltip=tooltip),
        ),
        shared("alt.cases", said=said),
        height=max(theme.LEAST + 40, 40 * len(result.summary)),
    )


def case_profiles(result: Any) -> alt.ConcatChart:
    """Draw the mean loss along the paths of each case, with a band from the lowest to the highest pair.

    Parameters
    ----------
    result : CasesResult
    """
    color = names("path", _joint_colors(result), symbolOpacity=1)
    panels = []
    values = np.asarray(result.profiles, float)
    high = float(np.nanmax(np.where(np.isfinite(values), values, np.nan))) if np.isfinite(values).any() else 1.0
    for case in dict.fromkeys(r["case"] for r in result.rows):
        rows = []
        for path in dict.fromkeys(r["path"] for r in result.rows):
            chosen = [values[i] for i, r in enumerate(result.rows) if r["case"] == case and r["path"] == path]
            if chosen:
                block = np.array(chosen)
                spread = {"mean": block.mean(0), "low": block.min(0), "high": block.max(0)}
                rows.append(pd.DataFrame({"t": result.t, **spread, "path": _joint(path)}))
        table = pd.concat(rows)
        x = alt.X("t:Q", title=text("chart.t"), scale=alt.Scale(domain=[0, 1]))
        base = alt.Chart(table[np.isfinite(table["mean"])])
        first = len(panels) % 2 == 0  # one axis for a row
        y_axis = {"title": shared("losses") if first else None, "axis": alt.Axis(labels=first, ticks=first)}
        y = alt.Y("mean:Q", scale=alt.Scale(domain=[0, high], nice=True), **y_axis)
        told = tips(("path:N",), ("t:Q", None, ".2f"), ("mean:Q", None, ".4g"))
        line = base.mark_line(strokeWidth=2).encode(x=x, y=y, color=color, tooltip=told)
        drawn = alt.layer(band(base, x, y, 0.18, color=color), line)
        panels.append(drawn.properties(title=_case(case), width=195, height=240))
    return theme.describe(alt.concat(*panels, columns=2), shared("alt.case_profiles"))
