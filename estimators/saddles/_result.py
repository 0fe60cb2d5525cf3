"""What leaving a saddle gave, as arrays by optimiser, radius and seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..results import Result

COLUMNS = (
    "median_steps",
    "lower_quartile_steps",
    "upper_quartile_steps",
    "share_left",
    "alignment",
    "diverged_share",
    "theory_steps",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class EscapeResult(Result):
    """Races of optimisers away from one saddle.

    Attributes
    ----------
    saddle : dict
        kind, found, loss, gradient_norm, index, n_zero, eigenvalues, note and what belongs to its kind.
    optimizers : tuple of str
        Keys of the n rules run so far.
    radii : ndarray of shape (n_radii,)
        Distances ‖θ − saddle‖ of the starts, absolute.
    recorded_steps : ndarray of shape (T,)
        Steps at which losses, trajectories and distances are kept.
    losses, distances : ndarray of shape (n, T, n_radii, n_seeds)
        Objective, and ‖θ − saddle‖, along each path.
    trajectories : ndarray of shape (n, T, n_radii, n_seeds, 2)
        Positions on the most negative and the most positive mode.
    escape_steps : ndarray of shape (n, n_radii, n_seeds)
        First step with the loss lower than the saddle's by `threshold`; inf when that did not happen.
    alignment : ndarray of shape (n, n_radii, n_seeds)
        |cosine| of the first ten steps' displacement with the negative mode; NaN where nothing moved or there
        is no such mode.
    diverged, moved : ndarray of shape (n, n_radii, n_seeds), bool
        Loss far above the start or not finite; any bit of θ changed.
    theory_steps : ndarray of shape (n, n_radii, n_seeds)
        Leaving step of the linear theory (log(δ/r)/log(1 + ηλ) for GD); NaN for rules that have none.
    lr, threshold, growth_per_step : float
        η, the drop in loss that counts as having left, and 1 + ηλ.
    rest_radius : float
        Distance on the negative mode at which r = 0 really lies, from the gradient that rounding leaves.
    max_steps : int
        Budget of each run.
    plane : dict
        x, y (positions on the negative and the positive mode) and losses (len(x), len(y)) of the objective: the
        first index runs along the first mode. Of a large network ``n_evaluated`` of them were evaluated and the rest
        interpolated, with an error of about ``largest_error``, a share of the range of log-loss.
    mechanisms : list of dict
        The lecture's claims with measured columns and verdicts.

    Examples
    --------
    >>> from estimators import SaddleEscaper
    >>> result = SaddleEscaper(saddle="monkey_saddle", optimizers=("gd", "sam"), n_seeds=2, max_steps=20).fit().result_
    >>> result.optimizers, result.escape_steps.shape  # optimisers, radii, seeds
    (('gd', 'sam'), (2, 3, 2))
    """

    kind: ClassVar[str] = "escape"
    version: ClassVar[int] = 2

    saddle: dict[str, Any]
    optimizers: tuple[str, ...] = ()
    radii: np.ndarray = field(default_factory=lambda: np.empty(0))
    recorded_steps: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    losses: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0)))
    distances: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0)))
    trajectories: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0, 2)))
    escape_steps: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    alignment: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    diverged: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), dtype=bool))
    moved: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), dtype=bool))
    theory_steps: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    lr: float = float("nan")
    threshold: float = float("nan")
    growth_per_step: float = float("nan")
    rest_radius: float = float("nan")
    max_steps: int = 0
    plane: dict[str, Any] = field(default_factory=dict)
    mechanisms: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def _upgrade(cls, values: dict[str, Any], version: int) -> dict[str, Any]:
        if version < 2 and values.get("plane"):  # the plane's first index ran along y
            values["plane"] = {**values["plane"], "losses": values["plane"]["losses"].T}
        return values


def measure_names(radii: np.ndarray) -> list[str]:
    """Name the columns of the table: each measure at each radius."""
    return [f"{measure}[r={radius:g}]" for radius in radii for measure in COLUMNS]


def measure_table(result: EscapeResult) -> np.ndarray:
    """Reduce a result to one row an optimiser, columns as in `measure_names`.

    Quartiles count runs that stayed or diverged as infinitely long, so that a median of inf means that at
    least half did not leave.
    """
    rows = []
    for i in range(len(result.optimizers)):
        row: list[float] = []
        for j in range(len(result.radii)):
            steps, alignment = result.escape_steps[i, j], result.alignment[i, j]
            row += [
                *(float(np.quantile(steps, q, method="inverted_cdf")) for q in (0.5, 0.25, 0.75)),
                float(np.isfinite(steps).mean()),
                float(np.nanmedian(alignment)) if np.isfinite(alignment).any() else np.nan,
                float(result.diverged[i, j].mean()),
                float(np.median(result.theory_steps[i, j])),
            ]
        rows.append(row)
    return np.array(rows, dtype=float).reshape(len(result.optimizers), len(measure_names(result.radii)))
