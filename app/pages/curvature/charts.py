"""Charts of curvature: ends of the spectrum, density, fractions, layers, training, and P(minimum).

The functions take a ``CurvatureResult``, ``CurvatureHistoryResult`` or ``MinimumProbabilityResult`` (any object
with those fields). Error bars reach two standard errors.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.charts.marks import band, interval, names, rule, same, tips
from app.texts import texts

text = texts("stationary")

NEGATIVE, ZERO, POSITIVE = theme.CATEGORICAL[1], theme.MISSING, theme.CATEGORICAL[0]
ROOM = 90  # of a height, for the axes and the key inside it
SIGNS = ("negative", "zero", "positive")
SIGN_COLORS = {"negative": NEGATIVE, "zero": ZERO, "positive": POSITIVE}


def _sign_color(legend: str | None = "top") -> alt.Color:
    return names("sign", {text(f"sign.{sign}"): tone for sign, tone in SIGN_COLORS.items()}, legend, symbolOpacity=1)


def _decades(domain: list[float], fmt: str = ".0e") -> alt.Axis:
    """Return a logarithmic axis that marks whole decades: minor lines would cover the curve."""
    low, high = np.log10(domain)
    values = 10.0 ** np.arange(np.ceil(low), np.floor(high) + 1)
    if len(values) < 3:  # a narrow range needs marks inside the decade
        values = np.unique(np.outer(10.0 ** np.arange(np.floor(low), np.ceil(high) + 1), [1, 2, 5]))
        values = values[(values >= domain[0]) & (values <= domain[1])]
    return alt.Axis(format=fmt, values=[float(v) for v in values])


def _sign_names(values: np.ndarray, threshold: float) -> list[str]:
    sign = np.where(values <= -threshold, 0, np.where(values >= threshold, 2, 1))
    return [text(f"sign.{SIGNS[i]}") for i in sign]


def eigenvalue_ends(result: Any) -> alt.LayerChart:
    """Draw the ends of the spectrum as bars from zero, one a rank; hollow dots have not converged."""
    values = np.asarray(result.eigenvalues, dtype=float)
    half = len(values) // 2 if np.isfinite(result.lambda_max) and np.isfinite(result.lambda_min) else len(values)
    ranks = [f"λ{i + 1}" for i in range(half)] + [
        f"λ{result.n_parameters - len(values) + i + 1}" for i in range(half, len(values))
    ]
    if len(values) >= result.n_parameters:
        ranks = [f"λ{i + 1}" for i in range(len(values))]
    table = pd.DataFrame(
        {
            "rank": ranks,
            "value": values,
            "residual": result.residuals,
            "relative": np.asarray(result.residuals) / np.maximum(np.abs(values), 1e-300),
            "low": values - result.residuals,
            "high": values + result.residuals,
            "sign": _sign_names(values, result.zero_threshold),
            "state": [text("converged" if ok else "open") for ok in result.converged],
        }
    )
    y = alt.Y(
        "rank:N",
        sort=ranks,
        title=text("axis.rank"),
        axis=alt.Axis(ticks=False, grid=False, labelOverlap=False, labelFlush=False),
    )
    x = alt.X("value:Q", title=text("axis.eigenvalue"), scale=alt.Scale(zero=True, nice=True))
    color = _sign_color()
    residuals = (("residual:Q", "‖Hv − λv‖", ".2g"), ("relative:Q", "‖Hv − λv‖ / |λ|", ".2g"))
    told = tips(("rank:N", text("axis.rank")), ("value:Q", "λ", ".5g"), *residuals, ("state:N", text("state")))
    base, settled = alt.Chart(table), table["state"] == text("converged")
    layers = [
        base.mark_bar(opacity=0.35, height=4).encode(x=x, y=y, color=color),
        interval(base, x, y, 3, color=color),
    ]
    for rows, filled in ((table[settled], True), (table[~settled], False)):
        if len(rows):  # an empty layer is a picture without a name to a screen reader
            dots = alt.Chart(rows).mark_point(filled=filled, size=70, strokeWidth=2, opacity=1)
            layers.append(dots.encode(x=x, y=y, color=color, tooltip=told))
    said = ", ".join(f"{v:.3g}" for v in values[:half][:3])
    low = f"{values[-1]:.3g}" if len(values) else "…"
    described = text("alt.ends", largest=said or "…", smallest=low)
    return theme.describe(alt.layer(*layers), described, height=max(theme.LEAST + 40, 20 * len(values) + ROOM))


def density(result: Any, *, log: bool = True, height: int = theme.HEIGHT) -> alt.LayerChart:
    """Draw the spectral density with its standard error, the known eigenvalues as ticks under it.

    A single eigenvalue of P stands as a peak of height 1/(P σ √(2π)): the logarithmic axis begins a little below
    that, so that one outlier among hundreds of thousands is still seen.
    """
    grid, values = (np.asarray(part, dtype=float) for part in result.density)
    error = np.asarray(result.density_stderr, dtype=float)
    single = 1 / (max(result.n_parameters, 1) * result.density_sigma * np.sqrt(2 * np.pi))
    floor = single / 5 if log else 0.0
    top = float((values + 2 * error).max())
    table = pd.DataFrame(
        {
            "value": grid,
            "density": np.maximum(values, floor),
            "low": np.maximum(values - 2 * error, floor),
            "high": np.maximum(values + 2 * error, floor),
        }
    )
    domain = [floor, top * 1.6] if log else [0.0, top * 1.05]
    scale = alt.Scale(type="log" if log else "linear", domain=domain, nice=False)
    x = alt.X("value:Q", title=text("axis.eigenvalue"), scale=alt.Scale(nice=False))
    axis = _decades(domain) if log else alt.Axis(format="~g", tickCount=6)
    y = alt.Y("density:Q", title=text("axis.density"), scale=scale, axis=axis)
    base = alt.Chart(table)
    marks = pd.DataFrame({"value": result.eigenvalues, "foot": floor if log else 0.0})
    marks = marks.assign(sign=_sign_names(marks["value"].to_numpy(float), result.zero_threshold))
    told = tips(("value:Q", "λ", ".4g"), ("density:Q", text("axis.density"), ".3g"))
    ticks = alt.Chart(marks).mark_tick(thickness=2, size=16, orient="vertical", yOffset=-8, clip=False)
    layers = [
        band(base, x, y, 0.18, color=alt.value(POSITIVE)),
        base.mark_line(strokeWidth=1.8, color=POSITIVE, clip=True).encode(x=x, y=y, tooltip=told),
        ticks.encode(x=x, y=same(y, "foot:Q"), color=_sign_color(), tooltip=tips(("value:Q", "λ", ".5g"))),
        rule(x, 0.0),
    ]
    return theme.describe(
        alt.layer(*layers),
        text("alt.density", low=f"{grid.min():.3g}", high=f"{grid.max():.3g}"),
        height=height,
    )


def fractions(result: Any, *, height: int = theme.LEAST) -> alt.LayerChart:
    """Draw the shares of negative, zero and positive eigenvalues with error bars of two standard errors."""
    share = np.asarray(result.fractions, dtype=float)
    reach = 2 * np.asarray(result.fractions_stderr, dtype=float)
    table = pd.DataFrame(
        {
            "sign": [text(f"sign.{sign}") for sign in SIGNS],
            "share": share,
            "low": np.clip(share - reach, 0, 1),
            "high": np.clip(share + reach, 0, 1),
            "stderr": reach / 2,
            "label": [
                f"{100 * s:.2f} ± {50 * r:.1g} %" if r > 0 else f"{100 * s:.2f} %"
                for s, r in zip(share, reach, strict=True)
            ],
        }
    )
    wide = table["high"] > 0.6
    table = table.assign(place=table["high"].where(~wide), inner=table["low"].where(wide))
    y = alt.Y("sign:N", sort=list(table["sign"]), title=None, axis=alt.Axis(ticks=False))
    title = text("axis.share")
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("share:Q", title=title, scale=scale, axis=alt.Axis(format=".0%"))
    tooltip = tips(("share:Q", title, ".2%"), ("stderr:Q", text("stderr"), ".2%"))
    base = alt.Chart(table)
    bars = base.mark_bar(opacity=0.75, height=alt.RelativeBandSize(0.55))
    # A share of one in a thousand is invisible as a bar and the most important number here: written beside it.
    beside = base.mark_text(align="left", dx=6, color=theme.NEUTRAL)
    inside = base.mark_text(align="right", dx=-8, color="white", fontWeight=600)
    layers = [
        bars.encode(x=x, y=y, color=_sign_color(None), tooltip=tooltip),
        _whiskers(base, x, y),
        beside.encode(x=same(x, "place:Q"), y=y, text="label:N"),
        inside.encode(x=same(x, "inner:Q"), y=y, text="label:N"),
    ]
    said = ", ".join(f"{name} {s:.1%}" for name, s in zip(table["sign"], share, strict=True))
    return theme.describe(alt.layer(*layers), text("alt.fractions", said=said), height=height)


def _whiskers(base: alt.Chart, x: alt.X, y: alt.Y) -> alt.Chart:
    """Return error bars with ticks at their ends, from ``low`` to ``high``."""
    bars = base.mark_errorbar(ticks=alt.MarkConfig(size=14), thickness=1.5, color=theme.NEUTRAL)
    return bars.encode(x=same(x, "low:Q"), x2="high:Q", y=y)


def traces(result: Any, *, height: int = theme.LEAST) -> alt.LayerChart:
    """Draw the traces of the four matrices beside each other, with error bars of two standard errors."""
    rows = [
        (text(f"kind.{name}"), row["value"], row["value"] - 2 * row["stderr"], row["value"] + 2 * row["stderr"])
        for name, row in result.traces.items()
    ]
    table = pd.DataFrame(rows, columns=["matrix", "value", "low", "high"])
    y = alt.Y("matrix:N", sort=list(table["matrix"]), title=None, axis=alt.Axis(ticks=False, labelLimit=180))
    title = text("axis.trace")
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=True))
    base = alt.Chart(table)
    dots = base.mark_point(filled=True, size=80, opacity=1, color=POSITIVE)
    layers = [_whiskers(base, x, y), dots.encode(x=x, y=y, tooltip=tips(("value:Q", title, ".4g")))]
    said = ", ".join(f"{row[0]} {row[1]:.3g}" for row in rows)
    return theme.describe(alt.layer(*layers), text("alt.traces", said=said), height=height)


def layers(result: Any, *, what: str = "trace") -> alt.LayerChart:
    """Draw a bar for each layer's own block, in the order of the network.

    Parameters
    ----------
    result : CurvatureResult
    what : {"trace", "lambda_max", "mean"}
        ``mean`` is the trace over the number of parameters: the mean curvature of one weight.
    """
    rows = []
    for row in result.layers:
        name = "lambda_max" if what == "lambda_max" else "trace"
        value, error = row[name], row["lambda_max_residual"] if name == "lambda_max" else 2 * row["trace_stderr"]
        scale = 1 / row["n_parameters"] if what == "mean" else 1.0
        if np.isfinite(value):
            ends = (scale * (value - error), scale * (value + error))
            rows.append((row["group"], row["n_parameters"], scale * value, *ends))
    table = pd.DataFrame(rows, columns=["layer", "size", "value", "low", "high"])
    order = [row["group"] for row in result.layers]
    title = text(f"axis.layer.{what}")
    axis = alt.Axis(ticks=False, labelLimit=170, labelOverlap=False, labelFlush=False)
    y = alt.Y("layer:N", sort=order, title=text("axis.layer"), axis=axis)
    tooltip = tips(("layer:N", text("axis.layer")), ("value:Q", title, ".4g"), ("size:Q", text("axis.parameters"), ","))
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=True))
    base = alt.Chart(table)
    bars = base.mark_bar(color=POSITIVE, opacity=0.75).encode(x=x, y=y, tooltip=tooltip)
    drawn = alt.layer(bars, interval(base, x, y, 1.5))
    height = max(theme.LEAST, 18 * len(table) + ROOM)
    return theme.describe(drawn, text("alt.layers", count=len(table)), height=height)


def through_training(result: Any, *, log: bool = True, height: int = theme.HEIGHT) -> alt.LayerChart:
    """Draw λ_max of every checkpoint with the lines 2/η and, with momentum, 2(1+β)/η."""
    steps = np.asarray(result.steps, dtype=float)
    rows = [(s, text("curve.lambda_max"), v) for s, v in zip(steps, result.lambda_max, strict=True)]
    curves = [text("curve.lambda_max"), text("curve.edge")]
    rows += [(s, curves[1], v) for s, v in zip(steps, result.edge, strict=True)]
    if result.momentum > 0:
        curves.append(text("curve.edge_momentum"))
        rows += [(s, curves[2], v) for s, v in zip(steps, result.edge_momentum, strict=True)]
    table = pd.DataFrame(rows, columns=["step", "curve", "value"])
    table = table[np.isfinite(table["value"]) & ((table["value"] > 0) | (not log))]
    # A schedule that falls to 0 sends 2/η to infinity: the axis follows what was measured, and the line while near.
    seen = table[table["curve"] == curves[0]]["value"]
    edges = table[table["curve"] != curves[0]]["value"]
    domain: dict[str, Any] = {}
    if len(seen):
        near = edges[edges <= 20 * float(seen.max())]
        top = max(float(seen.max()), float(near.max()) if len(near) else 0.0, float(edges.min()) if len(edges) else 0.0)
        bottom = min(float(seen.min()), float(edges.min()) if len(edges) else float("inf"))
        domain["domain"] = [bottom / 1.5, top * 1.5] if log else [min(bottom, 0.0), top * 1.08]
    scale = theme.axis_scale(log, nice=False, **domain)
    x = alt.X("step:Q", title=text("axis.epoch"), axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False, padding=8))
    axis = _decades(domain["domain"], "~g") if log and domain else alt.Axis(format="~g", tickCount=6)
    y = alt.Y("value:Q", title=text("axis.lambda_max"), scale=scale, axis=axis)
    palette = dict(zip(curves, (POSITIVE, theme.ACCENT, theme.CATEGORICAL[3]), strict=False))
    color = names("curve", palette, symbolType="stroke", symbolSize=300, symbolStrokeWidth=3)
    dashes = alt.Scale(domain=curves, range=[[1, 0], [6, 3], [2, 3]][: len(curves)])
    dash = alt.StrokeDash("curve:N", scale=dashes, legend=None)
    tooltip = tips(("step:Q", text("axis.epoch")), ("curve:N", " "), ("value:Q", "λ", ".4g"))
    base = alt.Chart(table)
    points = alt.Chart(table[table["curve"] == curves[0]])
    marks = [
        base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=color, strokeDash=dash),
        points.mark_point(filled=True, size=40, opacity=1, clip=True).encode(x=x, y=y, color=color, tooltip=tooltip),
    ]
    said = f"{seen.iloc[0]:.3g} – {seen.iloc[-1]:.3g}" if len(seen) else "…"
    return theme.describe(alt.layer(*marks), text("alt.training", count=len(steps), said=said), height=height)


def trace_through_training(result: Any, *, height: int = theme.HEIGHT_SMALL) -> alt.LayerChart:
    """Draw the trace of every checkpoint with a band of two standard errors."""
    table = pd.DataFrame({"step": result.steps, "trace": result.traces, "error": 2 * np.asarray(result.trace_stderrs)})
    table = table[np.isfinite(table["trace"])]
    table = table.assign(low=table["trace"] - table["error"], high=table["trace"] + table["error"])
    title = text("axis.trace")
    x = alt.X("step:Q", title=text("axis.epoch"), axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False, padding=8))
    y = alt.Y("trace:Q", title=title, scale=alt.Scale(zero=False))
    base = alt.Chart(table)
    dots = base.mark_point(filled=True, size=36, opacity=1, color=POSITIVE)
    marks = [
        band(base, x, y, color=alt.value(POSITIVE)),
        base.mark_line(strokeWidth=2, color=POSITIVE).encode(x=x, y=y),
        dots.encode(x=x, y=y, tooltip=tips(("step:Q", text("axis.epoch")), ("trace:Q", None, ".4g"))),
    ]
    return theme.describe(alt.layer(*marks), text("alt.trace_training", count=len(table)), height=height)


def minimum_probability(result: Any, *, height: int = theme.HEIGHT) -> alt.LayerChart:
    """Draw the share of minima against the dimension, beside the two laws, on a logarithmic axis.

    Dimensions where no minimum was seen show a triangle at the upper end of the interval: a bound, not a value.
    """
    d = np.asarray(result.dimensions)
    hit = np.asarray(result.n_minima) > 0
    fine = np.linspace(d.min(), d.max(), 200) if len(d) else np.empty(0)
    curves = [text("curve.coins"), text("curve.goe"), text("curve.drawn")]
    both = np.concatenate([fine, fine])
    chances = np.concatenate([0.5**fine, np.exp(-np.log(3) / 4 * fine**2)])
    laws = pd.DataFrame({"d": both, "curve": np.repeat(curves[:2], len(fine)), "p": chances})
    drawn = pd.DataFrame(
        {
            "d": d,
            "curve": curves[2],
            "p": np.where(hit, result.probability, result.high),
            "low": np.where(hit, result.low, result.high),
            "high": result.high,
            "n": result.n_samples,
            "minima": result.n_minima,
            "hit": hit,
        }
    )
    bottom = float(min(drawn["low"].min(), drawn["p"].min())) / 3 if len(drawn) else 1e-3
    scale = alt.Scale(type="log", domain=[bottom, 1.3], nice=False)
    across = {"axis": alt.Axis(tickMinStep=1, format="d"), "scale": alt.Scale(nice=False, padding=14)}
    x = alt.X("d:Q", title=text("axis.dimension"), **across)
    title = text("axis.probability")
    y = alt.Y("p:Q", title=title, scale=scale, axis=_decades([bottom, 1.3]))
    palette = dict(zip(curves, (theme.NEUTRAL, theme.CATEGORICAL[1], POSITIVE), strict=True))
    color = names("curve", palette, direction="vertical", labelLimit=300)
    counts = (("minima:Q", text("minima"), ","), ("n:Q", text("matrices"), ","))
    told = tips(("d:Q", text("axis.dimension")), ("p:Q", title, ".3g"), *counts)
    seen, bounds = alt.Chart(drawn[drawn["hit"]]), alt.Chart(drawn[~drawn["hit"]])
    triangle = {"shape": "triangle-down", "filled": False, "strokeWidth": 2, "size": 90}
    reach = alt.Chart(drawn).mark_rule(strokeWidth=2, clip=True)
    marks = [
        alt.Chart(laws).mark_line(strokeWidth=2, clip=True, strokeDash=[5, 3]).encode(x=x, y=y, color=color),
        reach.encode(x=x, y=same(y, "low:Q"), y2="high:Q", color=color),
        seen.mark_point(filled=True, size=70, opacity=1, clip=True).encode(x=x, y=y, color=color, tooltip=told),
        bounds.mark_point(**triangle, clip=True).encode(x=x, y=y, color=color, tooltip=told),
    ]
    said = "; ".join(f"d = {k}: {p:.3g}" for k, p in zip(d, result.probability, strict=True))
    return theme.describe(alt.layer(*marks), text("alt.minimum", said=said), height=height)
