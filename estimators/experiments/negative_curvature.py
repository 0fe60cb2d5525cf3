"""Negative curvature along real trainings: whether it is there, and whether a run ever stands still near it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from torch import nn

from ..core.evidence.verdicts import judge_share
from ..curvature import CurvatureHistoryResult, CurvatureTracker
from ..data import Examples
from ..progress import OnProgress, ignore_progress, subprogress
from ..results import Uncertainty
from ..training import train
from ._paired import Job, JudgedResult, Row, network_key, run_jobs
from .claims import Measurement, judge_together, rows_of

NEGATIVE = 0.01  # of λ_max: below it curvature is flat rather than negative
NEAR, DOWNHILL, UNTRAINED = 0.1, 0.1, 0.1  # of the median gradient, of λ_max, of the first loss
SHARE = 0.05  # of a run that may be spent near a saddle before it matters


@dataclass(frozen=True, eq=False, kw_only=True)
class NegativeCurvatureResult(JudgedResult):
    """One row a checkpoint of each run.

    Attributes
    ----------
    rows : list of dict
        ``seed``, ``epoch``, ``loss``, ``gradient_norm``, ``lambda_max`` with ``lambda_max_residual``, and
        ``lambda_min``, a Ritz value: the true eigenvalue is at most that, so that a negative one is proof.
    claims : list of dict
        One a row of a verdict: ``claim`` and the fields of `Measurement`.
    notes : list of str

    Examples
    --------
    >>> from estimators.experiments import NegativeCurvatureResult
    >>> rows = [{"epoch": 1, "lambda_max": 9.0, "lambda_min": -2.0}]  # made up
    >>> NegativeCurvatureResult(rows=rows).rows[0]["lambda_min"]
    -2.0
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "rows.lambda_max_residual": Uncertainty("residual", "rows.lambda_max")
    }


def negative_curvature_experiment(
    make_model: Callable[[int], nn.Module],
    data: Examples,
    *,
    n_seeds: int = 6,
    epochs: int = 12,
    lr: float = 0.1,
    batch_size: int = 64,
    max_products: int = 40,
    memory: Any = None,
    random_state: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[NegativeCurvatureResult], None] | None = None,
) -> NegativeCurvatureResult:
    """Train from several seeds and measure both ends of the spectrum after every epoch.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``.
    data : Examples
        Trained and measured on.
    n_seeds : int, default=6
        Runs, the independent units; fewer than 5 can't be clear.
    epochs, lr, batch_size
        Of `train`, with its cosine schedule.
    max_products : int, default=40
        Hessian products at a checkpoint.
    memory, random_state, on_progress, on_partial
        As in `rate_batch_experiment`.

    Returns
    -------
    NegativeCurvatureResult
    """
    training = {"epochs": epochs, "lr": lr, "batch_size": batch_size}

    def jobs() -> Iterator[Job]:
        for seed in range(random_state, random_state + n_seeds):
            model, own = make_model(seed), {**training, "random_state": seed}
            yield Job(
                label=f"seed {seed}",
                function=follow,
                arguments=(model, data, own, max_products),
                key=("negative curvature", *network_key(model), data.fingerprint, own, max_products),
                columns={"seed": seed},
            )

    def result(rows: list[Row]) -> NegativeCurvatureResult:
        claims = rows_of(judge_curvature(rows))
        settings = {**training, "n_seeds": n_seeds, "data": data.name, "n_examples": len(data)}
        return NegativeCurvatureResult(settings=settings, rows=rows, claims=claims, notes=_notes(rows))

    return run_jobs(jobs(), n_seeds, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


def follow(
    model: nn.Module, data: Examples, training: dict[str, Any], max_products: int, on_progress: OnProgress
) -> list[Row]:
    """Train one network and measure its checkpoints; gives a row for each."""
    run = train(model, data, on_progress=subprogress(on_progress, 0.0, 0.2), **training)
    tracker = CurvatureTracker(trace=False, negative=True, tol=1e-2, max_products=max_products)
    tracker.fit(run, data, on_progress=subprogress(on_progress, 0.2, 1.0))
    found = cast(CurvatureHistoryResult, tracker.result_)
    columns = {
        "epoch": found.steps,
        "loss": found.losses,
        "gradient_norm": found.gradient_norms,
        "lambda_max": found.lambda_max,
        "lambda_max_residual": found.lambda_max_residuals,
        "lambda_min": found.lambda_min,
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(found.steps))]


def judge_curvature(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge both claims, each run one unit."""
    runs = _runs(rows)
    negative = sum(_share([row["lambda_min"] < -NEGATIVE * row["lambda_max"] for row in run]) > 0.5 for run in runs)
    quick = sum(time_near_saddles(run) < SHARE for run in runs)
    return judge_together(
        [
            (
                "nonconvex",
                "runs with negative curvature at most checkpoints",
                "more often than not",
                judge_share(negative, len(runs)),
            ),
            (
                "saddles_matter_little",
                "runs that spend under 5 % near a saddle",
                "more often than not",
                judge_share(quick, len(runs)),
            ),
        ]
    )


def time_near_saddles(run: Sequence[Row]) -> float:
    """Give the share of a run at which it stands still beside negative curvature before it has trained."""
    usual = float(np.median([row["gradient_norm"] for row in run]))
    return _share(
        [
            row["loss"] > UNTRAINED * run[0]["loss"]
            and row["gradient_norm"] < NEAR * usual
            and row["lambda_min"] < -DOWNHILL * row["lambda_max"]
            for row in run
        ]
    )


def _runs(rows: Sequence[Row]) -> list[list[Row]]:
    return [[row for row in rows if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in rows)]


def _share(told: Sequence[bool]) -> float:
    return float(np.mean(told)) if told else 0.0


def _notes(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    ratios = np.array([-row["lambda_min"] / row["lambda_max"] for row in rows])
    nearest = min(
        row["gradient_norm"] / np.median([r["gradient_norm"] for r in run]) for run in _runs(rows) for row in run
    )
    return [
        f"The most negative eigenvalue is {np.median(ratios):.2g} of the largest in the median of {len(rows)} "
        f"checkpoints ({ratios.min():.2g} to {ratios.max():.2g}).",
        f"The smallest gradient that was met is {nearest:.2g} of its run's median.",
        "Checkpoints are an epoch apart: a stay of a few steps is not seen.",
    ]
