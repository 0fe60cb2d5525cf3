"""What the views of the page Weight averaging share: what is shown, the statistics, the table of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.state import bound
from app.texts import texts


def switches(page: str, result: Any, default: str = "loss") -> tuple[str, str, bool]:
    """Write what is shown; return quantity, examples and whether the axis is logarithmic."""
    text = texts("averaging")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = st.segmented_control(
            text("quantity"),
            ["loss", "accuracy"],
            format_func=lambda q: text("quantity." + q),
            default=default,
            required=True,
            **bound(page, "quantity"),
        )
        rows = [*result.history, *result.report]
        on = "train"
        if any(np.isfinite(row["held_out_loss"]) for row in rows):
            on = st.segmented_control(
                text("examples"),
                ["held_out", "train"],
                format_func=lambda o: text("examples." + o).capitalize(),
                default="held_out",
                required=True,
                **bound(page, "on"),
            )
        scale = "linear"
        if result.history and quantity == "loss":
            scale = st.segmented_control(
                text("scale"),
                ["log", "linear"],
                format_func=lambda s: text("scale." + s),
                default="log",
                required=True,
                **bound(page, "scale"),
            )
    return str(quantity), str(on), scale == "log"


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
    st.markdown(f"**{text('heading.table')}**")
    rows = pd.DataFrame(
        {
            text("column.point"): [row["name"] for row in result.report],
            **{
                text("column." + name): [row[name] * (100 if "accuracy" in name else 1) for row in result.report]
                for name in ("held_out_accuracy", "held_out_loss", "train_accuracy", "train_loss")
            },
        }
    )
    if any("soup_score" in row for row in result.report):
        rows[text("column.verdict")] = [
            (text("kept") if row["kept"] else text("left_out")) if "kept" in row else "" for row in result.report
        ]
        rows[text("column.soup_score")] = [row.get("soup_score", np.nan) for row in result.report]
    share, nats = st.column_config.NumberColumn(format="%.1f %%"), st.column_config.NumberColumn(format="%.4f")
    st.dataframe(
        rows,
        hide_index=True,
        column_config={
            text("column.held_out_accuracy"): share,
            text("column.train_accuracy"): share,
            text("column.held_out_loss"): nats,
            text("column.train_loss"): nats,
            text("column.soup_score"): nats,
        },
        alt=text("heading.table"),
    )
