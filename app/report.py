"""The parts of a report: one HTML file that needs no other file and no network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from typing import Any

from app.export import chart_bytes
from app.texts import language, made_with

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #1d2430; max-width: 980px; margin: 3rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.9rem; margin-bottom: .2rem; } h2 { margin-top: 2.6rem; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .9rem; border-bottom: 1px solid #d9dee7; overflow-wrap: anywhere; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
small { color: #5a6577; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
pre { background: #f5f6f8; padding: .8rem 1rem; overflow-x: auto; font-size: .85rem; }
"""


def document(title: str, under: str, sections: Iterable[str]) -> str:
    """Lay out the whole file."""
    name = html.escape(title)
    return (
        f"<!doctype html><html lang='{language()}'><meta charset='utf-8'><title>{name}</title><style>{STYLE}</style>"
        f"<h1>{name}</h1><small>{html.escape(under)}</small>{''.join(sections)}</html>"
    )


def section(title: str, text: str, body: str) -> str:
    """Lay out one question with its answer."""
    return f"<h2>{html.escape(title)}</h2><p>{html.escape(text)}</p>{body}"


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out rows of named values."""
    columns = list(next(iter(rows.values())))
    head = "".join(f"<th>{html.escape(c)}</th>" for c in ["", *columns])
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>" + "".join(f"<td>{html.escape(str(row[c]))}</td>" for c in columns) + "</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def figure(chart: Any) -> str:
    """Draw a chart as inline SVG."""
    return f"<figure>{chart_bytes(chart, 'svg').decode()}</figure>"


def program(script: str) -> str:
    """Show a script, folded."""
    return f"<details><summary>Python</summary><pre>{html.escape(script)}</pre></details>"


def settings(values: Mapping[str, Any]) -> str:
    """Say under a picture what it was made with."""
    return f"<small>{html.escape(made_with(values))}</small>"
