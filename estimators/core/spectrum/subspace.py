"""Eigenpairs of an operator from very few products, with the help of another that is like it and cheap.

The products of A with some vectors say all about A in their span: its best eigenpairs there (Rayleigh-Ritz) with true
residuals, and how a cheap operator A′ has to be changed to agree with A on them. The change is the smallest symmetric
one (Powell 1970, the update of quasi-Newton methods): with orthonormal V and D = (A − A′)V,

    A″ x = A′ x + D Vᵀx + V Dᵀx − V (VᵀD) Vᵀx.

The eigenvectors of A″ are the next vectors that are worth a product with A: a Davidson method (Davidson 1975) whose
preconditioner is an eigenvalue problem.
"""

from __future__ import annotations

import numpy as np
import torch

from .lanczos import Eigenpairs, Matvec, judged, orthogonalize, wanted


class Subspace:
    """Orthonormal vectors with their products with A and with A′.

    Parameters
    ----------
    operator, cheap : callable
        ``v -> A v`` and ``v -> A′ v`` for v of shape (P,).
    like : tensor
        Gives P, dtype and device.

    Attributes
    ----------
    n : int
        Vectors, each of which took one product with either.
    """

    def __init__(self, operator: Matvec, cheap: Matvec, like: torch.Tensor) -> None:
        self.operator, self.cheap = operator, cheap
        self._vectors = like.new_empty(0, len(like))
        self._images = self._vectors  # A v
        self._changes = self._vectors  # A v − A′ v
        self.n = 0

    def add(self, vector: torch.Tensor) -> bool:
        """Take the part of a vector that lies outside of the span; tell whether there was one."""
        v = vector.clone()
        orthogonalize(v, self._vectors)
        norm = v.norm()
        if norm <= _INSIDE * vector.norm():
            return False
        v = v / norm
        orthogonalize(v, self._vectors)
        v = v / v.norm()
        image = self.operator(v).detach()
        self._vectors = torch.cat([self._vectors, v[None]])
        self._images = torch.cat([self._images, image[None]])
        self._changes = torch.cat([self._changes, (image - self.cheap(v).detach())[None]])
        self.n += 1
        return True

    def pairs(self, k: int, ends: str, tol: float) -> Eigenpairs:
        """Give the best eigenpairs of A in the span, the k outermost at each end that is wanted."""
        v, w = self._vectors.double(), self._images.double()
        small = (v @ w.T).cpu().numpy()
        values, coordinates = np.linalg.eigh((small + small.T) / 2)
        pick = wanted(self.n, k, ends)[::-1]
        y = torch.as_tensor(coordinates[:, pick].T.copy(), device=v.device)
        found, theta = y @ v, torch.as_tensor(values[pick].copy(), device=v.device)
        residuals = (y @ w - theta[:, None] * found).norm(dim=1).cpu().numpy()
        return judged(values[pick], residuals, found.to(self._vectors.dtype), tol, self.n)

    def corrected(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by A″: A′ changed so that it agrees with A on the span."""
        v, d = self._vectors, self._changes
        along = v @ x
        return self.cheap(x) + d.T @ along + v.T @ (d @ x - (v @ d.T) @ along)


_INSIDE = 1e-3  # share of a vector's length below which what lies outside of the span is rounding
