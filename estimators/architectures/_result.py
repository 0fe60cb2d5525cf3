"""What a comparison of architectures gives: its rows, their summary, and the result that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..results import Result, Uncertainty

MEASURED = (
    "train_loss",
    "train_accuracy",
    "held_out_loss",
    "held_out_accuracy",
    "gap",
    "accuracy_gap",
    "lambda_max",
    "lambda_max_residual",
    "trace",
    "trace_stderr",
    "sharpness",
    "average_sharpness",
    "average_sharpness_stderr",
    "basin_width",
    "basin_open",
    "convex_share",
)
SUMMARISED = tuple(m for m in MEASURED if not m.endswith(("_stderr", "_residual", "_open")))


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparisonResult(Result):
    """A comparison of variants.

    Attributes
    ----------
    table : list of dict
        One row a training run: variant, architecture, changes, training, seed, status ("ok" or
        "failed: why"), n_parameters, parameters_per_example, epochs_run, seconds of training and measuring,
        and the quantities of `MEASURED`, None where the run failed.
    summary : list of dict
        One row a variant: n (runs), n_failed, and for each quantity its mean and `<quantity>_spread`
        (standard deviation over seeds; None for one seed, where it is unknown).
    names : list of str
        Variants, in the order of `surfaces`.
    surfaces : ndarray of shape (n_variants, R, R)
        Training loss on each variant's plane, first seed; NaN where there is none.
    axes : ndarray of shape (2, R)
        Coordinates along both directions in filter-normalised steps, the same for all maps.
    correlations : list of dict
        Kendall's τ of each sharpness measure with the gap, with its interval.
    claims : list of dict
        The lecture's statements and what these rows say about them.

    Examples
    --------
    >>> from estimators import ArchitectureComparer, load_data
    >>> comparer = ArchitectureComparer(n_seeds=1, epochs=1, maps="none", measures=("average_case",))
    >>> result = comparer.fit(["test_resnet"], load_data("digits", n_samples=80)).result_
    >>> len(result.table), result.uncertainty_of("table.average_sharpness")[0]  # one training
    (1, 'stderr')
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "table.lambda_max_residual": Uncertainty("residual", "table.lambda_max"),
        "table.trace_stderr": Uncertainty("stderr", "table.trace"),
        "table.average_sharpness_stderr": Uncertainty("stderr", "table.average_sharpness"),
        "correlations.low": Uncertainty("bracket", "correlations.tau"),
        "correlations.high": Uncertainty("bracket", "correlations.tau"),
    }

    table: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    names: list[str]
    surfaces: np.ndarray
    axes: np.ndarray
    correlations: list[dict[str, Any]]
    claims: list[dict[str, Any]]


def mean_and_spread(rows: Sequence[dict[str, Any]], quantity: str) -> dict[str, float | None]:
    """Give the mean and the `_spread` (standard deviation, n − 1) of one column; None where too few rows have it."""
    values = [row[quantity] for row in rows if row[quantity] is not None]
    return {
        quantity: float(np.mean(values)) if values else None,
        f"{quantity}_spread": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def summarise(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Give the mean and the spread over seeds of each quantity, one row a variant.

    Parameters
    ----------
    rows : sequence of dict
        Rows of a table.
    names : sequence of str
        Variants, in the order wanted.

    Returns
    -------
    list of dict
        variant, n, n_failed, n_parameters, seconds, and each quantity with its `_spread`: the standard
        deviation over the runs that trained, None where fewer than two did.
    """
    summary = []
    for name in names:
        own = [row for row in rows if row["variant"] == name]
        if not own:
            continue
        trained = [row for row in own if row["status"] == "ok"]
        line: dict[str, Any] = {
            "variant": name,
            "n": len(own),
            "n_failed": len(own) - len(trained),
            "n_parameters": own[0]["n_parameters"],
            "seconds": float(np.mean([r["seconds_training"] + (r["seconds_measuring"] or 0.0) for r in own])),
        }
        for quantity in SUMMARISED:
            line |= mean_and_spread(trained, quantity)
        summary.append(line)
    return summary
