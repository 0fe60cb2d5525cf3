"""Two numbers of a basin's shape: how far it reaches, and how much of a map of it is convex."""

from __future__ import annotations

import numpy as np


def crossing_radii(radii: np.ndarray, losses: np.ndarray, base: float, rise: float) -> np.ndarray:
    """Radius at which the loss along each ray first rises by `rise` above `base`.

    Parameters
    ----------
    radii : ndarray of shape (n_radii,)
        Increasing, > 0, in steps of the rays' directions.
    losses : ndarray of shape (n_rays, n_radii)
        Loss at each radius of each ray. A non-finite loss counts as above every level.
    base : float
        Loss at the centre, in nats for cross-entropy.
    rise : float
        Level above the centre, > 0.

    Returns
    -------
    ndarray of shape (n_rays,)
        Interpolated linearly between the radii on both sides of the level; infinity for a ray that stays
        below it.
    """
    if not rise > 0:
        raise ValueError(f"rise must be a number above 0, got {rise!r}. Use 0.5 for half a nat.")
    radii, losses = np.asarray(radii, dtype=float), np.atleast_2d(np.asarray(losses, dtype=float))
    inner = np.concatenate([[0.0], radii[:-1]])
    before = np.concatenate([np.full((len(losses), 1), base), losses[:, :-1]], axis=1)
    above = ~(losses <= base + rise)
    first = above.argmax(1)
    row = np.arange(len(losses))
    low, high = before[row, first], losses[row, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(np.isfinite(high), (base + rise - low) / (high - low), 1.0)
    crossed = inner[first] + share * (radii[first] - inner[first])
    return np.where(above.any(1), crossed, np.inf)


def convex_share(axes: tuple[np.ndarray, np.ndarray], losses: np.ndarray, tolerance: float = 1e-3) -> float:
    """Share of a map's inner nodes at which the loss is convex in the plane.

    Each node's 2×2 Hessian is taken from second differences of its eight neighbours; it counts as convex
    where its smaller eigenvalue is at least −`tolerance` times the map's largest curvature (or the rounding of
    losses computed in float32). Li et al. (2018) colour maps by the same question, asked of the whole Hessian.

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
        raise ValueError(
            f"losses must be a map of at least 3×3 nodes, got shape {f.shape!r}. Raise resolution."
        )
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
