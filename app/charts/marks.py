"""What charts are put together from, a line each: tooltips, named colours, bands, intervals, rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.texts import texts

shared = texts("charts")


def tips(*fields: tuple[str | None, ...]) -> list[alt.Tooltip]:
    """Return tooltips, each given as (field with its type, title, number format); title and format may be left out.

    A field without a title is called what the charts call it everywhere.
    """
    named = [dict(zip(("shorthand", "title", "format"), field, strict=False)) for field in fields]
    for field in named:
        field["title"] = field.get("title") or shared("field." + str(field["shorthand"]).partition(":")[0])
    return [alt.Tooltip(**{name: value for name, value in field.items() if value is not None}) for field in named]


def names(field: str, colors: Mapping[str, str], legend: str | None = "top", **look: Any) -> alt.Color:
    """Return the colours of the names in a field; ``legend`` is where they are listed, ``look`` more about the list."""
    scale = alt.Scale(domain=list(colors), range=list(colors.values()))
    listed = {"orient": legend, "labelLimit": 260, **look}
    return alt.Color(f"{field}:N", title=None, scale=scale, legend=legend and alt.Legend(**listed))


def same(axis: Any, field: str) -> Any:
    """Return an axis for another field, on the same scale and with the same title."""
    other = axis.copy(deep=False)
    other.shorthand = field
    return other


def band(base: alt.Chart, x: alt.X, y: alt.Y, opacity: float = 0.2, **more: Any) -> alt.Chart:
    """Return the area from the field ``low`` to ``high``, on the axis ``y`` of what lies between."""
    return base.mark_area(opacity=opacity, clip=True).encode(x=x, y=same(y, "low:Q"), y2="high:Q", **more)


def interval(base: alt.Chart, x: alt.X, y: alt.Y, width: float = 2, **more: Any) -> alt.Chart:
    """Return the line from the field ``low`` to ``high`` along ``x``: how well a value is known."""
    look = {"color": alt.value(theme.NEUTRAL)} | more
    return base.mark_rule(strokeWidth=width).encode(x=same(x, "low:Q"), x2="high:Q", y=y, **look)


def one_unit(x: Sequence[float], y: Sequence[float]) -> tuple[alt.Scale, alt.Scale]:
    """Return the scales of two axes that share a unit: circles stay circles, whatever the size of the picture.

    Both ranges are in sight; the axis that has more room than it needs shows more than its range.

    Parameters
    ----------
    x, y : (low, high)
    """
    (left, right), (low, high) = ((float(a), float(b)) for a, b in (x, y))
    unit = f"max({right - left!r} / width, {high - low!r} / height)"  # of one pixel

    def around(middle: float, side: str) -> alt.Scale:
        half = f"{unit} * {side} / 2"
        return alt.Scale(domain=alt.ExprRef(f"[{middle!r} - {half}, {middle!r} + {half}]"), nice=False, zero=False)

    return around((left + right) / 2, "width"), around((low + high) / 2, "height")


def decades(values: pd.Series, constant: float) -> alt.Axis:
    """Return the axis of a symmetric logarithmic scale: marks at zero and at powers of ten from its constant on."""
    low, high = (float(f([0.0, *values])) for f in (min, max))
    powers = 10.0 ** np.arange(np.ceil(np.log10(constant)), np.ceil(np.log10(max(-low, high, constant))) + 1)
    marks = [float(f"{sign * power:.1g}") for power in powers for sign in (-1, 1)]
    return alt.Axis(values=sorted({0.0, *(mark for mark in marks if low <= mark <= high)}), format="~g")


def rule(axis: alt.X | alt.Y, value: float) -> alt.Chart:
    """Return a dashed line across the picture where an axis has a value."""
    table = pd.DataFrame({str(axis.shorthand).partition(":")[0]: [value]})
    return alt.Chart(table).mark_rule(strokeDash=[4, 4], color=theme.NEUTRAL).encode(axis)
