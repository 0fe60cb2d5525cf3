"""CriticalPointFinder: many critical points of a small network, by index."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import TransformerMixin
from torch import nn

from ..base import LandscapeEstimator
from ..checks import not_negative, positive, whole
from ..core.evidence.intervals import spearman, wilson_interval
from ..core.saddles.critical import CriticalPoint, find_critical_points, signature
from ..progress import OnProgress
from ..results import Result, Uncertainty
from ._small_net import pooled_digits, small_net
from ._start import DENSE_LIMIT, check_smooth, landscape_objective

COLUMNS = ("loss", "gradient_norm", "index", "n_zero")
CHUNK = 4  # starts searched together between two partial results
SAME = 1e-8  # loss and spectrum closer than this: the same point up to the network's symmetries


@dataclass(frozen=True, eq=False, kw_only=True)
class CriticalPointsResult(Result):
    """Where the searches ended, one row a search.

    Attributes
    ----------
    asked, index, n_zero : ndarray of shape (n,)
        Index searched for; negative and zero eigenvalues of the dense Hessian where it ended.
    losses, gradient_norms : ndarray of shape (n,)
        Objective and ‖∇‖ there.
    found : ndarray of shape (n,), bool
        Gradient norm at most `tol` and exactly the index asked, no zero eigenvalue.
    distinct : ndarray of shape (n,), bool
        First of its kind: no earlier found point has the same loss and spectrum (permuted or sign-flipped hidden
        units give the same).
    steps : ndarray of shape (n,)
        Steps taken.
    eigenvalues : ndarray of shape (n, P)
        Ascending.
    points : ndarray of shape (n, P)
        θ.
    success : list of dict
        For each index: starts, converged, found, distinct, rate and its 95 % Wilson interval.
    spearman : dict
        Rank correlation of index with loss over distinct found points: value, low, high (95 %), n.
    tol, l2 : float
        Gradient norm asked for; the objective is L + l2/2 · ‖θ‖².

    Examples
    --------
    >>> from estimators import CriticalPointFinder, pooled_digits, small_net
    >>> finder = CriticalPointFinder(indices=(0,), n_starts=2, l2=1e-2)
    >>> result = finder.fit(small_net(hidden=2), pooled_digits(n_samples=60)).result_
    >>> result.points.shape, result.uncertainty_of("success.rate")[0]  # searches and parameters
    ((2, 19), 'bracket')
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "success.low": Uncertainty("bracket", "success.rate"),
        "success.high": Uncertainty("bracket", "success.rate"),
        "spearman.low": Uncertainty("bracket", "spearman.value"),
        "spearman.high": Uncertainty("bracket", "spearman.value"),
    }

    kind: ClassVar[str] = "critical_points"

    asked: np.ndarray
    index: np.ndarray
    n_zero: np.ndarray
    losses: np.ndarray
    gradient_norms: np.ndarray
    found: np.ndarray
    distinct: np.ndarray
    steps: np.ndarray
    eigenvalues: np.ndarray
    points: np.ndarray
    success: list[dict[str, Any]] = field(default_factory=list)
    spearman: dict[str, Any] = field(default_factory=dict)
    tol: float = 1e-9
    l2: float = 0.0


@dataclass(kw_only=True, eq=False, repr=False)
class CriticalPointFinder(TransformerMixin, LandscapeEstimator):
    """Search for critical points of several indices from many random starts, and relate index to loss.

    Parameters
    ----------
    indices : tuple of int, default=(0, 1, 2, 3, 4, 5)
        Numbers of negative eigenvalues to search for.
    n_starts : int, default=12
        Random starts for each index.
    tol : float, default=1e-9
        Gradient norm at which a search has converged.
    max_steps : int, default=200
        Steps after which a search is given up.
    start_scale : float, default=0.5
        Standard deviation of the random starts, per weight.
    l2 : float, default=1e-3
        The objective is L + l2/2 · ‖θ‖², without which tanh networks have no isolated critical points (weights
        drift to infinity). 0 searches the data loss alone.
    loss, batch_size, device, memory, random_state, verbose
        As everywhere. Arithmetic is float64 and Hessians are dense: up to 500 parameters.

    Attributes
    ----------
    losses_, index_, gradient_norms_, eigenvalues_, found_, distinct_, success_, spearman_
        And every other field of `CriticalPointsResult`, with an underscore.
    result_ : CriticalPointsResult

    References
    ----------
    Dauphin et al. 2014 (index against loss); Cerjan & Miller 1981 (eigenvector following); Wilson 1927;
    Bonett & Wright 2000 (interval of Spearman's correlation).

    Examples
    --------
    Minima and saddles with one way down of a network with 19 parameters; every point that counts is one.

    >>> from estimators import CriticalPointFinder, pooled_digits, small_net
    >>> finder = CriticalPointFinder(indices=(0, 1), n_starts=4, l2=1e-2)
    >>> finder = finder.fit(small_net(hidden=2), pooled_digits(n_samples=60))
    >>> finder.success_[0]["starts"], bool((finder.gradient_norms_[finder.found_] <= 1e-9).all())
    (4, True)
    """

    result_: CriticalPointsResult = field(init=False)

    indices: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    n_starts: int = 12
    tol: float = 1e-9
    max_steps: int = 200
    start_scale: float = 0.5
    l2: float = 1e-3

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(1, "n_starts", "max_steps"),
        **positive("tol", "start_scale"),
        **not_negative("l2"),
        "indices": ["array-like"],
    }

    def fit(
        self,
        model: nn.Module | None = None,
        data: Any = None,
        *,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[CriticalPointsResult], None] | None = None,
    ) -> CriticalPointFinder:
        """Search.

        Parameters
        ----------
        model : nn.Module or None, default=None
            A small smooth network; None takes `small_net()` (4-4-3 tanh, 35 parameters).
        data : Examples or anything `load_data` takes, or None
            None takes `pooled_digits()`; give both or neither.
        on_progress : callable, default=None
            `on_progress(done, total, message)`; may raise `Cancelled`.
        on_partial : callable, default=None
            Called with the `CriticalPointsResult` so far, after every few searches.

        Returns
        -------
        CriticalPointFinder

        Raises
        ------
        ValueError
            If the network has kinks, is too large, or an argument is not allowed.
        """
        self._check()
        if (model is None) != (data is None):
            raise ValueError(
                "model and data must be given together or not at all, got one of them. "
                "Leave both out for the small network on pooled digits."
            )
        report = self._progress(on_progress, "Critical points")
        land = self._landscape(
            small_net() if model is None else model,
            pooled_digits() if data is None else data,
            batch_norm="frozen",
            precision="float64",
        )
        self._land = land
        self._check_size(land.n_parameters)
        objective = landscape_objective(land, self.l2)
        check_smooth(objective, land.theta)
        settings = land.settings | self._own_settings()
        points: list[CriticalPoint] = []
        jobs = list(self._jobs(objective.size))
        for i, (index, starts) in enumerate(jobs):

            def on_step(done: int, total: int, i: int = i, points: list = points) -> None:
                report(i * total + done, len(jobs) * total, f"{sum(p.found for p in points)} found")

            key = (land.fingerprint, self.l2, self.tol, self.max_steps, index, starts)
            how = {"tol": self.tol, "max_steps": self.max_steps, "on_step": on_step}
            points += self._cached(find_critical_points, key, objective, starts.to(land.theta), index, **how)
            on_step(self.max_steps, self.max_steps)
            if on_partial is not None and i + 1 < len(jobs):
                on_partial(gather(points, settings, self.tol, self.l2))
        self._publish(gather(points, settings, self.tol, self.l2))
        return self

    def transform(self, models: nn.Module | Iterable[nn.Module]) -> np.ndarray:
        """Describe networks' own points by the same objective.

        Parameters
        ----------
        models : nn.Module or iterable of nn.Module
            Networks with the parameters of the one given to `fit`.

        Returns
        -------
        ndarray of shape (n_models, 4)
            Objective, gradient norm, negative eigenvalues and zero eigenvalues.
        """
        objective = landscape_objective(self._land, self.l2)
        rows = []
        for model in [models] if isinstance(models, nn.Module) else models:
            theta = self._land.point(model)
            values, gradients = objective.values_and_gradients(theta[None])
            negative, zero = signature(torch.linalg.eigvalsh(objective.hessians(theta[None])[0]))
            rows.append([float(values[0]), float(gradients[0].norm()), negative, zero])
        return np.array(rows, dtype=float).reshape(-1, len(COLUMNS))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`."""
        return np.array(COLUMNS, dtype=object)

    def _jobs(self, size: int) -> Iterable[tuple[int, torch.Tensor]]:
        """Chunks of starts, indices in turn, so that all indices fill evenly while a search is watched."""
        generator = self._generator()
        starts = {
            k: self.start_scale * torch.randn(self.n_starts, size, generator=generator, dtype=torch.float64)
            for k in self.indices
        }
        for begin in range(0, self.n_starts, CHUNK):
            for index in self.indices:
                yield index, starts[index][begin : begin + CHUNK]

    def _check(self) -> None:
        indices = list(np.atleast_1d(self.indices))
        if not indices or any(int(k) != k or k < 0 for k in indices) or len(set(indices)) < len(indices):
            raise ValueError(f"indices must be different integers of at least 0, got {self.indices!r}. Use (0, 1, 2).")

    def _check_size(self, n_parameters: int) -> None:
        if n_parameters > DENSE_LIMIT:
            raise ValueError(
                f"model must have at most {DENSE_LIMIT} parameters for dense Hessians, got {n_parameters:,}. "
                "Use a smaller network such as small_net(), or SaddleEscaper(saddle='strict') for one saddle."
            )
        if max(self.indices) >= n_parameters:
            raise ValueError(
                f"indices must be below the number of parameters ({n_parameters}), got {max(self.indices)}. "
                "Search for fewer negative eigenvalues."
            )


def gather(points: list[CriticalPoint], settings: dict[str, Any], tol: float, l2: float) -> CriticalPointsResult:
    """Turn the ends of searches into a result with success rates and the rank correlation."""
    found = np.array([p.found for p in points])
    spectra = np.stack([p.eigenvalues.cpu().numpy() for p in points])
    losses = np.array([p.loss for p in points])
    asked = np.array([p.asked for p in points])
    distinct = np.zeros(len(points), dtype=bool)
    for i in np.flatnonzero(found):
        earlier = np.flatnonzero(distinct)
        same = np.abs(losses[earlier] - losses[i]) <= SAME
        same &= np.abs(spectra[earlier] - spectra[i]).max(axis=1, initial=0.0) <= 1e-6
        distinct[i] = not same.any()
    success = []
    for index in sorted(set(asked.tolist())):
        rows = asked == index
        n, k = int(rows.sum()), int(found[rows].sum())
        low, high = wilson_interval(k, n)
        converged = sum(p.converged for p, row in zip(points, rows, strict=True) if row)
        success.append(
            {
                "index": index,
                "starts": n,
                "converged": converged,
                "found": k,
                "distinct": int(distinct[rows].sum()),
                "rate": k / n,
                "low": low,
                "high": high,
            }
        )
    return CriticalPointsResult(
        settings=settings,
        asked=asked,
        index=np.array([p.index for p in points]),
        n_zero=np.array([p.n_zero for p in points]),
        losses=losses,
        gradient_norms=np.array([p.gradient_norm for p in points]),
        found=found,
        distinct=distinct,
        steps=np.array([p.steps for p in points]),
        eigenvalues=spectra,
        points=np.stack([p.theta.cpu().numpy() for p in points]),
        success=success,
        spearman=spearman(asked[distinct], losses[distinct]),
        tol=tol,
        l2=l2,
    )
