"""Charts of a saddle being left: paths on the plane of two modes, loss curves, leaving times.

Every function takes an ``EscapeResult`` and returns an Altair chart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import surface, theme
from app.charts.marks import band, decades, names, rule, tips
from app.texts import texts

text = texts("escape")

COLORS = (*theme.CATEGORICAL, theme.NEUTRAL)
OUTCOMES = {"left": "circle", "stayed": "square", "diverged": "cross"}


def name_of(optimizer: str) -> str:
    """Return what a person calls an optimiser."""
    return text(f"optimizer.{optimizer}")


def color(result: Any, *, legend: str | None = "bottom") -> alt.Color:
    """Return the encoding of the optimisers, each with the same colour in every chart and run."""
    every = dict(zip(text.options("optimizer"), cycle(COLORS), strict=False))
    found = {name_of(key): tone for key, tone in every.items() if key in result.optimizers}
    encoding = names("optimizer", found, legend, columns=3 if legend == "bottom" else 1, symbolOpacity=1)
    encoding.title = text("optimizer")
    return encoding


def paths(result: Any, radius: int = 0, shown: Sequence[str] | None = None, *, height: int = 420) -> alt.LayerChart:
    """Draw a path of each optimiser from one radius over the loss on the plane of the negative and positive mode.

    Parameters
    ----------
    result : EscapeResult
    radius : int, default=0
        Which radius.
    shown : sequence of str, optional
        Optimisers to draw; all by default.
    height : int, default=420
        Pixels.
    """
    plane = result.plane
    titles = tuple(text(f"axis.{name}.{_axis_kind(result)}") for name in ("negative", "positive"))
    shape = {"axes": (plane["x"], plane["y"]), "losses": plane["losses"], "axis_titles": titles}
    base = surface.heat_map(
        SimpleNamespace(**shape, settings=result.settings), log=False, levels=14, clip=0.95, height=height
    )
    rows = path_table(result, radius, shown)
    rows = rows[rows["seed"] == rows.groupby("optimizer")["seed"].transform("min")]  # ten of each hide one another
    layers: list[alt.Chart] = [base]
    if len(rows):
        reach = [float(np.max(plane[axis])) for axis in ("x", "y")]
        inside = (rows["x"].abs() <= 1.05 * reach[0]) & (rows["y"].abs() <= 1.05 * reach[1])
        # a path ends at the edge of the map: what comes after is far from the saddle
        rows = rows[inside.groupby([rows["optimizer"], rows["seed"]]).cummin()]
        line = alt.Chart(rows).mark_line(clip=True, strokeWidth=1.4, opacity=0.9)
        told = (("optimizer:N", text("optimizer")), ("seed:Q", text("seed")), ("step:Q", text("step")))
        tooltip = tips(*told, ("loss:Q", None, theme.LOSS_FORMAT))
        layers.append(
            line.encode(
                x="x:Q", y="y:Q", color=color(result, legend="right"), detail="seed:N", order="step:Q", tooltip=tooltip
            )
        )
    drawn = ", ".join(dict.fromkeys(rows["optimizer"])) if len(rows) else text("nothing_moved")
    return theme.describe(
        alt.layer(*layers).resolve_scale(color="independent"),
        text("alt.paths", radius=f"{result.radii[radius]:g}", names=drawn),
        height=height,
        usermeta=theme.about(height),
    )


def path_table(result: Any, radius: int, shown: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the paths as rows (optimizer, seed, step, x, y, loss); those that never moved are left out."""
    columns = ["optimizer", "seed", "step", "x", "y", "loss"]
    rows = []
    for i, optimizer in _shown(result, shown):
        for seed in np.flatnonzero(result.moved[i, radius]):
            spots, losses = result.trajectories[i, :, radius, seed], result.losses[i, :, radius, seed]
            values = (name_of(optimizer), int(seed), result.recorded_steps, spots[:, 0], spots[:, 1], losses)
            rows.append(pd.DataFrame(dict(zip(columns, values, strict=True))))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def _shown(result: Any, shown: Sequence[str] | None) -> list[tuple[int, str]]:
    """Return the places and names of the optimisers to draw."""
    return [(i, name) for i, name in enumerate(result.optimizers) if shown is None or name in shown]


def loss_curves(
    result: Any, radius: int = 0, shown: Sequence[str] | None = None, *, log: bool = True, height: int = 440
) -> alt.LayerChart:
    """Draw loss minus the saddle's loss against the step: the median of the seeds with its quartiles."""
    rows = curve_table(result, radius, shown)
    scale = theme.axis_scale(log, domain=[1 if log else 0, max(result.max_steps, 2)], nice=False)
    x = alt.X("step:Q", title=text("axis.step"), scale=scale)
    if log:
        rows = rows[rows["step"] > 0]
    y = alt.Y("median:Q", title=text("axis.drop"), scale=_drop_scale(result, rows))
    base, tone = alt.Chart(rows), color(result)
    told = tips(("optimizer:N", text("optimizer")), ("step:Q", text("step")), ("median:Q", text("median"), ".3g"))
    line = base.mark_line(strokeWidth=2, clip=True).encode(x=x, y=y, color=tone, tooltip=told)
    return theme.describe(
        alt.layer(band(base, x, y, 0.18, color=tone), rule(y, -result.threshold), line),
        text("alt.curves", radius=f"{result.radii[radius]:g}", threshold=f"{result.threshold:g}"),
        height=height,
    )


def curve_table(result: Any, radius: int, shown: Sequence[str] | None = None) -> pd.DataFrame:
    """Return loss minus the saddle's loss: quartiles over the seeds at each recorded step."""
    columns = ["optimizer", "step", "low", "median", "high"]
    rows = []
    for i, optimizer in _shown(result, shown):
        drop = result.losses[i, :, radius] - result.saddle["loss"]
        quartiles = np.quantile(np.nan_to_num(drop, nan=np.inf), [0.25, 0.5, 0.75], axis=1, method="nearest")
        values = (name_of(optimizer), result.recorded_steps, *quartiles)
        rows.append(pd.DataFrame(dict(zip(columns, values, strict=True))))
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    return table[np.isfinite(table[["low", "median", "high"]].to_numpy(float)).all(axis=1)]


def escape_times(result: Any, radius: int = 0, *, height: int = 34) -> alt.LayerChart:
    """Draw the leaving step of every run from one radius as a dot, the quartiles as a bar, log axis.

    Runs still there at the end stand at the right edge as hollow squares, diverged ones as crosses.
    """
    start = f"{result.radii[radius]:g}"
    table = times_table(result)
    table = table[table["radius"] == text("panel.radius", radius=start)]
    order = [name_of(key) for key in text.options("optimizer") if key in result.optimizers]
    last = 2.0 * max(result.max_steps, 1)
    x = alt.X("steps:Q", title=text("axis.leaving"), scale=alt.Scale(type="log", domain=[1, last], nice=False))
    y = alt.Y("optimizer:N", title=None, sort=order)
    base, tone = alt.Chart(table), color(result, legend=None)

    def only(what: str) -> alt.Chart:
        return base.transform_filter(f"datum.what == '{what}'")

    bars = only("quartiles").mark_rule(strokeWidth=5, opacity=0.35).encode(x=x, x2="high:Q", y=y, color=tone)
    medians = only("median").mark_tick(thickness=3, size=18).encode(x=x, y=y, color=tone)
    diamond = {"shape": "diamond", "size": 70, "filled": False, "strokeWidth": 1.8, "color": theme.NEUTRAL}
    theory = only("theory").mark_point(**diamond).encode(x=x, y=y, tooltip=tips(("steps:Q", text("theory"), ".0f")))
    shapes = alt.Scale(domain=[text(f"outcome.{name}") for name in OUTCOMES], range=list(OUTCOMES.values()))
    told = (("optimizer:N", text("optimizer")), ("outcome:N", text("outcome")), ("steps:Q", text("step"), ".0f"))
    dots = (
        only("run")
        .mark_point(size=42, opacity=0.75)
        .encode(
            x=x,
            y=y,
            yOffset=alt.YOffset("jitter:Q", scale=alt.Scale(domain=[-1.6, 1.6])),
            color=tone,
            shape=alt.Shape("outcome:N", title=text("outcome"), scale=shapes, legend=alt.Legend(orient="bottom")),
            tooltip=tips(*told),
        )
    )
    return theme.describe(
        alt.layer(bars, theory, medians, dots),
        text("alt.times", n=result.escape_steps.shape[2], radius=start),
        height=height * len(order) + 130,  # the axis and the key lie inside it
    )


def times_table(result: Any) -> pd.DataFrame:
    """Return one row a run, and rows for medians, quartiles and the theory; stayed runs stand at the edge."""
    rows: list[dict[str, Any]] = []
    edge = 1.5 * max(result.max_steps, 1)
    for i, optimizer in enumerate(result.optimizers):
        for j, radius in enumerate(result.radii):
            steps, diverged = result.escape_steps[i, j], result.diverged[i, j]
            where = {"optimizer": name_of(optimizer), "radius": text("panel.radius", radius=f"{radius:g}")}
            spread = np.linspace(-1, 1, len(steps)) if len(steps) > 1 else np.zeros(1)
            for step, burst, jitter in zip(steps, diverged, spread, strict=True):
                outcome = text("outcome." + ("diverged" if burst else "left" if np.isfinite(step) else "stayed"))
                at = max(step, 1.0) if np.isfinite(step) else edge
                rows.append({**where, "what": "run", "outcome": outcome, "steps": at, "jitter": float(jitter)})
            low, middle, high = (float(np.quantile(steps, q, method="inverted_cdf")) for q in (0.25, 0.5, 0.75))
            if np.isfinite(low):
                end = high if np.isfinite(high) else edge
                rows.append({**where, "what": "quartiles", "steps": max(low, 1.0), "high": end})
            if np.isfinite(middle):
                rows.append({**where, "what": "median", "steps": max(middle, 1.0)})
            predicted = float(np.median(result.theory_steps[i, j]))
            if 0 < predicted <= edge:
                rows.append({**where, "what": "theory", "steps": max(predicted, 1.0)})
    return pd.DataFrame(rows)


def spectrum(result: Any, *, height: int = theme.LEAST + 60) -> alt.Chart:
    """Draw the eigenvalues of the Hessian at the saddle as ticks; negative ones in the accent colour."""
    values = np.asarray(result.saddle["eigenvalues"], float)
    rows = pd.DataFrame({"value": values, "sign": np.where(values < 0, text("negative"), text("positive"))})
    largest = float(np.abs(values).max()) or 1.0
    scale = alt.Scale(type="symlog", constant=largest / 100)
    x = alt.X("value:Q", title=text("axis.eigenvalue"), scale=scale, axis=decades(rows["value"], largest / 100))
    tones = names("sign", {text("negative"): theme.ACCENT, text("positive"): theme.CATEGORICAL[0]}, "bottom")
    ticks = alt.Chart(rows).mark_tick(thickness=2, size=70)
    chart = ticks.encode(x=x, color=tones, tooltip=tips(("value:Q", text("axis.eigenvalue"), ".4g")))
    negative = int((values < 0).sum())
    return theme.describe(chart, text("alt.spectrum", n=len(values), negative=negative), height=height)


def _axis_kind(result: Any) -> str:
    return "formula" if result.saddle.get("n_moving") == 2 else "mode"


def _drop_scale(result: Any, rows: pd.DataFrame) -> alt.Scale:
    lowest = float(rows["median"].min()) if len(rows) else -1.0
    floor = min(lowest, -2 * result.threshold)
    return alt.Scale(domain=[1.05 * floor, -0.25 * floor], nice=False)
