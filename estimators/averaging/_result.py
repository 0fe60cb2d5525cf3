"""What an average of weights is made of and what it gains, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..results import Result, Uncertainty


def _no_matrix() -> np.ndarray:
    return np.empty((0, 0))


@dataclass(frozen=True, eq=False, kw_only=True)
class AverageResult(Result):
    """An average of weights beside the points it was made from.

    Losses are means over the examples in the unit of the loss (nats for cross-entropy), accuracies lie in
    [0, 1]; ``held_out_*`` are NaN without held-out data. What was not measured is empty.

    Attributes
    ----------
    method : str
        "swa", "ema", "uniform_soup" or "greedy_soup".
    n_averaged : int
        Points in the average.
    report : list of dict
        One row a point: ``name``; ``role`` ("member", "average", "average_before" with the last member's
        batch-norm statistics, "sgd", "iterate", "swa", "ema"); ``train_loss``, ``train_accuracy``,
        ``held_out_loss``, ``held_out_accuracy``; for members ``kept`` and ``share`` in the average, and for
        a greedy soup ``order``, ``score``, ``soup_score``.
    barriers : ndarray of shape (n_members, n_members)
        Loss barrier on the straight line between each two members of a soup, on the training data.
    statistics : dict
        Batch norm: ``policy``, ``layers``, ``mean_shift`` (root mean square change of the running means, in
        standard deviations) and ``variance_ratio`` (median of new over old running variance) of re-estimation.
    history : list of dict
        Of a training run: one row an epoch and ``role`` ("iterate", "swa", "ema", "sgd"), with ``epoch``,
        ``learning_rate`` and the four values.
    ema_gap : float
        Loss of the exponential average less that of the last iterate (held-out where there is some).
    ema_gap_flagged : bool
        Whether the gap is above 0.1.
    plane_x, plane_y : ndarray of shape (R,)
        Grid of a map of the plane through the trajectory and its average, in the unit of the weights.
    plane_losses : ndarray of shape (R, R)
        Loss there, first index along `plane_x`.
    plane_markers, plane_trajectories : list of dict
        Averages and runs in that plane, as in `SurfaceResult`: label, x, y, own loss, distance from the plane.
    plane_titles : list of str
        What the axes mean.
    sharpness : list of dict
        Where asked for: ``name``, ``role``, ``sharpness``, ``average_sharpness``, ``average_sharpness_stderr``,
        ``lambda_max`` and ``lambda_max_residual`` of a `SharpnessEstimator` at it.
    notes : list of str
        What a person should know before believing the numbers.

    Examples
    --------
    >>> import torch
    >>> from estimators import SWAAverager, load_data
    >>> data = load_data("digits", image_size=8, n_samples=32)
    >>> nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)) for _ in range(2)]
    >>> result = SWAAverager(method="uniform_soup").fit(nets, data).result_
    >>> [row["role"] for row in result.report], result.barriers.shape
    (['member', 'member', 'average'], (2, 2))
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "sharpness.average_sharpness_stderr": Uncertainty("stderr", "sharpness.average_sharpness"),
        "sharpness.lambda_max_residual": Uncertainty("residual", "sharpness.lambda_max"),
    }

    method: str = "swa"
    n_averaged: int = 0
    report: list[dict[str, Any]] = field(default_factory=list)
    barriers: np.ndarray = field(default_factory=_no_matrix)
    statistics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    ema_gap: float = float("nan")
    ema_gap_flagged: bool = False
    plane_x: np.ndarray = field(default_factory=lambda: np.empty(0))
    plane_y: np.ndarray = field(default_factory=lambda: np.empty(0))
    plane_losses: np.ndarray = field(default_factory=_no_matrix)
    plane_markers: list[dict[str, Any]] = field(default_factory=list)
    plane_trajectories: list[dict[str, Any]] = field(default_factory=list)
    plane_titles: list[str] = field(default_factory=list)
    sharpness: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, role: str) -> dict[str, Any]:
        """Give the first row of a role."""
        for row in self.report:
            if row["role"] == role:
                return row
        raise ValueError(
            f"role must be one of {sorted({r['role'] for r in self.report})}, got {role!r}. Choose one of these."
        )

    def table(self) -> list[dict[str, Any]]:
        """Give the rows of the report, for a CSV."""
        return self.report
