"""Charts of a training: loss and accuracy against epochs."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.charts.marks import names, shared, tips
from app.texts import texts

text = texts("workbench")

SERIES = {"loss": ("loss", "held_out_loss"), "accuracy": ("accuracy", "held_out_accuracy")}
QUANTITIES = {"loss": "losses", "accuracy": "accuracies"}


def curves(
    history: Mapping[str, np.ndarray], kind: str, *, log: bool = False, height: int = theme.HEIGHT_SMALL
) -> alt.LayerChart:
    """Draw training and held-out curves.

    Parameters
    ----------
    history : mapping
        Arrays of one length: ``epoch``, ``loss``, ``accuracy`` and, optionally, ``held_out_*``.
    kind : {"loss", "accuracy"}
    log : bool, default=False
        Logarithmic loss.
    """
    if kind not in SERIES:
        raise ValueError(f"kind must be loss or accuracy, got {kind!r}. Choose one of them.")
    called = dict(zip(SERIES[kind], (text("on.train"), text("on.held_out")), strict=True))
    length = max((len(history[name]) for name in called if name in history), default=0)
    epochs = np.asarray(history.get("epoch", np.arange(1, length + 1)), float)
    rows = [
        pd.DataFrame({"epoch": epochs[: len(history[name])], "value": np.asarray(history[name], float), "on": label})
        for name, label in called.items()
        if name in history and len(history[name])
    ]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"epoch": [], "value": [], "on": []})
    table = table[np.isfinite(table["value"].astype(float))]
    title = shared(QUANTITIES[kind])
    scale = theme.axis_scale(log and kind == "loss")
    base = alt.Chart(table).encode(
        x=alt.X("epoch:Q", title=shared("field.epoch"), axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title=title, scale=scale),
        color=names("on", dict(zip(called.values(), (theme.TRAIN, theme.HELD_OUT), strict=True))),
        tooltip=tips(("epoch:Q",), ("on:N",), ("value:Q", title, ".4g")),
    )
    last = f"{table['value'].iloc[-1]:.3g}" if len(table) else "…"
    return theme.describe(
        alt.layer(base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=30)),
        shared("alt.curves", quantity=title, epochs=int(epochs[-1]) if len(epochs) else 0, last=last),
        height=height,
    )
