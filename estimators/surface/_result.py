"""What `SurfaceMapper` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..budget import BudgetedResult
from ..results import Uncertainty


def _empty() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class SurfaceResult(BudgetedResult):
    """Losses on a line, plane or volume through a point.

    Losses are means over the examples in the unit of the loss (nats for cross-entropy), accuracies are in
    [0, 1]. Values that are not finite are kept as they are. Arrays that were not asked for are empty.

    Attributes
    ----------
    axes : tuple of ndarray
        Coordinates along each direction, in lengths of the direction; 0 is the centre.
    losses, accuracies : ndarray of shape (R1,), (R1, R2) or (R1, R2, R3)
        First index along the first direction; (n_seeds, R1) for a profile of several seeds.
    held_out_losses, held_out_accuracies : ndarray
        The same on the held-out examples.
    evaluated : bool ndarray
        Where a value was evaluated; elsewhere it is interpolated, or not known yet while the work goes on.
    error_estimate : ndarray
        Estimated |error| of the log of each loss (of the loss where a negative one was met); 0 where
        evaluated. Of a bfloat16 map every value holds its largest difference from float32 at the nodes compared.
    largest_error : float
        Largest estimate as a share of the range of the finite log-losses; NaN before it is known.
    converged : bool
        Whether every value is evaluated, or its interpolation estimated to be within the tolerance.
    n_evaluated, n_not_finite : int
        Points evaluated on the grid, and values that are not finite.
    loss, accuracy : float
        At the centre.
    chosen : str
        How the directions were chosen.
    axis_titles : list of str
        What each axis means, with its unit.
    cosine : float
        Largest absolute cosine between two directions.
    explained_variance_ratio : ndarray
        Share of a trajectory's variance along each direction; empty for other directions.
    random_walk_variance_ratio : ndarray
        The same of a random walk with as many steps (Antognini & Sohl-Dickstein 2018); empty for other directions and
        for several trajectories.
    eigenvalues : ndarray
        Of Hessian directions; empty for others.
    markers : list of dict
        Models in or near the plane: label, x, y, their own loss and accuracy, distance from the plane.
    trajectories : list of dict
        The same for sequences of checkpoints: label, and lists x, y, loss, accuracy, distance.
    notes : list of str
        What a reader has to know.
    seconds, unfinished : float, list of str
        See `BudgetedResult`.

    Examples
    --------
    >>> from estimators import SurfaceMapper, load_data, load_model
    >>> model, data = load_model("test_resnet", num_classes=10), load_data("digits", n_samples=16)
    >>> result = SurfaceMapper(n_dims=1, resolution=5).fit(model, data).result_
    >>> result.losses.shape, result.axis_titles
    ((5,), ['Random direction (filter norms)'])
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "error_estimate": Uncertainty("estimate", "losses"),
        "largest_error": Uncertainty("estimate", "losses"),
    }

    kind: ClassVar[str] = "surface"

    axes: tuple[np.ndarray, ...] = ()
    losses: np.ndarray = field(default_factory=_empty)
    accuracies: np.ndarray = field(default_factory=_empty)
    held_out_losses: np.ndarray = field(default_factory=_empty)
    held_out_accuracies: np.ndarray = field(default_factory=_empty)
    evaluated: np.ndarray = field(default_factory=_empty)
    error_estimate: np.ndarray = field(default_factory=_empty)
    largest_error: float = float("nan")
    converged: bool = False
    n_evaluated: int = 0
    n_not_finite: int = 0
    loss: float = float("nan")
    accuracy: float = float("nan")
    chosen: str = ""
    axis_titles: list[str] = field(default_factory=list)
    cosine: float = 0.0
    explained_variance_ratio: np.ndarray = field(default_factory=_empty)
    random_walk_variance_ratio: np.ndarray = field(default_factory=_empty)
    eigenvalues: np.ndarray = field(default_factory=_empty)
    markers: list[dict[str, Any]] = field(default_factory=list)
    trajectories: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
