"""Rows measured one by one and kept in a record, and their table on a page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]


def recorded(name: str, cases: Iterable[tuple[str, Callable[[], Row]]]) -> dict[str, Row]:
    """Measure each case that the record ``build/NAME.jsonl`` does not hold yet; give all of them by their names."""
    record = ROOT / "build" / f"{name}.jsonl"
    record.parent.mkdir(exist_ok=True)
    known = dict(map(json.loads, record.read_text().splitlines())) if record.is_file() else {}
    rows = {}
    for case, measure in cases:
        if case not in known:
            known[case] = measure()
            with record.open("a") as out:
                out.write(json.dumps([case, known[case]]) + "\n")
            print(case, known[case], flush=True)
        rows[case] = known[case]
    return rows


def write(part: str, table: list[Row], page: Path = ROOT / "docs" / "trust.md") -> None:
    """Put a table between its two marks of a page."""
    lines = ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
    text = "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in table)])
    before, start, rest = page.read_text().partition(f"<!-- {part} -->\n")
    _, end, after = rest.partition(f"<!-- end of {part} -->")
    if not (start and end):
        raise SystemExit(f"{page} must hold the marks of the part {part!r}.")
    page.write_text(f"{before}{start}{text}\n{end}{after}")
    print(text)
