"""Charts of sharpness: rise against radius and noise, measures side by side, the batch experiment.

The first functions take ``(label, result)`` pairs, so that pinned models share axes and keep their colours;
a result has the fields of ``estimators.SharpnessResult``. :func:`experiment` takes a ``BatchSizeResult``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.charts.marks import band, interval, names, tips
from app.texts import texts

Labelled = Sequence[tuple[str, Any]]
text = texts("sharpness")

BEST, ONE_STEP, QUADRATIC = "best", "one_step", "quadratic"
DASHES = {BEST: [1, 0], ONE_STEP: [6, 3], QUADRATIC: [2, 3]}
GROUP_COLORS = {"small": theme.CATEGORICAL[2], "large": theme.CATEGORICAL[1]}

PANELS = text.options("panel")
REACH = {"stderr": 2, "residual": 1}  # how many of its uncertainties the bar of a measure reaches
EXPERIMENT_PANELS = text.options("narrow")


def rise_profile(
    results: Labelled, *, log: bool = True, quadratic: bool = True, height: int = theme.HEIGHT
) -> alt.LayerChart:
    """Draw the loss rise against the radius of the ball.

    The solid line is the largest rise found, the dashed one the single SAM step; the band between them is
    what the ascent found beyond that step. Dotted: the second-order prediction ρ²λ_max/2. The ring marks ρ.

    Parameters
    ----------
    results : sequence of (str, SharpnessResult)
        Models in the order of their colours.
    log : bool, default=True
        Both axes logarithmic; rises that are not positive are then left out.
    quadratic : bool, default=True
        Draw the prediction where λ_max was measured.
    """
    lines, bands, marks = [], [], []
    for label, result in results:
        radius, rise, step = result.profile_radius, result.profile_rise, result.profile_one_step
        rho = float(result.settings.get("rho", np.nan))
        lines += [(label, BEST, r, v) for r, v in zip(radius, rise, strict=True)]
        lines += [(label, ONE_STEP, r, v) for r, v in zip(radius, step, strict=True)]
        bands += [(label, r, low, high) for r, low, high in zip(radius, step, rise, strict=True)]
        if quadratic and np.isfinite(result.quadratic_rise):
            lines += [(label, QUADRATIC, r, result.quadratic_rise * (r / rho) ** 2) for r in radius]
        if len(radius) and np.isfinite(result.sharpness):
            marks.append((label, rho, result.sharpness))
    line = pd.DataFrame(lines, columns=["model", "what", "radius", "rise"])
    between = pd.DataFrame(bands, columns=["model", "radius", "low", "high"])
    mark = pd.DataFrame(marks, columns=["model", "radius", "rise"])
    line, mark = line[_drawable(line["rise"], log)], mark[_drawable(mark["rise"], log)]
    between = between[_drawable(between["low"], log) & _drawable(between["high"], log)]
    line = line.assign(curve=line["what"].map({what: text(f"curve.{what}") for what in DASHES}))
    # A prediction far from every measured rise would squeeze the measurement: the axis follows the measured.
    measured = line[line["what"] != QUADRATIC]["rise"]
    relative = {bool(result.settings.get("adaptive")) for _, result in results} == {True}
    across, up = _axis(line["radius"], log, pad=1.08), _axis(measured, log)
    x = alt.X("radius:Q", title=text("axis.radius.adaptive" if relative else "axis.radius"), **across)
    y = alt.Y("rise:Q", title=text("axis.rise"), **up)
    color = _colors(results)
    used = [what for what in DASHES if what in set(line["what"])]
    curves = {text(f"curve.{what}"): DASHES[what] for what in used}
    dash = alt.StrokeDash(
        "curve:N",
        title=None,
        scale=alt.Scale(domain=list(curves), range=list(curves.values())),
        legend=alt.Legend(orient="top", symbolSize=260),
    )
    told = tips(("model:N", text("model")), ("radius:Q", "ρ", ".3g"), ("rise:Q", text("axis.rise"), ".4g"))
    base, best = alt.Chart(line), alt.Chart(line[line["what"] == BEST])
    layers = [
        band(alt.Chart(between), x, y, 0.15, color=color),
        base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=color, strokeDash=dash),
        best.mark_point(filled=True, size=36, clip=True).encode(x=x, y=y, color=color, tooltip=told),
        alt.Chart(mark).mark_point(size=170, strokeWidth=2, clip=True).encode(x=x, y=y, color=color),
    ]
    said = "; ".join(text("alt.rise.at", model=label, rise=f"{v:.3g}", rho=f"{r:.3g}") for label, r, v in marks)
    return theme.describe(alt.layer(*layers), text("alt.rise", count=len(results), said=said or "…"), height=height)


def _noise_band(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean rise; two standard errors for a result of an older version, which has none."""
    if len(result.noise_low):
        return result.noise_low, result.noise_high
    reach = 2 * result.noise_stderr
    return result.noise_average - reach, result.noise_average + reach


def noise_profile(results: Labelled, *, log: bool = True, height: int = theme.HEIGHT_SMALL) -> alt.LayerChart:
    """Draw the mean rise under Gaussian noise against σ, with the band of its 95 % interval.

    With ``log`` a band that reaches zero is cut at a tenth of its mean: a logarithm has no place for it.
    """
    rows = [
        (label, *row)
        for label, result in results
        for row in zip(result.noise_sigma, result.noise_average, result.noise_stderr, *_noise_band(result), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["model", "sigma", "mean", "stderr", "low", "high"])
    table = table[_drawable(table["mean"], log)]
    if log:
        table = table.assign(low=np.maximum(table["low"], table["mean"] / 10))
    filtered = {result.settings.get("noise") for _, result in results} == {"filter"}
    across, up = _axis(table["sigma"], log, pad=1.08), _axis(pd.concat([table["low"], table["high"]]), log)
    x = alt.X("sigma:Q", title=text("axis.sigma.filter" if filtered else "axis.sigma"), **across)
    title, color = text("axis.mean_rise"), _colors(results)
    y = alt.Y("mean:Q", title=title, **up)
    numbers = (("mean:Q", title, ".4g"), ("stderr:Q", text("stderr"), ".2g"))
    told = tips(("model:N", text("model")), ("sigma:Q", "σ", ".3g"), *numbers)
    base = alt.Chart(table)
    layers = [
        band(base, x, y, color=color),
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=color),
        base.mark_point(filled=True, size=36).encode(x=x, y=y, color=color, tooltip=told),
    ]
    return theme.describe(alt.layer(*layers), text("alt.noise", count=len(results)), height=height)


def measures(results: Labelled, *, columns: int = 2, width: int = 220) -> alt.ConcatChart:
    """Draw every measure as dots with error bars: a panel a measure, a row a model."""
    labels = [label for label, _ in results]
    panels, shown = [], []
    for name in PANELS:
        rows = [
            (label, float(getattr(result, name)), result.bound_on(name), *(result.uncertainty_of(name) or ("", 0.0)))
            for label, result in results
            if np.isfinite(getattr(result, name))
        ]
        if not rows:
            continue
        title = text(f"panel.{name}")
        shown.append(title)
        table = pd.DataFrame(rows, columns=["model", "value", "bound", "kind", "error"])
        bar = table["kind"].map(REACH).fillna(0) * table["error"].fillna(0.0)
        bar = bar.where(table["bound"] == "", 0.0)  # a bound is open to one side
        table = table.assign(low=table["value"] - bar, high=table["value"] + bar)
        y = alt.Y("model:N", title=None, sort=labels, axis=alt.Axis(labelLimit=130, grid=True, ticks=False))
        scale = alt.Scale(zero=bool((table["low"] >= 0).all()))
        x = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(tickCount=4))
        color = _colors(results, legend=False)
        told = [("model:N", text("model")), ("value:Q", title, ".4g")]
        if table["kind"].any():
            told.append(("error:Q", text(f"error.{name}"), ".2g"))
        base = alt.Chart(table)
        shape = alt.Shape("bound:N", scale=alt.Scale(domain=["", "≥"], range=["circle", "triangle-right"]), legend=None)
        dots = base.mark_point(filled=True, size=80, opacity=1)
        dots = dots.encode(x=x, y=y, color=color, shape=shape, tooltip=tips(*told))
        drawn = alt.layer(interval(base, x, y, color=color), dots)
        panels.append(drawn.properties(width=width, height=max(110, 34 * len(labels))))
    chart = alt.concat(*panels, columns=columns, spacing=20).resolve_scale(x="independent", y="independent")
    return theme.describe(chart, text("alt.measures", models=", ".join(labels), names=", ".join(shown)))


def experiment(result: Any, *, columns: int = 4, width: int = 92, height: int = 165) -> alt.ConcatChart:
    """Draw the batch-size experiment: a panel a quantity, a dot a run, a line a seed, bars mean and spread.

    Parameters
    ----------
    result : BatchSizeResult
        Partial or final; at least one row.
    """
    rows = pd.DataFrame(result.rows)
    order = [group for group in GROUP_COLORS if group in set(rows["group"])]
    sizes = {group: int(rows[rows["group"] == group]["batch_size"].iloc[0]) for group in order}
    panels = []
    for key in EXPERIMENT_PANELS:
        table = rows[["group", "seed", "batch_size", key]].rename(columns={key: "value"})
        table = table[np.isfinite(table["value"].astype(float))]
        if len(table):
            panels.append(_experiment_panel(table, text(f"narrow.{key}"), width, height))
    chart = alt.concat(*panels, columns=columns, spacing=18)
    chart = chart.resolve_scale(x="independent", y="independent", color="shared")
    batches = ", ".join(str(sizes[group]) for group in order)
    return theme.describe(chart, text("alt.experiment", runs=len(rows), sizes=batches))


def _experiment_panel(table: pd.DataFrame, title: str, width: int, height: int) -> alt.LayerChart:
    values = table["value"].astype(float)
    log = bool((values > 0).all()) and float(values.max()) > 8 * float(values.min())
    spread = table.groupby(["group", "batch_size"])["value"].agg(["mean", "std"]).reset_index()
    reach = spread["std"].fillna(0.0)
    low = spread["mean"] - reach
    spread = spread.assign(high=spread["mean"] + reach, low=np.maximum(low, float(values.min()) / 2) if log else low)
    x = alt.X("batch_size:O", title=text("axis.batch_size"), axis=alt.Axis(labelAngle=0))
    drawn = pd.concat([values, spread["low"], spread["high"]])
    up = _axis(drawn, True) if log else {"scale": theme.axis_scale(), "axis": alt.Axis(tickCount=4, format=",~r")}

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=None, **up)

    color = names("group", GROUP_COLORS, None)
    size = ("batch_size:O", text("axis.batch_size"))
    tooltip = tips(("seed:N", text("seed")), size, ("value:Q", title, ".4g"))
    runs, means = alt.Chart(table), alt.Chart(spread)
    panel = alt.layer(
        runs.mark_line(color=theme.NEUTRAL, opacity=0.4, strokeWidth=1).encode(x=x, y=y("value"), detail="seed:N"),
        runs.mark_point(filled=True, size=40, opacity=0.6).encode(x=x, y=y("value"), color=color, tooltip=tooltip),
        means.mark_rule(strokeWidth=2.5).encode(x=x, y=y("low"), y2="high:Q", color=color),
        means.mark_tick(thickness=3, size=26).encode(x=x, y=y("mean"), color=color),
    )
    heading = alt.TitleParams(title, fontSize=12, anchor="start", limit=width + 50)
    return panel.properties(width=width, height=height, title=heading)


def _colors(results: Labelled, *, legend: bool = True) -> alt.Color:
    tones = {label: theme.CATEGORICAL[i % 8] for i, (label, _) in enumerate(results)}
    wanted = "top" if legend and len(tones) > 1 else None
    return names("model", tones, wanted, symbolOpacity=1)


def _axis(values: pd.Series, log: bool, *, pad: float = 1.3) -> dict[str, Any]:
    """Return scale and axis around the values, with few and round ticks where the scale is logarithmic."""
    if not len(values):
        return {"scale": theme.axis_scale(log)}
    low, high = float(values.min()), float(values.max())
    if not log:
        return {"scale": theme.axis_scale(domain=[min(low, 0.0), high + 0.04 * (high - min(low, 0.0))], nice=False)}
    low, high = low / pad, high * pad
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1,) if np.log10(high / low) > 2.5 else (1, 2, 5)
    ticks = [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    scale = theme.axis_scale(True, domain=[low, high], nice=False)
    return {"scale": scale, "axis": alt.Axis(values=ticks, format="~g")}


def _drawable(values: pd.Series, log: bool) -> pd.Series:
    numbers = values.astype(float)  # a column without rows has no type
    return np.isfinite(numbers) & ((numbers > 0) | (not log))
