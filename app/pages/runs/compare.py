"""Runs side by side: their numbers, their pictures on shared axes and one colour scale, and what was set otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import widgets
from app.pages.runs import charts
from app.texts import from_engine, texts
from app.widgets.boundary import boundary
from app.workspace import runs
from app.workspace.numbers import NUMBERS
from app.workspace.runs import Run

MOST = 4
SHARES = ("accuracy", "held_out_accuracy", "saddle_index")  # numbers that are said in percent


def draw(chosen: Sequence[Run]) -> None:
    """Draw up to four runs."""
    text = texts("runs")
    if len(chosen) > MOST:
        st.caption(text("compare.most", most=MOST, count=len(chosen)))
        return
    labels = named(chosen)
    results = loaded(chosen, labels)
    table = numbers(chosen, labels)
    if len(table):
        widgets.heading(text("numbers"))
        widgets.show_table(table)
    for what, drawn in (("maps", charts.maps), ("curves", charts.lines)):
        with boundary(f"the {what} of runs"):
            chart = drawn(results)
            if chart is not None:
                widgets.picture(text(what), chart)
    widgets.heading(text("differences"))
    widgets.show_table(differing(chosen, labels))


def named(chosen: Sequence[Run]) -> list[str]:
    """Return what to call runs beside each other: titles, with the time where two have the same."""
    titles = [run.title for run in chosen]
    times = [run.created[5:16].replace("T", " ") for run in chosen]
    said = [t if titles.count(t) == 1 else f"{t} ({time})" for t, time in zip(titles, times, strict=True)]
    return [label if said.count(label) == 1 else f"{label} {k + 1}" for k, label in enumerate(said)]


def loaded(chosen: Sequence[Run], labels: Sequence[str]) -> list[tuple[str, Any]]:
    """Return the results of runs by their labels; what can't be read is said and left out."""
    found = []
    for run, label in zip(chosen, labels, strict=True):
        try:
            found.append((label, runs.load_result(run)))
        except ValueError as error:
            st.warning(from_engine(error), icon=":material/warning:")
    return found


def numbers(chosen: Sequence[Run], labels: Sequence[str]) -> pd.DataFrame:
    """Return a row a number, a column a run."""
    text = texts("runs")
    held = [name for name in NUMBERS if any(name in run.numbers for run in chosen)]
    columns: dict[str, list[str]] = {text("number"): [text(f"number.{name}") for name in held]}
    for run, label in zip(chosen, labels, strict=True):
        columns[label] = [shown(run, name) for name in held]
    return pd.DataFrame(columns) if held else pd.DataFrame()


def shown(run: Run, name: str) -> str:
    """Return one number of a run as a person reads it."""
    if name not in run.numbers:
        return "–"
    value = run.numbers[name]
    return (f"{value:.2%}" if name in SHARES else f"{value:.4g}").replace("-", "−")


def differing(chosen: Sequence[Run], labels: Sequence[str]) -> pd.DataFrame:
    """Return a row a setting that is not the same everywhere, a column a run."""
    found = runs.differences(chosen)
    columns = {texts("runs")("setting"): list(found)}
    columns |= {label: [said(values[k]) for values in found.values()] for k, label in enumerate(labels)}
    return pd.DataFrame(columns)


def said(value: Any) -> str:
    """Return one setting as a person reads it."""
    return "–" if value is None else str(value)
