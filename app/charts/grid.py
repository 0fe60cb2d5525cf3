"""Helpers of the surface charts: cell edges, colour domains, isolines, titles."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import altair as alt
import contourpy
import numpy as np
import pandas as pd

from app.charts.marks import shared
from app.texts import said

TINY = 1e-12
AROUND = 260  # pixels of a map on screen that are title, axis and colour bar


def edges(axis: np.ndarray) -> np.ndarray:
    """Return the n + 1 edges of the cells around n nodes; the nodes need not be evenly spaced."""
    axis = np.asarray(axis, float)
    if axis.size == 1:
        return np.array([axis[0] - 0.5, axis[0] + 0.5])
    middle = 0.5 * (axis[1:] + axis[:-1])
    return np.concatenate([[2 * axis[0] - middle[0]], middle, [2 * axis[-1] - middle[-1]]])


def domain(values: np.ndarray, *, log: bool = False, clip: float = 1.0) -> tuple[float, float]:
    """Return the colour domain of some values.

    Parameters
    ----------
    values : ndarray
        Any shape; non-finite entries don't count.
    log : bool, default=False
        A log scale has no zero: the lower end is then the smallest positive value.
    clip : float, default=1
        Quantile of the upper end; 0.9 lets the highest tenth share the top colour.
    """
    finite = values[np.isfinite(values)]
    if log:
        finite = finite[finite > 0]
    if not finite.size:
        return (TINY, 1.0) if log else (0.0, 1.0)
    low, high = float(finite.min()), float(np.quantile(finite, clip))
    if high <= low:  # a constant map still needs a scale
        high = low * 1.01 if low > 0 else low + 1.0
    return low, high


def levels(low: float, high: float, count: int, *, log: bool = False) -> np.ndarray:
    """Return ``count`` isoline levels strictly inside a domain, evenly spaced in the scale's own sense."""
    if log:
        return np.geomspace(max(low, TINY), high, count + 2)[1:-1]
    return np.linspace(low, high, count + 2)[1:-1]


def isolines(x: np.ndarray, y: np.ndarray, values: np.ndarray, at: Sequence[float]) -> pd.DataFrame:
    """Return the isolines of a grid as a table of points.

    Parameters
    ----------
    x, y : ndarray of shape (R1,), (R2,)
    values : ndarray of shape (R1, R2)
        First index along ``x``. Non-finite nodes break the lines.
    at : sequence of float

    Returns
    -------
    DataFrame
        Columns ``x``, ``y``, ``level``, ``line`` (a number for each connected line) and ``order`` along it.
    """
    masked = np.ma.masked_invalid(np.asarray(values, float).T)
    pieces = []
    if min(masked.shape) >= 2:
        generator = contourpy.contour_generator(x, y, masked, name="serial")
        for level in at:
            for line in generator.lines(float(level)):
                line = np.asarray(line)
                pieces.append(
                    pd.DataFrame(
                        {
                            "x": line[:, 0],
                            "y": line[:, 1],
                            "level": level,
                            "line": len(pieces),
                            "order": np.arange(len(line)),
                        }
                    )
                )
    if not pieces:
        return pd.DataFrame({"x": [], "y": [], "level": [], "line": [], "order": []}, dtype=float)
    return pd.concat(pieces, ignore_index=True)


def level_labels(lines: pd.DataFrame, *, every: int = 3, most: int = 6) -> pd.DataFrame:
    """Return where some isolines say their level: the middle of the longest line of every third level."""
    rows = []
    for level in sorted(lines["level"].unique())[1::every][:most]:
        own = lines[lines["level"] == level]
        longest = own[own["line"] == own["line"].value_counts().idxmax()]
        if len(longest) > 4:
            rows.append(longest.iloc[len(longest) // 2])
    return pd.DataFrame(rows, columns=lines.columns).assign(words=lambda t: told_apart(t["level"]))


def told_apart(values: Sequence[float]) -> list[str]:
    """Return numbers in as few digits, two at least, as tell them apart; powers of ten only where they are needed."""
    for digits in range(2, 7):
        words = [f"{float(f'{value:.{digits}g}'):g}" for value in values]
        if len(set(words)) == len(set(values)):
            break
    return words


def thin(size: int, largest: int) -> np.ndarray:
    """Return indices of at most ``largest`` of ``size`` nodes, both ends kept."""
    if size <= largest:
        return np.arange(size)
    return np.unique(np.round(np.linspace(0, size - 1, largest)).astype(int))


def coarser(result: Any, largest: int) -> SimpleNamespace:
    """Return a result with at most ``largest`` nodes on a side: all that it has for each node is picked alike."""
    kept = [thin(len(axis), largest) for axis in result.axes]
    nodes, shape = np.ix_(*kept), np.shape(result.losses)
    fields = {name: value[nodes] if np.shape(value) == shape else value for name, value in vars(result).items()}
    axes = tuple(np.asarray(axis)[index] for axis, index in zip(result.axes, kept, strict=True))
    return SimpleNamespace(**{**fields, "axes": axes})


# ---- what a surface result is made of ----

QUANTITIES = ("losses", "accuracies", "held_out_losses", "held_out_accuracies")


def values_of(result: Any, quantity: str = "losses") -> np.ndarray:
    """Return one quantity of a result as floats; ``ValueError`` when the result has none of that name."""
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}, got {quantity!r}. Choose one.")
    found = getattr(result, quantity, None)
    if found is None or not np.size(found):
        raise ValueError(f"quantity must be in this result, got {quantity!r}. Compute it with held-out data.")
    return np.asarray(found, float)


def quantities(result: Any) -> list[str]:
    """Return the quantities a result has, in the order of :data:`QUANTITIES`."""
    shape = np.shape(result.losses)
    return [q for q in QUANTITIES if np.shape(getattr(result, q, None)) == shape and np.prod(shape)]


def axis_titles(result: Any) -> tuple[str, str]:
    """Return the titles of the two axes: the result's own ``axis_titles``, or steps along directions."""
    given = [said(str(title)) for title in getattr(result, "axis_titles", None) or ()]
    first, second = (*given[:2], *(shared("axis.first"), shared("axis.second"))[len(given) :])[:2]
    return first, second


def in_lines(title: str, most: int = 32) -> str | list[str]:
    """Return a title with its unit on a line of its own where it is long: longer than its axis, it would be cut."""
    words, _, unit = title.rpartition(" (")
    return [words, f"({unit}"] if words and len(title) > most else title


def share_unit(result: Any) -> bool:
    """Return whether both axes are in one unit, by the words in parentheses at the end of their titles."""
    first, second = (title.rpartition("(")[2] for title in axis_titles(result))
    return first == second


def fitting_height(result: Any, most: int, *, width: int = 560) -> int:
    """Return the pixels that a map needs, axis and colour bar included: a flat plane would stand in empty space.

    Parameters
    ----------
    result : SurfaceResult-like
    most : int
        What a square plane has.
    width : int, default=560
        What the map itself has across, about.
    """
    if not share_unit(result):
        return most
    along, up = (float(np.ptp(np.asarray(axis, float))) for axis in result.axes[:2])
    return min(most, max(200, round(width * up / along)) + AROUND)


def is_preview(result: Any) -> bool:
    """Return whether a map is still being measured, or was stopped: what lies between its points may be wrong."""
    return not getattr(result, "converged", True)


def unknown(result: Any, values: np.ndarray) -> np.ndarray:
    """Return the mask of values that were not measured yet, as against measured and not finite.

    In a preview these are all but the measured ones: an interpolation that was not checked knows nothing.
    """
    evaluated = getattr(result, "evaluated", None)
    if evaluated is None or np.shape(evaluated) != values.shape:
        return np.zeros(values.shape, bool)
    return ~np.asarray(evaluated, bool) & (is_preview(result) | ~np.isfinite(values))


def is_log(log: bool, quantity: str) -> bool:
    """Return whether a quantity is drawn on a log scale; shares never are."""
    return log and "accurac" not in quantity


def legend(quantity: str, *, lines: bool = False) -> alt.Legend:
    """Return the colour bar of a quantity, below the map: beside it, it would take the width from the map.

    With ``lines`` it says what the isolines are.
    """
    return alt.Legend(
        type="gradient",
        title=[shared(quantity), shared("map.lines")] if lines else shared(quantity),
        orient="bottom",
        direction="horizontal",
        gradientLength=200,
        gradientThickness=12,
        labelOverlap="greedy",
        labelSeparation=8,
        format=".3~g",
    )
