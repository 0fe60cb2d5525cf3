"""What the views of the page Weight averaging share: what is shown, the statistics, the table of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.texts import said, texts
from app.widgets import Form


def switches(page: str, result: Any, default: str = "loss") -> tuple[str, str, bool]:
    """Write what is shown; return quantity, examples and whether the axis is logarithmic."""
    form, on, scale = Form(page, "averaging"), "train", "linear"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = form.switch("quantity", None, default)
        if any(np.isfinite(row["held_out_loss"]) for row in [*result.history, *result.report]):
            on = form.switch("on", ("held_out", "train"), label="examples")
        if result.history and quantity == "loss":
            scale = form.switch("scale", ("log", "linear"))
    return quantity, on, scale == "log"


def statistics(result: Any) -> None:
    """Write the loss of the average before and after its batch-norm statistics were estimated again."""
    text = texts("averaging")
    if any(row["role"] == "average_before" for row in result.report):
        before, after = result.row("average_before"), result.row("average")
        st.metric(
            text("statistics"),
            f"{before['train_loss']:.3g} → {after['train_loss']:.3g} nats",
            delta=text("mean_shift", shift=result.statistics["mean_shift"]),
            delta_color="off",
            delta_arrow="off",
            help=text("statistics.help"),
            border=True,
        )


def table(result: Any) -> None:
    """Write one row a point."""
    text = texts("averaging")
    numbers = ("held_out_accuracy", "held_out_loss", "train_accuracy", "train_loss")
    rows = pd.DataFrame(
        {
            text("column.point"): said(row["name"]),
            **{text(f"column.{name}"): row[name] * (100 if "accuracy" in name else 1) for name in numbers},
        }
        for row in result.report
    )
    if any("soup_score" in row for row in result.report):
        rows[text("column.verdict")] = [
            (text("kept") if row["kept"] else text("left_out")) if "kept" in row else "" for row in result.report
        ]
        rows[text("column.soup_score")] = [row.get("soup_score", np.nan) for row in result.report]
    share, nats = st.column_config.NumberColumn(format="%.1f %%"), st.column_config.NumberColumn(format="%.4f")
    columns = {text(f"column.{name}"): share if "accuracy" in name else nats for name in (*numbers, "soup_score")}
    widgets.show_table(rows, column_config=columns, fold=text("heading.table"), alt=text("heading.table"))
