"""Pictures of runs of any pages: the main one of each, and several on shared axes and one colour scale."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import grid, surface, theme
from app.charts.marks import names, tips
from app.texts import texts

Labelled = Sequence[tuple[str, Any]]
text = texts("runs")

PANEL = 300  # pixels on a side of a map beside others
LEAST = 1e-9  # of the highest value of a curve: below it the logarithmic axis says nothing
# Where the main chart of each kind of result is drawn; a kind that isn't here has none that stands for it.
DRAWN_BY = {
    "PathResult": "app.charts.connectivity:profile",
    "MapResult": "app.charts.connectivity_pairs:matrix",
    "CasesResult": "app.charts.connectivity_pairs:cases",
    "CurvatureHistoryResult": "app.pages.curvature.charts:through_training",
    "MinimumProbabilityResult": "app.pages.curvature.charts:minimum_probability",
    "CriticalPointsResult": "app.pages.curvature.critical_charts:index_against_loss",
    "SwaComparisonResult": "app.pages.averaging.charts:seeds",
    "BatchSizeResult": "app.pages.sharpness.charts:experiment",
    "WidthSweepResult": "app.pages.architectures.charts:width_sweep",
    "CheckResult": "app.pages.known.charts:ladder",
}


def picture(result: Any) -> Any | None:
    """Draw the one chart that stands for a result; None for a kind that has none."""
    kind = type(result).__name__
    if kind in DRAWN_BY:
        module, _, name = DRAWN_BY[kind].partition(":")
        return getattr(importlib.import_module(module), name)(result)
    mapped, line = map_of(result), line_of(result)
    if kind == "SurfaceResult" and len(result.axes) == 1:
        return surface.profile(result)
    if mapped is not None:
        return surface.heat_map(mapped)
    return lines([("", result)]) if line is not None else None


# ---- several ----


def map_of(result: Any) -> Any | None:
    """Return what the surface charts draw of a result: its plane, or the middle slice of a volume; None without one."""
    if hasattr(result, "axes") and hasattr(result, "losses") and len(result.axes) >= 2:
        return result if np.ndim(result.losses) == 2 else _middle(result)
    if len(getattr(result, "plane_x", ())):
        titles = getattr(result, "plane_titles", None) or (text("along"), text("across"))
        marks = getattr(result, "plane_markers", None) or [{"label": "A", "x": 0.0, "y": 0.0}]
        axes = (result.plane_x, result.plane_y)
        return SimpleNamespace(axes=axes, losses=result.plane_losses, markers=marks, axis_titles=titles)
    return None


def _middle(result: Any) -> Any:
    k = len(result.axes[2]) // 2
    known, losses = np.asarray(result.evaluated)[:, :, k], np.asarray(result.losses)[:, :, k]
    return SimpleNamespace(axes=result.axes[:2], axis_titles=result.axis_titles[:2], losses=losses, evaluated=known)


def maps(labelled: Labelled) -> alt.ConcatChart | None:
    """Draw the maps of results side by side: one colour scale, and shared axes where they are in the same unit."""
    drawn = [(label, one) for label, result in labelled if (one := map_of(result)) is not None]
    if not drawn:
        return None
    domain = surface.shared_domain([one for _, one in drawn], log=True)
    alike = len({tuple(one.axis_titles) for _, one in drawn}) == 1
    kind, every = ("shared" if alike else "independent"), [one for _, one in drawn]
    panels = [
        surface.heat_map(one, domain=domain, title=label, height=PANEL, legend=k == 0, equal=False).properties(
            **_size(every if alike else [one])
        )
        for k, (label, one) in enumerate(drawn)
    ]
    joined = alt.concat(*panels, columns=2).resolve_scale(color="independent", x=kind, y=kind)
    return theme.describe(joined, text("alt.maps", names=", ".join(label for label, _ in drawn)))


def _size(sharing: Sequence[Any]) -> dict[str, int]:
    """Return width and height of maps on shared axes: circles stay circles where both axes are in one unit."""
    if not all(map(grid.share_unit, sharing)):
        return {"width": PANEL, "height": PANEL}
    along, up = (
        max(float(np.max(one.axes[d])) for one in sharing) - min(float(np.min(one.axes[d])) for one in sharing)
        for d in (0, 1)
    )
    width = min(max(PANEL * along / up, 0.7 * PANEL), 1.7 * PANEL)
    return {"width": round(width), "height": round(width * up / along)}


def line_of(result: Any) -> tuple[str, pd.DataFrame] | None:
    """Return the curve of a result and what kind it is, which says what it can be drawn with; None without one."""
    kinds = {
        "path": ("t", "losses"),
        "rise": ("profile_radius", "profile_rise"),
        "tracked": ("steps", "lambda_max"),
    }
    for kind, (x, y) in kinds.items():
        if len(np.atleast_1d(getattr(result, x, ()))) and np.ndim(getattr(result, y, None)) == 1:
            return kind, pd.DataFrame({"x": getattr(result, x), "y": getattr(result, y)})
    if len(getattr(result, "axes", ())) == 1:
        middle = np.median(np.atleast_2d(result.losses), axis=0)
        return "profile", pd.DataFrame({"x": result.axes[0], "y": middle})
    if len(getattr(result, "density", ((),))[0]):
        return "density", pd.DataFrame(dict(zip("xy", result.density, strict=True)))
    history = getattr(result, "history", None)
    if isinstance(history, dict) and len(history.get("loss", ())):
        return "training", pd.DataFrame({"x": np.arange(1, len(history["loss"]) + 1), "y": history["loss"]})
    if history:  # of an average: a row an epoch and role
        table = pd.DataFrame(history)
        swa = table[table["role"] == "swa"]
        return "training", pd.DataFrame({"x": swa["epoch"], "y": swa["train_loss"]})
    return None


def lines(labelled: Labelled) -> Any | None:
    """Draw the curves of results, those of a kind on the same axes, a colour a run."""
    found = [(label, *line) for label, result in labelled if (line := line_of(result)) is not None]
    if not found:
        return None
    runs = list(dict.fromkeys(label for label, _, _ in found))
    colors = dict(zip(runs, theme.CATEGORICAL, strict=False))
    charts = []
    for kind in dict.fromkeys(kind for _, kind, _ in found):
        table = pd.concat([line.assign(run=label) for label, k, line in found if k == kind], ignore_index=True)
        table = table[np.isfinite(table["y"]) & (table["y"] > LEAST * table["y"].max())]
        x_title, y_title = text(f"x.{kind}"), text(f"y.{kind}")
        base = alt.Chart(table).encode(
            x=alt.X("x:Q", title=x_title, scale=alt.Scale(nice=False, zero=False)),
            y=alt.Y("y:Q", title=y_title, scale=theme.axis_scale(True)),
            color=names("run", colors, "top" if len(runs) > 1 else None),
            tooltip=tips(("run:N", text("name")), ("x:Q", x_title, ".4g"), ("y:Q", y_title, ".4g")),
        )
        dots = base.mark_point(filled=True, size=24, opacity=1 if len(table) < 200 else 0)
        chart = alt.layer(base.mark_line(strokeWidth=2), dots)
        charts.append(theme.describe(chart, text("alt.lines", what=y_title, names=", ".join(runs)), height=PANEL))
    if len(charts) == 1:
        return charts[0]
    joined = alt.vconcat(*(chart.properties(width=2 * PANEL) for chart in charts))
    return theme.describe(joined, text("alt.lines", what=text("curves"), names=", ".join(runs)))
