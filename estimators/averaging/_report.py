"""An average beside its members: its statistics, its row, and what has to be said about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.network.copying import private_copy
from ._evaluation import GAP, Evaluator, finish
from ._result import AverageResult
from ._soup import remarks_on_barriers

Row = dict[str, Any]


def describe_average(
    method: str,
    evaluator: Evaluator,
    frozen: Callable[[nn.Module], Evaluator],
    model: nn.Module,
    average: dict[str, Tensor],
    rows: list[Row],
    notes: list[str],
    *,
    n_averaged: int,
    settings: dict[str, Any],
    barriers: np.ndarray | None = None,
    history: list[Row] | None = None,
    ends: tuple[Row, Row] | None = None,
) -> tuple[dict[str, Tensor], AverageResult]:
    """Give an average its statistics and measure it beside its members.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    evaluator : Evaluator
        Under the estimator's batch-norm policy.
    frozen : callable
        Module → an evaluator on the same examples with the module's own statistics.
    model : nn.Module
        The architecture.
    average : dict of str to Tensor
        Weights, with the statistics of the last member.
    rows : list of dict
        Of the report so far; `notes` likewise.
    n_averaged : int
        Points in the average, where no member has a row.
    settings, barriers, history
        Fields of the result.
    ends : (dict, dict) or None
        Values of the exponential mean and of the last iterate; None takes the average and its last member.

    Returns
    -------
    state : dict of str to Tensor
        Ready to load.
    result : AverageResult
    """
    theta = evaluator.theta(average, "The average")
    carrier = private_copy(model)
    carrier.load_state_dict(average)
    state, statistics, remarks = finish(carrier, evaluator.land, theta)
    rows, notes = list(rows), notes + remarks
    members = [row for row in rows if row["role"] == "member"]
    if "mean_shift" in statistics:
        rows.append({"name": "average, old statistics", "role": "average_before", **frozen(carrier).values(theta)})
    values = evaluator.values(evaluator.land.point(state))
    rows.append({"name": "average", "role": "average", **values})
    if method == "ema" and ends is None and members:
        ends = values, members[-1]
    key = "train_loss" if evaluator.outside is None else "held_out_loss"
    gap = float("nan") if ends is None else ends[0][key] - ends[1][key]
    if gap > GAP:
        notes.append(
            f"The exponential mean's loss is {gap:.2g} above that of the last iterate: it still holds early weights. "
            "Train longer, lower decay or leave the warm-up on."
        )
    barriers = np.empty((0, 0)) if barriers is None else barriers
    notes += remarks_on_barriers(barriers, [row["name"] for row in members], method == "greedy_soup")
    return state, AverageResult(
        settings=settings,
        method=method,
        n_averaged=sum(bool(row.get("kept")) for row in members) if members else n_averaged,
        report=rows,
        barriers=barriers,
        statistics=statistics,
        history=history or [],
        ema_gap=gap,
        ema_gap_flagged=bool(gap > GAP),
        notes=notes,
    )
