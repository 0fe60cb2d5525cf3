"""What the three cases of mode connectivity gave, and what that says about the lecture's statements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.evidence.verdicts import NOT_CLEAR, NOT_SUPPORTED, SUPPORTED
from ..results import Result


@dataclass(frozen=True, eq=False, kw_only=True)
class CasesResult(Result):
    """Barriers of each case, path and seed.

    Attributes
    ----------
    rows : list of dict
        One a path: ``case``, ``seed``, ``path``, ``barrier``, ``rise``, ``distance`` (of the ends),
        ``loss_a``, ``loss_b``, ``accuracy_a``, ``accuracy_b`` and, with held-out data, ``held_out_barrier`` and
        ``held_out_accuracy`` (mean of the two ends).
    t, profiles : ndarray of shape (n,) and (n_rows, n)
        Loss along each path.
    summary : list of dict
        One a case and path: ``mean``, ``std`` (over seeds, n − 1), ``low``, ``high``, ``n``, ``joined``
        (share of seeds whose rise is at most ``tolerance``); pairs without a number are left out of all of them.
    verdicts : list of dict
        One a claim of the lecture: ``case``, ``path``, ``claim``, ``verdict``, ``reason``.
    tolerance : float
        In the unit of the loss.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    t: np.ndarray = field(default_factory=lambda: np.empty(0))
    profiles: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    summary: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    tolerance: float = 0.1

    def table(self) -> list[dict[str, Any]]:
        """Return the rows."""
        return self.rows


def summarise(rows: list[dict[str, Any]], tolerance: float) -> list[dict[str, Any]]:
    """Mean and spread of the barriers over seeds, for each case and path."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["path"]), []).append(row)
    table = []
    for (case, path), members in groups.items():
        measured = [m for m in members if not (np.isnan(m["barrier"]) or np.isnan(m["rise"]))]
        values = np.array([m["barrier"] for m in measured] or [np.nan], dtype=float)
        table.append(
            {
                "case": case,
                "path": path,
                "mean": float(values.mean()),
                "std": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
                "low": float(values.min()),
                "high": float(values.max()),
                "n": len(measured),
                "joined": float(np.mean([m["rise"] <= tolerance for m in measured])) if measured else float("nan"),
            }
        )
    return table


def judge(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the lecture's three statements against the shares of joined pairs.

    A statement that pairs are joined is supported when at least 80 % of the seeds are, not supported when at
    most 20 % are, and not clear in between or with fewer than three seeds. The second statement, that
    different starts need a curve, also asks that straight lines fail: its share is that of the curve, and it
    is not clear when the straight lines are joined too.
    """
    shares = {(row["case"], row["path"]): row for row in summary}
    curve = next((p for p in ("bezier", "polychain") if ("different starts", p) in shares), "")
    asked = (
        ("same start", "linear", "Networks that part from one start are mostly joined by the straight line."),
        (
            "different starts",
            curve,
            "Different starts are joined by a curve, though not by the straight line.",
        ),
        ("fine-tuned", "linear", "Networks fine-tuned from one parent are joined by the straight line."),
    )
    verdicts = []
    for case, path, claim in asked:
        row = shares.get((case, path))
        if row is None:
            continue
        verdict = _verdict(row["joined"], row["n"])
        reason = f"{row['joined']:.0%} of {row['n']} pairs joined, mean barrier {row['mean']:.3g}"
        if row["n"] == 0:
            reason = "no barrier could be measured: the loss along every path was not a number"
        straight = shares.get((case, "linear"))
        if path != "linear" and straight is not None:
            reason += f"; by the straight line {straight['joined']:.0%}, {straight['mean']:.3g}"
            if not straight["joined"] <= 0.2 and verdict == SUPPORTED:
                verdict = NOT_CLEAR
        verdicts.append({"case": case, "path": path, "claim": claim, "verdict": verdict, "reason": reason})
    return verdicts


def _verdict(share: float, n: int) -> str:
    if n < 3 or 0.2 < share < 0.8:
        return NOT_CLEAR
    return SUPPORTED if share >= 0.8 else NOT_SUPPORTED
