"""Charts of a comparison of architectures: maps on one scale, dots with spread, rank correlations, width.

Every function takes a ``ComparisonResult`` (or a ``WidthSweepResult``) and returns an Altair chart.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import surface, theme
from app.charts.marks import interval, rule, shared, tips
from app.texts import texts

text = texts("architectures")

LOGARITHMIC = frozenset({"lambda_max", "trace", "train_loss", "n_parameters"})
PANEL = 210
ROW = 30
AXIS = 64  # of a chart's height, for the axis under it: on screen the height holds both


def title_of(quantity: str) -> str:
    """Return a quantity's name with its unit."""
    return text(f"quantity.{quantity}")


def _colors(names: Sequence[str]) -> alt.Scale:
    palette = [theme.CATEGORICAL[i % len(theme.CATEGORICAL)] for i in range(len(names))]
    return alt.Scale(domain=list(names), range=palette)


def _positive(values: pd.Series) -> bool:
    return bool(len(values)) and bool((values > 0).all())


def maps(result: Any) -> list[tuple[str, Any]]:
    """Return the variants that have a map, each with what the surface charts draw."""
    found = []
    for name, losses in zip(result.names, np.asarray(result.surfaces, float), strict=True):
        if not np.isnan(losses).all():
            titles = (shared("axis.first.filter"), shared("axis.second.filter"))
            panel = SimpleNamespace(axes=tuple(np.asarray(result.axes)), losses=losses, axis_titles=titles)
            found.append((name, panel))
    return found


def domain_of(result: Any, *, log: bool = True, clip: float = 1.0) -> tuple[float, float]:
    """Return the colour domain that all maps of a comparison share."""
    return surface.shared_domain([one for _, one in maps(result)], log=log, clip=clip)


def small_multiples(
    result: Any, *, log: bool = True, levels: int = 10, scheme: str = "viridis", columns: int = 4
) -> alt.ConcatChart:
    """Draw all maps side by side on one colour scale, for a file or a report.

    Parameters
    ----------
    result : ComparisonResult
    log : bool, default=True
        Logarithmic colours.
    levels : int, default=10
        Isolines of each map.
    scheme : str
        A value of :data:`app.charts.theme.SCHEMES`.
    columns : int, default=4
        Maps in a row.
    """
    drawn = maps(result)
    if not drawn:
        raise ValueError("result must hold at least one map, got none. Fit with maps='first'.")
    domain = domain_of(result, log=log)
    panels = [
        surface.heat_map(
            one,
            log=log,
            levels=levels,
            scheme=scheme,
            domain=domain,
            title=name,
            height=PANEL,
            legend=last,
            equal=False,
        ).properties(width=PANEL)
        for last, (name, one) in ((number == len(drawn) - 1, pair) for number, pair in enumerate(drawn))
    ]
    description = text("alt.maps", names=", ".join(name for name, _ in drawn))
    joined = alt.concat(*panels, columns=min(columns, len(panels)))
    # The domain is the same already; sharing the scale would take the legend from the one panel that has it.
    return theme.describe(joined.resolve_scale(color="independent"), description)


def dots(result: Any, quantity: str, *, color: bool = True) -> alt.LayerChart:
    """Draw one quantity: a small dot a seed, the mean as a line, its spread as a bar.

    Parameters
    ----------
    result : ComparisonResult
    quantity : str
        A column of the table.
    color : bool, default=True
        A colour for each variant, the one it has in the other charts.
    """
    columns = ["variant", "seed", "value", "status"]
    table = pd.DataFrame(result.table).rename(columns={quantity: "value"}).reindex(columns=columns)
    numbers = table.dropna(subset=["value"]).assign(value=lambda t: t["value"].astype(float))
    log = quantity in LOGARITHMIC and _positive(numbers["value"])
    names = list(result.names)
    # Mean and spread come from the same rows as the dots, so that a live table needs no summary of its own.
    summary = numbers.groupby("variant")["value"].agg(["mean", "std", "count"]).reset_index()
    summary["low"], summary["high"] = summary["mean"] - summary["std"], summary["mean"] + summary["std"]
    if log:
        summary["low"] = summary["low"].where(summary["low"] > 0, numbers["value"].min())
    scale = theme.axis_scale(log, padding=10, nice=False)
    x = alt.X("value:Q", title=title_of(quantity), scale=scale, axis=alt.Axis(format="~g", tickCount=5))
    failed = table[table["status"] != "ok"].groupby("variant").size()
    labels = {n: f"{n} ({text('failed_runs', count=c)})" for n, c in failed.items()}
    axis = alt.Axis(labelLimit=260, labelOverlap=False, labelExpr=f"{json.dumps(labels)}[datum.value] || datum.value")
    y = alt.Y("variant:N", title=None, sort=names, scale=alt.Scale(domain=names), axis=axis)
    tone = alt.Color("variant:N", scale=_colors(names), legend=None) if color else alt.value(theme.CATEGORICAL[0])
    told = tips(
        ("variant:N", text("col.variant")), ("seed:N", text("col.seed")), ("value:Q", title_of(quantity), ".4g")
    )
    spread = (("mean:Q", text("col.mean"), ".4g"), ("std:Q", text("col.spread"), ".3g"), ("count:Q", text("col.runs")))
    bars, ticks = alt.Chart(summary.dropna(subset=["std"])).mark_bar(height=10, opacity=0.25), alt.Chart(summary)
    layers = [
        bars.encode(x=alt.X("low:Q", title=title_of(quantity), scale=scale), x2="high:Q", y=y, color=tone),
        alt.Chart(numbers).mark_point(filled=True, size=48, opacity=0.9).encode(x=x, y=y, color=tone, tooltip=told),
        ticks.mark_tick(thickness=2.5, size=18).encode(
            x=alt.X("mean:Q", scale=scale), y=y, color=tone, tooltip=tips(("variant:N", text("col.variant")), *spread)
        ),
    ]
    said = "; ".join(
        f"{r['variant']} {r['mean']:.3g}" + ("" if np.isnan(r["std"]) else f" ± {r['std']:.2g}")
        for _, r in summary.iterrows()
    )
    return theme.describe(
        alt.layer(*layers),
        text("alt.dots", quantity=title_of(quantity), said=said or text("alt.no_number")),
        height=max(theme.LEAST, AXIS + ROW * len(names)),
    )


def correlations(result: Any) -> alt.LayerChart:
    """Draw Kendall's τ of each sharpness measure with the gap, with its 95 % interval."""
    table = pd.DataFrame(result.correlations)
    table["label"] = [title_of(m) for m in table["measure"]]
    order = list(table["label"])
    known = table.dropna(subset=["tau"])
    scale = alt.Scale(domain=[-1, 1])
    axis = alt.Axis(labelLimit=260, labelOverlap=False)
    y = alt.Y("label:N", title=None, sort=order, scale=alt.Scale(domain=order), axis=axis)
    x = alt.X("tau:Q", scale=scale, title=text("tau.axis", gap=title_of(table["gap"].iloc[0])))
    ends = (("low:Q", text("tau.low"), ".2f"), ("high:Q", text("tau.high"), ".2f"))
    told = tips(("label:N", text("col.measure")), ("tau:Q", "τ", ".2f"), *ends, ("n:Q", text("col.runs")))
    base = alt.Chart(known)
    layers = [
        rule(x, 0.0),
        interval(base, x, y, 2.5, color=alt.value(theme.TRAIN), tooltip=told),
        base.mark_point(filled=True, size=90, color=theme.TRAIN, opacity=1).encode(x=x, y=y, tooltip=told),
    ]
    unknown = table[table["tau"].isna()].assign(why=text("tau.unknown"), at=0.0)
    if len(unknown):
        words = alt.Chart(unknown).mark_text(align="left", dx=6, color=theme.NEUTRAL, fontSize=11)
        layers.append(words.encode(x=alt.X("at:Q", scale=scale), y=y, text="why:N"))
    said = "; ".join(f"{r['label']} {r['tau']:.2f} ({r['low']:.2f} – {r['high']:.2f})" for _, r in known.iterrows())
    return theme.describe(
        alt.layer(*layers),
        text("alt.tau", gap=title_of(table["gap"].iloc[0]), said=said or text("tau.unknown")),
        height=max(theme.LEAST, AXIS + ROW * len(table)),
    )


def against_gap(result: Any, measure: str) -> alt.Chart:
    """Draw one sharpness measure against the gap, one dot a run."""
    gap = result.correlations[0]["gap"]
    rows = [
        {"variant": r["variant"], "seed": r["seed"], "x": r[measure], "y": r[gap]}
        for r in result.table
        if r[measure] is not None and r[gap] is not None
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "x", "y"])
    scale = theme.axis_scale(measure in LOGARITHMIC and _positive(table["x"]), padding=10, nice=False)
    legend = alt.Legend(orient="bottom", columns=2, labelLimit=200)
    runs = (("variant:N", text("col.variant")), ("seed:N", text("col.seed")))
    chart = (
        alt.Chart(table)
        .mark_point(filled=True, size=80, opacity=0.9)
        .encode(
            x=alt.X("x:Q", title=title_of(measure), scale=scale, axis=alt.Axis(format="~g")),
            y=alt.Y("y:Q", title=title_of(gap), scale=theme.axis_scale()),
            color=alt.Color("variant:N", title=None, scale=_colors(list(result.names)), legend=legend),
            tooltip=tips(*runs, ("x:Q", title_of(measure), ".4g"), ("y:Q", title_of(gap), ".4g")),
        )
    )
    described = text("alt.against", measure=title_of(measure), gap=title_of(gap), n=len(table))
    return theme.describe(chart, described, height=380)


WIDTH_QUANTITIES = ("train_loss", "held_out_accuracy", "lambda_max", "zero_share", "barrier")


def width_sweep(result: Any, quantity: str = "train_loss") -> alt.LayerChart:
    """Draw one quantity of a width sweep against the number of parameters for each example.

    Parameters
    ----------
    result : WidthSweepResult
    quantity : str
        One of :data:`WIDTH_QUANTITIES`; the share of seeds near zero loss and the barrier are one number a
        width, the others one a seed.
    """
    if quantity not in WIDTH_QUANTITIES:
        raise ValueError(f"quantity must be one of {WIDTH_QUANTITIES}, got {quantity!r}. Choose one of them.")
    per_seed = quantity not in ("zero_share", "barrier")
    source = result.table if per_seed else result.summary
    rows = [
        {"x": r["parameters_per_example"], "factor": r["factor"], "seed": r.get("seed"), "y": r[quantity]}
        for r in source
        if r[quantity] is not None
    ]
    table = pd.DataFrame(rows, columns=["x", "factor", "seed", "y"])
    log = quantity in LOGARITHMIC and _positive(table["y"])
    mean = table.groupby(["x", "factor"], as_index=False)["y"].mean()
    ratio = title_of("parameters_per_example")
    x = alt.X("x:Q", title=ratio, scale=theme.axis_scale(True))
    y = alt.Y("y:Q", title=title_of(quantity), scale=theme.axis_scale(log), axis=alt.Axis(format="~g"))
    told = (("factor:Q", text("col.width"), "~g"), ("x:Q", ratio, ".3g"), ("y:Q", title_of(quantity), ".4g"))
    dots = alt.Chart(table).mark_point(filled=True, size=55, color=theme.TRAIN, opacity=0.85)
    layers = [
        rule(x, 1.0),
        alt.Chart(mean).mark_line(color=theme.TRAIN, strokeWidth=2, opacity=0.7).encode(x=x, y=y),
        dots.encode(x=x, y=y, tooltip=tips(*told)),
    ]
    said = "; ".join(f"× {r['factor']:g} {r['y']:.3g}" for _, r in mean.iterrows())
    return theme.describe(
        alt.layer(*layers),
        text("alt.width", quantity=title_of(quantity), said=said or text("alt.no_number")),
        height=theme.HEIGHT_SMALL,
    )
