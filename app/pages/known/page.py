"""Known landscapes: what the engine measures where a formula says what it must be."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import widgets
from app.pages.known import charts
from app.texts import said, texts
from app.work import jobs
from app.work.work import Work, restartable

PAGE = "known"
SCRIPT = """from estimators import check_installation

result = check_installation()
for row in result.rows:
    print(row["landscape"], row["quantity"], row["expected"], row["measured"], row["right"])
"""


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        st.markdown(text("about"))
        if widgets.run_button(PAGE, text("run")):
            start()
        st.caption(text("terminal"))
    with right:
        widgets.job_panel(PAGE, draw, empty=text("empty"))


def start() -> None:
    """Queue the check."""
    config = {"estimator": "check_installation", "params": {}, "script": SCRIPT}
    jobs.submit(PAGE, texts(PAGE)("job"), Work.of(check), config=config)


@restartable
def check(handle: jobs.Handle) -> Any:
    """Measure the known landscapes; runs in the worker thread."""
    from estimators import check_installation

    return check_installation(**handle.reports)


def draw(result: Any) -> None:
    """Draw the verdict, the ladder and a table for each landscape; runs in a fragment."""
    from estimators import KNOWN_LANDSCAPES

    text = texts(PAGE)
    count, wrong = len(result.rows), [row for row in result.rows if not row["right"]]
    landscapes = list(dict.fromkeys(row["landscape"] for row in result.rows))
    if wrong:
        titles = dict.fromkeys(said(KNOWN_LANDSCAPES[row["landscape"]].title) for row in wrong)
        st.error(text("wrong", wrong=len(wrong), count=count, where=", ".join(titles)), icon=":material/error:")
    elif len(landscapes) == len(KNOWN_LANDSCAPES):
        st.success(text("right", count=count), icon=":material/check_circle:")
    else:
        st.info(text("so_far", count=count), icon=":material/hourglass:")
    chart = None
    if any(row["rung"] >= 0 for row in result.rows):
        chart = widgets.picture(text("heading.ladder"), charts.ladder(result))
        st.caption(text("ladder.note"))
    for name in landscapes:
        known = KNOWN_LANDSCAPES[name]
        rows = [row for row in result.rows if row["landscape"] == name]
        good = all(row["right"] for row in rows)
        icon = ":material/check_circle:" if good else ":material/error:"
        with st.expander(f"{said(known.title)} ({len(rows)})", icon=icon, expanded=not good):
            st.markdown(said(known.formula))
            st.markdown(text("known", answer=said(known.answer)))
            widgets.show_table(numbers(rows))
            st.caption(text("source", source=said(known.source)))
    st.caption(text("seconds", seconds=result.seconds))
    widgets.take_along(PAGE, result, chart, name="known-landscapes")


def numbers(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows of one landscape as a person reads them."""
    text = texts(PAGE)

    def name(row: dict[str, Any]) -> str:
        quantity = said(str(row["quantity"]))
        return quantity if row["rung"] < 0 else text("rung", quantity=quantity, rung=row["rung"])

    formats = {"expected": ".7g", "measured": ".7g", "difference": ".1e", "error": ".1e"}
    return pd.DataFrame(
        {
            text("col.verdict"): [text("verdict.right" if row["right"] else "verdict.wrong") for row in rows],
            text("col.quantity"): [name(row) for row in rows],
            **{text(f"col.{key}"): [f"{row[key]:{form}}" for row in rows] for key, form in formats.items()},
            text("col.error_of"): [said(row["error_of"]) for row in rows],
            text("col.engine"): [row["engine"] for row in rows],
        }
    )
