"""The known landscapes in a terminal: ``loss-atlas check`` prints a row for each number that a formula gives too."""

from __future__ import annotations

import sys
from unicodedata import east_asian_width

from app.texts import said, texts

WIDTHS = {"verdict": -7, "quantity": -45, "expected": 13, "measured": 13, "difference": 11, "error": 17}


def check() -> int:
    """Measure the known landscapes and print the rows; 1 when one is wrong."""
    from estimators import KNOWN_LANDSCAPES, check_installation

    text = texts("known")

    def told(done: int, total: int, message: str = "") -> None:
        if done < total:
            at = text("told.at", landscape=said(message), done=done + 1, count=total)
            print(at, file=sys.stderr, flush=True)

    result = check_installation(on_progress=told)
    print(line({name: text(f"col.{name}") for name in WIDTHS}))
    shown = None
    for row in result.rows:
        if row["landscape"] != shown:
            shown = row["landscape"]
            print(f"\n{said(KNOWN_LANDSCAPES[shown].title)}: {said(KNOWN_LANDSCAPES[shown].formula)}")
        quantity = said(row["quantity"])
        cells = {
            "verdict": text("told.right" if row["right"] else "told.wrong"),
            "quantity": quantity if row["rung"] < 0 else text("rung", quantity=quantity, rung=row["rung"]),
            **{name: f"{row[name]:.7g}" for name in ("expected", "measured")},
            **{name: f"{row[name]:.1e}" for name in ("difference", "error")},
        }
        print(f"{line(cells)}  {said(row['error_of'])}")
    right = sum(row["right"] for row in result.rows)
    print(f"\n{text('told.end', right=right, count=len(result.rows), seconds=result.seconds)}")
    return 0 if result.right else 1


def line(cells: dict[str, str]) -> str:
    """Return cells in columns, words on the left of theirs and numbers on the right."""
    return " ".join(padded(words, WIDTHS[name]) for name, words in cells.items())


def padded(words: str, width: int) -> str:
    """Return words on so many places of a terminal, on the left of them where ``width`` is negative.

    Examples
    --------
    >>> padded("손실", -6) + "|" + padded("1.5", 5)
    '손실  |  1.5'
    """
    taken = sum(2 if east_asian_width(letter) in "WF" else 1 for letter in words)
    blanks = " " * max(abs(width) - taken, 0)
    return words + blanks if width < 0 else blanks + words
