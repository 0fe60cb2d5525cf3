"""Charts of a loss surface: the map with its isolines, and the profile along a line.

Every function takes a result with these fields and returns an Altair chart (:mod:`app.charts.relief` draws
the same result in three dimensions):

``axes``          tuple of one or two 1-D arrays, the coordinates along each direction
``losses``        (R1, R2) or (R,), first index along the first direction; (S, R) for a profile of S seeds
``accuracies``    like ``losses``, optional; so are ``held_out_losses`` and ``held_out_accuracies``
``evaluated``     optional mask: False where a value is interpolated
``markers``       optional list of ``{"label", "x", "y", "loss"}``: models that lie in the plane; those with a true
                  ``differs`` get a ≠, since the colour under them is not that of their own loss
``trajectories``  optional list of ``{"label", "x": [...], "y": [...], "loss": [...]}``
``axis_titles``   optional pair of titles with units
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import grid, theme
from app.charts.grid import QUANTITIES, quantities, values_of
from app.charts.marks import band, one_unit, shared, tips
from app.charts.relief import relief

OVERLAP = 0.06  # share of a cell that lies under the next one, at least
NARROWEST = 200  # pixels of the narrowest map: a fine cell lies a whole pixel under the next one

STROKES = 40  # about, on a side of what was not measured
LARGEST = 101  # nodes on a side of a map; more cells than this cost megabytes and cannot be told apart

__all__ = [
    "LARGEST", "QUANTITIES", "heat_map", "profile", "quantities", "ratio_map", "relief", "shared_domain", "values_of",
]  # fmt: skip


def shared_domain(
    results: Sequence[Any], quantity: str = "losses", *, log: bool = False, clip: float = 1.0
) -> tuple[float, float]:
    """Return one colour domain for several maps."""
    values = np.concatenate([values_of(result, quantity).ravel() for result in results])
    return grid.domain(values, log=grid.is_log(log, quantity), clip=clip)


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
    select: str | None = None,
    cursor: tuple[float, float] | None = None,
    equal: bool = True,
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
        Quantile of the values where the colours end.
    levels : int, default=12
        Isolines; 0 draws none.
    scheme : str
        A value of :data:`app.charts.theme.SCHEMES`.
    domain : tuple, optional
        Colour domain, for several maps on one scale (:func:`shared_domain`).
    select : str, optional
        Name of a selection of cells by click; its value holds ``cx`` and ``cy``, the node's coordinates.
    cursor : tuple of float, optional
        A point to mark, in the coordinates of the axes.
    equal : bool, default=True
        Whether axes of one unit are drawn with as many pixels for a step along one as along the other; False where the
        map is a panel of a larger chart, whose sides are given.
    """
    log = grid.is_log(log, quantity)
    values = values_of(result, quantity)
    low, high = domain or grid.domain(values, log=log, clip=clip)
    cells = _cells(result, quantity)
    drawable = np.isfinite(cells["value"]) & ((cells["value"] > 0) | (not log))
    x, y = _positions(result, equal)
    scale = theme.loss_scale(log, (low, high), scheme)
    tooltip = _tooltip(result, quantity, cells)
    box = {"x": x, "x2": "x2:Q", "y": y, "y2": "y2:Q"}
    colored = (
        alt.Chart(cells[drawable])
        .mark_rect(clip=True, opacity=1, strokeWidth=0)
        .encode(
            **box,
            color=alt.Color("value:Q", scale=scale, legend=grid.legend(quantity, lines=levels > 0) if legend else None),
            tooltip=tooltip,
        )
    )
    if select:
        colored = colored.add_params(alt.selection_point(name=select, fields=["cx", "cy"], on="click"))
    layers: list[alt.Chart] = [colored]
    waiting = grid.unknown(result, values)[drawn_nodes(values)]
    missing = cells[~drawable & ~waiting.ravel()].assign(why=shared("map.not_finite"))
    if waiting.any():
        covers, strokes = _hatching(cells, waiting)
        layers.append(alt.Chart(covers).mark_rect(color=theme.MISSING, opacity=0.12).encode(**box))
        layers.append(alt.Chart(strokes).mark_rule(color=theme.MISSING, strokeWidth=0.8, opacity=0.8).encode(**box))
    if len(missing):
        told = [*tooltip[:2], *tips(("why:N", shared(quantity)))]
        layers.append(alt.Chart(missing).mark_rect(color=theme.MISSING, opacity=0.55).encode(**box, tooltip=told))
    if levels > 0:
        positive = np.where(values > 0, values, np.nan) if log else values
        lines = grid.isolines(*result.axes, positive, grid.levels(low, high, levels, log=log))
        if len(lines):
            drawn = alt.Chart(lines).mark_line(color="white", strokeWidth=0.9, opacity=0.6)
            layers.append(drawn.encode(x=x, y=y, detail="line:N", order="order:Q"))
            layers += _written(alt.Chart(grid.level_labels(lines)).encode(x=x, y=y, text="words:N"))
    layers += _overlays(result, x, y)
    if cursor is not None:
        spot = pd.DataFrame({"x": [cursor[0]], "y": [cursor[1]]})
        ring = alt.Chart(spot).mark_point(shape="circle", size=160, stroke="white", strokeWidth=2.5)
        layers.append(ring.encode(x=x, y=y))
    return theme.describe(
        alt.layer(*layers).resolve_scale(color="independent"),
        _map_description(values, grid.unknown(result, values), quantity, low, high, log),
        title,
        height=height,
    )


def _map_description(values: np.ndarray, waiting: np.ndarray, quantity: str, low: float, high: float, log: bool) -> str:
    finite = values[np.isfinite(values)]
    later = int(waiting.sum())
    lost = values.size - finite.size - later
    parts = [
        shared(
            "alt.map",
            quantity=shared(quantity),
            rows=values.shape[0],
            columns=values.shape[1],
            smallest=f"{finite.min():.3g}" if finite.size else "…",
            low=f"{low:.3g}",
            high=f"{high:.3g}",
            scale=shared("alt.log" if log else "alt.linear"),
        )
    ]
    parts += [shared(f"alt.{what}", count=count) for what, count in (("waiting", later), ("lost", lost)) if count]
    return "; ".join(parts) + "."


def _positions(result: Any, equal: bool) -> tuple[alt.X, alt.Y]:
    """Return the encodings of both directions, as long as the cells; of one unit where they share one."""
    ends = [(float(edges[0]), float(edges[-1])) for edges in map(grid.edges, result.axes)]
    scales = [alt.Scale(domain=list(pair), nice=False, zero=False) for pair in ends]
    if equal and grid.share_unit(result):
        scales = list(one_unit(*ends))
    looks = zip(map(grid.in_lines, grid.axis_titles(result)), scales, strict=True)
    first, second = ({"title": title, "scale": scale, "axis": alt.Axis(grid=False)} for title, scale in looks)
    return alt.X("x:Q", **first), alt.Y("y:Q", **second)


def drawn_nodes(values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the index of the nodes that a map draws as cells: all, or :data:`LARGEST` on a side."""
    return np.ix_(*(grid.thin(size, LARGEST) for size in values.shape))


def _cells(result: Any, quantity: str) -> pd.DataFrame:
    """Return one row a cell: its edges, its node, its value and what a tooltip says besides.

    A map with more than :data:`LARGEST` nodes on a side is drawn with that many of them.
    """
    full = values_of(result, quantity)
    drawn = drawn_nodes(full)
    x, y = (np.asarray(axis, float)[index.ravel()] for axis, index in zip(result.axes, drawn, strict=True))
    values = full[drawn]
    ex, ey = grid.edges(x), grid.edges(y)
    i, j = (index.ravel() for index in np.indices(values.shape))
    # Cells reach a little under their neighbours: exact edges leave hairlines between anti-aliased rectangles.
    reach_x, reach_y = (max(OVERLAP, size / NARROWEST) for size in values.shape)
    right, top = ex[i + 1] + reach_x * (ex[i + 1] - ex[i]), ey[j + 1] + reach_y * (ey[j + 1] - ey[j])
    table = pd.DataFrame({"x": ex[i], "x2": right, "y": ey[j], "y2": top, "cx": x[i], "cy": y[j]})
    table["value"] = values.ravel()
    accuracies = getattr(result, "accuracies", None)
    if quantity == "losses" and accuracies is not None and np.shape(accuracies) == full.shape:
        table["accuracy"] = np.asarray(accuracies, float)[drawn].ravel()
    evaluated = getattr(result, "evaluated", None)
    if evaluated is not None and np.shape(evaluated) == full.shape and not np.all(evaluated):
        table["source"] = np.where(
            np.asarray(evaluated, bool)[drawn].ravel(), shared("map.evaluated"), shared("map.interpolated")
        )
    return table


def _hatching(cells: pd.DataFrame, waiting: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what covers cells that wait (n, m): a rectangle for each run of them, and slanted strokes.

    A mark for each cell would be tens of thousands; a stroke crosses a block of cells where there are many.
    """

    def spanning(first: tuple[np.ndarray, ...], last: tuple[np.ndarray, ...]) -> pd.DataFrame:
        a, b = (cells.iloc[np.ravel_multi_index(index, waiting.shape)] for index in (first, last))
        ends = {"x": a["x"], "x2": b["x2"], "y": a["y"], "y2": b["y2"]}
        return pd.DataFrame({name: column.to_numpy() for name, column in ends.items()})

    changes = np.diff(np.pad(waiting.T, ((0, 0), (1, 1))).astype(int), axis=1)
    (rows, starts), (_, ends) = np.nonzero(changes == 1), np.nonzero(changes == -1)
    side = max(1, round(max(waiting.shape) / STROKES))
    n, m = (size // side for size in waiting.shape)
    whole = waiting[: n * side, : m * side].reshape(n, side, m, side).all(axis=(1, 3))
    i, j = (side * index for index in np.nonzero(whole))
    return spanning((starts, rows), (ends - 1, rows)), spanning((i, j), (i + side - 1, j + side - 1))


def _path(trajectory: dict[str, Any], name: str) -> pd.DataFrame:
    """Return one row a checkpoint."""
    table = pd.DataFrame({"x": trajectory["x"], "y": trajectory["y"]}).assign(label=name)
    table["step"] = range(len(table))
    if trajectory.get("map_loss") is not None:
        table["map_loss"] = trajectory["map_loss"]
    return table if trajectory.get("loss") is None else table.assign(loss=trajectory["loss"])


def _tooltip(result: Any, quantity: str, cells: pd.DataFrame) -> list[alt.Tooltip]:
    titles = grid.axis_titles(result)
    told = [(f"c{'xy'[d]}:Q", titles[d], ".3g") for d in (0, 1)]
    told.append(("value:Q", shared(quantity), theme.LOSS_FORMAT))
    return _present(cells, *told, ("accuracy:Q", None, theme.ACCURACY_FORMAT), ("source:N", shared("map.source")))


def _present(table: pd.DataFrame, *fields: tuple[str | None, ...]) -> list[alt.Tooltip]:
    """Return the tooltips of those fields that a table has."""
    return tips(*(field for field in fields if field[0].partition(":")[0] in table))


def _overlays(result: Any, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the layers of what lies in the plane; where nothing is named, a cross at the centre."""
    layers: list[alt.Chart] = []
    on_map = ("map_loss:Q", shared("map.loss"), theme.LOSS_FORMAT)
    trajectories = list(getattr(result, "trajectories", None) or [])
    names = [str(path["label"]) for path in trajectories]
    if trajectories:
        table = pd.concat([_path(path, name) for path, name in zip(trajectories, names, strict=True)])
        told = (("label:N", shared("map.trajectory")), ("step:Q",), ("loss:Q", shared("map.own"), theme.LOSS_FORMAT))
        tooltip = _present(table, *told, on_map)
        scale = alt.Scale(domain=names, range=list(theme.CATEGORICAL))
        key = alt.Legend(orient="bottom") if len(names) > 1 else None  # one path needs no name beside the map
        base = alt.Chart(table).encode(x=x, y=y, order="step:Q")
        color = alt.Color("label:N", title=None, scale=scale, legend=key)
        layers.append(base.mark_line(strokeWidth=2).encode(color=color))
        dots = base.mark_point(filled=True, size=45, stroke="white", strokeWidth=1, opacity=1)
        layers.append(dots.encode(color=alt.Color("label:N", scale=scale, legend=None), tooltip=tooltip))
    markers = pd.DataFrame(list(getattr(result, "markers", None) or []))
    named = bool(len(markers))
    if not named and not layers:
        markers = pd.DataFrame({"x": [0.0], "y": [0.0], "label": [shared("map.centre")]})
    if len(markers):
        told = (("label:N", shared("map.model")), ("loss:Q", None, theme.LOSS_FORMAT))
        tooltip = _present(markers, *told, on_map)
        markers["name"] = markers["label"].astype(str)
        if "differs" in markers:  # the colour under it is not its own
            markers.loc[markers["differs"].astype(bool), "name"] += " ≠"
        base = alt.Chart(markers).encode(x=x, y=y)
        mark = base.mark_point(
            shape="circle" if named else "cross", filled=True, size=100, color=theme.ACCENT, stroke="white",
            strokeWidth=1.5, opacity=1,
        )  # fmt: skip
        layers.append(mark.encode(tooltip=tooltip))
        if named:
            layers += _written(base.encode(text="name:N"), dy=-14, fontWeight="bold", fontSize=12)
    if trajectories:
        ends = table[table["step"].eq(0) | table["step"].eq(table.groupby("label")["step"].transform("max"))]
        ends = ends.assign(words=[f"{shared('field.step')} {step}" for step in ends["step"]])
        layers += _written(alt.Chart(ends).encode(x=x, y=y, text="words:N"), dy=-12)
    return layers


def _written(base: alt.Chart, **look: Any) -> list[alt.Chart]:
    """Return the layers of words on a map: a dark edge under white letters is read on every colour."""
    look = {"fontSize": 11, **look}
    return [
        base.mark_text(color="#14181d", stroke="#14181d", strokeWidth=2.5, opacity=0.7, **look),
        base.mark_text(color="white", **look),
    ]


def ratio_map(axes: Sequence[np.ndarray], ratio: np.ndarray, *, height: int = 280) -> alt.LayerChart:
    """Draw |λ_min / λ_max| on a coarse grid, the number in each cell; dark where the loss is convex."""
    x, y = (np.asarray(axis, float) for axis in axes)
    ex, ey = grid.edges(x), grid.edges(y)
    i, j = (index.ravel() for index in np.indices(ratio.shape))
    table = pd.DataFrame({"x": ex[i], "x2": ex[i + 1], "y": ey[j], "y2": ey[j + 1], "cx": x[i], "cy": y[j]})
    table["ratio"] = ratio.ravel()
    finite = table[np.isfinite(table["ratio"])].assign(words=lambda t: t["ratio"].map("{:.2g}".format))
    scale = alt.Scale(domain=[0, 1], scheme="viridis", clamp=True)
    base = alt.Chart(finite)
    across, up = one_unit((ex[0], ex[-1]), (ey[0], ey[-1]))
    cells = base.mark_rect().encode(
        x=alt.X("x:Q", title=shared("axis.first.bare"), scale=across, axis=alt.Axis(grid=False)),
        x2="x2:Q",
        y=alt.Y("y:Q", title=shared("axis.second.bare"), scale=up, axis=alt.Axis(grid=False)),
        y2="y2:Q",
        color=alt.Color("ratio:Q", title="|λ_min / λ_max|", scale=scale),
        tooltip=tips(("ratio:Q", "|λ_min / λ_max|", ".3g")),
    )
    tone = alt.condition("datum.ratio > 0.6", alt.value("black"), alt.value("white"))
    numbers = base.mark_text(fontSize=11).encode(x="cx:Q", y="cy:Q", text="words:N", color=tone)
    middle = float(np.nanmedian(ratio)) if np.isfinite(ratio).any() else float("nan")
    rows, columns = ratio.shape
    description = shared("alt.ratio", rows=rows, columns=columns, median=f"{middle:.3g}")
    return theme.describe(alt.layer(cells, numbers), description, None, height=height, usermeta=theme.about(height))


def profile(
    result: Any,
    *,
    quantity: str = "losses",
    log: bool = False,
    title: str | None = None,
    height: int = theme.HEIGHT,
) -> alt.LayerChart:
    """Draw the loss along a line; several seeds become their median and a band from smallest to largest."""
    axis = np.asarray(result.axes[0], float)
    values = np.atleast_2d(values_of(result, quantity))
    log = grid.is_log(log, quantity)
    usable = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    keep = ~np.isnan(usable).all(0)
    table = pd.DataFrame({"t": axis[keep]})
    for name, reduce in (("middle", np.nanmedian), ("low", np.nanmin), ("high", np.nanmax)):
        table[name] = reduce(usable[:, keep], 0)
    label = shared(quantity)
    x_title = grid.axis_titles(result)[0]
    x = alt.X("t:Q", title=x_title, scale=alt.Scale(nice=False, zero=False))
    middle = alt.Y("middle:Q", title=label, scale=theme.axis_scale(log))
    told: list[tuple[str | None, ...]] = [("t:Q", x_title, ".3g"), ("middle:Q", label, theme.LOSS_FORMAT)]
    base = alt.Chart(table)
    layers = []
    if len(values) > 1:
        told += [(f"{end}:Q", shared(f"profile.{end}"), theme.LOSS_FORMAT) for end in ("low", "high")]
        layers.append(band(base, x, middle, color=alt.value(theme.TRAIN)))
    layers.append(base.mark_line(color=theme.TRAIN, strokeWidth=2).encode(x=x, y=middle))
    # Wide invisible points: the tooltip answers near the line, not only on it.
    dots = base.mark_point(color=theme.TRAIN, filled=True, size=90, opacity=0)
    layers.append(dots.encode(x=x, y=middle, tooltip=tips(*told)))
    lost = int((~np.isfinite(values)).sum())
    low, high = (f"{end:.3g}" for end in (table["low"].min(), table["high"].max()))
    parts = [shared("alt.profile", quantity=label, points=axis.size, low=low, high=high)]
    parts += [shared("alt.seeds", count=len(values))] if len(values) > 1 else []
    parts += [shared("alt.left_out", count=lost)] if lost else []
    return theme.describe(alt.layer(*layers), "; ".join(parts) + ".", title, height=height)
