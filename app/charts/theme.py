"""One look for every chart: colours, sizes, number formats, and the settings for a file on white or on dark.

On screen Streamlit's theme gives fonts, grid and text colours, so charts follow light and dark; here are only
the choices that carry meaning. In a file :func:`for_export` adds what Streamlit would have.
"""

from __future__ import annotations

from typing import Any

import altair as alt

# Perceptually uniform sequential schemes; the key is what a person reads, the value what Vega calls it.
SCHEMES = {
    "Viridis": "viridis",
    "Cividis": "cividis",
    "Magma": "magma",
    "Inferno": "inferno",
    "Plasma": "plasma",
}
DIVERGING = "blueorange"

# Told apart with every common colour vision, and readable on white and on dark grey (after Okabe and Ito).
CATEGORICAL = ("#3b82c4", "#d9781e", "#1f9e77", "#c05c9b", "#8a6fd1", "#b59b00", "#5ba7a0", "#c44e52")
TRAIN, HELD_OUT = CATEGORICAL[0], CATEGORICAL[1]
ACCENT = "#e4572e"
MISSING = "#9a9a9a"
NEUTRAL = "#7d8590"

HEIGHT = 420
HEIGHT_SMALL = 340
SQUARE = 460
LEAST = 290  # on screen axes and key lie inside the height: this leaves two hundred pixels for what is drawn

LOSS_FORMAT = ".4g"
ACCURACY_FORMAT = ".1%"


def loss_scale(log: bool = False, domain: tuple[float, float] | None = None, scheme: str = "viridis") -> alt.Scale:
    """Return the colour scale of a loss; ``domain`` fixes it over several charts."""
    options: dict[str, Any] = {"scheme": scheme, "type": "log" if log else "linear"}
    if domain is not None:
        options["domain"] = list(domain)
        options["clamp"] = True
    return alt.Scale(**options)


def axis_scale(log: bool = False, **options: Any) -> alt.Scale:
    """Return the scale of a position axis, without a forced zero."""
    return alt.Scale(type="log" if log else "linear", **({} if log else {"zero": False}), **options)


def describe(chart: Any, description: str, title: str | None = None, **properties: Any) -> Any:
    """Give a chart the sentence a screen reader says, and a title if there is one."""
    if title is not None:
        properties["title"] = title
    return chart.properties(description=description, **properties)


def about(height: int) -> dict[str, Any]:
    """Return what tells the page how wide a map of one unit is at most; wider, it would only have empty margins."""
    return {"widest": round(1.25 * height)}


def for_export(chart: Any, *, dark: bool = False, width: int = 560) -> Any:
    """Return the chart with fonts, background and text colours of its own, for a file.

    Charts without a width of their own get ``width``; on screen they fill their column.
    """
    text, grid, ground = ("#e6e8eb", "#3a3f47", "#15181d") if dark else ("#24292f", "#e3e6ea", "#ffffff")
    chart = chart.copy(deep=True)
    if isinstance(chart, (alt.Chart, alt.LayerChart)) and (
        getattr(chart, "width", alt.Undefined) is alt.Undefined or chart.width == "container"
    ):
        chart = chart.properties(width=width)
    font = "Source Sans Pro, Helvetica, Arial, Noto Sans CJK KR, Apple SD Gothic Neo, Malgun Gothic, sans-serif"
    return (
        chart.configure(background=ground, font=font, padding=12)
        .configure_axis(
            labelColor=text,
            titleColor=text,
            gridColor=grid,
            domainColor=grid,
            tickColor=grid,
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
        )
        .configure_legend(
            labelColor=text, titleColor=text, labelFontSize=12, titleFontSize=13, titleFontWeight="normal"
        )
        .configure_title(color=text, fontSize=15, anchor="start", fontWeight=600)
        .configure_header(labelColor=text, titleColor=text)
        .configure_view(stroke=None)
        .configure_range(category=list(CATEGORICAL))
    )
