"""How much of a two-dimensional map of the loss is convex."""

from __future__ import annotations

import numpy as np


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
