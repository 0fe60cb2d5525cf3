"""Paths between two points of weight space, and what is measured along them.

A path is a matrix of coefficients over its anchors ``[A, bends..., B]``: the point at ``t`` is
``coefficients(t) @ anchors``. Keeping the coefficients apart from the anchors lets the engine evaluate a
whole path without building it, and makes the gradient of a bend a number times the gradient at the point.

References
----------
Garipov et al. 2018, *Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs* (the curves);
Draxler et al. 2018, *Essentially No Barriers in Neural Network Energy Landscape*;
Entezari et al. 2022, *The Role of Permutation Invariance in Linear Mode Connectivity* (the barrier).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import comb
from torch import Tensor

Coefficients = Callable[[np.ndarray, int], np.ndarray]


def linear(t: ArrayLike, n_bends: int = 0) -> np.ndarray:
    """Coefficients of the straight line ``(1 - t) A + t B``; it has no bends, whatever ``n_bends`` says.

    Parameters
    ----------
    t : array-like of shape (n,)
        Positions; 0 is A and 1 is B.
    n_bends : int
        Ignored: a straight line has none.

    Returns
    -------
    ndarray of shape (n, 2)
        Exactly (1, 0) at ``t = 0`` and (0, 1) at ``t = 1``.
    """
    t = np.atleast_1d(np.asarray(t, dtype=np.float64))
    return np.stack([1.0 - t, t], axis=1)


def bezier(t: ArrayLike, n_bends: int = 1) -> np.ndarray:
    """Bernstein polynomials of degree ``n_bends + 1``; one bend is the lecture's quadratic curve.

    Parameters
    ----------
    t : array-like of shape (n,)
        Positions; 0 is A and 1 is B.
    n_bends : int
        Control points between A and B.

    Returns
    -------
    ndarray of shape (n, n_bends + 2)
        Rows sum to 1; the ends are exactly 0 and 1.
    """
    t = np.atleast_1d(np.asarray(t, dtype=np.float64))[:, None]
    degree = n_bends + 1
    k = np.arange(degree + 1)
    return comb(degree, k) * t**k * (1.0 - t) ** (degree - k)


def polychain(t: ArrayLike, n_bends: int = 1) -> np.ndarray:
    """Hat functions of a polygonal chain: straight pieces, equal shares of ``t``, corners at the bends.

    Parameters
    ----------
    t : array-like of shape (n,)
        Positions; 0 is A and 1 is B.
    n_bends : int
        Corners between A and B.

    Returns
    -------
    ndarray of shape (n, n_bends + 2)
        At most two entries of a row differ from 0.
    """
    t = np.atleast_1d(np.asarray(t, dtype=np.float64))[:, None]
    return np.maximum(0.0, 1.0 - np.abs(t * (n_bends + 1) - np.arange(n_bends + 2)))


#: Every path family by name. A new one is one function and one entry here.
PATHS: dict[str, Coefficients] = {"linear": linear, "bezier": bezier, "polychain": polychain}


def initial_bends(a: Tensor, b: Tensor, n_bends: int) -> Tensor:
    """Bends spread evenly on the straight line from ``a`` to ``b``, so that training starts from that line.

    Parameters
    ----------
    a, b : Tensor of shape (P,)
        The end points.
    n_bends : int
        How many.

    Returns
    -------
    Tensor of shape (n_bends, P)
    """
    share = torch.arange(1, n_bends + 1, device=a.device, dtype=a.dtype)[:, None] / (n_bends + 1)
    return (1.0 - share) * a + share * b


def chord(t: ArrayLike, losses: ArrayLike) -> np.ndarray:
    """Straight interpolation ``(1 - t) L(A) + t L(B)`` between the first and the last loss, of shape (n,)."""
    t, losses = np.asarray(t, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    return (1.0 - t) * losses[0] + t * losses[-1]


def barrier(t: ArrayLike, losses: ArrayLike) -> float:
    """Highest rise of the loss over the straight interpolation of the two end losses (Entezari et al. 2022).

    Parameters
    ----------
    t : array-like of shape (n,)
        Increasing positions from 0 to 1.
    losses : array-like of shape (n,)
        Mean loss at each, in the unit of the loss (nats for cross-entropy).

    Returns
    -------
    float
        Never below 0, since both ends count. NaN when a loss is NaN and infinite when one is infinite: a
        point that could not be evaluated is not a low one.
    """
    return _highest(np.asarray(losses, dtype=np.float64) - chord(t, losses))


def rise_over_endpoints(losses: ArrayLike) -> float:
    """How far the path rises above the worse of its two ends: 0 when L(θ_t) ≤ max(L(A), L(B)) all along.

    Parameters
    ----------
    losses : array-like of shape (n,)
        Mean loss along the path, ends included.

    Returns
    -------
    float
        In the unit of the loss; NaN or infinite as in `barrier`.
    """
    losses = np.asarray(losses, dtype=np.float64)
    return _highest(losses - max(losses[0], losses[-1]))


def worst_t(t: ArrayLike, losses: ArrayLike) -> float:
    """Position of the highest loss over the straight interpolation; a non-finite loss counts as highest."""
    t, losses = np.asarray(t, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    bad = ~np.isfinite(losses)
    return float(t[np.argmax(bad)] if bad.any() else t[np.argmax(losses - chord(t, losses))])


def _highest(rise: np.ndarray) -> float:
    """Maximum that lets NaN through (numpy's max does) and turns an infinite end into an infinite answer."""
    if np.isinf(rise).any():
        return float("inf")
    return float(np.max(rise))


def gram(anchors: Tensor) -> np.ndarray:
    """Inner products of the anchors seen from the first one, in float64.

    Everything below about lengths and distances follows from it, without another pass over the weights.

    Parameters
    ----------
    anchors : Tensor of shape (K, P)

    Returns
    -------
    ndarray of shape (K, K)
        First row and column are 0.
    """
    offsets = (anchors - anchors[:1]).double()
    return (offsets @ offsets.T).cpu().numpy()


def path_length(family: Coefficients, n_bends: int, inner: np.ndarray, n_pieces: int = 2000) -> float:
    """Euclidean length of a path in weight space, by summing chords.

    Parameters
    ----------
    family : callable
        One of `PATHS`.
    n_bends : int
        Bends of the path.
    inner : ndarray of shape (K, K)
        What `gram` gives for its anchors.
    n_pieces : int, default=2000
        Chords. Their number is rounded up to a multiple of the chain's pieces, so that chains are exact.

    Returns
    -------
    float
        In the unit of the weights.
    """
    n_pieces += -n_pieces % (n_bends + 1)
    steps = np.diff(family(np.linspace(0.0, 1.0, n_pieces + 1), n_bends), axis=0)
    return float(np.sqrt(np.maximum(np.einsum("nk,kl,nl->n", steps, inner, steps), 0.0)).sum())


@dataclass(frozen=True)
class Plane:
    """A plane in weight space that holds A, B and, as well as two axes can, the bends.

    Attributes
    ----------
    origin : Tensor of shape (P,)
        The point A.
    axes : Tensor of shape (2, P)
        Orthonormal; the first points from A to B.
    anchors : ndarray of shape (K, 2)
        Coordinates of ``[A, bends..., B]`` in the unit of the weights; A is (0, 0), B lies on the first axis.
    distances : ndarray of shape (K,)
        Distance of each anchor from the plane: 0 for A and B, and for a single bend.
    """

    origin: Tensor
    axes: Tensor
    anchors: np.ndarray
    distances: np.ndarray


def plane_through(anchors: Tensor) -> Plane:
    """Plane through A and B that keeps as much of the bends as it can (exact for one, Garipov et al. 2018).

    The second axis is the leading principal direction of what the bends add to the straight line. Straight
    bends leave it undefined; then the axis of the weight that varies least between A and B is used, which is
    in no way special but is orthogonal and the same each time.

    Parameters
    ----------
    anchors : Tensor of shape (K, P)
        ``[A, bends..., B]`` with A ≠ B.

    Returns
    -------
    Plane
    """
    offsets = (anchors - anchors[:1]).double()
    first = offsets[-1] / offsets[-1].norm()
    rest = offsets[1:-1] - torch.outer(offsets[1:-1] @ first, first)
    small = 1e-6 * offsets[-1].norm()
    if len(rest) and rest.norm(dim=1).max() > small:
        # The (K, K) problem instead of the (P, P) one: bends are few, weights are many.
        _, vectors = torch.linalg.eigh(rest @ rest.T)
        second = vectors[:, -1] @ rest
        second = second * torch.sign(second @ rest.sum(0) + torch.finfo(torch.float64).tiny)
    else:
        second = torch.zeros_like(first)
        second[first.abs().argmin()] = 1.0
    second = second - (second @ first) * first
    axes = torch.stack([first, second / second.norm()])
    coordinates = offsets @ axes.T
    coordinates[0] = 0.0
    coordinates[-1, 1] = 0.0
    outside = (offsets - coordinates @ axes).norm(dim=1)
    return Plane(anchors[0], axes.to(anchors.dtype), coordinates.cpu().numpy(), outside.cpu().numpy())
