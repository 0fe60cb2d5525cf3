"""A surface in three dimensions with nothing but Vega-Lite, turned by dragging it.

Its cells are projected on the page, sorted back to front and drawn as shapes in that order (the painter's
algorithm), which is right for any height field seen from above. Vega does this itself from two angles, so the picture
follows the mouse without asking the server: what the mouse moves are two scales on which nothing is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import altair as alt
import numpy as np

from app.charts import grid, theme
from app.charts.marks import shared

LARGEST = 55  # nodes on a side; more cannot be told apart at this size and would cost a megabyte
FACES = "faces"
RISE = 1.25  # height of the colour domain, in half-widths of the floor
REACH = 1.55  # farthest from the middle that anything is written, in half-widths of the floor
LOWEST, HIGHEST = 5, 89  # degrees above the horizon

# What an angle of the eye does to a point (x, y, z): to the right, up on the page, and away from the eye.
_RIGHT = "(({x}) * turn_c - ({y}) * turn_s)"
_AWAY = "(({x}) * turn_s + ({y}) * turn_c)"
_UP = "(({z}) * tilt_c + " + _AWAY + " * tilt_s)"
_DEPTH = "(" + _AWAY + " * tilt_c - ({z}) * tilt_s)"

# The corners of a cell by the fields of its row, its middle; the edges of the floor; a post at its corner to the left.
_CELL = [(f"datum.x{i}", f"datum.y{j}", f"datum.z{i}{j}") for i, j in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))]
_MIDDLE = ("(datum.x0 + datum.x1) / 2", "(datum.y0 + datum.y1) / 2", f"({' + '.join(c[2] for c in _CELL[:4])}) / 4")
_FLOOR = [(x, y, "0") for x, y in (("-1", "-1"), ("1", "-1"), ("1", "1"), ("-1", "1"), ("-1", "-1"))]
_POST = [("front", "-side", z) for z in ("0", str(RISE))]
_OWN = ("datum.x", "datum.y", "datum.z")
_GEOJSON = alt.Shape("shape", type="geojson")
# As large as fits at any turn, with a line of words above and below.
_PIXELS = f"min(width / {2 * REACH}, (height - 24) / ({2 * REACH} * tilt_s + {RISE} * tilt_c))"
_PROJECTION: dict[str, Any] = {
    "type": "identity",
    "reflectY": True,
    "scale": alt.ExprRef(_PIXELS),
    "translate": alt.ExprRef(f"[width / 2, height / 2 + {_PIXELS} * {RISE / 2} * tilt_c]"),
}


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
        Degrees around the vertical axis and above the horizon, before it is dragged.
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
    titles = grid.axis_titles(result)
    tooltip = [alt.Tooltip(f"{'xy'[d]}:Q", title=titles[d], format=".3g") for d in (0, 1)]
    tooltip.append(alt.Tooltip("value:Q", title=shared(quantity), format=theme.LOSS_FORMAT))
    key = grid.legend(quantity) if legend else None
    color = alt.Color("value:Q", scale=theme.loss_scale(log, (low, high), scheme), legend=key)
    cells = alt.Chart(alt.NamedData(name=FACES)).transform_calculate(
        shape=_shape("Polygon", _CELL), depth=_at(_DEPTH, _MIDDLE)
    )
    layers = [
        alt.Chart(alt.InlineData(values=[{}]))
        .transform_calculate(shape=_shape("MultiLineString", _FLOOR, _POST))
        .mark_geoshape(filled=False, stroke=theme.NEUTRAL, strokeWidth=0.8, opacity=0.7, aria=False)
        .encode(shape=_GEOJSON),
        cells.mark_geoshape(stroke="black", strokeWidth=0.35 if mesh else 0, strokeOpacity=0.35, aria=False).encode(
            shape=_GEOJSON, color=color, tooltip=tooltip, order=alt.Order("depth:Q", sort="descending")
        ),
        _labels(x, y, [short(title) for title in (*titles, shared(quantity))], (low, high), log),
    ]

    on_surface = partial(_on_surface, result, RISE * _share(values, low, high, log))
    markers = getattr(result, "markers", None) or ()
    layers += _marks([{**on_surface(mark["x"], mark["y"]), "label": str(mark["label"])} for mark in markers])
    if cursor is not None:
        ring = _placed([on_surface(*cursor)], _OWN)
        layers.append(ring.mark_point(shape="circle", size=160, stroke="white", strokeWidth=2.5))
    layers = [layer.project(**_PROJECTION) for layer in layers] + [_handle()]
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
    chart = alt.layer(*layers, view=alt.ViewBackground(cursor="grab")).add_params(*_angles(azimuth, elevation))
    chart = theme.describe(chart, description, title, height=height, usermeta=canvas)
    # Last, and by name: altair copies and checks all that it is given at every step, a second for these cells.
    heights = RISE * _share(values[np.ix_(rows, columns)], low, high, log)
    chart.datasets = {FACES: _faces(heights, values[np.ix_(rows, columns)], x, y)}
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


def _at(expression: str, place: Sequence[str]) -> str:
    """Return an expression of a point, each of its coordinates an expression too."""
    return expression.format(**dict(zip("xyz", place, strict=True)))


def _shape(kind: str, *lines: Sequence[Sequence[str]]) -> str:
    """Return the expression of a GeoJSON shape of some lines, or of a ring, through these places."""
    drawn = (", ".join(f"[{_at(_RIGHT, place)}, {_at(_UP, place)}]" for place in line) for line in lines)
    return f"{{type: '{kind}', coordinates: [{', '.join(f'[{line}]' for line in drawn)}]}}"


def _angles(azimuth: float, elevation: float) -> list[alt.Parameter]:
    """Return the sines and cosines of the angles as the picture is turned now, and which edges are nearest."""
    across, upward = (f"(dragged.{way} ? dragged.{way}[0] : 0)" for way in ("across", "upward"))
    turn = f"({azimuth} - 180 * {across}) * PI / 180"
    tilt = f"clamp({elevation} + 90 * {upward}, {LOWEST}, {HIGHEST}) * PI / 180"
    told = {
        "turn_c": f"cos({turn})",
        "turn_s": f"sin({turn})",
        "tilt_c": f"cos({tilt})",
        "tilt_s": f"sin({tilt})",
        "front": f"cos({turn}) > 0 ? -1 : 1",
        "side": f"sin({turn}) > 0 ? -1 : 1",
    }
    return [alt.param(name=name, expr=expression) for name, expression in told.items()]


def _handle() -> alt.Chart:
    """Return what the mouse moves: two scales of one, without marks; a double click puts them back."""
    nothing = {"scale": alt.Scale(domain=[0, 1], nice=False, zero=False), "axis": None}
    return (
        alt.Chart(alt.InlineData(values=[{"across": 0.5, "upward": 0.5}]))
        .mark_point(opacity=0, size=0)
        .encode(x=alt.X("across:Q", **nothing), y=alt.Y("upward:Q", **nothing))
        .add_params(alt.selection_interval(name="dragged", bind="scales", zoom=False))
    )


def _faces(heights: np.ndarray, values: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[Mapping[str, Any]]:
    """Return a row for each cell between nodes: its corners in half-widths of the floor, its value and its place."""
    left, bottom = np.round(_unit(x, x), 4), np.round(_unit(y, y), 4)
    first, last = slice(None, -1), slice(1, None)
    corners = {"00": (first, first), "10": (last, first), "11": (last, last), "01": (first, last)}
    table = {f"z{name}": np.round(heights[corner], 4) for name, corner in corners.items()}
    table["value"] = np.stack([values[corner] for corner in corners.values()], -1).mean(-1)
    for name, line in (("x0", left[:-1]), ("x1", left[1:]), ("x", 0.5 * (x[1:] + x[:-1]))):
        table[name] = np.broadcast_to(line[:, None], table["value"].shape)
    for name, line in (("y0", bottom[:-1]), ("y1", bottom[1:]), ("y", 0.5 * (y[1:] + y[:-1]))):
        table[name] = np.broadcast_to(line[None, :], table["value"].shape)
    drawable = np.all([np.isfinite(column) for column in table.values()], 0)
    shown = {name: column[drawable].tolist() for name, column in table.items()}
    for name in ("value", "x", "y"):
        shown[name] = [float(f"{number:.5g}") for number in shown[name]]
    return [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]


def _placed(rows: Sequence[Mapping[str, Any]], place: Sequence[str]) -> alt.Chart:
    """Return rows with their place on the page."""
    base = alt.Chart(alt.InlineData(values=list(rows)))
    placed = base.transform_calculate(longitude=_at(_RIGHT, place), latitude=_at(_UP, place))
    return placed.encode(longitude="longitude:Q", latitude="latitude:Q")


def _on_surface(result: Any, heights: np.ndarray, x: float, y: float) -> dict[str, float]:
    """Return where a point of the plane lies: as high as the node nearest to it, on the floor where that has none."""
    axes = [np.asarray(axis, float) for axis in result.axes]
    i, j = (int(np.argmin(np.abs(axis - at))) for axis, at in zip(axes, (x, y), strict=True))
    across, along = (float(_unit(at, axis)) for axis, at in zip(axes, (x, y), strict=True))
    return {"x": across, "y": along, "z": float(np.nan_to_num(heights[i, j]))}


def _labels(x: np.ndarray, y: np.ndarray, titles: Sequence[str], domain: tuple[float, float], log: bool) -> alt.Chart:
    """Return what is written along the edges of the floor nearest to the eye, and beside the post."""
    rows: list[dict[str, Any]] = []
    for edge, axis, title in (("x", x, titles[0]), ("y", y, titles[1])):
        for at, words in ((0, title), (-1, f"{axis[0]:.3g}"), (1, f"{axis[-1]:.3g}")):
            rows.append({"edge": edge, "at": at, "off": 1.15 if at else 1.34, "z": 0, "words": words})
    low, high = domain
    half = float(np.sqrt(low * high)) if log else 0.5 * (low + high)
    for z, words in ((0.5 * RISE, f"{half:.3g}"), (RISE, f"{titles[2]} {high:.3g}")):
        rows.append({"edge": "z", "off": 1.2, "z": z, "words": words})
    place = (
        "datum.edge == 'x' ? datum.at : datum.off * (datum.edge == 'y' ? side : front)",
        "datum.edge == 'y' ? datum.at : datum.off * (datum.edge == 'x' ? front : -side)",
        "datum.z",
    )
    return _placed(rows, place).mark_text(color=theme.NEUTRAL, fontSize=12, aria=False).encode(text="words:N")


def _marks(rows: Sequence[Mapping[str, Any]]) -> list[alt.Chart]:
    """Return the models that lie in the plane, each with its name; nothing where there are none."""
    if not rows:
        return []
    base, look = _placed(rows, _OWN), {"dy": -12, "fontSize": 12, "fontWeight": "bold"}
    named = base.encode(text="label:N")
    return [
        base.mark_point(filled=True, size=80, color=theme.ACCENT, stroke="white", strokeWidth=1.5, opacity=1),
        named.mark_text(color="#14181d", stroke="#14181d", strokeWidth=2.5, opacity=0.7, **look),
        named.mark_text(color="white", **look),
    ]
