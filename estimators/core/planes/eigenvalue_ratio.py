"""How convex a surface is around its points and a map as a whole, and how wide a basin is along random rays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from estimators.core.spectrum.lanczos import lanczos_eigenpairs

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EigenvalueRatio:
    """Extreme curvature at one point.

    Attributes
    ----------
    lambda_min, lambda_max : float
        Most negative and largest Hessian eigenvalue found.
    ratio : float
        |λ_min / λ_max|: 0 where the surface is convex (the smallest eigenvalue is positive or not told apart
        from zero), 1 where it bends down as much as up.
    residual : float
        The larger ‖Hv − λv‖ of the two.
    """

    lambda_min: float
    lambda_max: float
    ratio: float
    residual: float


def eigenvalue_ratio(
    matvec: Callable[[Tensor], Tensor],
    size: int,
    *,
    tol: float = 0.02,
    max_products: int = 120,
    random_state: int = 0,
    like: Tensor | None = None,
) -> EigenvalueRatio:
    """Measure |λ_min / λ_max| by Lanczos at both ends of the spectrum.

    Parameters
    ----------
    matvec : callable
        ``v -> H v``.
    size : int
        P.
    tol : float, default=0.02
        Relative accuracy of the eigenvalues.
    max_products : int, default=120
        Hessian-vector products spent at most; the residual says what they left.
    random_state : int, default=0
    like : Tensor, optional
        Gives dtype and device.

    References
    ----------
    Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 6.1.
    """
    pairs = lanczos_eigenpairs(
        matvec,
        size,
        1,
        ends="both",
        tol=tol,
        max_products=max_products,
        random_state=random_state,
        like=like,
    )
    top, bottom = float(pairs.values[0]), float(pairs.values[-1])
    is_negative = bottom < 0 and not bool(pairs.negligible[-1])
    ratio = abs(bottom / top) if is_negative and top > 0 else (np.inf if is_negative else 0.0)
    return EigenvalueRatio(bottom, top, ratio, float(np.max(pairs.residuals)))


def convex_share(axes: tuple[np.ndarray, np.ndarray], losses: np.ndarray, tolerance: float = 1e-3) -> float:
    """Share of a map's inner nodes at which the loss is convex in the plane.

    Each node's 2×2 Hessian is taken from second differences of its eight neighbours; it counts as convex
    where its smaller eigenvalue is at least −`tolerance` times the largest curvature (or the rounding of
    float32 losses). Li et al. (2018) colour maps by the same question, asked of the whole Hessian.

    Parameters
    ----------
    axes : tuple of two ndarrays
        Evenly spaced coordinates along each direction.
    losses : ndarray of shape (R1, R2)
        At least 3 nodes on a side.
    tolerance : float, default=1e-3
        What counts as no curvature, relative to the largest.

    Returns
    -------
    float
        In [0, 1]; NaN when no node has eight finite neighbours.
    """
    f = np.asarray(losses, dtype=float)
    if f.ndim != 2 or min(f.shape) < 3:
        raise ValueError(f"losses must be a map of at least 3×3 nodes, got shape {f.shape!r}. Raise resolution.")
    hx, hy = (float(axis[1] - axis[0]) for axis in axes)
    with np.errstate(invalid="ignore", over="ignore"):
        xx = (f[2:, 1:-1] - 2 * f[1:-1, 1:-1] + f[:-2, 1:-1]) / hx**2
        yy = (f[1:-1, 2:] - 2 * f[1:-1, 1:-1] + f[1:-1, :-2]) / hy**2
        xy = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * hx * hy)
        reach = np.hypot((xx - yy) / 2, xy)
        smaller, larger = (xx + yy) / 2 - reach, (xx + yy) / 2 + reach
    known = np.isfinite(smaller) & np.isfinite(larger)
    if not known.any():
        return float("nan")
    scale = max(np.abs(smaller[known]).max(), np.abs(larger[known]).max())
    rounding = 4 * np.finfo(np.float32).eps * np.abs(f[np.isfinite(f)]).max() / min(hx, hy) ** 2
    return float((smaller[known] >= -max(tolerance * scale, rounding)).mean())


def radii_to_level(
    losses: Callable[[NDArray[np.intp], Array], Array],
    n_rays: int,
    level: float,
    *,
    start: float = 0.01,
    largest: float = 10.0,
    n_bisections: int = 8,
) -> Array:
    """Find how far along each ray the loss first reaches a level.

    Parameters
    ----------
    losses : callable
        ``losses(rays (n,), radii (n,)) -> (n,)``.
    n_rays : int
    level : float
        Must lie above the loss at radius 0.
    start : float, default=0.01
        First radius tried; doubled until the level is passed.
    largest : float, default=10
        Rays that stay below the level up to here get an infinite radius.
    n_bisections : int, default=8
        Halvings of the bracket; the relative error is below 2^−n_bisections.

    Returns
    -------
    ndarray of shape (n_rays,)
        Radii in the unit of the rays. A loss that is not finite counts as above the level. The first crossing
        on the growing sequence is taken: a dip between two tries is not seen.
    """
    inner, outer = np.zeros(n_rays), np.full(n_rays, np.inf)
    radius = start
    while np.isinf(outer).any() and radius <= largest * (1 + 1e-12):
        open_rays = np.flatnonzero(np.isinf(outer))
        above = _above(losses(open_rays, np.full(len(open_rays), radius)), level)
        outer[open_rays[above]] = radius
        inner[open_rays[~above]] = radius
        radius *= 2.0
    closed = np.flatnonzero(np.isfinite(outer))
    for _ in range(n_bisections if len(closed) else 0):
        middle = (inner[closed] + outer[closed]) / 2
        above = _above(losses(closed, middle), level)
        outer[closed[above]] = middle[above]
        inner[closed[~above]] = middle[~above]
    return np.where(np.isfinite(outer), (inner + outer) / 2, np.inf)


def _above(values: Array, level: float) -> NDArray[np.bool_]:
    return ~(np.asarray(values) < level)
