"""Charts of a loss surface: map with isolines, relief in three dimensions, profile along a line.

Every function takes a result with these fields and returns an Altair chart:

``axes``          tuple of one or two 1-D arrays, the coordinates along each direction
``losses``        (R1, R2) or (R,), first index along the first direction; (S, R) for a profile of S seeds
``accuracies``    like ``losses``, optional
``markers``       optional list of ``{"label", "x", "y", "loss"}``: models that lie in the plane
``trajectories``  optional list of ``{"label", "x": [...], "y": [...], "loss": [...]}``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import grid, theme

QUANTITIES = {
    "losses": theme.LOSS_TITLE,
    "accuracies": theme.ACCURACY_TITLE,
    "held_out_losses": "held-out loss (nats)",
    "held_out_accuracies": "held-out accuracy (share correct)",
}
X_TITLE, Y_TITLE = "first direction (steps)", "second direction (steps)"
MAX_RELIEF = 55  # nodes on a side; more cannot be told apart at this size and cost a megabyte each


def values_of(result: Any, quantity: str = "losses") -> np.ndarray:
    """Return one quantity of a result as floats."""
    if quantity not in QUANTITIES:
        raise ValueError(
            f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}. Choose one of them."
        )
    found = getattr(result, quantity, None)
    if found is None:
        raise ValueError(
            f"quantity must be one this result has, got {quantity!r}. Compute it with held-out data."
        )
    return np.asarray(found, float)


def shared_domain(
    results: Sequence[Any], quantity: str = "losses", *, log: bool = False, clip: float = 1.0
) -> tuple[float, float]:
    """Return one colour domain for several maps."""
    return grid.domain(np.concatenate([values_of(r, quantity).ravel() for r in results]), log=log, clip=clip)


def _titles(result: Any) -> tuple[str, str]:
    given = getattr(result, "axis_titles", None)
    return (str(given[0]), str(given[1])) if given is not None and len(given) >= 2 else (X_TITLE, Y_TITLE)


def _cells(result: Any, quantity: str) -> pd.DataFrame:
    x, y = (np.asarray(a, float) for a in result.axes)
    values = values_of(result, quantity)
    ex, ey = grid.edges(x), grid.edges(y)
    i, j = (index.ravel() for index in np.indices(values.shape))
    table = pd.DataFrame(
        {
            "x": ex[i],
            "x2": ex[i + 1],
            "y": ey[j],
            "y2": ey[j + 1],
            "cx": x[i],
            "cy": y[j],
            "value": values.ravel(),
        }
    )
    for name in ("losses", "accuracies"):
        extra = getattr(result, name, None)
        if extra is not None and np.shape(extra) == values.shape:
            table[name] = np.asarray(extra, float).ravel()
    evaluated = getattr(result, "evaluated", None)
    if evaluated is not None and np.shape(evaluated) == values.shape:
        table["source"] = np.where(np.asarray(evaluated, bool).ravel(), "evaluated", "interpolated")
    return table


def heat_map(
    result: Any,
    *,
    quantity: str = "losses",
    log: bool = True,
    clip: float = 1.0,
    levels: int = 12,
    scheme: str = "viridis",
    domain: tuple[float, float] | None = None,
    title: str | None = None,
    height: int = theme.HEIGHT,
    legend: bool = True,
) -> alt.LayerChart:
    """Draw a surface as a map: coloured cells, isolines, the centre, marked models and trajectories.

    Parameters
    ----------
    result : SurfaceResult-like
    quantity : str
        One of :data:`QUANTITIES`.
    log : bool, default=True
        Logarithmic colours and isolines; accuracies are always linear.
    clip : float, default=1
        Quantile where the colours end.
    levels : int, default=12
        Isolines; 0 draws none.
    scheme : str
        A value of :data:`app.charts.theme.SCHEMES`.
    domain : tuple, optional
        Colour domain, for several maps on one scale (:func:`shared_domain`).
    """
    log = log and "accurac" not in quantity
    values = values_of(result, quantity)
    low, high = domain or grid.domain(values, log=log, clip=clip)
    cells = _cells(result, quantity)
    drawable = np.isfinite(cells["value"]) & ((cells["value"] > 0) | (not log))
    x_title, y_title = _titles(result)
    ex, ey = grid.edges(result.axes[0]), grid.edges(result.axes[1])
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(domain=[ex[0], ex[-1]], nice=False, zero=False),
        axis=alt.Axis(grid=False),
    )
    y = alt.Y(
        "y:Q",
        title=y_title,
        scale=alt.Scale(domain=[ey[0], ey[-1]], nice=False, zero=False),
        axis=alt.Axis(grid=False),
    )
    scale = theme.loss_scale(log, (low, high), scheme)
    key = (
        alt.Legend(
            type="gradient", title=QUANTITIES[quantity], gradientLength=max(120, height - 160), format="~g"
        )
        if legend
        else None
    )
    color = alt.Color("value:Q", scale=scale, legend=key)
    tooltip = [
        alt.Tooltip("cx:Q", title=x_title, format=".3g"),
        alt.Tooltip("cy:Q", title=y_title, format=".3g"),
        alt.Tooltip("value:Q", title=QUANTITIES[quantity], format=".4g"),
    ]
    if "accuracies" in cells and quantity == "losses":
        tooltip.append(alt.Tooltip("accuracies:Q", title="accuracy", format=theme.ACCURACY_FORMAT))
    if "source" in cells:
        tooltip.append(alt.Tooltip("source:N", title="this cell was"))
    # The stroke in the cell's own colour closes the hairlines between neighbouring rectangles.
    layers: list[alt.Chart] = [
        alt.Chart(cells[drawable])
        .mark_rect(strokeWidth=0.7)
        .encode(
            x=x,
            x2="x2:Q",
            y=y,
            y2="y2:Q",
            color=color,
            stroke=alt.Stroke("value:Q", scale=scale, legend=None),
            tooltip=tooltip,
        )
    ]
    missing = cells[~drawable].assign(why="not finite")
    if len(missing):
        layers.append(
            alt.Chart(missing)
            .mark_rect(color=theme.MISSING, opacity=0.55)
            .encode(
                x=x, x2="x2:Q", y=y, y2="y2:Q", tooltip=[*tooltip[:2], alt.Tooltip("why:N", title="loss")]
            )
        )
    if levels > 0:
        positive = np.where(values > 0, values, np.nan) if log else values
        lines = grid.isolines(
            result.axes[0], result.axes[1], positive, grid.levels(low, high, levels, log=log)
        )
        if len(lines):
            layers.append(
                alt.Chart(lines)
                .mark_line(color="white", strokeWidth=0.9, opacity=0.6)
                .encode(x=x, y=y, detail="line:N", order="order:Q")
            )
    layers += _overlays(result, x, y)
    count = int((~np.isfinite(values)).sum())
    best = (
        float(np.nanmin(np.where(np.isfinite(values), values, np.nan)))
        if np.isfinite(values).any()
        else float("nan")
    )
    description = (
        f"Map of {QUANTITIES[quantity]} on a {values.shape[0]} by {values.shape[1]} grid: smallest value {best:.3g}, "
        f"colours from {low:.3g} to {high:.3g}{' on a log scale' if log else ''}"
        + (f", {count} cells are not finite and grey." if count else ".")
    )
    return theme.describe(alt.layer(*layers), description, title, height=height)


def _overlays(result: Any, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the layers of what lies in the plane: trajectories, marked models, or else a cross at the
    centre.
    """
    layers: list[alt.Chart] = []
    names = [str(t["label"]) for t in getattr(result, "trajectories", None) or []]
    for number, trajectory in enumerate(getattr(result, "trajectories", None) or []):
        path = pd.DataFrame({"x": trajectory["x"], "y": trajectory["y"]}).assign(
            order=range(len(trajectory["x"])), label=names[number]
        )
        if trajectory.get("loss") is not None:
            path["loss"] = trajectory["loss"]
        color = alt.Color(
            "label:N", title="trajectory", scale=alt.Scale(domain=names, range=list(theme.CATEGORICAL))
        )
        tooltip = [alt.Tooltip("label:N", title="trajectory"), alt.Tooltip("order:Q", title="step")]
        if "loss" in path:
            tooltip.append(alt.Tooltip("loss:Q", title="its own loss (nats)", format=theme.LOSS_FORMAT))
        base = alt.Chart(path).encode(x=x, y=y, color=color)
        layers.append(base.mark_line(strokeWidth=2).encode(order="order:Q"))
        layers.append(
            base.mark_point(filled=True, size=45, stroke="white", strokeWidth=1, opacity=1).encode(
                tooltip=tooltip
            )
        )
    markers = pd.DataFrame(list(getattr(result, "markers", None) or []))
    if len(markers):
        base = alt.Chart(markers).encode(x=x, y=y)
        tooltip = [alt.Tooltip("label:N", title="model")]
        if "loss" in markers:
            tooltip.append(alt.Tooltip("loss:Q", title=theme.LOSS_TITLE, format=theme.LOSS_FORMAT))
        layers.append(
            base.mark_point(
                filled=True, size=110, color=theme.ACCENT, stroke="white", strokeWidth=1.5, opacity=1
            ).encode(tooltip=tooltip)
        )
        layers.append(
            base.mark_text(dy=-13, color="white", fontWeight="bold", fontSize=12).encode(text="label:N")
        )
    if not layers:
        layers.append(
            alt.Chart(pd.DataFrame({"x": [0.0], "y": [0.0], "label": ["this model"]}))
            .mark_point(
                shape="cross",
                filled=True,
                size=90,
                color=theme.ACCENT,
                stroke="white",
                strokeWidth=1,
                opacity=1,
            )
            .encode(x=x, y=y, tooltip=[alt.Tooltip("label:N", title="centre")])
        )
    return layers


def relief(
    result: Any,
    *,
    quantity: str = "losses",
    azimuth: float = 35.0,
    elevation: float = 30.0,
    log: bool = True,
    clip: float = 1.0,
    scheme: str = "viridis",
    domain: tuple[float, float] | None = None,
    title: str | None = None,
    height: int = theme.HEIGHT,
    mesh: bool = True,
) -> alt.LayerChart:
    """Draw a surface in three dimensions: cells projected, sorted back to front, drawn as shapes.

    Parameters
    ----------
    azimuth, elevation : float
        Degrees around the vertical axis (35) and above the horizon (30).
    mesh : bool, default=True
        Draw the cells' outlines.

    Other parameters are those of :func:`heat_map`. The height is the colour's own scale (log with ``log``),
    cut at the colour domain; cells with a non-finite corner are left out.
    """
    log = log and "accurac" not in quantity
    values = values_of(result, quantity)
    low, high = domain or grid.domain(values, log=log, clip=clip)
    rows, columns = grid.thin(values.shape[0], MAX_RELIEF), grid.thin(values.shape[1], MAX_RELIEF)
    x, y = np.asarray(result.axes[0], float)[rows], np.asarray(result.axes[1], float)[columns]
    values = values[np.ix_(rows, columns)]
    bounded = np.clip(values, low, high)
    share = np.log(bounded / low) / np.log(high / low) if log else (bounded - low) / (high - low)
    unit = [2 * (a - a[0]) / (a[-1] - a[0]) - 1 for a in (x, y)]
    nodes = np.stack([*np.meshgrid(*unit, indexing="ij"), 1.25 * share], -1)
    page, depth = grid.rotate(nodes, azimuth, elevation)
    features = []
    corners = [
        (slice(None, -1), slice(None, -1)),
        (slice(1, None), slice(None, -1)),
        (slice(1, None), slice(1, None)),
        (slice(None, -1), slice(1, None)),
    ]
    quads = np.stack([page[c] for c in corners], 2).reshape(-1, 4, 2)
    level = np.stack([values[c] for c in corners], -1).mean(-1).ravel()
    far = np.stack([depth[c] for c in corners], -1).mean(-1).ravel()
    at = np.stack(np.meshgrid(0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1]), indexing="ij"), -1).reshape(
        -1, 2
    )
    quads = np.round(quads, 4)
    for k in np.argsort(-far):
        if np.isfinite(quads[k]).all() and np.isfinite(level[k]):
            # d3 reads a ring clockwise on the page as filled inside; identity projections fill either way.
            ring = quads[k].tolist()
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
                    "value": float(f"{level[k]:.5g}"),
                    "x": float(f"{at[k, 0]:.4g}"),
                    "y": float(f"{at[k, 1]:.4g}"),
                }
            )
    x_title, y_title = _titles(result)
    projection = {"type": "identity", "reflectY": True}
    layers = [
        alt.Chart(alt.InlineData(values=_box(azimuth, elevation)))
        .mark_geoshape(filled=False, stroke=theme.NEUTRAL, strokeWidth=0.8, opacity=0.7)
        .project(**projection),
        alt.Chart(alt.InlineData(values=features))
        .mark_geoshape(stroke="black", strokeWidth=0.35 if mesh else 0, strokeOpacity=0.35)
        .encode(
            color=alt.Color(
                "value:Q",
                scale=theme.loss_scale(log, (low, high), scheme),
                legend=alt.Legend(
                    type="gradient",
                    title=QUANTITIES[quantity],
                    gradientLength=max(120, height - 160),
                    format="~g",
                ),
            ),
            tooltip=[
                alt.Tooltip("x:Q", title=x_title, format=".3g"),
                alt.Tooltip("y:Q", title=y_title, format=".3g"),
                alt.Tooltip("value:Q", title=QUANTITIES[quantity], format=".4g"),
            ],
        )
        .project(**projection),
        _box_labels(azimuth, elevation, x, y, x_title, y_title).project(**projection),
    ]
    description = (
        f"Relief of {QUANTITIES[quantity]} seen from {azimuth:.0f} degrees around and {elevation:.0f} degrees above; "
        f"height and colour from {low:.3g} to {high:.3g}{' on a log scale' if log else ''}."
    )
    return theme.describe(alt.layer(*layers), description, title, height=height)


def _box(azimuth: float, elevation: float) -> list[Mapping[str, Any]]:
    """Return the outline of the floor under a relief."""
    floor = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, -1, 0]], float)
    page, _ = grid.rotate(floor, azimuth, elevation)
    return [
        {"type": "Feature", "geometry": {"type": "LineString", "coordinates": np.round(page, 4).tolist()}}
    ]


def _box_labels(
    azimuth: float, elevation: float, x: np.ndarray, y: np.ndarray, x_title: str, y_title: str
) -> alt.Chart:
    """Return names and ends of the two axes, written along the nearest edges of the floor."""
    depth = {s: grid.rotate(np.array([0.0, s, 0.0]), azimuth, elevation)[1] for s in (-1, 1)}
    near_y = min(depth, key=lambda s: float(depth[s]))
    depth = {s: grid.rotate(np.array([s, 0.0, 0.0]), azimuth, elevation)[1] for s in (-1, 1)}
    near_x = min(depth, key=lambda s: float(depth[s]))
    places = [
        ([0.0, 1.32 * near_y, 0.0], x_title),
        ([-1.0, 1.14 * near_y, 0.0], f"{x[0]:.3g}"),
        ([1.0, 1.14 * near_y, 0.0], f"{x[-1]:.3g}"),
        ([1.32 * near_x, 0.0, 0.0], y_title),
        ([1.14 * near_x, -1.0, 0.0], f"{y[0]:.3g}"),
        ([1.14 * near_x, 1.0, 0.0], f"{y[-1]:.3g}"),
    ]
    page, _ = grid.rotate(np.array([place for place, _ in places], float), azimuth, elevation)
    table = pd.DataFrame(
        {"longitude": page[:, 0], "latitude": page[:, 1], "label": [label for _, label in places]}
    )
    return (
        alt.Chart(table)
        .mark_text(color=theme.NEUTRAL, fontSize=12)
        .encode(longitude="longitude:Q", latitude="latitude:Q", text="label:N")
    )


def profile(
    result: Any,
    *,
    quantity: str = "losses",
    log: bool = False,
    title: str | None = None,
    height: int = theme.HEIGHT,
) -> alt.LayerChart:
    """Draw the loss along a line; several seeds become their median and the band between smallest and
    largest.
    """
    axis = np.asarray(result.axes[0], float)
    values = np.atleast_2d(values_of(result, quantity))
    finite = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    keep = ~np.isnan(finite).all(0)
    table = pd.DataFrame({"t": axis[keep]})
    table["middle"], table["low"], table["high"] = (
        np.nanmedian(finite[:, keep], 0),
        np.nanmin(finite[:, keep], 0),
        np.nanmax(finite[:, keep], 0),
    )
    label = QUANTITIES[quantity]
    x = alt.X("t:Q", title=_titles(result)[0], scale=alt.Scale(nice=False, zero=False))
    y_scale = theme.axis_scale(log and "accurac" not in quantity)
    base = alt.Chart(table)
    layers = [
        base.mark_line(color=theme.TRAIN, strokeWidth=2).encode(
            x=x, y=alt.Y("middle:Q", title=label, scale=y_scale)
        ),
        base.mark_point(color=theme.TRAIN, filled=True, size=40, opacity=0.01).encode(
            x=x,
            y=alt.Y("middle:Q", scale=y_scale),
            tooltip=[
                alt.Tooltip("t:Q", format=".3g"),
                alt.Tooltip("middle:Q", title=label, format=".4g"),
                alt.Tooltip("low:Q", title="smallest", format=".4g"),
                alt.Tooltip("high:Q", title="largest", format=".4g"),
            ],
        ),
    ]
    if len(values) > 1:
        layers.insert(
            0,
            base.mark_area(color=theme.TRAIN, opacity=0.2).encode(
                x=x, y=alt.Y("low:Q", title=label, scale=y_scale), y2="high:Q"
            ),
        )
    lost = int((~np.isfinite(values)).sum())
    description = (
        f"{label} along a line of {axis.size} points, from {table['low'].min():.3g} to {table['high'].max():.3g}"
        + (f", over {len(values)} seeds" if len(values) > 1 else "")
        + (f"; {lost} values are not finite and left out." if lost else ".")
    )
    return theme.describe(alt.layer(*layers), description, title, height=height)
