"""Chosen runs as one HTML file: pictures, numbers and programs, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.pages.runs import charts, compare
from app.report import document, figure, program, section, settings, table
from app.texts import texts
from app.workspace import runs
from app.workspace.numbers import NUMBERS
from app.workspace.runs import Run


def report(chosen: Sequence[Run]) -> str:
    """Return the file; up to four runs are compared in it too."""
    text = texts("runs")
    labels = compare.named(chosen)
    results = [runs.load_result(run) for run in chosen]
    sections = [one(run, label, result) for run, label, result in zip(chosen, labels, results, strict=True)]
    if 1 < len(chosen) <= compare.MOST:
        sections.insert(0, together(chosen, labels, list(zip(labels, results, strict=True))))
    return document(text("report.title", count=len(chosen)), f"{datetime.now():%Y-%m-%d %H:%M}", sections)


def one(run: Run, label: str, result: object) -> str:
    """Lay out one run."""
    text = texts("runs")
    found = [name for name in NUMBERS if name in run.numbers]
    rows = {text(f"number.{name}"): {text("value"): compare.shown(run, name)} for name in found}
    picture = charts.picture(result)
    body = (table(rows) if rows else "") + (figure(picture) if picture is not None else "")
    when = f"{run.page} · {run.created[:16].replace('T', ' ')} · {run.seconds:.1f} s"
    made = settings(run.info.get("settings") or {})
    return section(label, when, body + made + (program(run.script) if run.script else ""))


def together(chosen: Sequence[Run], labels: Sequence[str], results: list[tuple[str, object]]) -> str:
    """Lay out runs beside each other."""
    text = texts("runs")
    drawn = [chart for chart in (charts.maps(results), charts.lines(results)) if chart is not None]
    body = "".join(map(figure, drawn))
    differences = runs.differences(chosen)
    if differences:
        rows = {
            name: {label: compare.said(value) for label, value in zip(labels, values, strict=True)}
            for name, values in differences.items()
        }
        body += table(rows)
    return section(text("compare"), ", ".join(labels), body)
