"""What `SharpnessEstimator` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .results import Result
from .sharpness_measures import MEASURES

_NAN = float("nan")


def _empty() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False, kw_only=True)
class SharpnessResult(Result):
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
        Largest rise of each start.
    scaled_gradient_norm : float
        ‖Tg‖ with T the scaling of the ball (1, or |θ| when adaptive): ρ‖Tg‖ is the first-order rise.
    lambda_max, lambda_max_residual, lambda_max_converged : float, float, bool
        Largest Hessian eigenvalue, ‖Hv − λv‖, and whether that is small enough.
    lambda_max_scaled, quadratic_rise : float
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
    noise_sigma, noise_average, noise_stderr : ndarray
        Mean rise against σ.
    n_gradients, n_products, n_nonfinite : int
        Work of the ascent and of Lanczos, and visited points with a loss that is not finite.
    notes : list of str
        What a person should know before believing the numbers.
    """

    measures: list[str] = field(default_factory=list)
    loss: float = _NAN
    accuracy: float = _NAN
    gradient_norm: float = _NAN
    scaled_gradient_norm: float = _NAN
    sharpness: float = _NAN
    one_step: float = _NAN
    restarts: np.ndarray = field(default_factory=_empty)
    lambda_max: float = _NAN
    lambda_max_residual: float = _NAN
    lambda_max_converged: bool = False
    lambda_max_scaled: float = _NAN
    quadratic_rise: float = _NAN
    trace: float = _NAN
    trace_stderr: float = _NAN
    average_sharpness: float = _NAN
    average_sharpness_stderr: float = _NAN
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
        }

    def table(self) -> list[dict[str, Any]]:
        """One row a measured number, with its uncertainty: what a CSV holds."""
        errors = {
            "lambda_max": self.lambda_max_residual,
            "trace": self.trace_stderr,
            "average_sharpness": self.average_sharpness_stderr,
            "m_sharpness": self.m_sharpness_stderr,
        }
        names = ["loss", "accuracy", "gradient_norm"]
        names += [column for name in self.measures for column in MEASURES[name].columns]
        return [
            {"measure": name, "value": float(getattr(self, name)), "uncertainty": errors.get(name, _NAN)}
            for name in names
        ]


def with_profile(result: SharpnessResult, rho: float) -> SharpnessResult:
    """Let ρ's own value gain from what the profile found inside the ball."""
    inside = result.profile_rise[result.profile_radius <= rho * (1 + 1e-12)]
    best = float(inside.max()) if inside.size else _NAN
    return replace(result, sharpness=best) if best > result.sharpness else result


def notes_on(result: SharpnessResult, rho: float) -> list[str]:
    """Say what a person should know before believing the numbers."""
    notes = []
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
    if len(result.restarts) > 1 and np.ptp(result.restarts) > 0.05 * result.restarts.max():
        notes.append("The starts disagree by more than 5 %: raise n_steps or n_restarts for a tighter bound.")
    if not np.isfinite(result.average_sharpness) and "average" in result.measures:
        notes.append("The loss under noise is not finite for some draws: lower sigma.")
    if result.pac_bayes.get("vacuous"):
        notes.append("The PAC-Bayes bound is vacuous: it is at least 1, which every error satisfies.")
    return notes
