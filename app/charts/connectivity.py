"""Charts of one path: loss along it, the plane it lies in, the training of its bends.

Functions take a ``PathResult`` of ``estimators`` and return an Altair chart.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import grid, surface, theme
from app.charts.marks import names, one_unit, rule, shared, tips
from app.texts import texts

text = texts("connectivity")

STRAIGHT, ALIGNED, CURVED, CHAIN, OTHER = (theme.CATEGORICAL[i] for i in (1, 2, 0, 4, 3))
COLORS = {"straight": STRAIGHT, "aligned": ALIGNED, "linear": STRAIGHT, "bezier": CURVED, "polychain": CHAIN}
QUANTITIES = ("losses", "accuracies")


def series(result: Any, quantity: str = "losses", on: str = "train") -> dict[str, np.ndarray]:
    """Return the lines a path result holds, by what joins the ends: straight, straight after matching, the path."""
    if on == "held_out":
        found = {path_name(result): getattr(result, f"held_out_{quantity}")}
    else:
        found = {
            "straight": getattr(result, f"straight_{quantity}"),
            "aligned": getattr(result, f"aligned_{quantity}"),
            path_name(result): getattr(result, quantity),
        }
    return {name: np.asarray(values, float) for name, values in found.items() if len(values)}


def refined(result: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and training losses of the path, those evaluated to find its maximum included."""
    t = np.append(np.asarray(result.t, float), result.refined_t)
    order = np.argsort(t, kind="stable")
    return t[order], np.append(np.asarray(result.losses, float), result.refined_losses)[order]


def path_name(result: Any) -> str:
    """Return the key of a path's own line; a straight line after matching has the key of matched ones."""
    if result.path == "linear":
        return "aligned" if result.align else "straight"
    return str(result.path)


def profile(
    result: Any, *, quantity: str = "losses", on: str = "train", log: bool = False, at: float | None = None
) -> alt.LayerChart:
    """Draw loss or accuracy along a path, beside the straight lines it replaces.

    Parameters
    ----------
    result : PathResult
    quantity : {"losses", "accuracies"}
    on : {"train", "held_out"}
        Held-out values are known along the path alone.
    log : bool, default=False
        Logarithmic loss.
    at : float, optional
        Position to mark.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be losses or accuracies, got {quantity!r}. Choose one of them.")
    lines = series(result, quantity, on)
    called = {key: text(f"series.{key}") for key in lines}
    drawn = {key: (np.asarray(result.t, float), values) for key, values in lines.items()}
    if quantity == "losses" and on == "train" and path_name(result) in drawn:
        drawn[path_name(result)] = refined(result)
    table = pd.concat(
        [pd.DataFrame({"t": t, "value": values, "path": called[key]}) for key, (t, values) in drawn.items()]
        or [pd.DataFrame({"t": [], "value": [], "path": []})]
    )
    log = log and quantity == "losses"
    table = table[np.isfinite(table["value"]) & ((table["value"] > 0) | (not log))]
    title = shared(quantity)
    across, up = alt.Scale(domain=[0, 1], nice=False), theme.axis_scale(log)
    x = alt.X("t:Q", title=text("chart.t"), scale=across)
    y = alt.Y("value:Q", title=title, scale=up)
    color = names("path", {called[key]: COLORS.get(key, OTHER) for key in called})
    form = theme.LOSS_FORMAT if quantity == "losses" else theme.ACCURACY_FORMAT
    tooltip = tips(("path:N",), ("t:Q", None, ".2f"), ("value:Q", title, form))
    layers: list[alt.Chart] = []
    if quantity == "losses" and on == "train" and len(result.losses):
        layers.append(_allowed(result, across, up))
    base = alt.Chart(table).encode(x=x, y=y, color=color)
    layers += [
        base.mark_line(strokeWidth=2.2),
        base.mark_point(filled=True, size=34, opacity=1).encode(tooltip=tooltip),
    ]
    if quantity == "losses" and on == "train":
        layers += _barrier_marks(result, drawn, x, up, color)
    if at is not None:
        layers.append(rule(x, at))
    ranges = {called[key]: (f"{v.min():.3g}", f"{v.max():.3g}") for key, (_, v) in drawn.items()}
    heights = ", ".join(shared("alt.range", name=name, low=low, high=high) for name, (low, high) in ranges.items())
    described = shared("alt.along", quantity=title, on=text("chart.on." + on), heights=heights)
    return theme.describe(alt.layer(*layers), described, height=theme.HEIGHT)


def _allowed(result: Any, across: alt.Scale, up: alt.Scale) -> alt.Chart:
    """Return the band between the worse end and the allowed rise above it."""
    worse = float(max(result.losses[0], result.losses[-1]))
    band = pd.DataFrame({"low": [worse], "high": [worse + result.tolerance], "from": [0.0], "to": [1.0]})
    area = alt.Chart(band[np.isfinite(band["low"])]).mark_rect(color=theme.NEUTRAL, opacity=0.16)
    return area.encode(
        x=alt.X("from:Q", title=text("chart.t"), scale=across),
        x2="to:Q",
        y=alt.Y("low:Q", title=shared("losses"), scale=up),
        y2="high:Q",
        tooltip=tips(("high:Q", text("chart.tolerance"), ".3g")),
    )


def _barrier_marks(
    result: Any, drawn: dict[str, tuple[np.ndarray, np.ndarray]], x: alt.X, up: alt.Scale, color: alt.Color
) -> list[alt.Chart]:
    """Return, for each line, a rule from the chord to the loss where the line is highest over it.

    A bar across the path's own rule covers where its highest point can be.
    """
    found = {
        "straight": (result.straight_barrier, result.straight_barrier_error),
        "aligned": (result.aligned_barrier, result.aligned_barrier_error),
        path_name(result): (result.barrier, result.barrier_error),
    }
    rows = []
    for key, (t, values) in drawn.items():
        chord = (1 - t) * values[0] + t * values[-1]
        rise = values - chord
        if np.isfinite(rise).all() and rise.max() > 0:
            k = int(rise.argmax())
            if chord[k] > 0:
                height, error = found[key]
                own = key == path_name(result) and np.isfinite(result.worst_t_low)
                place = (result.worst_t_low, result.worst_t_high) if own else (t[k], t[k])
                height = height if np.isfinite(height) else rise[k]
                rows.append((t[k], chord[k], values[k], f"{height:.3g}", error, *place, text(f"series.{key}")))
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=["t", "low", "high", "label", "error", "t_low", "t_high", "path"])
    base = alt.Chart(table).encode(x=x, color=color)
    tooltip = tips(
        ("label:N", text("chart.barrier")),
        ("error:Q", text("chart.barrier.error"), ".1g"),
        ("t:Q", text("chart.barrier.at"), ".4f"),
        ("t_low:Q", text("chart.barrier.from"), ".4f"),
        ("t_high:Q", text("chart.barrier.to"), ".4f"),
    )
    low = alt.Y("low:Q", title=shared("losses"), scale=up)
    high = alt.Y("high:Q", title=shared("losses"), scale=up)
    return [
        base.mark_rule(strokeDash=[5, 3], strokeWidth=1.6).encode(y=low, y2="high:Q", tooltip=tooltip),
        base.mark_rule(strokeWidth=5, opacity=0.4).encode(
            x=alt.X("t_low:Q", title=text("chart.t")), x2="t_high:Q", y=high, tooltip=tooltip
        ),
        base.mark_text(dy=-11, fontSize=12, fontWeight="bold").encode(y=high, text="label:N"),
    ]


def plane(
    result: Any, *, log: bool = True, levels: int = 12, scheme: str = "viridis", at: float | None = None
) -> alt.LayerChart:
    """Draw the plane through A, B and the bends: the loss in it, the straight and the curved path, the ends.

    Parameters
    ----------
    result : PathResult
        With ``plane_anchors``; without a map of the loss the paths alone are drawn.
    log, levels, scheme
        As in :func:`app.charts.surface.heat_map`.
    at : float, optional
        Position on the path to mark.
    """
    corners, path = np.asarray(result.plane_anchors, float), np.asarray(result.plane_path, float)
    bends = range(1, len(corners) - 1)
    names = ["A", *(shared("bend.number", number=i) if len(bends) > 1 else shared("bend") for i in bends), "B"]
    mapped = len(result.plane_x) > 0
    titles = grid.in_lines(text("chart.plane_x")), grid.in_lines(text("chart.plane_y"))  # as the map below has them
    x, y = alt.X("x:Q", title=titles[0]), alt.Y("y:Q", title=titles[1])
    if not mapped:  # a map brings its own scales
        seen = np.concatenate([corners, path])
        room = 0.1 * float(np.ptp(seen, axis=0).max())
        x.scale, y.scale = one_unit(*zip(seen.min(0) - room, seen.max(0) + room, strict=True))
    layers: list[alt.Chart | alt.LayerChart] = []
    if mapped:
        drawn = SimpleNamespace(
            axes=(result.plane_x, result.plane_y),
            losses=result.plane_losses,
            accuracies=result.plane_accuracies,
            markers=[{"label": "A", "x": 0.0, "y": 0.0}],  # replaces the cross that a map has at its centre
            axis_titles=(text("chart.plane_x"), text("chart.plane_y")),
        )
        layers.append(surface.heat_map(drawn, log=log, levels=levels, scheme=scheme, height=theme.SQUARE))
    straight = pd.DataFrame(corners[[0, -1]], columns=["x", "y"]).assign(t=[0.0, 1.0])
    tone = "white" if mapped else theme.NEUTRAL
    line = alt.Chart(straight).mark_line(color=tone, strokeDash=[6, 4], strokeWidth=2)
    layers.append(line.encode(x=x, y=y, order="t:Q"))
    if len(corners) > 2:
        curve = pd.DataFrame(path, columns=["x", "y"]).assign(t=result.t, loss=result.losses)
        tooltip = tips(("t:Q", None, ".2f"), ("loss:Q", shared("losses"), ".4g"))
        base = alt.Chart(curve).encode(x=x, y=y)
        layers += [
            base.mark_line(color="white", strokeWidth=5, opacity=0.8).encode(order="t:Q"),
            base.mark_line(color=theme.ACCENT, strokeWidth=2.5).encode(order="t:Q"),
            base.mark_point(filled=True, size=26, color=theme.ACCENT, opacity=1).encode(tooltip=tooltip),
        ]
    marks = [{"label": name, "x": a, "y": b, "what": "anchor"} for name, (a, b) in zip(names, corners, strict=True)]
    if at is not None:
        here = [float(np.interp(at, result.t, path[:, d])) for d in (0, 1)]
        marks.append({"label": f"t = {at:.2f}", "x": here[0], "y": here[1], "what": "position"})
    points = alt.Chart(pd.DataFrame(marks)).encode(x=x, y=y)
    fill = alt.condition("datum.what == 'position'", alt.value("white"), alt.value(theme.ACCENT))
    named = {"fontSize": 13, "fontWeight": "bold", "color": "white" if mapped else theme.ACCENT}
    layers += [
        points.mark_point(filled=True, size=120, opacity=1, stroke="#1b1f24", strokeWidth=1.2).encode(color=fill),
        points.transform_filter("datum.what == 'anchor'").mark_text(dy=-15, **named).encode(text="label:N"),
        points.transform_filter("datum.what == 'position'").mark_text(dy=18, **named).encode(text="label:N"),
    ]
    described = shared("alt.plane", distance=f"{result.distance:.3g}")
    return theme.describe(alt.layer(*layers), described, height=theme.SQUARE, usermeta=theme.about(theme.SQUARE))


def training(result: Any) -> alt.Chart:
    """Draw the loss of the training of the bends by epoch."""
    losses = np.asarray(result.history_losses, float)
    table = pd.DataFrame({"epoch": np.arange(1, len(losses) + 1), "loss": losses})
    chart = (
        alt.Chart(table)
        .mark_line(point=True, color=COLORS.get(result.path, OTHER), strokeWidth=2)
        .encode(
            x=alt.X("epoch:Q", title=shared("field.epoch"), axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("loss:Q", title=shared("bend.training"), scale=theme.axis_scale(True)),
            tooltip=tips(("epoch:Q",), ("loss:Q", None, theme.LOSS_FORMAT)),
        )
    )
    ends = {"first": f"{losses[0]:.3g}", "last": f"{losses[-1]:.3g}"}
    described = shared("alt.bends", epochs=len(losses), **ends)
    return theme.describe(chart, described, height=theme.HEIGHT_SMALL)
