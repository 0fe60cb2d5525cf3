"""Radial-basis interpolation of a lattice from part of its points, with leave-one-out errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

KERNELS: dict[str, Callable[[Array], Array]] = {
    "thin_plate": lambda r: r * r * np.log(np.maximum(r, 1e-300)),
    "cubic": lambda r: r * r * r,
    "linear": lambda r: -r,
}
_CHUNK = 1 << 22  # distances held at once
_MAX_STRETCH = 40.0
_NEIGHBOURS = 3


def lattice_coordinates(shape: tuple[int, int]) -> Array:
    """Coordinates of the lattice points in the unit square, (R1·R2, 2), row by row."""
    axes = [np.linspace(0.0, 1.0, r) if r > 1 else np.zeros(1) for r in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


@dataclass(frozen=True)
class Fit:
    """What the interpolants say at every lattice point.

    Attributes
    ----------
    members : ndarray of shape (n_kernels, n_points)
        One interpolant a row, in the order of the kernels asked for.
    left_out : ndarray of shape (n_points,)
        Root mean square of the leave-one-out errors (mean of the kernels but the linear one) at the nearest
        nodes, lowered with the square of the distance where a node is closer than its own neighbours are to
        it.
    distance : ndarray of shape (n_points,)
        To the nearest node.
    skill : ndarray of shape (n_kernels,)
        Root mean square of each kernel's leave-one-out errors.
    typical : float
        Median of the leave-one-out errors, without the linear kernel.
    """

    members: Array
    left_out: Array
    distance: Array
    skill: Array
    typical: float


def fit_lattice(coordinates: Array, nodes: Indices, values: Array, kernels: tuple[str, ...] = tuple(KERNELS)) -> Fit:
    """Interpolate `values` (n,) known at `nodes` (n,) over all `coordinates` (n_points, 2)."""
    known = coordinates[nodes]
    used = np.ptp(known, axis=0) > 0  # a lattice of one row is a one-dimensional problem
    points, known = coordinates[:, used], known[:, used]
    between = cdist(known, known)
    solved = [_solve(KERNELS[k](between), _polynomial(k, known), values) for k in kernels]
    smooth = [errors for k, (_, _, errors) in zip(kernels, solved, strict=True) if k != "linear"]
    left = np.abs(np.mean(smooth or [solved[0][2]], axis=0))
    np.fill_diagonal(between, np.inf)
    spacing = between.min(axis=1)
    members = np.empty((len(kernels), len(points)))
    step = max(1, _CHUNK // len(known))
    for a in range(0, len(points), step):
        part = slice(a, a + step)
        distance = cdist(points[part], known)
        for row, (kernel, (weights, polynomial, _)) in enumerate(zip(kernels, solved, strict=True)):
            members[row, part] = KERNELS[kernel](distance) @ weights + _polynomial(kernel, points[part]) @ polynomial
    apart, near = cKDTree(known).query(points, list(range(1, min(_NEIGHBOURS, len(known)) + 1)))
    nearest = apart[:, 0]
    left_out = np.sqrt(np.square(left[near]).mean(axis=1))
    left_out *= np.minimum(1.0, nearest / spacing[near].mean(axis=1)) ** 2
    members[:, nodes] = values  # a solve leaves rounding at the nodes
    skill = np.array([np.sqrt(np.mean(errors**2)) for _, _, errors in solved])
    return Fit(members, left_out, nearest, skill, float(np.median(left)))


def _polynomial(kernel: str, points: Array) -> Array:
    """Polynomial part that makes a kernel well posed: a constant for the linear one, affine for the others."""
    ones = np.ones((len(points), 1))
    return ones if kernel == "linear" else np.hstack([ones, points])


def _solve(kernel: Array, polynomial: Array, values: Array) -> tuple[Array, Array, Array]:
    """Weights, polynomial coefficients, leave-one-out errors (Rippa 1999: weight / diagonal of the inverse)."""
    n, m = polynomial.shape
    system = np.zeros((n + m, n + m))
    system[:n, :n], system[:n, n:], system[n:, :n] = kernel, polynomial, polynomial.T
    inverse = np.linalg.inv(system)
    solution = inverse[:, :n] @ values
    return solution[:n], solution[n:], solution[:n] / np.diag(inverse)[:n]


def hessian_of(surface: Array) -> tuple[Array, Array, Array]:
    """Second derivatives of a lattice over the unit square: along the first axis, the second axis and across.

    Points on an edge take the value of their neighbours inside. An axis of fewer than three points has none.
    """
    first, second, across = (np.zeros(surface.shape) for _ in range(3))
    p, (m, n) = surface, (surface.shape[0] - 1, surface.shape[1] - 1)
    if m > 1:
        first[1:-1] = (p[2:] + p[:-2] - 2 * p[1:-1]) * m**2
        first[0], first[-1] = first[1], first[-2]
    if n > 1:
        second[:, 1:-1] = (p[:, 2:] + p[:, :-2] - 2 * p[:, 1:-1]) * n**2
        second[:, 0], second[:, -1] = second[:, 1], second[:, -2]
    if min(m, n) > 1:
        inside = (p[2:, 2:] + p[:-2, :-2] - p[2:, :-2] - p[:-2, 2:]) * (m * n / 4)
        across = np.pad(inside, 1, mode="edge")
    return first, second, across


def stretch_of(surface: Array) -> Array:
    """Linear map (2, 2) of the unit square that evens out how much the surface bends in each direction.

    An error of interpolation grows like |f''|·h², so lengths are scaled by the fourth root of the mean
    squared Hessian, the direction that bends most keeping its length.
    """
    a, b, c = hessian_of(surface)
    mixed = float(np.mean(c * (a + b)))
    square = np.array([[np.mean(a * a + c * c), mixed], [mixed, np.mean(b * b + c * c)]])
    if not np.isfinite(square).all() or not square.any():
        return np.eye(2)
    values, vectors = np.linalg.eigh(square)
    scale = np.maximum(values, 0.0) ** 0.25
    scale = np.maximum(scale / scale.max(), 1.0 / _MAX_STRETCH)
    return (vectors * scale) @ vectors.T


def bend_of(surface: Array) -> Array:
    """Largest absolute curvature of the surface at each lattice point, over the unit square."""
    first, second, across = hessian_of(surface)
    return np.abs(first + second) / 2 + np.sqrt(((first - second) / 2) ** 2 + across**2)


def fill(values: Array, evaluated: NDArray[np.bool_], *, smooth: bool = True) -> Array:
    """Complete a lattice known where `evaluated`; non-finite values are left out of the fit and stay.

    `smooth=False` uses the linear kernel, which does not overshoot steps (accuracies).
    """
    shape = (values.shape[0], values.shape[1])
    coordinates = lattice_coordinates(shape)
    flat = values.reshape(-1).copy()
    nodes = np.flatnonzero(evaluated.reshape(-1) & np.isfinite(flat))
    if len(nodes) < 4:
        return values.copy()
    kernels = ("thin_plate", "cubic") if smooth else ("linear",)
    surface = fit_lattice(coordinates, nodes, flat[nodes], kernels).members.mean(axis=0)
    missing = ~evaluated.reshape(-1)
    flat[missing] = surface[missing]
    return flat.reshape(shape)
