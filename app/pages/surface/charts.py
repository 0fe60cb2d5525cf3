"""The profile of a map's first direction among other draws of directions."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from app.charts import grid, theme
from app.charts.marks import band, names, shared, tips
from app.texts import texts


def other_draws(trust: Any, *, log: bool = False, height: int = 300) -> alt.LayerChart:
    """Draw the loss along the map's first direction, and the band and median of other random directions."""
    text = texts("surface")
    others, own = np.asarray(trust.band_losses, float), np.asarray(trust.band_own, float)
    log = grid.is_log(log, "losses")
    shown = [np.where(np.isfinite(v) & ((v > 0) | (not log)), v, np.nan) for v in (others, own[None])]
    words = {text("trust.others"): theme.NEUTRAL, text("trust.own"): theme.TRAIN}
    rows = []
    for label, values in zip(words, shown, strict=True):
        keep = ~np.isnan(values).all(axis=0)
        table = pd.DataFrame({"t": np.asarray(trust.band_t)[keep], "kind": label})
        for name, reduce in (("middle", np.nanmedian), ("low", np.nanmin), ("high", np.nanmax)):
            table[name] = reduce(values[:, keep], axis=0)
        rows.append(table)
    table = pd.concat(rows)
    x = alt.X("t:Q", title=text("trust.t"), scale=alt.Scale(nice=False, zero=False))
    y = alt.Y("middle:Q", title=shared("losses"), scale=theme.axis_scale(log))
    color = names("kind", words)
    told = [("kind:N", None), ("t:Q", text("trust.t"), ".3g")]
    told += [(f"{end}:Q", text(f"trust.{end}"), theme.LOSS_FORMAT) for end in ("low", "middle", "high")]
    base = alt.Chart(table).encode(color=color)
    layers = [
        band(alt.Chart(rows[0]), x, y, color=alt.value(theme.NEUTRAL)),
        base.mark_line(strokeWidth=2).encode(x=x, y=y),
        base.mark_point(filled=True, size=90, opacity=0).encode(x=x, y=y, tooltip=tips(*told)),
    ]
    ends = [float(np.nanmax(v[:, [0, -1]])) if np.isfinite(v[:, [0, -1]]).any() else np.nan for v in shown]
    description = text("trust.alt", count=len(others), others=f"{ends[0]:.3g}", own=f"{ends[1]:.3g}")
    return theme.describe(alt.layer(*layers), description, height=height)
