"""What the curvature estimators give back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..budget import BudgetedResult
from ..core.spectrum.random_matrix import MinimumProbability
from ..results import Result, Uncertainty

_NAN = float("nan")
POINT_KINDS = ("minimum", "maximum", "saddle", "degenerate", "not stationary", "undecided")


def _empty() -> np.ndarray:
    return np.empty(0)


def _three() -> np.ndarray:
    return np.full(3, _NAN)


@dataclass(frozen=True, eq=False, kw_only=True)
class CurvatureResult(BudgetedResult):
    """Curvature at one point, each number with its own uncertainty.

    Eigenvalues are in units of the loss per squared unit of θ. With ``method="exact"`` all of them are known in
    float64 and standard errors are 0; with "iterative" they come from matrix-vector products.

    Attributes
    ----------
    matrix : {"hessian", "ggn", "fisher", "empirical_fisher"}
        The matrix of the spectrum.
    method : {"exact", "iterative"}
    n_parameters : int
        P, the number of eigenvalues.
    loss, accuracy, gradient_norm : float
        At the point itself.
    gradient_step_drop : float
        Fall of the loss that the second-order expansion promises for the best step along the gradient; NaN where
        the loss does not curve upwards along it.
    eigenvalues, residuals : ndarray of shape (m,)
        Both ends of the spectrum (or the one asked for), largest first, and ‖Av − λv‖ of each.
    converged, negligible : ndarray of shape (m,), bool
        Residual at most tol·|λ|; and |λ| + residual at most tol times the largest magnitude.
    lambda_max, lambda_max_residual, lambda_min, lambda_min_residual : float
        The two ends; NaN for an end that was not asked for.
    spectrum : ndarray of shape (P,) or (0,)
        Every eigenvalue, largest first, when the method is exact.
    trace, trace_stderr : float
        Sum of all eigenvalues.
    traces : dict of str to dict
        ``value`` and ``stderr`` of the trace of each matrix that was compared.
    fractions, fractions_stderr : ndarray of shape (3,)
        Shares of negative, zero and positive eigenvalues, and their standard errors.
    fractions_spread, fractions_bracket : ndarray of shape (3,)
        The two parts of that error: spread over probes, and half-width of what the quadrature leaves open.
    zero_threshold : float
        Eigenvalues in (−threshold, threshold) count as zero: tol times the largest magnitude.
    saddle_index, saddle_index_stderr : float
        Share of negative eigenvalues.
    density : tuple of two ndarray of shape (G,)
        Grid of eigenvalues and density on it, which integrates to 1.
    density_stderr, density_sigma : ndarray of shape (G,), float
        Its standard error over probes, and the width of its smoothing.
    point_kind : str
        "minimum", "maximum", "saddle", "degenerate", "not stationary"; "undecided" where the matrix is not the
        Hessian or an end that decides was not asked for or has not converged.
    gradient_tol : float
        Gradient norm above which the point is not stationary.
    layers : list of dict
        For each parameter group: ``group``, ``n_parameters``, ``trace``, ``trace_stderr``, ``lambda_max``,
        ``lambda_max_residual`` and ``converged`` of its own diagonal block (λ NaN where it was not asked for).
    n_products : int
        Matrix-vector products spent.
    asymmetry : float
        Largest |H − Hᵀ| of an explicit matrix, relative to its largest entry; NaN when iterative.
    notes : list of str
        What a reader has to know: what has not converged, what is only an estimate.
    seconds, unfinished : float, list of str
        See `BudgetedResult`.

    Examples
    --------
    >>> import torch
    >>> from estimators import CurvatureEstimator, load_data
    >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 10))
    >>> estimator = CurvatureEstimator(n_eigenvalues=3, compare_traces=False)
    >>> result = estimator.fit(model, load_data("digits", image_size=8, n_samples=32)).result_
    >>> result.n_parameters, result.uncertainty_of("lambda_max")[0]
    (130, 'residual')
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "residuals": Uncertainty("residual", "eigenvalues"),
        "lambda_max_residual": Uncertainty("residual", "lambda_max"),
        "lambda_min_residual": Uncertainty("residual", "lambda_min"),
        "trace_stderr": Uncertainty("stderr", "trace"),
        "traces.stderr": Uncertainty("stderr", "traces.value"),
        "fractions_stderr": Uncertainty("stderr", "fractions"),
        "fractions_spread": Uncertainty("stderr", "fractions"),
        "fractions_bracket": Uncertainty("bracket", "fractions"),
        "saddle_index_stderr": Uncertainty("stderr", "saddle_index"),
        "density_stderr": Uncertainty("stderr", "density"),
        "layers.trace_stderr": Uncertainty("stderr", "layers.trace"),
        "layers.lambda_max_residual": Uncertainty("residual", "layers.lambda_max"),
    }

    matrix: str = "hessian"
    method: str = "iterative"
    n_parameters: int = 0
    loss: float = _NAN
    accuracy: float = _NAN
    gradient_norm: float = _NAN
    gradient_step_drop: float = _NAN
    eigenvalues: np.ndarray = field(default_factory=_empty)
    residuals: np.ndarray = field(default_factory=_empty)
    converged: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    negligible: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    lambda_max: float = _NAN
    lambda_max_residual: float = _NAN
    lambda_min: float = _NAN
    lambda_min_residual: float = _NAN
    spectrum: np.ndarray = field(default_factory=_empty)
    trace: float = _NAN
    trace_stderr: float = _NAN
    traces: dict = field(default_factory=dict)
    fractions: np.ndarray = field(default_factory=_three)
    fractions_stderr: np.ndarray = field(default_factory=_three)
    fractions_spread: np.ndarray = field(default_factory=_three)
    fractions_bracket: np.ndarray = field(default_factory=_three)
    zero_threshold: float = _NAN
    saddle_index: float = _NAN
    saddle_index_stderr: float = _NAN
    density: tuple = field(default_factory=lambda: (_empty(), _empty()))
    density_stderr: np.ndarray = field(default_factory=_empty)
    density_sigma: float = _NAN
    point_kind: str = "undecided"
    gradient_tol: float = _NAN
    layers: list = field(default_factory=list)
    n_products: int = 0
    asymmetry: float = _NAN
    notes: list = field(default_factory=list)

    def bound_on(self, name: str) -> str:
        """See `Result.bound_on`; an end whose search has not converged is a bound.

        A Rayleigh quotient is never above the largest eigenvalue nor below the smallest one, whatever its residual,
        which only says how near *some* eigenvalue is.
        """
        place, sign = {"lambda_max": (0, "≥"), "lambda_min": (-1, "≤")}.get(name, (0, ""))
        if not (sign and len(self.converged) and np.isfinite(getattr(self, name))):
            return ""
        return "" if self.converged[place] or self.negligible[place] else sign


@dataclass(frozen=True, eq=False, kw_only=True)
class CurvatureHistoryResult(Result):
    """Curvature at each checkpoint of a training, beside the edge of stability.

    Attributes
    ----------
    matrix : str
        As in `CurvatureResult`.
    steps : ndarray of shape (n,)
        Epoch (or place in the list) of each checkpoint.
    labels : list of str
        File names, or the place in the list.
    losses, gradient_norms : ndarray of shape (n,)
        At each checkpoint, over the examples given to ``fit``.
    lambda_max, lambda_max_residuals : ndarray of shape (n,)
        Largest eigenvalue and ‖Av − λv‖.
    converged : ndarray of shape (n,), bool
    lambda_min : ndarray of shape (n,)
        Most negative eigenvalue found by the same search; NaN when it was not asked for.
    traces, trace_stderrs : ndarray of shape (n,)
        NaN when the trace was not asked for.
    learning_rates : ndarray of shape (n,)
        η in use when the checkpoint was written; NaN where it is not known.
    edge : ndarray of shape (n,)
        2/η: gradient descent on a quadratic diverges along an eigenvector whose eigenvalue is above it;
        infinite where a schedule has reached η = 0.
    edge_momentum : ndarray of shape (n,)
        The same limit with the run's momentum β: 2(1+β)/η for heavy-ball momentum; equals ``edge`` at β = 0.
    momentum : float
    n_products : int
    notes : list of str

    Examples
    --------
    >>> import torch
    >>> from estimators import CurvatureTracker, load_data, train
    >>> data = load_data("digits", image_size=8, n_samples=32)
    >>> run = train(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)), data, epochs=2)
    >>> result = CurvatureTracker(trace=False, tol=0.1).fit(run, data).result_
    >>> result.lambda_max.shape, result.edge.shape  # the start and two epochs
    ((3,), (3,))
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "lambda_max_residuals": Uncertainty("residual", "lambda_max"),
        "trace_stderrs": Uncertainty("stderr", "traces"),
    }

    matrix: str = "hessian"
    steps: np.ndarray = field(default_factory=_empty)
    labels: list = field(default_factory=list)
    losses: np.ndarray = field(default_factory=_empty)
    gradient_norms: np.ndarray = field(default_factory=_empty)
    lambda_max: np.ndarray = field(default_factory=_empty)
    lambda_max_residuals: np.ndarray = field(default_factory=_empty)
    converged: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    lambda_min: np.ndarray = field(default_factory=_empty)
    traces: np.ndarray = field(default_factory=_empty)
    trace_stderrs: np.ndarray = field(default_factory=_empty)
    learning_rates: np.ndarray = field(default_factory=_empty)
    edge: np.ndarray = field(default_factory=_empty)
    edge_momentum: np.ndarray = field(default_factory=_empty)
    momentum: float = 0.0
    n_products: int = 0
    notes: list = field(default_factory=list)


@dataclass(frozen=True, eq=False, kw_only=True)
class MinimumProbabilityResult(MinimumProbability, Result):
    """How often random critical points are minima, beside the two laws.

    Attributes
    ----------
    dimensions, n_samples, n_minima : ndarray of shape (n,), int
        Sizes d, matrices drawn, and those with every eigenvalue positive.
    probability, low, high : ndarray of shape (n,)
        Share of minima and its Wilson interval; where none was seen the upper end is what the draws exclude.
    independent, goe : ndarray of shape (n,)
        (1/2)^d and exp(−(ln 3 / 4) d²).
    index_mean, index_std : ndarray of shape (n,)
        Mean and deviation of the share of negative eigenvalues.
    shift, confidence : float

    Examples
    --------
    >>> from estimators import random_critical_points
    >>> result = random_critical_points((1, 2), n_samples=200)
    >>> kind, (low, high) = result.uncertainty_of("probability")
    >>> kind, bool(((low <= result.probability) & (result.probability <= high)).all()), result.independent.tolist()
    ('bracket', True, [0.5, 0.25])
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "low": Uncertainty("bracket", "probability"),
        "high": Uncertainty("bracket", "probability"),
    }
