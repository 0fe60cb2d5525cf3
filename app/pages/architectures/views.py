"""How a comparison of architectures and a width sweep are shown, while they run and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.charts import surface as surface_charts
from app.charts.theme import SCHEMES
from app.pages.architectures import charts
from app.texts import plain, said, texts
from app.widgets import Form

TEXT = "architectures"
QUANTITIES = (
    "train_loss",
    "held_out_accuracy",
    "gap",
    "lambda_max",
    "trace",
    "sharpness",
    "average_sharpness",
    "basin_width",
    "convex_share",
    "train_accuracy",
    "held_out_loss",
    "accuracy_gap",
)
SHOWN_FIRST = QUANTITIES[:8]
RANKED = ("lambda_max", "trace", "sharpness", "average_sharpness", "basin_width", "convex_share")


def number(value: float | None) -> str:
    """Write a number in four digits; a dash for an unknown one."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.4g}"


def spread(mean: float | None, deviation: float | None) -> str:
    """Write a mean with its spread; "± ?" where one run leaves it unknown."""
    if mean is None:
        return "–"
    return f"{_short(mean, 3)} ± {'?' if deviation is None else _short(deviation, 2)}"


def _short(value: float, digits: int) -> str:
    """Write a number in few digits without a power of ten where it can be read without."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.{digits}g}"


def summary_table(result: Any) -> pd.DataFrame:
    """Return the table of variants, each quantity as mean ± spread."""
    text = texts(TEXT)
    return pd.DataFrame(
        {
            text("col.variant"): line["variant"],
            text("col.runs"): text("runs_of", ok=line["n"] - line["n_failed"], all=line["n"]),
            text("quantity.n_parameters"): line["n_parameters"],
            **{text(f"quantity.{q}"): spread(line[q], line[f"{q}_spread"]) for q in QUANTITIES[:9]},
            text("quantity.seconds"): line["seconds"],
        }
        for line in result.summary
    )


def runs_table(result: Any) -> pd.DataFrame:
    """Return one row a run, numbers unrounded."""
    text = texts(TEXT)
    return pd.DataFrame(
        {
            text("col.variant"): row["variant"],
            text("col.seed"): row["seed"],
            text("col.status"): row["status"],
            text("quantity.n_parameters"): row["n_parameters"],
            text("epochs"): row["epochs_run"],
            **{text(f"quantity.{q}"): row[q] for q in QUANTITIES},
            text("col.seconds"): row["seconds_training"] + (row["seconds_measuring"] or 0.0),
        }
        for row in result.table
    )


def draw_comparison(result: Any, page: str, total: int | None = None) -> None:
    """Draw a partial or final comparison.

    Parameters
    ----------
    result : ComparisonResult
    page : str
        Owner of the widgets.
    total : int, optional
        Runs there will be.
    """
    text = texts(TEXT)
    if total is not None and len(result.table) < total:
        st.caption(text("so_far", done=len(result.table), total=total))
    failed = sum(row["status"] != "ok" for row in result.table)
    if failed:
        st.warning(text("failures", count=failed, total=len(result.table)), icon=":material/warning:")
    if all(line["n"] == 1 for line in result.summary):
        st.info(text("one_seed"), icon=":material/info:")
    view = Form(page).switch("view", label_visibility="collapsed")
    {"maps": _maps, "numbers": _numbers, "rank": _rank, "claims": _claims, "runs": _runs}[view](result, page)
    formats = {text("quantity.n_parameters"): st.column_config.NumberColumn(format="localized")}
    formats[text("quantity.seconds")] = st.column_config.NumberColumn(format="%.1f")
    widgets.show_table(summary_table(result), fold=texts("common")("table"), column_config=formats)
    widgets.settings_line(result)
    chart = charts.small_multiples(result) if charts.maps(result) else charts.dots(result, "lambda_max")
    widgets.take_along(page, result, chart, table=runs_table(result), name="architectures")


def _maps(result: Any, page: str) -> None:
    text = texts(TEXT)
    drawn = dict(charts.maps(result))
    if not drawn:
        st.caption(text("maps.none"))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        form = Form(page)
        log = form.log()
        scheme = SCHEMES[form.choice("scheme", SCHEMES, width=140)]
        levels = form.slider("levels", 10, 0, 24, width=160)
    domain = charts.domain_of(result, log=log)
    for start in range(0, len(result.names), 2):
        for column, name in zip(st.columns(2), result.names[start : start + 2], strict=False):
            with column:
                if name not in drawn:
                    status = next((r["status"] for r in result.table if r["variant"] == name), "ok")
                    st.markdown(f"**{plain(name)}**")
                    st.caption(text("maps.waiting") if status == "ok" else text("maps.failed", why=plain(status)))
                    continue
                widgets.show_chart(
                    surface_charts.heat_map(
                        drawn[name], log=log, levels=levels, scheme=scheme, domain=domain, title=name, height=440
                    )
                )
    st.caption(text("maps.one_scale", low=number(domain[0]), high=number(domain[1])))


def _numbers(result: Any, page: str) -> None:
    text = texts(TEXT)
    named = {"label_visibility": "collapsed", "words": lambda q: text(f"quantity.{q}")}
    chosen = Form(page).several("quantities", QUANTITIES, SHOWN_FIRST, **named)
    widgets.in_pairs([charts.dots(result, quantity) for quantity in chosen])
    st.caption(text("dots.help"))


def _rank(result: Any, page: str) -> None:
    text = texts(TEXT)
    st.caption(text("rank.help"))
    left, right = st.columns(2)
    with left:
        widgets.show_chart(charts.correlations(result))
    with right:
        measure = Form(page).choice("measure", RANKED, label="rank.pick", words=lambda q: text(f"quantity.{q}"))
        widgets.show_chart(charts.against_gap(result, measure))


def _claims(result: Any, page: str) -> None:
    text = texts(TEXT)
    st.caption(text("claims.help"))
    if not result.claims:
        st.info(text("claims.none"))
    for claim in result.claims:
        sentence = text(f"claim.{claim['key']}")
        widgets.verdict(claim["verdict"], f"{sentence} :gray[{text('claims.section', section=claim['section'])}]")
        st.caption("  \n".join(measured(found) for found in claim["measurements"]))


def measured(found: dict[str, Any]) -> str:
    """Write one measurement of a statement: the number, its interval, what was claimed, and the rule."""
    text = texts(TEXT)
    parts = {"measure": text(f"quantity.{found['measure']}")}
    for name in ("difference", "low", "high"):
        value = found[name]
        shape = ".3g" if found["kind"] == "ratio" else "+.3g"
        parts[name] = "–" if value is None or not np.isfinite(value) else f"{value:{shape}}".replace("-", "−")
    kind = found["kind"]
    if parts["difference"] == "–":
        kind = "unknown"
    elif kind != "trend" and parts["low"] == "–":
        kind = "point"
    claimed = text("claimed", direction=text(f"claimed.{found['claimed']}"))
    return f"{text(f'measured.{kind}', **parts)} · {claimed} · {said(found['reason'])}"


def _runs(result: Any, page: str) -> None:
    widgets.show_table(runs_table(result))


def draw_width_sweep(result: Any, page: str) -> None:
    """Draw a partial or final width sweep.

    Parameters
    ----------
    result : WidthSweepResult
    page : str
        Owner of the widgets.
    """
    text = texts(TEXT)
    rows = [
        {
            text("col.width"): line["factor"],
            text("quantity.n_parameters"): line["n_parameters"],
            text("quantity.parameters_per_example"): line["parameters_per_example"],
            **{
                text(f"quantity.{q}"): spread(line[q], line[f"{q}_spread"])
                for q in ("train_loss", "held_out_accuracy", "lambda_max")
            },
            text("quantity.zero_share"): line["zero_share"],
            text("quantity.barrier"): line["barrier"],
        }
        for line in result.summary
    ]
    formats = {
        "n_parameters": "localized",
        "parameters_per_example": "%.3g",
        "zero_share": "percent",
        "barrier": "%.3g",
    }
    columns = {text(f"quantity.{q}"): st.column_config.NumberColumn(format=form) for q, form in formats.items()}
    _claims(result, page)
    widgets.in_pairs([charts.width_sweep(result, quantity) for quantity in charts.WIDTH_QUANTITIES])
    st.caption(text("width.help"))
    widgets.show_table(pd.DataFrame(rows), fold=texts("common")("table"), column_config=columns)
    widgets.settings_line(result)
    widgets.take_along(page, result, charts.width_sweep(result), table=pd.DataFrame(rows), name="width-sweep")
