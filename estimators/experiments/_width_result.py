"""What a width sweep gives: rows, their summary by width, and the statements on width, judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..architectures import plain
from ..core.evidence.verdicts import judge_trend
from ..results import Result

Row = dict[str, Any]
QUANTITIES = ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "gap", "lambda_max")
# (key, section, quantity, claimed direction as the width grows, statement)
CLAIMS = (
    ("width_easy", "7", ("train_loss", "smaller"), "More parameters make training easier."),
    (
        "width_connected",
        "7",
        ("barrier", "smaller"),
        "Wide networks reach minima that are joined without a barrier.",
    ),
    (
        "width_equal",
        "7",
        ("held_out_accuracy_spread", "smaller"),
        "The minima of wide networks perform alike.",
    ),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class WidthSweepResult(Result):
    """A width sweep.

    Attributes
    ----------
    factors : ndarray of shape (n_widths,)
        Width factors, ascending.
    table : list of dict
        One row a training: factor, seed, status, n_parameters, parameters_per_example and `QUANTITIES`.
    barriers : list of dict
        One row a pair of seeds: factor, seeds, barrier (nats; None where it couldn't be measured) and why.
    summary : list of dict
        One row a width: means and `_spread` (standard deviation over seeds, None for one), zero_share (seeds
        at or below `zero_level`), barrier (mean over pairs) and barrier_spread.
    claims : list of dict
        The lecture's statements on over-parameterisation, judged.
    """

    factors: np.ndarray
    table: list[Row]
    barriers: list[Row]
    summary: list[Row]
    claims: list[Row]


def _numbers(rows: Sequence[Row], quantity: str) -> list[float]:
    return [row[quantity] for row in rows if row[quantity] is not None]


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def summarise_widths(rows: Sequence[Row], barriers: Sequence[Row], zero_level: float) -> list[Row]:
    """Give one row a width, see `WidthSweepResult.summary`."""
    summary = []
    for factor in sorted({row["factor"] for row in rows}):
        own = [row for row in rows if row["factor"] == factor]
        line: Row = {
            "factor": factor,
            "n": len(own),
            "n_failed": sum(row["status"] != "ok" for row in own),
            "n_parameters": own[0]["n_parameters"],
            "parameters_per_example": own[0]["parameters_per_example"],
            "zero_share": float(
                np.mean([row["train_loss"] is not None and row["train_loss"] <= zero_level for row in own])
            ),
        }
        for quantity in QUANTITIES:
            values = _numbers(own, quantity)
            line[quantity] = float(np.mean(values)) if values else None
            line[f"{quantity}_spread"] = _spread(values)
        heights = _numbers([b for b in barriers if b["factor"] == factor], "barrier")
        line["barrier"] = float(np.mean(heights)) if heights else None
        line["barrier_spread"] = _spread(heights)
        summary.append(line)
    return summary


def judge_width(rows: Sequence[Row], barriers: Sequence[Row], summary: Sequence[Row]) -> list[Row]:
    """Judge the lecture's statements on over-parameterisation by their trend with the width.

    Parameters
    ----------
    rows, barriers, summary : sequence of dict
        As in `WidthSweepResult`.

    Returns
    -------
    list of dict
        As `judge_claims` gives them.
    """
    sources = {"train_loss": rows, "barrier": barriers, "held_out_accuracy_spread": summary}
    judged = []
    for key, section, (quantity, claimed), statement in CLAIMS:
        source = [row for row in sources[quantity] if row[quantity] is not None]
        verdict = judge_trend([row["factor"] for row in source], [row[quantity] for row in source], claimed)
        measurement = {"measure": quantity, "claimed": claimed, **plain(verdict)}
        judged.append(
            {
                "key": key,
                "section": section,
                "statement": statement,
                "verdict": verdict.verdict,
                "measurements": [measurement],
            }
        )
    return judged
