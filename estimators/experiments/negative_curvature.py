"""Negative curvature along real trainings: whether it is there, and whether a run ever stands still.

The gradient over all examples is taken after every step, both ends of the spectrum after some epochs, with batch-norm
statistics that are estimated from all examples at each point: what a checkpoint carries lags behind its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
from torch import nn

from ..core.evidence.verdicts import judge_share
from ..curvature import CurvatureHistoryResult, CurvatureTracker
from ..data import Examples
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, subprogress
from ..results import Uncertainty
from ..training import train
from ._paired import Job, JudgedResult, Row, network_key, run_jobs
from .claims import Measurement, judge_together, rows_of

NEGATIVE = 1e-4  # of λ_max: far beyond the rounding of a product
NEAR, UNTRAINED = 0.1, 0.1  # of the usual gradient, of the first loss
SHARE = 0.05  # of the steps before a run has trained that may be spent standing still before it matters


@dataclass(frozen=True, eq=False, kw_only=True)
class NegativeCurvatureResult(JudgedResult):
    """One row a checkpoint of each run, and one a step.

    Attributes
    ----------
    rows : list of dict
        ``seed``, ``epoch``, ``loss``, ``gradient_norm``, ``lambda_max`` with ``lambda_max_residual``, and
        ``lambda_min``, a Ritz value: the true eigenvalue is at most that, so that a negative one is proof.
    steps : list of dict
        ``seed``, ``step``, ``loss`` and ``gradient_norm`` over all examples after every step.
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
    steps: list[Row] = field(default_factory=list)


def negative_curvature_experiment(
    make_model: Callable[[int], nn.Module],
    data: Examples,
    *,
    n_seeds: int = 6,
    epochs: int = 16,
    lr: float = 0.1,
    batch_size: int = 64,
    every: int = 4,
    max_products: int = 40,
    memory: Any = None,
    random_state: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[NegativeCurvatureResult], None] | None = None,
) -> NegativeCurvatureResult:
    """Train from several seeds, and measure the gradient after every step and both ends of the spectrum at checkpoints.

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
    every : int, default=4
        Epochs between checkpoints; the first and the last point are among them.
    max_products : int, default=40
        Hessian products at a checkpoint.
    memory, random_state, on_progress, on_partial
        As in `rate_batch_experiment`.

    Returns
    -------
    NegativeCurvatureResult
    """
    training = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "checkpoint_every": every}

    def jobs() -> Iterator[Job]:
        for seed in range(random_state, random_state + n_seeds):
            model, own = make_model(seed), {**training, "random_state": seed}
            yield Job(
                label=f"seed {seed}",
                function=follow,
                arguments=(model, data, own, max_products),
                key=("curvature and steps", *network_key(model), data.fingerprint, own, max_products, NEGATIVE),
                columns={"seed": seed},
            )

    def result(rows: list[Row]) -> NegativeCurvatureResult:
        points, steps = ([row for row in rows if (STEP in row) is step] for step in (False, True))
        claims = rows_of(judge_curvature(points, steps))
        settings = {**training, "n_seeds": n_seeds, "data": data.name, "n_examples": len(data)}
        return NegativeCurvatureResult(
            settings=settings, rows=points, steps=steps, claims=claims, notes=_notes(points, steps)
        )

    return run_jobs(jobs(), n_seeds, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


STEP = "step"


def follow(
    model: nn.Module, data: Examples, training: dict[str, Any], max_products: int, on_progress: OnProgress
) -> list[Row]:
    """Train one network and measure its steps and its checkpoints; gives a row for each."""
    steps: list[Row] = []
    land = Landscape(model, data, batch_norm="recompute")

    def look(network: nn.Module) -> None:
        loss, gradient = land.loss_and_gradient(land.point(network.state_dict()))
        steps.append({STEP: len(steps) + 1, "loss": loss, "gradient_norm": float(gradient.double().norm())})

    run = train(model, data, on_step=look, on_progress=subprogress(on_progress, 0.0, 0.4), **training)
    points = [land.model_at(land.point(path)) for path in run.checkpoints]
    # a search may end where the smallest value it has is below `tol` of the largest: no larger than what counts
    tracker = CurvatureTracker(trace=False, negative=True, tol=NEGATIVE, max_products=max_products)
    tracker.fit(points, data, on_progress=subprogress(on_progress, 0.4, 1.0))
    found = cast(CurvatureHistoryResult, tracker.result_)
    columns = {
        "epoch": np.array([int(path.stem.rpartition("-")[2]) for path in run.checkpoints]),
        "loss": found.losses,
        "gradient_norm": found.gradient_norms,
        "lambda_max": found.lambda_max,
        "lambda_max_residual": found.lambda_max_residuals,
        "lambda_min": found.lambda_min,
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(points))] + steps


def judge_curvature(points: Sequence[Row], steps: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge both claims, each run one unit."""
    followed, walked = _runs(points), _runs(steps)
    negative = sum(_share([row["lambda_min"] < -NEGATIVE * row["lambda_max"] for row in run]) > 0.5 for run in followed)
    quick = sum(time_standing_still(run) < SHARE for run in walked)
    return judge_together(
        [
            (
                "nonconvex",
                "runs with negative curvature at most checkpoints",
                "more often than not",
                judge_share(negative, len(followed)),
            ),
            (
                "saddles_matter_little",
                "runs that stand still for under 5 % of the steps before they have trained",
                "more often than not",
                judge_share(quick, len(walked)),
            ),
        ]
    )


def time_standing_still(run: Sequence[Row]) -> float:
    """Give the share of the steps before a run has trained after which the gradient is small.

    Whatever the curvature there: who never stands still stands still beside no saddle.
    """
    return _share([size < NEAR for size in gradients(run)])


def gradients(run: Sequence[Row]) -> list[float]:
    """Give the sizes of the gradient before a run has trained, over their upper quartile."""
    early = [row["gradient_norm"] for row in run if row["loss"] > UNTRAINED * run[0]["loss"]]
    return [size / float(np.quantile(early, 0.75)) for size in early]


def _runs(rows: Sequence[Row]) -> list[list[Row]]:
    return [[row for row in rows if row["seed"] == seed] for seed in dict.fromkeys(row["seed"] for row in rows)]


def _share(told: Sequence[bool]) -> float:
    return float(np.mean(told)) if told else 0.0


def _notes(points: Sequence[Row], steps: Sequence[Row]) -> list[str]:
    if not points or not steps:
        return []
    ratios = np.array([-row["lambda_min"] / row["lambda_max"] for row in points])
    notes = [
        f"The most negative eigenvalue is {np.median(ratios):.2g} of the largest in the median of {len(points)} "
        f"checkpoints ({ratios.min():.2g} to {ratios.max():.2g})."
    ]
    runs = _runs(steps)
    nearest = min(min(gradients(run)) for run in runs)
    untrained = np.mean([len(gradients(run)) / len(run) for run in runs])
    return [
        *notes,
        f"The loss is above a tenth of its first value for {untrained:.0%} of the steps; the smallest gradient "
        f"there is {nearest:.2g} of its run's upper quartile.",
    ]
