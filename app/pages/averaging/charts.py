"""Charts of weight averages: a run and its averages by epoch, their plane, soup members, and seeds.

Functions take an ``AverageResult`` or a ``SwaComparisonResult`` of ``estimators`` and return an Altair chart.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import connectivity_pairs, surface, theme
from app.texts import texts

text = texts("averaging")

COLORS = {
    "sgd": theme.CATEGORICAL[1],
    "iterate": theme.NEUTRAL,
    "swa": theme.CATEGORICAL[0],
    "ema": theme.CATEGORICAL[2],
}
TITLES = {"loss": theme.LOSS_TITLE, "accuracy": theme.ACCURACY_TITLE}
FORMATS = {"loss": theme.LOSS_FORMAT, "accuracy": theme.ACCURACY_FORMAT}
SEED_QUANTITIES = {
    "held_out_accuracy": ("held-out accuracy (share correct)", ".1%", False),
    "held_out_loss": ("held-out loss (nats)", ".4g", False),
    "lambda_max": ("largest Hessian eigenvalue λ_max", ".4g", True),
    "average_sharpness": ("average-case sharpness (nats)", ".4g", True),
    "train_loss": ("training loss (nats)", ".4g", True),
}


def history(result: Any, *, quantity: str = "loss", on: str = "held_out", log: bool = False) -> alt.LayerChart:
    """Draw loss or accuracy by epoch: the iterate, its running and exponential mean, and plain SGD.

    Parameters
    ----------
    result : AverageResult
        With ``history``.
    quantity : {"loss", "accuracy"}
    on : {"train", "held_out"}
        Examples.
    log : bool, default=False
        Logarithmic loss.
    """
    _check("quantity", quantity, TITLES)
    _check("on", on, ("train", "held_out"))
    column = f"{on}_{quantity}"
    table = pd.DataFrame(result.history)
    if len(table):
        table = table.assign(value=table[column].astype(float))
        table = table[np.isfinite(table["value"])]
    else:
        table = pd.DataFrame({"epoch": [], "role": [], "value": [], "learning_rate": []})
    present = [role for role in COLORS if role in set(table["role"])]
    names = {role: text("role." + role) for role in present}
    table = table.assign(series=[names[r] for r in table["role"]])
    color = alt.Color(
        "series:N",
        title=None,
        scale=alt.Scale(domain=list(names.values()), range=[COLORS[r] for r in present]),
        legend=alt.Legend(orient="top"),
    )
    log = log and quantity == "loss" and bool(len(table)) and bool((table["value"] > 0).all())
    base = alt.Chart(table).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y(
            "value:Q",
            title=f"{text('examples.' + on)}: {TITLES[quantity]}",
            scale=theme.axis_scale(log, **_limits(table, log)),
        ),
        color=color,
        tooltip=[
            alt.Tooltip("series:N", title="point"),
            alt.Tooltip("epoch:Q"),
            alt.Tooltip("value:Q", title=TITLES[quantity], format=FORMATS[quantity]),
            alt.Tooltip("learning_rate:Q", title="learning rate", format=".3g"),
        ],
    )
    layers: list[alt.Chart] = [base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=26)]
    first = min((row["epoch"] for row in result.history if row["role"] == "swa"), default=None)
    if first is not None:
        switch = pd.DataFrame({"epoch": [first - 0.5], "note": [text("chart.switch")]})
        rule = alt.Chart(switch).encode(x="epoch:Q")
        layers.append(rule.mark_rule(strokeDash=[4, 4], color=theme.NEUTRAL))
        layers.append(
            rule.mark_text(align="right", dx=-5, baseline="top", color=theme.NEUTRAL).encode(
                y=alt.value(4), text="note:N"
            )
        )
    ends = [f"{names[role]} {table[table['role'] == role]['value'].iloc[-1]:{FORMATS[quantity]}}" for role in present]
    described = f"{TITLES[quantity]} on {text('examples.' + on)} examples by epoch; last: {', '.join(ends) or 'none'}."
    return theme.describe(alt.layer(*layers), described, height=theme.HEIGHT)


def plane(result: Any, *, log: bool = True, levels: int = 12, scheme: str = "viridis") -> alt.LayerChart:
    """Draw the plane through the runs after the switch: the loss in it, both trajectories, the averages.

    Parameters
    ----------
    result : AverageResult
        With ``plane_*``.
    log, levels, scheme
        As in :func:`app.charts.surface.heat_map`.
    """
    drawn = SimpleNamespace(
        axes=(result.plane_x, result.plane_y),
        losses=result.plane_losses,
        markers=result.plane_markers,
        trajectories=result.plane_trajectories,
        axis_titles=result.plane_titles,
    )
    chart = surface.heat_map(drawn, log=log, levels=levels, scheme=scheme, height=theme.SQUARE)
    named = ", ".join(f"{m['label']} {m['loss']:.3g} nats" for m in result.plane_markers)
    described = f"Training loss in the plane of the last part of the runs, with their averages: {named}."
    return theme.describe(chart, described, height=theme.SQUARE)


def members(result: Any, *, quantity: str = "loss", on: str = "held_out") -> alt.LayerChart:
    """Draw each member of an average as a dot, kept or left out, with the average as a line.

    Parameters
    ----------
    result : AverageResult
        With ``report``.
    quantity : {"loss", "accuracy"}
    on : {"train", "held_out"}
    """
    _check("quantity", quantity, TITLES)
    _check("on", on, ("train", "held_out"))
    column = f"{on}_{quantity}"
    rows = [row for row in result.report if row["role"] == "member"]
    names = [row["name"] for row in rows]
    kept, left = text("kept"), text("left_out")
    table = pd.DataFrame(
        {
            "name": names,
            "value": [float(row[column]) for row in rows],
            "verdict": [kept if row.get("kept", True) else left for row in rows],
            "share": [float(row.get("share", np.nan)) for row in rows],
            "soup": [float(row.get("soup_score", np.nan)) for row in rows],
        }
    )
    sort = [row["name"] for row in sorted(rows, key=lambda r: r.get("order", names.index(r["name"])))]
    title = f"{text('examples.' + on)}: {TITLES[quantity]}"
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    dots = (
        alt.Chart(table[np.isfinite(table["value"])])
        .mark_point(filled=True, size=130, opacity=1)
        .encode(
            x=x,
            y=alt.Y("name:N", title=None, sort=sort, axis=alt.Axis(labelLimit=220, grid=True)),
            color=alt.Color(
                "verdict:N",
                title=None,
                scale=alt.Scale(domain=[kept, left], range=[COLORS["swa"], theme.ACCENT]),
                legend=alt.Legend(orient="top"),
            ),
            shape=alt.Shape("verdict:N", title=None, scale=alt.Scale(domain=[kept, left], range=["circle", "cross"])),
            tooltip=[
                alt.Tooltip("name:N", title="member"),
                alt.Tooltip("value:Q", title=title, format=FORMATS[quantity]),
                alt.Tooltip("verdict:N"),
                alt.Tooltip("share:Q", title="share of the average", format=".1%"),
                alt.Tooltip("soup:Q", title="soup with it", format=".4g"),
            ],
        )
    )
    layers: list[alt.Chart] = [dots]
    average = next((float(r[column]) for r in result.report if r["role"] == "average"), float("nan"))
    if np.isfinite(average):
        line = alt.Chart(pd.DataFrame({"value": [average], "note": [text("chart.average")]})).encode(x=x)
        layers.append(line.mark_rule(strokeWidth=2, color=COLORS["ema"]))
        layers.append(
            line.mark_text(dy=-8, baseline="bottom", color=COLORS["ema"], fontWeight="bold").encode(
                y=alt.value(0), text="note:N"
            )
        )
    n = int((table["verdict"] == kept).sum())
    described = f"{title} of {len(rows)} members, {n} kept; the average has {average:{FORMATS[quantity]}}."
    return theme.describe(alt.layer(*layers), described, height=max(160, 34 * len(rows) + 40))


def barriers(result: Any) -> alt.LayerChart:
    """Draw the barrier between each two members of a soup.

    Parameters
    ----------
    result : AverageResult
        With ``barriers``.
    """
    names = [row["name"] for row in result.report if row["role"] == "member"]
    return connectivity_pairs.matrix(SimpleNamespace(names=names, barriers=result.barriers))


def seeds(result: Any, *, key: str = "held_out_accuracy") -> alt.LayerChart:
    """Draw one quantity of every seed at the end of SGD, at the running and at the exponential mean.

    Lines join the points of one seed; ticks are the means.

    Parameters
    ----------
    result : SwaComparisonResult
    key : str
        A key of :data:`SEED_QUANTITIES`.
    """
    _check("key", key, SEED_QUANTITIES)
    title, form, ratio = SEED_QUANTITIES[key]
    groups = ("sgd", "swa", "ema")
    names = {group: text("short." + group) for group in groups}
    table = pd.DataFrame(
        [
            {"seed": row["seed"], "group": names[row["group"]], "value": float(row[key])}
            for row in result.rows
            if np.isfinite(row[key])
        ],
        columns=["seed", "group", "value"],
    )
    log = bool(ratio and len(table) and (table["value"] > 0).all())
    color = alt.Color(
        "group:N", legend=None, scale=alt.Scale(domain=list(names.values()), range=[COLORS[g] for g in groups])
    )
    base = alt.Chart(table).encode(
        x=alt.X("group:N", title=None, sort=list(names.values()), axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=title, scale=theme.axis_scale(log, **_limits(table, log))),
    )
    described = ", ".join(
        f"{names[g]} {np.mean([r[key] for r in result.rows if r['group'] == g] or [np.nan]):{form}}" for g in groups
    )
    return theme.describe(
        alt.layer(
            base.mark_line(strokeWidth=1, opacity=0.45, color=theme.NEUTRAL).encode(detail="seed:N"),
            base.mark_point(filled=True, size=55).encode(
                color=color,
                tooltip=[
                    alt.Tooltip("seed:N"),
                    alt.Tooltip("group:N", title="point"),
                    alt.Tooltip("value:Q", title=title, format=form),
                ],
            ),
            base.mark_tick(thickness=3, size=46).encode(y=alt.Y("mean(value):Q", title=title), color=color),
        ),
        f"{title} over {len({r['seed'] for r in result.rows})} seeds; means: {described}.",
        height=300,
    )


def _limits(table: pd.DataFrame, log: bool) -> dict[str, Any]:
    """End a logarithmic axis at the data: Vega rounds it to whole decades, which leaves most of it empty."""
    if not log:
        return {}
    return {"domain": [float(0.9 * table["value"].min()), float(1.1 * table["value"].max())], "nice": False}


def _check(name: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}. Choose one of them.")
