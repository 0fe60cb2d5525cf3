"""Charts of a training: loss and accuracy against epochs."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import numpy as np
import pandas as pd

from app.charts import theme
from app.charts.marks import names, tips

SERIES = {
    "loss": [("loss", "training"), ("held_out_loss", "held out")],
    "accuracy": [("accuracy", "training"), ("held_out_accuracy", "held out")],
}


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
    length = max((len(history[name]) for name, _ in SERIES[kind] if name in history), default=0)
    epochs = np.asarray(history.get("epoch", np.arange(1, length + 1)), float)
    rows = [
        pd.DataFrame({"epoch": epochs[: len(history[name])], "value": np.asarray(history[name], float), "on": label})
        for name, label in SERIES[kind]
        if name in history and len(history[name])
    ]
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"epoch": [], "value": [], "on": []})
    table = table[np.isfinite(table["value"].astype(float))]
    title = theme.LOSS_TITLE if kind == "loss" else theme.ACCURACY_TITLE
    scale = theme.axis_scale(log and kind == "loss")
    base = alt.Chart(table).encode(
        x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("value:Q", title=title, scale=scale),
        color=names("on", {"training": theme.TRAIN, "held out": theme.HELD_OUT}),
        tooltip=tips(("epoch:Q",), ("on:N", "on"), ("value:Q", title, ".4g")),
    )
    last = f", last {table['value'].iloc[-1]:.3g}" if len(table) else ""
    return theme.describe(
        alt.layer(base.mark_line(strokeWidth=2), base.mark_point(filled=True, size=30)),
        f"{title} over {int(epochs[-1]) if len(epochs) else 0} epochs{last}.",
        height=height,
    )
