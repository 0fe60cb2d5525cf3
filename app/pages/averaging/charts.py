"""Charts of weight averages: a run and its averages by epoch, their plane, soup members, and seeds.

Functions take an ``AverageResult`` or a ``SwaComparisonResult`` of ``estimators`` and return an Altair chart.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import connectivity_pairs, grid, surface, theme
from app.charts.marks import names, shared, tips
from app.texts import texts

text = texts("averaging")

COLORS = {
    "sgd": theme.CATEGORICAL[1],
    "iterate": theme.NEUTRAL,
    "swa": theme.CATEGORICAL[0],
    "ema": theme.CATEGORICAL[2],
}
TITLES = {"loss": "losses", "accuracy": "accuracies"}
FORMATS = {"loss": theme.LOSS_FORMAT, "accuracy": theme.ACCURACY_FORMAT}
SEED_QUANTITIES = {
    "held_out_accuracy": (".1%", False),
    "held_out_loss": (".4g", False),
    "lambda_max": (".4g", True),
    "average_sharpness": (".4g", True),
    "train_loss": (".4g", True),
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
    table = table.assign(series=[text("role." + r) for r in table["role"]])
    color = names("series", {text("role." + role): COLORS[role] for role in present})
    log = log and quantity == "loss" and bool(len(table)) and bool((table["value"] > 0).all())
    up = theme.axis_scale(log, **_limits(table, log))
    told = (("value:Q", shared(TITLES[quantity]), FORMATS[quantity]), ("learning_rate:Q", text("lr"), ".3g"))
    base = alt.Chart(table).encode(
        x=alt.X("epoch:Q", title=shared("field.epoch"), axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title=f"{text('examples.' + on)}: {shared(TITLES[quantity])}", scale=up),
        color=color,
        tooltip=tips(("series:N", text("column.point")), ("epoch:Q",), *told),
    )
    layers: list[alt.Chart] = [base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=26)]
    first = min((row["epoch"] for row in result.history if row["role"] == "swa"), default=None)
    if first is not None:
        switch = pd.DataFrame({"epoch": [first - 0.5], "note": [text("chart.switch")]})
        at = alt.Chart(switch).encode(x="epoch:Q")
        words = at.mark_text(align="right", dx=-5, baseline="top", color=theme.NEUTRAL)
        layers.append(at.mark_rule(strokeDash=[4, 4], color=theme.NEUTRAL))
        layers.append(words.encode(y=alt.value(4), text="note:N"))
    last = {role: table[table["role"] == role]["value"].iloc[-1] for role in present}
    ends = [f"{text('role.' + role)} {value:{FORMATS[quantity]}}" for role, value in last.items()]
    described = text(
        "alt.history", quantity=shared(TITLES[quantity]), on=text(f"examples.{on}"), ends=", ".join(ends) or "…"
    )
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
    height = grid.fitting_height(drawn, theme.SQUARE)
    chart = surface.heat_map(drawn, log=log, levels=levels, scheme=scheme, height=height)
    named = ", ".join(f"{m['label']} {m['loss']:.3g} nats" for m in result.plane_markers)
    described = text("alt.plane", named=named)
    return theme.describe(chart, described, height=height, usermeta=theme.about(theme.SQUARE))


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
    called = [row["name"] for row in rows]
    kept, left = text("kept"), text("left_out")
    table = pd.DataFrame(
        {
            "name": called,
            "value": [float(row[column]) for row in rows],
            "verdict": [kept if row.get("kept", True) else left for row in rows],
            "share": [float(row.get("share", np.nan)) for row in rows],
            "soup": [float(row.get("soup_score", np.nan)) for row in rows],
        }
    )
    sort = [row["name"] for row in sorted(rows, key=lambda r: r.get("order", called.index(r["name"])))]
    title = f"{text('examples.' + on)}: {shared(TITLES[quantity])}"
    x = alt.X("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    told = (("share:Q", text("column.share"), ".1%"), ("soup:Q", text("column.soup_score"), ".4g"))
    shapes = alt.Scale(domain=[kept, left], range=["circle", "cross"])
    dots = (
        alt.Chart(table[np.isfinite(table["value"])])
        .mark_point(filled=True, size=130, opacity=1)
        .encode(
            x=x,
            y=alt.Y("name:N", title=None, sort=sort, axis=alt.Axis(labelLimit=220, grid=True)),
            color=names("verdict", {kept: COLORS["swa"], left: theme.ACCENT}),
            shape=alt.Shape("verdict:N", title=None, scale=shapes),
            tooltip=tips(("name:N",), ("value:Q", title, FORMATS[quantity]), ("verdict:N",), *told),
        )
    )
    layers: list[alt.Chart] = [dots]
    average = next((float(r[column]) for r in result.report if r["role"] == "average"), float("nan"))
    if np.isfinite(average):
        line = alt.Chart(pd.DataFrame({"value": [average], "note": [text("chart.average")]})).encode(x=x)
        layers.append(line.mark_rule(strokeWidth=2, color=COLORS["ema"]))
        words = line.mark_text(dy=-8, baseline="bottom", color=COLORS["ema"], fontWeight="bold")
        layers.append(words.encode(y=alt.value(0), text="note:N"))
    n = int((table["verdict"] == kept).sum())
    described = text("alt.members", quantity=title, n=len(rows), kept=n, average=f"{average:{FORMATS[quantity]}}")
    return theme.describe(alt.layer(*layers), described, height=max(theme.LEAST + 40, 34 * len(rows) + 130))


def barriers(result: Any) -> alt.LayerChart:
    """Draw the barrier between each two members of a soup.

    Parameters
    ----------
    result : AverageResult
        With ``barriers``.
    """
    members = [row["name"] for row in result.report if row["role"] == "member"]
    return connectivity_pairs.matrix(SimpleNamespace(names=members, barriers=result.barriers))


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
    form, ratio = SEED_QUANTITIES[key]
    title = text(f"seeds.axis.{key}")
    groups = ("sgd", "swa", "ema")
    short = {group: text("short." + group) for group in groups}
    rows = [(r["seed"], short[r["group"]], float(r[key])) for r in result.rows if np.isfinite(r[key])]
    table = pd.DataFrame(rows, columns=["seed", "group", "value"])
    log = bool(ratio and len(table) and (table["value"] > 0).all())
    color = names("group", {short[g]: COLORS[g] for g in groups}, None)
    y = alt.Y("value:Q", title=title, scale=theme.axis_scale(log, **_limits(table, log)))
    x = alt.X("group:N", title=None, sort=list(short.values()), axis=alt.Axis(labelAngle=0))
    base = alt.Chart(table).encode(x=x, y=y)
    described = ", ".join(
        f"{short[g]} {np.mean([r[key] for r in result.rows if r['group'] == g] or [np.nan]):{form}}" for g in groups
    )
    told = tips(("seed:N",), ("group:N", text("column.point")), ("value:Q", title, form))
    return theme.describe(
        alt.layer(
            base.mark_line(strokeWidth=1, opacity=0.45, color=theme.NEUTRAL).encode(detail="seed:N"),
            base.mark_point(filled=True, size=55).encode(color=color, tooltip=told),
            base.mark_tick(thickness=3, size=46).encode(y=alt.Y("mean(value):Q", title=title), color=color),
        ),
        text("alt.seeds", quantity=title, n=len({r["seed"] for r in result.rows}), means=described),
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
