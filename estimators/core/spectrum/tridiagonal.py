"""Plain Lanczos from one start vector: the Jacobi matrix behind a Gauss quadrature rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .lanczos import Matvec, breakdown_level, orthogonalize


@dataclass(frozen=True)
class Tridiagonal:
    """The Jacobi matrix of one start vector.

    Attributes
    ----------
    alphas : ndarray of shape (m,)
        Diagonal.
    betas : ndarray of shape (m,)
        ``betas[:-1]`` is the off-diagonal; ``betas[-1]`` couples to the step that was not taken, 0 when the
        Krylov space is exhausted.
    breakdown : bool
        Whether the iteration ended because the Krylov space closed (the quadrature is then exact).
    """

    alphas: np.ndarray
    betas: np.ndarray
    breakdown: bool


def lanczos_tridiagonal(
    matvec: Matvec,
    start: torch.Tensor,
    n_steps: int,
    *,
    deflate: torch.Tensor | None = None,
    on_step: Callable[[], None] | None = None,
) -> Tridiagonal:
    """Run plain Lanczos from one vector and return its Jacobi matrix.

    Parameters
    ----------
    matvec : callable
        ``v -> A v`` for v of shape (P,).
    start : tensor of shape (P,)
        Start vector; any length but zero.
    n_steps : int
        Steps wanted; fewer are taken when the Krylov space closes.
    deflate : tensor of shape (j, P), default=None
        Orthonormal rows to stay orthogonal to: the operator is restricted to their complement.
    on_step : callable, default=None
        Called after each product; an exception it raises ends the iteration.

    Returns
    -------
    Tridiagonal
    """
    size = start.shape[0]
    n_fixed = 0 if deflate is None else deflate.shape[0]
    n_steps = min(n_steps, size - n_fixed)
    rows = torch.empty(n_fixed + n_steps, size, dtype=start.dtype, device=start.device)
    q = start.clone()
    if deflate is not None:
        rows[:n_fixed] = deflate
        orthogonalize(q, rows[:n_fixed])
    q /= q.norm()
    alphas, betas, scale = [], [], 0.0
    for j in range(n_steps):
        rows[n_fixed + j] = q
        w = matvec(q).detach().clone()
        scale = max(scale, float(w.norm()))
        alphas.append(float(q.double() @ w.double()))
        orthogonalize(w, rows[: n_fixed + j + 1])
        beta = float(w.norm())
        if on_step is not None:
            on_step()
        if not np.isfinite(beta):
            raise ValueError(
                "operator must return finite products, got a non-finite value. "
                "Check that the loss and its derivatives are finite at this point."
            )
        if beta <= breakdown_level(start) * scale or n_fixed + j + 1 == size:
            betas.append(0.0)
            return Tridiagonal(np.array(alphas), np.array(betas), True)
        betas.append(beta)
        q = w / beta
    return Tridiagonal(np.array(alphas), np.array(betas), False)
