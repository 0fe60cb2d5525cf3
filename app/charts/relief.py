"""A surface in three dimensions with nothing but Vega-Lite.

Its cells are projected on the page, sorted back to front and drawn as shapes in that order (the painter's
algorithm), which is right for any height field seen from above.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import grid, theme
from app.charts.marks import shared

LARGEST = 55  # nodes on a side; more cannot be told apart at this size and would cost a megabyte
FACES = "faces"
RISE = 1.25  # height of the colour domain, in half-widths of the floor
_PROJECTION: dict[str, Any] = {"type": "identity", "reflectY": True}


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
    legend: bool = True,
    cursor: tuple[float, float] | None = None,
) -> alt.LayerChart:
    """Draw a surface in three dimensions.

    Parameters
    ----------
    result : SurfaceResult-like
        See :mod:`app.charts.surface`.
    azimuth, elevation : float
        Degrees around the vertical axis and above the horizon.
    log : bool, default=True
        Height and colour on a log scale.
    domain : tuple, optional
        Colours and heights are cut at its ends; by default the smallest value and the ``clip`` quantile.
    mesh : bool, default=True
        Draw the outlines of the cells.
    cursor : tuple of float, optional
        A point to mark on the surface, in the coordinates of the axes.

    Notes
    -----
    Cells with a corner that is not finite are left out: the surface has a hole there.
    """
    log = grid.is_log(log, quantity)
    values = grid.values_of(result, quantity)
    low, high = domain or grid.domain(values, log=log, clip=clip)
    rows, columns = (grid.thin(size, LARGEST) for size in values.shape)
    x, y = np.asarray(result.axes[0], float)[rows], np.asarray(result.axes[1], float)[columns]
    heights = RISE * _share(values[np.ix_(rows, columns)], low, high, log)
    nodes = np.stack([*np.meshgrid(_unit(x, x), _unit(y, y), indexing="ij"), heights], -1)
    page, depth = grid.rotate(nodes, azimuth, elevation)
    features = _faces(page, depth, values[np.ix_(rows, columns)], x, y)
    titles = grid.axis_titles(result)
    tooltip = [alt.Tooltip(f"{'xy'[d]}:Q", title=titles[d], format=".3g") for d in (0, 1)]
    tooltip.append(alt.Tooltip("value:Q", title=shared(quantity), format=theme.LOSS_FORMAT))
    key = grid.legend(quantity) if legend else None
    color = alt.Color("value:Q", scale=theme.loss_scale(log, (low, high), scheme), legend=key)
    layers = [
        alt.Chart(alt.InlineData(values=_floor(azimuth, elevation)))
        .mark_geoshape(filled=False, stroke=theme.NEUTRAL, strokeWidth=0.8, opacity=0.7)
        .project(**_PROJECTION),
        alt.Chart(alt.NamedData(name=FACES))
        .mark_geoshape(stroke="black", strokeWidth=0.35 if mesh else 0, strokeOpacity=0.35)
        .encode(color=color, tooltip=tooltip)
        .project(**_PROJECTION),
        _labels(azimuth, elevation, x, y, [short(title) for title in titles]).project(**_PROJECTION),
    ]
    if cursor is not None:
        layers.append(_cursor(cursor, result, values, (low, high), log, azimuth, elevation).project(**_PROJECTION))
    description = shared(
        "alt.relief",
        quantity=shared(quantity),
        azimuth=f"{azimuth:.0f}",
        elevation=f"{elevation:.0f}",
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        scale=shared("alt.log" if log else "alt.linear"),
    )
    # Thousands of shapes are painted on a canvas several times faster than kept as elements of a document.
    canvas = {"embedOptions": {"renderer": "canvas"}}
    chart = theme.describe(alt.layer(*layers), description, title, height=height, usermeta=canvas)
    # Last, and by name: altair copies and checks all that it is given at every step, a second for these cells.
    chart.datasets = {FACES: features}
    return chart


def short(title: str) -> str:
    """Return an axis title without its unit, for the edge of the floor; the tooltip has the whole."""
    return re.split(r" \(|, |: ", title)[0]


def _unit(coordinates: Any, axis: np.ndarray) -> np.ndarray:
    """Map the range of an axis to −1 … 1."""
    width = float(axis[-1] - axis[0]) or 1.0
    return 2 * (np.asarray(coordinates, float) - axis[0]) / width - 1


def _share(values: np.ndarray, low: float, high: float, log: bool) -> np.ndarray:
    """Return heights 0 … 1, cut at the ends of the colour domain; what is not finite stays so."""
    bounded = np.where(np.isfinite(values), np.clip(values, low, high), np.nan)
    return np.log(bounded / low) / np.log(high / low) if log else (bounded - low) / (high - low)


def _faces(
    page: np.ndarray, depth: np.ndarray, values: np.ndarray, x: np.ndarray, y: np.ndarray
) -> list[Mapping[str, Any]]:
    """Return the cells between nodes as GeoJSON features, farthest first."""
    first, last = slice(None, -1), slice(1, None)
    corners = ((first, first), (last, first), (last, last), (first, last))
    quads = np.round(np.stack([page[corner] for corner in corners], 2).reshape(-1, 4, 2), 4)
    level = np.stack([values[corner] for corner in corners], -1).mean(-1).ravel()
    away = np.stack([depth[corner] for corner in corners], -1).mean(-1).ravel()
    middles = np.meshgrid(0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1]), indexing="ij")
    at = np.stack(middles, -1).reshape(-1, 2)
    drawable = np.isfinite(quads).all((1, 2)) & np.isfinite(level)
    order = np.argsort(-away[drawable], kind="stable")
    shown = np.flatnonzero(drawable)[order]
    rings = np.concatenate([quads[shown], quads[shown, :1]], 1).tolist()
    return [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "value": float(f"{level[k]:.5g}"),
            "x": float(f"{at[k, 0]:.4g}"),
            "y": float(f"{at[k, 1]:.4g}"),
        }
        for k, ring in zip(shown, rings, strict=True)
    ]


def _floor(azimuth: float, elevation: float) -> list[Mapping[str, Any]]:
    """Return the outline of the floor under the surface."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0], [-1, -1, 0]], float)
    page, _ = grid.rotate(corners, azimuth, elevation)
    line = {"type": "LineString", "coordinates": np.round(page, 4).tolist()}
    return [{"type": "Feature", "geometry": line}]


def _labels(azimuth: float, elevation: float, x: np.ndarray, y: np.ndarray, titles: Sequence[str]) -> alt.Chart:
    """Return names and ends of both axes, written along the edges of the floor nearest to the eye."""

    def nearest(axis: int) -> int:
        ends = np.zeros((2, 3))
        ends[:, axis] = (-1, 1)
        return (-1, 1)[int(np.argmin(grid.rotate(ends, azimuth, elevation)[1]))]

    front, side = nearest(1), nearest(0)
    places = [
        ((0, 1.34 * front), titles[0]),
        ((-1, 1.15 * front), f"{x[0]:.3g}"),
        ((1, 1.15 * front), f"{x[-1]:.3g}"),
        ((1.34 * side, 0), titles[1]),
        ((1.15 * side, -1), f"{y[0]:.3g}"),
        ((1.15 * side, 1), f"{y[-1]:.3g}"),
    ]
    points = np.array([[*place, 0.0] for place, _ in places], float)
    page, _ = grid.rotate(points, azimuth, elevation)
    words = [words for _, words in places]
    table = pd.DataFrame({"longitude": page[:, 0], "latitude": page[:, 1], "words": words})
    return (
        alt.Chart(table)
        .mark_text(color=theme.NEUTRAL, fontSize=12)
        .encode(longitude="longitude:Q", latitude="latitude:Q", text="words:N")
    )


def _cursor(
    at: tuple[float, float],
    result: Any,
    values: np.ndarray,
    domain: tuple[float, float],
    log: bool,
    azimuth: float,
    elevation: float,
) -> alt.Chart:
    """Return a ring on the surface at the node nearest to a point."""
    axes = [np.asarray(axis, float) for axis in result.axes]
    i, j = (int(np.argmin(np.abs(axis - value))) for axis, value in zip(axes, at, strict=True))
    share = float(_share(values[i, j], *domain, log))
    rise = RISE * (share if np.isfinite(share) else 0.0)
    point = np.array([_unit(axes[0][i], axes[0]), _unit(axes[1][j], axes[1]), rise], float)
    page, _ = grid.rotate(point, azimuth, elevation)
    table = pd.DataFrame({"longitude": [page[0]], "latitude": [page[1]]})
    return (
        alt.Chart(table)
        .mark_point(shape="circle", size=160, stroke="white", strokeWidth=2.5)
        .encode(longitude="longitude:Q", latitude="latitude:Q")
    )
