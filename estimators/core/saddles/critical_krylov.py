"""Eigenvector following for networks too large for a dense Hessian."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..spectrum.lanczos import lanczos_eigenpairs, orthogonalize
from .critical import TRUST, CriticalPoint, OnStep, next_trust, signature


def follow_with_lanczos(
    value_and_gradient: Callable[[Tensor], tuple[float, Tensor]],
    hvp: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    index: int,
    *,
    tol: float = 1e-4,
    max_steps: int = 50,
    n_krylov: int = 20,
    random_state: int = 0,
    on_step: OnStep | None = None,
) -> CriticalPoint:
    """Search for a critical point of a network too large for a dense Hessian.

    The k softest modes come from Lanczos; the gradient's part outside them is taken apart in a Krylov space
    started from itself, in which it lies whole, so that the same step (up along the softest modes, down along
    the rest, each divided by its |Ritz value|) can be taken.

    Parameters
    ----------
    value_and_gradient : callable
        `theta` → (loss, gradient (P,)).
    hvp : callable
        `(v, theta)` → H v for v of shape (P,) or (P, k).
    start : Tensor of shape (P,)
        Where to begin.
    index : int
        Number of negative eigenvalues wanted.
    tol : float, default=1e-4
        Gradient norm called stationary; larger nets in float32 seldom get below 1e-5.
    max_steps : int, default=50
        Steps.
    n_krylov : int, default=20
        Products spent on the gradient's Krylov space in each step.
    random_state : int, default=0
        Seed of the Lanczos start vectors.
    on_step : callable, default=None
        `on_step(done, total)` after each step.

    Returns
    -------
    CriticalPoint
        Its `eigenvalues` are the `index` + 2 most negative and the 2 largest Ritz values at the end; `index`
        counts the negative ones among them, which is a lower bound on the true index when all of the low ones
        are negative.
    """
    theta, trust = start.detach().clone(), TRUST
    value, gradient = value_and_gradient(theta)
    steps = 0
    while float(gradient.norm()) > tol and steps < max_steps:
        here = theta.clone()

        def product(v: Tensor, at: Tensor = here) -> Tensor:
            return hvp(v, at)

        move = _krylov_step(product, gradient, index, n_krylov, random_state)
        move *= min(1.0, trust / max(float(move.norm()), 1e-30))
        predicted = float(gradient @ move + 0.5 * (move @ product(move)))
        theta = theta + move
        new_value, gradient = value_and_gradient(theta)
        error = torch.tensor(abs((new_value - value - predicted) / predicted) if predicted else 0.0)
        trust = float(next_trust(torch.tensor(trust), error))
        value, steps = new_value, steps + 1
        if on_step is not None:
            on_step(steps, max_steps)
    pairs = lanczos_eigenpairs(
        lambda v: hvp(v, theta),
        len(theta),
        min(index + 2, len(theta)),
        random_state=random_state,
        like=theta,
        tol=1e-4,
    )
    eigenvalues = torch.as_tensor(pairs.values[::-1].copy())
    negative, zero = signature(eigenvalues)
    modes = torch.stack([pairs.vectors[-1], pairs.vectors[0]])
    return CriticalPoint(
        theta, float(value), float(gradient.norm()), eigenvalues, modes, negative, zero, index, steps, tol
    )


def _krylov_step(
    product: Callable[[Tensor], Tensor], gradient: Tensor, index: int, n_krylov: int, random_state: int
) -> Tensor:
    """Give the eigenvector-following step from the softest modes and the gradient's own Krylov space."""
    size = len(gradient)
    if index:
        low = lanczos_eigenpairs(
            product,
            size,
            index,
            ends="smallest",
            tol=1e-3,
            max_products=300,
            random_state=random_state,
            like=gradient,
        )
        soft, soft_values = low.vectors, torch.as_tensor(low.values).to(gradient)
    else:
        soft, soft_values = gradient.new_zeros(0, size), gradient.new_zeros(0)
    slopes = soft @ gradient
    move = soft.T @ (slopes / soft_values.abs().clamp_min(1e-6))
    rest = gradient.clone()
    if index:
        orthogonalize(rest, soft)
    length = float(rest.norm())
    if length == 0.0:
        return move
    rows = [rest / length]
    columns = []
    for _ in range(min(n_krylov, size - index)):
        image = product(rows[-1]).detach().clone()
        if index:
            orthogonalize(image, soft)
        basis = torch.stack(rows)
        columns.append(basis @ image)
        orthogonalize(image, basis)
        if float(image.norm()) <= 1e-10 * length or len(rows) == min(n_krylov, size - index):
            break
        rows.append(image / image.norm())
    basis = torch.stack(rows[: len(columns)])
    small = torch.zeros(len(columns), len(columns), dtype=torch.float64)
    for j, column in enumerate(columns):
        small[: len(column), j] = column.double().cpu()
        small[j, : len(column)] = column.double().cpu()
    values, coordinates = torch.linalg.eigh(small)
    scale = values.abs().clamp_min(1e-3 * float(values.abs().max()))
    downhill = coordinates @ (coordinates[0] * length / scale)
    return move - basis.T @ downhill.to(gradient)
