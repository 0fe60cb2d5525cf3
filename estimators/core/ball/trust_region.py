"""The largest value of a quadratic inside a ball: exactly when small, from visited gradients when large."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq

# Visited points are kept in memory twice (place and gradient); beyond this the oldest ones are dropped.
HISTORY_BYTES = 512 * 2**20


def maximise_in_ball(linear: np.ndarray, hessian: np.ndarray, radius: float) -> tuple[np.ndarray, float]:
    """Maximise ``linear @ c + c @ hessian @ c / 2`` over ``‖c‖ ≤ radius``.

    The global maximum for any symmetric matrix, indefinite ones and the hard case (linear term
    orthogonal to the leading eigenvectors) included, from the eigendecomposition and the secular
    equation ‖(μ − H)⁻¹ g‖ = radius with μ ≥ max(λ_max, 0) (Moré & Sorensen 1983).

    Parameters
    ----------
    linear : ndarray of shape (k,)
        Linear term.
    hessian : ndarray of shape (k, k)
        Symmetric matrix.
    radius : float
        Radius of the ball, > 0.

    Returns
    -------
    point : ndarray of shape (k,)
        A maximiser.
    multiplier : float
        μ ≥ 0 with ``(μ − H) point = linear``; 0 where the maximum lies inside the ball.
    """
    values, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ linear
    top = max(float(values[-1]), 0.0)
    size = max(abs(float(values[0])), abs(float(values[-1])), float(np.linalg.norm(slope)) / radius)
    if size == 0.0:
        return np.zeros_like(linear), 0.0
    # Directions that share the largest eigenvalue to rounding are where the secular equation has its pole.
    leading = values >= top - 1e-12 * size
    rest = np.zeros_like(slope)
    rest[~leading] = slope[~leading] / (top - values[~leading])
    if np.all(np.abs(slope[leading]) <= 1e-14 * size * radius) and np.linalg.norm(rest) <= radius:
        # Hard case, or an interior maximum: fill what is left of the radius along a flat leading direction.
        if leading[-1] and top > 0.0:
            rest[-1] = np.sqrt(max(radius**2 - float(rest @ rest), 0.0))
        return vectors @ rest, top

    def excess(shift: float) -> float:
        with np.errstate(divide="ignore"):  # at the pole itself the length is infinite, as it should be
            return 1.0 / float(np.linalg.norm(slope / (top + shift - values))) - 1.0 / radius

    low, high = 1e-16 * size, size + float(np.linalg.norm(slope)) / radius
    while excess(high) < 0:
        high *= 2.0
    shift = low if excess(low) >= 0 else brentq(excess, low, high, xtol=1e-16 * size, rtol=1e-14)
    point = slope / (top + shift - values)
    length = float(np.linalg.norm(point))
    return vectors @ (point * min(1.0, radius / length)), top + float(shift)


@dataclass(frozen=True)
class Interpolant:
    """The best point of the interpolating quadratic, and how much to believe of it."""

    place: torch.Tensor
    residual: torch.Tensor
    multiplier: float
    size: float
    rise: float
    trusted: bool

    def leftover(self, rho: float) -> float:
        """Rise still possible to first order outside the span, as a share of the rise inside it."""
        outside = float(self.residual.norm()) * rho
        if outside == 0.0:
            return 0.0  # nothing outside, whatever is inside: where the loss is constant that is nothing as well
        return outside / self.rise if self.rise > 0 else float("inf")


class VisitedPoints:
    """Visited points and gradients, the origin first, and the quadratic that interpolates them."""

    def __init__(self, gradient: torch.Tensor, most: int):
        room = HISTORY_BYTES // (2 * gradient.numel() * gradient.element_size())
        self.capacity = int(min(max(room, 3), most))
        self.points: list[torch.Tensor] = []
        self.changes: list[torch.Tensor] = []
        self.origin = gradient

    def add(self, delta: torch.Tensor, gradient: torch.Tensor, keep: torch.Tensor) -> None:
        """Remember a point; where memory is full the oldest goes, but never ``keep``."""
        if not bool(delta.any()):
            return
        if len(self.points) == self.capacity:
            oldest = 1 if self.points[0] is keep else 0
            del self.points[oldest], self.changes[oldest]
        self.points.append(delta)
        self.changes.append(gradient - self.origin)

    def solve(self, rho: float) -> Interpolant | None:
        """Maximise the quadratic that interpolates the gradients, in the span of the visited points."""
        points, changes = torch.stack(self.points), torch.stack(self.changes)
        lengths = points.norm(dim=1)
        gram = ((points @ points.T) / torch.outer(lengths, lengths)).double().cpu().numpy()
        cross = ((points @ changes.T) / torch.outer(lengths, lengths)).double().cpu().numpy()
        slope = ((points @ self.origin) / lengths).double().cpu().numpy()
        # Points nearly in each other's span carry rounding, not information: leave those directions out.
        values, vectors = np.linalg.eigh((gram + gram.T) / 2)
        kept = values > (1e-10 if points.dtype == torch.float64 else 1e-5) * values[-1]
        basis = vectors[:, kept] / np.sqrt(values[kept])
        hessian = basis.T @ cross @ basis
        # Gradients of one quadratic give a symmetric matrix; what is left over says how far L is from one.
        skew = float(np.linalg.norm(hessian - hessian.T))
        hessian = (hessian + hessian.T) / 2
        if not np.all(np.isfinite(hessian)):
            return None
        linear = basis.T @ slope
        coordinates, multiplier = maximise_in_ball(linear, hessian, rho)
        rise = float(linear @ coordinates + coordinates @ hessian @ coordinates / 2)
        if rise <= 0.0 and not bool(self.origin.any()):
            # A stationary point with no rise seen yet: the least falling direction may lead to one.
            values, vectors = np.linalg.eigh(hessian)
            coordinates, multiplier, rise = rho * vectors[:, -1], float(values[-1]), 0.0
        mix = torch.as_tensor(basis @ coordinates).to(points) / lengths
        place = mix @ points
        scale = float(np.linalg.norm(hessian))
        return Interpolant(
            place=place,
            residual=self.origin + mix @ changes - multiplier * place,
            multiplier=multiplier,
            size=max(multiplier, scale),
            rise=rise,
            trusted=skew <= 0.1 * scale,
        )
