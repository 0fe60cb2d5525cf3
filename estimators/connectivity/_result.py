"""What a path between two networks, and a map of several, look like in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from ..results import Result, Uncertainty


def _empty() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class PathResult(Result):
    """A path between two networks and what was measured on it.

    Arrays along the path have shape (n,); those that were not asked for are empty, and numbers NaN. Losses
    are means over the examples in the unit of the loss (nats for cross-entropy), accuracies are in [0, 1].

    Attributes
    ----------
    path, n_bends, align : str, int, str
        The family, its bends, and "weights" or "".
    t : ndarray
        Positions; 0 is A and 1 is B.
    losses, accuracies, held_out_losses, held_out_accuracies : ndarray
        Along the path.
    straight_losses, straight_accuracies : ndarray
        Along the straight line between A and B as they were given; empty when that is the path itself.
    aligned_losses, aligned_accuracies : ndarray
        Along the straight line between A and the reordered B; empty when that is the path itself.
    barrier, rise_over_endpoints, worst_t : float
        Of the path, see `core.paths`: the highest values found on and between the positions `t`.
    barrier_error, rise_error : float
        By how much the true maxima may exceed these, if the path has no feature narrower than the gaps between
        evaluated positions (1/40 at most); NaN where a loss is not finite.
    worst_t_low, worst_t_high : float
        The highest point over the chord lies between these.
    n_refined : int
        Evaluations spent beyond the grid to find the maxima.
    refined_t, refined_losses : ndarray of shape (m,)
        Positions evaluated besides `t` to find the maximum, and their losses on the training examples.
    straight_barrier, straight_barrier_error, aligned_barrier, aligned_barrier_error : float
        Of the two straight lines, refined from their grids alone.
    tolerance, connected : float, bool
        `connected` says whether `rise_over_endpoints` ≤ `tolerance`.
    distance, path_length : float
        Euclidean distance of the ends of the path and its own length, in the unit of the weights.
    distance_before : float
        Distance of A and B as they were given.
    similarity_before, similarity_after, alignment_change : float
        Cosine of the weight vectors before and after matching; largest relative change of B's outputs.
    groups : list of dict
        Permutation groups: units, the weight that makes them, tensors that share them, share that moved.
    history_losses, history_learning_rates : ndarray of shape (epochs,)
        Of the training of the bends.
    diverged_at : int
        Epoch in which the training stopped being finite; 0 if it did not.
    plane_anchors, plane_distances : ndarray of shape (K, 2) and (K,)
        `[A, bends..., B]` in the plane, and how far from it they are.
    plane_path : ndarray of shape (n, 2)
        The path in that plane.
    plane_x, plane_y, plane_losses, plane_accuracies : ndarray
        Loss and accuracy on a grid in that plane, first index along `plane_x`; see `plane_resolution`.
    ensemble_t : ndarray
        Positions whose predictions were averaged.
    ensemble_loss, ensemble_accuracy : float
        Of that average, on the held-out examples where there are some.
    n_non_finite : int
        Evaluated points of the path whose loss is not finite.
    notes : list of str
        What a person should know before believing the numbers.

    Examples
    --------
    >>> import torch
    >>> from estimators import ModeConnector, load_data
    >>> data = load_data("digits", image_size=8, n_samples=32)
    >>> nets = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)) for _ in range(2)]
    >>> result = ModeConnector(n_points=5).fit(nets, data).result_
    >>> result.losses.shape, result.table()[-1]["t"], result.uncertainty_of("barrier")[0]
    ((5,), 1.0, 'estimate')
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "barrier_error": Uncertainty("estimate", "barrier"),
        "rise_error": Uncertainty("estimate", "rise_over_endpoints"),
        "worst_t_low": Uncertainty("bracket", "worst_t"),
        "worst_t_high": Uncertainty("bracket", "worst_t"),
        "straight_barrier_error": Uncertainty("estimate", "straight_barrier"),
        "aligned_barrier_error": Uncertainty("estimate", "aligned_barrier"),
    }

    path: str = "linear"
    n_bends: int = 0
    align: str = ""
    t: np.ndarray = field(default_factory=_empty)
    losses: np.ndarray = field(default_factory=_empty)
    accuracies: np.ndarray = field(default_factory=_empty)
    held_out_losses: np.ndarray = field(default_factory=_empty)
    held_out_accuracies: np.ndarray = field(default_factory=_empty)
    straight_losses: np.ndarray = field(default_factory=_empty)
    straight_accuracies: np.ndarray = field(default_factory=_empty)
    aligned_losses: np.ndarray = field(default_factory=_empty)
    aligned_accuracies: np.ndarray = field(default_factory=_empty)
    barrier: float = float("nan")
    rise_over_endpoints: float = float("nan")
    worst_t: float = float("nan")
    barrier_error: float = float("nan")
    rise_error: float = float("nan")
    refined_t: np.ndarray = field(default_factory=_empty)
    refined_losses: np.ndarray = field(default_factory=_empty)
    worst_t_low: float = float("nan")
    worst_t_high: float = float("nan")
    n_refined: int = 0
    straight_barrier: float = float("nan")
    straight_barrier_error: float = float("nan")
    aligned_barrier: float = float("nan")
    aligned_barrier_error: float = float("nan")
    tolerance: float = 0.1
    connected: bool = False
    distance: float = float("nan")
    path_length: float = float("nan")
    distance_before: float = float("nan")
    similarity_before: float = float("nan")
    similarity_after: float = float("nan")
    alignment_change: float = float("nan")
    groups: list[dict[str, Any]] = field(default_factory=list)
    history_losses: np.ndarray = field(default_factory=_empty)
    history_learning_rates: np.ndarray = field(default_factory=_empty)
    diverged_at: int = 0
    plane_anchors: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    plane_distances: np.ndarray = field(default_factory=_empty)
    plane_path: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    plane_x: np.ndarray = field(default_factory=_empty)
    plane_y: np.ndarray = field(default_factory=_empty)
    plane_losses: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    plane_accuracies: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    ensemble_t: np.ndarray = field(default_factory=_empty)
    ensemble_loss: float = float("nan")
    ensemble_accuracy: float = float("nan")
    n_non_finite: int = 0
    notes: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, float]]:
        """One row a position: what a CSV of the path holds."""
        kinds = ("", "held_out_", "straight_", "aligned_")
        columns = [kind + quantity for kind in kinds for quantity in ("losses", "accuracies")]
        filled = [c for c in columns if len(getattr(self, c))]
        return [{"t": float(t), **{c: float(getattr(self, c)[i]) for c in filled}} for i, t in enumerate(self.t)]


@dataclass(frozen=True, eq=False, kw_only=True)
class MapResult(Result):
    """Pairwise measurements of m networks.

    Attributes
    ----------
    names : list of str
        The networks.
    losses, accuracies : ndarray of shape (m,)
        Their own, under the same batch-norm policy as the paths.
    barriers, rises : ndarray of shape (m, m)
        Height of the path over the chord and over the worse end, in the unit of the loss; 0 on the diagonal,
        NaN where not yet computed.
    distances : ndarray of shape (m, m)
        Euclidean, in the unit of the weights (after matching, when ``align="weights"``).
    cka : ndarray of shape (m, m)
        Linear CKA of features or outputs on the same examples, unbiased: about 0, and then as often below it, where
        nothing is alike; NaN when not asked for.
    t, profiles : ndarray of shape (n,) and (m, m, n)
        Loss along each path.
    layout : ndarray of shape (m, 2)
        Coordinates of the picture.
    layout_of, layout_share : str, float
        What its distances stand for, and the share of the squared spread it keeps.
    clusters : ndarray of shape (m,)
        Groups of networks joined, directly or in steps, by barriers of at most ``tolerance``. (The rise over
        the worse end would join everything through one untrained network.)
    tolerance : float
        In the unit of the loss.

    Examples
    --------
    >>> import torch
    >>> from estimators import MinimaMapper, load_data
    >>> data = load_data("digits", image_size=8, n_samples=32)
    >>> nets = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)) for name in "ab"}
    >>> result = MinimaMapper(n_points=3).fit(nets, data).result_
    >>> result.profiles.shape, [(row["a"], row["b"]) for row in result.table()]
    ((2, 2, 3), [('a', 'b')])
    """

    names: list[str] = field(default_factory=list)
    losses: np.ndarray = field(default_factory=_empty)
    accuracies: np.ndarray = field(default_factory=_empty)
    barriers: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    rises: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    distances: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    cka: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    t: np.ndarray = field(default_factory=_empty)
    profiles: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0)))
    layout: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    layout_of: str = "distance"
    layout_share: float = float("nan")
    clusters: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=int))
    tolerance: float = 0.1

    def table(self) -> list[dict[str, Any]]:
        """One row a pair."""
        return [
            {
                "a": self.names[i],
                "b": self.names[j],
                "barrier": float(self.barriers[i, j]),
                "rise": float(self.rises[i, j]),
                "distance": float(self.distances[i, j]),
                "cka": float(self.cka[i, j]),
            }
            for i, j in combinations(range(len(self.names)), 2)
        ]
