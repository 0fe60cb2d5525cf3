"""What `SharpnessEstimator` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ..budget import BudgetedResult
from ..results import Uncertainty
from ._measures import MEASURES

_NAN = float("nan")
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}
_ROUNDING = 8  # rises of fewer units in the last place of the loss are rounding


def _empty() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class SharpnessResult(BudgetedResult):
    """What was measured around one point; measures that were not asked for are NaN or empty.

    Rises are differences of the loss, in its unit (nats for cross-entropy). Radii (ρ) are lengths of the
    whole perturbation; noise levels (σ) are standard deviations per element.

    Attributes
    ----------
    loss, accuracy, gradient_norm : float
        At the point itself. A point with a large gradient is not a minimum, and its rises are slopes.
    sharpness : float
        Largest rise found in the ball of radius ρ: a lower bound on the maximum.
    one_step : float
        Rise at the single SAM step.
    restarts : ndarray of shape (n_restarts,)
        Largest rise of each start, as far as it climbed; ``restart_kinds`` names their kinds.
    restart_spread : float
        How far the two starts that climbed to the end lie apart, as a share of the larger rise.
    lone_start : bool
        Whether one start alone found ``sharpness``: another search may find more.
    constant : bool
        Whether the loss was the same at every point of the ball that was visited.
    scaled_gradient_norm : float
        ‖Tg‖ with T the scaling of the ball (1, or |θ| when adaptive): ρ‖Tg‖ is the first-order rise.
    lambda_max, lambda_max_residual, lambda_max_converged : float, float, bool
        Largest Hessian eigenvalue, ‖Hv − λv‖, and whether that is small enough.
    lambda_max_scaled, lambda_max_scaled_converged, quadratic_rise : float, bool, float
        λ_max of T H T, and ρ²·λ_max/2 of it: the rise of the second-order expansion without its slope.
    trace, trace_stderr : float
        Trace of the Hessian.
    average_sharpness, average_sharpness_stderr, quadratic_average : float
        Mean rise under noise, and σ²·tr(H)/2 beside it (NaN for filter-normalised noise).
    average_rises : ndarray of shape (n_draws,)
        The single draws.
    m_sharpness, m_sharpness_stderr, m_rises : float, float, ndarray
        Mean over batches of m examples of each batch's own largest rise.
    pac_bayes_bound, sigma_tolerated, pac_bayes : float, float, dict
        The bound on the error under noise, the largest σ that costs at most 10 points of accuracy, and all
        parts of the bound.
    profile_radius, profile_rise, profile_one_step : ndarray of shape (n_radii,)
        Rise against the radius; never falls.
    noise_sigma, noise_average, noise_stderr, noise_low, noise_high : ndarray
        Mean rise against σ, with its standard error and 95 % interval.
    converged : bool
        Whether everything that was chosen was measured as asked, λ_max to its tolerance.
    seconds, unfinished : float, list of str
        See `BudgetedResult`.
    n_gradients, n_products, n_nonfinite : int
        Work of the ascent and of Lanczos, and visited points with a loss that is not finite.
    notes : list of str
        What a person should know before believing the numbers.

    Examples
    --------
    >>> import torch
    >>> from estimators import SharpnessEstimator, load_data
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    >>> estimator = SharpnessEstimator(measures=("sharpness",), n_steps=3, n_restarts=2)
    >>> result = estimator.fit(model, load_data("digits", image_size=8, n_samples=32)).result_
    >>> result.measures, result.restarts.shape, bool(result.sharpness > 0)
    (['sharpness'], (2,), True)
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "lambda_max_residual": Uncertainty("residual", "lambda_max"),
        "trace_stderr": Uncertainty("stderr", "trace"),
        "average_sharpness_stderr": Uncertainty("stderr", "average_sharpness"),
        "average_sharpness_low": Uncertainty("bracket", "average_sharpness"),
        "average_sharpness_high": Uncertainty("bracket", "average_sharpness"),
        "m_sharpness_stderr": Uncertainty("stderr", "m_sharpness"),
        "noise_stderr": Uncertainty("stderr", "noise_average"),
        "noise_low": Uncertainty("bracket", "noise_average"),
        "noise_high": Uncertainty("bracket", "noise_average"),
    }

    measures: list[str] = field(default_factory=list)
    loss: float = _NAN
    accuracy: float = _NAN
    gradient_norm: float = _NAN
    scaled_gradient_norm: float = _NAN
    sharpness: float = _NAN
    one_step: float = _NAN
    restarts: np.ndarray = field(default_factory=_empty)
    restart_kinds: list[str] = field(default_factory=list)
    restart_spread: float = _NAN
    lone_start: bool = False
    constant: bool = False
    lambda_max: float = _NAN
    lambda_max_residual: float = _NAN
    lambda_max_converged: bool = False
    lambda_max_scaled: float = _NAN
    lambda_max_scaled_converged: bool = False
    quadratic_rise: float = _NAN
    trace: float = _NAN
    trace_stderr: float = _NAN
    average_sharpness: float = _NAN
    average_sharpness_stderr: float = _NAN
    average_sharpness_low: float = _NAN
    average_sharpness_high: float = _NAN
    quadratic_average: float = _NAN
    average_rises: np.ndarray = field(default_factory=_empty)
    m_sharpness: float = _NAN
    m_sharpness_stderr: float = _NAN
    m_rises: np.ndarray = field(default_factory=_empty)
    pac_bayes_bound: float = _NAN
    sigma_tolerated: float = _NAN
    pac_bayes: dict[str, Any] = field(default_factory=dict)
    profile_radius: np.ndarray = field(default_factory=_empty)
    profile_rise: np.ndarray = field(default_factory=_empty)
    profile_one_step: np.ndarray = field(default_factory=_empty)
    noise_sigma: np.ndarray = field(default_factory=_empty)
    noise_average: np.ndarray = field(default_factory=_empty)
    noise_stderr: np.ndarray = field(default_factory=_empty)
    noise_low: np.ndarray = field(default_factory=_empty)
    noise_high: np.ndarray = field(default_factory=_empty)
    converged: bool = False
    n_gradients: int = 0
    n_products: int = 0
    n_nonfinite: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def profile(self) -> dict[str, np.ndarray]:
        """The two curves: rise against radius, mean rise against σ."""
        return {
            "radius": self.profile_radius,
            "rise": self.profile_rise,
            "one_step": self.profile_one_step,
            "sigma": self.noise_sigma,
            "average": self.noise_average,
            "average_stderr": self.noise_stderr,
            "average_low": self.noise_low,
            "average_high": self.noise_high,
        }

    def bound_on(self, name: str) -> str:
        """See `Result.bound_on`; an eigenvalue whose search has not converged is one, and a rise made of it."""
        converged = {
            "lambda_max": self.lambda_max_converged,
            "lambda_max_scaled": self.lambda_max_scaled_converged,
            "quadratic_rise": self.lambda_max_scaled_converged,
        }
        return "≥" if not converged.get(name, True) and np.isfinite(getattr(self, name)) else ""

    def table(self) -> list[dict[str, Any]]:
        """One row a measured number, with its uncertainty and, where asked for, that over examples: for a CSV."""
        names = ["loss", "accuracy", "gradient_norm"]
        names += [column for name in self.measures for column in MEASURES[name].columns]
        parts = ("stderr", "low", "high", "bias") if self.sampling else ()
        return [
            {
                "measure": name,
                "value": float(getattr(self, name)),
                "uncertainty": (self.uncertainty_of(name) or ("", _NAN))[1],
                **{f"sampling_{part}": self.sampling.get(name, {}).get(part, _NAN) for part in parts},
            }
            for name in names
        ]


def with_profile(result: SharpnessResult, rho: float) -> SharpnessResult:
    """Let ρ's own value gain from what the profile found inside the ball."""
    inside = result.profile_rise[result.profile_radius <= rho * (1 + 1e-12)]
    best = float(inside.max()) if inside.size else _NAN
    return replace(result, sharpness=best) if best > result.sharpness else result


def notes_on(result: SharpnessResult, rho: float) -> list[str]:
    """Say what a person should know before believing the numbers."""
    notes = result.shortfall
    if np.isfinite(result.lambda_max) and not result.lambda_max_converged:
        notes.append(
            f"λ_max has not converged: ‖Hv − λv‖ is {result.lambda_max_residual:.2g} after "
            f"{result.n_products} products. Raise n_lanczos."
        )
    slope = rho * result.scaled_gradient_norm
    if np.isfinite(slope) and result.sharpness > 0 and slope > 0.5 * result.sharpness:
        notes.append(
            f"The point is not stationary at this radius: the slope alone gives a rise of about {slope:.2g}. "
            "The rise measures the gradient as much as the curvature."
        )
    if result.n_nonfinite:
        notes.append(f"{result.n_nonfinite} visited points had a loss that is not finite; they are left out.")
    if result.constant:
        notes.append(
            "The loss is the same at every point of the ball that was visited: the rise is 0. It does not depend on "
            "what moves (zero inputs, a dead layer, a ball scaled by weights that are 0)."
        )
    elif 0 <= result.sharpness < _ROUNDING * _EPS.get(str(result.settings.get("precision")), 0.0) * abs(result.loss):
        notes.append("The rise is below the rounding of the loss at this radius: raise rho, or use float64.")
    if result.lone_start:
        notes.append(
            f"One start alone ({result.restart_kinds[int(np.argmax(result.restarts))]}) found this rise, the next "
            f"ended {result.restart_spread:.0%} below it: a lower bound that more may raise. Raise n_restarts."
        )
    if result.average_rises.size and not np.isfinite(result.average_sharpness):
        notes.append("The loss under noise is not finite for some draws: lower sigma.")
    bounded = "pac_bayes" in result.measures and "pac_bayes" not in result.unfinished
    if bounded and not result.pac_bayes:
        notes.append("The PAC-Bayes bound is on the share of wrong classes, and these targets are no classes.")
    if result.pac_bayes.get("prior_doubt"):
        notes.append(
            f"No PAC-Bayes bound: the initial weights are not a valid prior, {result.pac_bayes['prior_doubt']}. "
            "Pass the weights before training, or use prior='zero'."
        )
    elif result.pac_bayes.get("uncharged"):
        notes.append(
            f"The PAC-Bayes bound takes the {result.pac_bayes['uncharged']} as given: they come from the examples and "
            "are not paid for in the KL term, so it is no bound for the network as trained."
        )
    if result.pac_bayes.get("vacuous") and not result.pac_bayes.get("prior_doubt"):
        notes.append("The PAC-Bayes bound is vacuous: it is at least 1, which every error satisfies.")
    return notes
