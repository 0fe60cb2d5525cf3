"""Axes of a map: windows around points and grids that hold the centre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def axis_through_zero(low: float, high: float, n: int) -> Array:
    """Return `n` evenly spaced values that cover [low, high] and have 0 among them to the last bit.

    Parameters
    ----------
    low, high : float
        Ends to be covered, low ≤ 0 ≤ high, not both 0.
    n : int
        At least 3. With an odd `n` and low = −high the ends are met exactly; otherwise one end is passed by
        up to a step, since 0 has to fall on the grid.

    Returns
    -------
    ndarray of shape (n,)
    """
    before = round(-low / (high - low) * (n - 1))
    before = min(max(before, 1 if low < 0 else 0), n - 2 if high > 0 else n - 1)
    steps = [-low / before if before else 0.0, high / (n - 1 - before) if before < n - 1 else 0.0]
    if low == -high and n % 2:
        return np.concatenate([-(half := np.linspace(0.0, high, before + 1)[1:])[::-1], [0.0], half])
    return (np.arange(n, dtype=np.float64) - before) * float(max(steps))


def axis_through_zero_and_one(margin: float, n: int) -> Array:
    """Return `n` evenly spaced values over about [−margin, 1 + margin] with both 0 and 1 among them."""
    inside = max(1, min(round((n - 1) / (1.0 + 2.0 * margin)), n - 1))
    before = (n - 1 - inside) // 2
    return (np.arange(n) - before) / inside


def window(coordinates: Array, margin: float, scale: ArrayLike = 1.0) -> list[tuple[float, float]]:
    """Frame points (n, k) and the origin: their bounding box, widened on each side by a share of its size.

    Parameters
    ----------
    coordinates : ndarray of shape (n, k)
    margin : float
        Share of the box's size added on each side.
    scale : float or array-like of shape (k,), default=1
        Multiplies the framed window about its middle; the origin stays inside.
    """
    frame = []
    scales = np.broadcast_to(np.asarray(scale, dtype=float), coordinates.shape[1]).tolist()
    for column, factor in zip(coordinates.T, scales, strict=True):
        low, high = min(float(column.min()), 0.0), max(float(column.max()), 0.0)
        size = (high - low) or 1.0
        middle, half = (low + high) / 2, factor * size * (0.5 + margin)
        frame.append((min(middle - half, 0.0), max(middle + half, 0.0)))
    return frame


def coarse_to_fine(shape: Sequence[int], centre: Sequence[int]) -> NDArray[np.intp]:
    """Order the nodes of a lattice so that every prefix is spread out: centre first, then ever finer strides.

    Returns
    -------
    ndarray of shape (n_nodes,)
        Flat indices, each once.
    """
    grid = np.indices(shape).reshape(len(shape), -1)
    offset = np.abs(grid - np.asarray(centre)[:, None])
    level = np.full(grid.shape[1], 0)
    for stride in (2, 4, 8, 16):
        level += (offset % stride == 0).all(axis=0)
    at_centre = (offset == 0).all(axis=0)
    return np.lexsort((np.arange(grid.shape[1]), -level, ~at_centre)).astype(np.intp)
