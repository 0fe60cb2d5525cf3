"""Extreme eigenvalues of a symmetric operator known only through its products.

Lanczos with full reorthogonalisation and thick restart (Wu & Simon 2000). The basis lives where the products
live; the small projected problem is solved in float64 on the CPU. Nothing here knows about networks: an operator
is a callable ``v -> A v`` for ``v`` of shape (P,) or (P, k). Long because restarts, locking of what has converged, and
the search for missed copies of an eigenvalue work on one basis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

Matvec = Callable[[torch.Tensor], torch.Tensor]
OnStep = Callable[[int, int], None]
Enough = Callable[[int], bool]

ENDS = ("both", "largest", "smallest")
# A Ritz pair is accepted a little below the asked tolerance so that the true residual, measured afterwards, meets it.
SAFETY = 0.7
MISSED = 0.01  # share of starts that may pass an eigenvalue over


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenvalues with the evidence for them.

    Attributes
    ----------
    values : ndarray of shape (k,)
        Eigenvalues, largest first, as Rayleigh quotients of true products.
    residuals : ndarray of shape (k,)
        ‖A v − λ v‖ of each pair, from a true product: some eigenvalue of A lies within this distance of λ.
    converged : ndarray of shape (k,), bool
        Whether the residual is at most ``tol · |λ|`` (or at the rounding of the operator's dtype).
    negligible : ndarray of shape (k,), bool
        Whether ``|λ| + residual`` is at most ``tol`` times the largest magnitude: not told apart from zero.
    vectors : tensor of shape (k, P)
        Unit eigenvectors, one a row, on the operator's device.
    n_products : int
        Products with A spent, those for the residuals included.
    n_restarts : int
        Thick restarts made.
    breakdowns : int
        Times the Krylov space closed on itself (an invariant subspace was found) and a fresh direction was drawn.
    """

    values: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    negligible: np.ndarray
    vectors: torch.Tensor
    n_products: int
    n_restarts: int
    breakdowns: int

    @property
    def settled(self) -> np.ndarray:
        """Which pairs need no further search: those that have converged or are negligible, shape (k,)."""
        return self.converged | self.negligible


def random_unit(size: int, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Draw a direction uniform on the sphere of R^size, on the CPU so that every device gets the same one.

    Parameters
    ----------
    size : int
        Dimension.
    generator : torch.Generator
        CPU generator.
    like : tensor
        Gives dtype and device of the result.

    Returns
    -------
    tensor of shape (size,)
    """
    v = torch.randn(size, generator=generator, dtype=torch.float64)
    return (v / v.norm()).to(dtype=like.dtype, device=like.device)


def orthogonalize(w: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Remove from ``w`` its part in the span of orthonormal rows, twice, in place.

    Two passes of classical Gram-Schmidt are enough for orthogonality at rounding level (Giraud et al. 2005).

    Parameters
    ----------
    w : tensor of shape (P,)
        Changed in place.
    basis : tensor of shape (j, P)
        Orthonormal rows.

    Returns
    -------
    tensor of shape (j,)
        The coefficients removed.
    """
    total = torch.zeros(basis.shape[0], dtype=w.dtype, device=w.device)
    for _ in range(2):
        coefficients = basis @ w
        w.addmv_(basis.T, coefficients, alpha=-1)
        total += coefficients
    return total


class _Krylov:
    """A growing orthonormal basis with the projection of A onto it."""

    def __init__(self, matvec: Matvec, size: int, capacity: int, like: torch.Tensor, generator: torch.Generator):
        self.matvec, self.size, self.generator, self.like = matvec, size, generator, like
        self.capacity = min(capacity, size)
        self.rows = torch.empty(self.capacity + 1, size, dtype=like.dtype, device=like.device)
        self.projected = np.zeros((self.capacity, self.capacity))
        self.rows[0] = random_unit(size, generator, like)
        self.n = 0
        self.beta = 0.0
        self.n_products = 0
        self.breakdowns = 0
        self.scale = 0.0

    def expand(self) -> None:
        """Take one step: the next column of the projection and the next basis vector."""
        j = self.n
        w = self.matvec(self.rows[j]).detach().clone()
        self.n_products += 1
        norm = float(w.norm())
        if not np.isfinite(norm):
            raise ValueError(
                "operator must return finite products, got a non-finite value. "
                "Check that the loss and its derivatives are finite at this point."
            )
        self.scale = max(self.scale, norm)
        column = orthogonalize(w, self.rows[: j + 1]).double().cpu().numpy()
        self.projected[: j + 1, j] = self.projected[j, : j + 1] = column
        self.n = j + 1
        self.beta = float(w.norm())
        if self.n == self.size:
            self.beta = 0.0
        elif self.beta <= breakdown_level(self.like) * self.scale:
            self.breakdowns += 1
            self.beta = 0.0
            self.rows[self.n] = self._fresh()
        else:
            self.rows[self.n] = w / self.beta

    def _fresh(self) -> torch.Tensor:
        w = random_unit(self.size, self.generator, self.like)
        orthogonalize(w, self.rows[: self.n])
        return w / w.norm()

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ritz values (ascending), their coordinates and the residual norms the recurrence predicts."""
        values, coordinates = np.linalg.eigh(self.projected[: self.n, : self.n])
        return values, coordinates, np.abs(self.beta * coordinates[-1])

    def combine(self, coordinates: np.ndarray) -> torch.Tensor:
        """Ritz vectors (k, P) from coordinates (n, k), normalised again in case of rounding."""
        weights = torch.as_tensor(coordinates.T.copy()).to(dtype=self.like.dtype, device=self.like.device)
        vectors = weights @ self.rows[: self.n]
        return vectors / vectors.norm(dim=1, keepdim=True)

    def restart(self, values: np.ndarray, coordinates: np.ndarray, keep: np.ndarray) -> None:
        """Keep some Ritz vectors and go on from the residual direction they all share."""
        kept = self.combine(coordinates[:, keep])
        residual = self.rows[self.n].clone()
        p = len(keep)
        self.rows[:p] = kept
        orthogonalize(residual, self.rows[:p])
        self.rows[p] = residual / residual.norm()
        self.projected[:] = 0.0
        self.projected[range(p), range(p)] = values[keep]
        self.n = p


def breakdown_level(like: torch.Tensor) -> float:
    """Size, relative to the operator, below which a new Lanczos direction is only rounding."""
    return 50 * torch.finfo(like.dtype).eps


def usual_products(n_wanted: int, ends: str) -> int:
    """Products that a search for so many eigenvalues of a network takes, about; few are as far from 0 below it."""
    return (20 if ends == "both" else 8) + 4 * n_wanted


def tells_ends(n_products: int, n_wanted: int) -> bool:
    """Whether a search that was cut has seen enough for its Rayleigh quotients to say something of the ends."""
    return n_products >= n_wanted + 4


def wanted(n: int, k: int, ends: str) -> np.ndarray:
    """Return indices of the wanted values among ``n`` ascending ones; all of them when both ends meet."""
    low = np.arange(min(k, n)) if ends in ("both", "smallest") else np.arange(0)
    high = np.arange(max(n - k, 0), n) if ends in ("both", "largest") else np.arange(0)
    return np.union1d(low, high).astype(int)


def lanczos_eigenpairs(
    matvec: Matvec,
    size: int,
    k: int,
    *,
    ends: str = "both",
    tol: float = 1e-3,
    basis_size: int | None = None,
    max_products: int = 1000,
    random_state: int = 0,
    like: torch.Tensor | None = None,
    verify: bool = False,
    start: torch.Tensor | None = None,
    on_step: OnStep | None = None,
    enough: Enough | None = None,
) -> Eigenpairs:
    """Find the largest and the most negative eigenvalues of a symmetric operator.

    Parameters
    ----------
    matvec : callable
        ``v -> A v``, for v of shape (P,) and (P, k).
    size : int
        P.
    k : int
        Eigenvalues wanted at each end; 1 ≤ k ≤ size.
    ends : {"both", "largest", "smallest"}, default="both"
        "largest" are the algebraically largest, "smallest" the most negative.
    tol : float, default=1e-3
        A pair has converged when ‖A v − λ v‖ ≤ tol · |λ|. The search stops when every wanted pair has converged
        or is negligible: |λ| + ‖A v − λ v‖ ≤ tol · max |λ|, after enough products (`products_to_see`) to know that
        no eigenvalue beyond it was passed over. A vector of the null space looks as if it had converged long before.
    basis_size : int, default=None
        Vectors kept at once (memory is ``(basis_size + 1) · P`` numbers); None takes ``max(4 · k_total, 40)``.
    max_products : int, default=1000
        Products after which the search stops as it is; what has not converged says so.
    random_state : int, default=0
        Seed of the start vector.
    like : tensor, default=None
        Gives dtype and device of the basis; None means float64 on the CPU.
    verify : bool, default=False
        Look again from a second start vector orthogonal to what was found. One start vector sees one copy of a
        repeated eigenvalue; this finds the others, for the price of another short run.
    start : tensor of shape (P,), default=None
        Where the search starts, of any length but zero; None draws it.
    on_step : callable, default=None
        ``on_step(done, total)`` after each product; an exception it raises ends the search (cancelling).
    enough : callable, default=None
        ``enough(n)`` is asked whether n more products would be too many; the search then stops as it is, without
        another one: values and residuals are those of the recurrence.

    Returns
    -------
    Eigenpairs

    Raises
    ------
    ValueError
        If ``k`` or ``ends`` is out of range or a product is not finite.

    References
    ----------
    Wu & Simon 2000, "Thick-restart Lanczos method for large symmetric eigenvalue problems".
    """
    if ends not in ENDS:
        raise ValueError(f"ends must be one of {ENDS}, got {ends!r}. Choose which end of the spectrum to search.")
    if not 1 <= k <= size:
        raise ValueError(
            f"k must be an integer between 1 and the size of the operator ({size}), got {k!r}. "
            f"Ask for at most {size} eigenvalues."
        )
    like = torch.empty(0, dtype=torch.float64) if like is None else like
    generator = torch.Generator().manual_seed(int(random_state))
    n_wanted = len(wanted(size, k, ends))
    capacity = max(4 * n_wanted, 40) if basis_size is None else basis_size
    capacity = min(max(capacity, n_wanted + 4), size)
    found = _search(matvec, size, k, ends, tol, capacity, max_products, like, generator, on_step, enough, start)
    while verify and len(found.values) < size and found.n_products < max_products:
        again = _second_look(
            found, matvec, size, k, ends, tol, capacity, max_products, like, generator, on_step, enough
        )
        improved = not np.allclose(again.values, found.values, rtol=tol, atol=tol * np.abs(found.values).max())
        found = again
        if not improved:
            break
    return found


def products_to_see(size: int, tol: float) -> int:
    """Give the products after which a random start has seen any eigenvalue below the smallest by tol · (λ_max − λ_min).

    All but one in a hundred starts have by then (Kuczyński & Woźniakowski 1992, "Estimating the Largest Eigenvalue by
    the Power and Lanczos Algorithms with a Random Start", theorem 4.2); a search that is restarted may need more.
    """
    return min(size, math.ceil(0.5 + math.log(1.648 * math.sqrt(size) / MISSED) / (2 * math.sqrt(tol))))


def _search(
    matvec, size, k, ends, tol, capacity, max_products, like, generator, on_step, enough, start=None, floor: float = 0.0
) -> Eigenpairs:
    """Run one search; ``floor`` is a known lower bound on the norm of the operator."""
    krylov = _Krylov(matvec, size, capacity, like, generator)
    if start is not None:
        krylov.rows[0] = start / start.norm()
    krylov.scale = floor
    n_restarts = 0
    n_wanted, seen_after = len(wanted(size, k, ends)), products_to_see(size, tol)
    closed_values, closed_at, not_before = None, 0, 0
    while True:
        krylov.expand()
        if on_step is not None:
            on_step(krylov.n_products, max_products)
        values, coordinates, predicted = krylov.ritz()
        pick = wanted(krylov.n, k, ends)
        scale = max(np.abs(values).max(), floor)
        stopped = enough is not None and enough(1)
        if stopped or krylov.n == size or krylov.n_products >= max_products - n_wanted:
            break
        if len(pick) == n_wanted and krylov.n > n_wanted:
            magnitude = np.abs(values[pick])
            done = predicted[pick] <= SAFETY * tol * magnitude
            if krylov.breakdowns or krylov.n_products >= seen_after:
                done |= magnitude + predicted[pick] <= tol * scale
            if krylov.beta == 0:
                # A closed Krylov space predicts zero residuals but may lack copies of a repeated eigenvalue: go on
                # from the fresh vector for as many steps as this space took, until nothing changes.
                if closed_values is not None and np.allclose(values[pick], closed_values, rtol=0, atol=tol * scale):
                    break
                not_before = 2 * krylov.n_products - closed_at
                closed_values, closed_at = values[pick], krylov.n_products
            elif done.all() and krylov.n_products >= not_before:
                break
        if krylov.n == krylov.capacity:
            krylov.restart(values, coordinates, _kept(krylov.n, n_wanted, ends))
            n_restarts += 1
    pick = pick[::-1]
    vectors = krylov.combine(coordinates[:, pick])
    spent = krylov.n_products, n_restarts, krylov.breakdowns
    if stopped or (enough is not None and enough(len(pick))):
        rounding = torch.finfo(like.dtype).eps * scale
        return judged(values[pick], np.maximum(predicted[pick], rounding), vectors, tol, *spent)
    return _measured(matvec, vectors, tol, *spent)


def _kept(n: int, n_wanted: int, ends: str) -> np.ndarray:
    """Ritz vectors to carry over a restart: the wanted ones and their neighbours, half of the free room."""
    room = min(n - 2, n_wanted + (n - n_wanted) // 2)
    per_end = max(room // 2, 1) if ends == "both" else room
    return wanted(n, per_end, ends)


def _measured(matvec, vectors, tol, n_products, n_restarts, breakdowns) -> Eigenpairs:
    """Rayleigh quotients and true residuals of unit rows, largest value first."""
    products = matvec(vectors.T).detach().T
    v, p = vectors.double(), products.double()
    values = (v * p).sum(dim=1)
    residuals = (p - values[:, None] * v).norm(dim=1).cpu().numpy()
    values = values.cpu().numpy()
    order = np.argsort(-values, kind="stable")
    index = torch.as_tensor(order.copy(), device=vectors.device)
    spent = n_products + len(vectors), n_restarts, breakdowns
    return judged(values[order], residuals[order], vectors[index], tol, *spent)


def judged(values, residuals, vectors, tol, n_products, n_restarts=0, breakdowns=0) -> Eigenpairs:
    """Say which pairs, largest value first, have converged or can be neglected."""
    scale = np.abs(values).max()
    rounding = breakdown_level(vectors) * scale
    converged = residuals <= np.maximum(tol * np.abs(values), rounding)
    negligible = np.abs(values) + residuals <= tol * scale
    negligible &= breakdowns > 0 or n_products >= products_to_see(vectors.shape[1], tol)  # a closed space has seen all
    return Eigenpairs(values, residuals, converged, negligible, vectors, n_products, n_restarts, breakdowns)


def _second_look(
    found, matvec, size, k, ends, tol, capacity, max_products, like, generator, on_step, enough
) -> Eigenpairs:
    """Search the complement of what was found and merge the two by Rayleigh-Ritz."""
    basis = found.vectors

    def project(v: torch.Tensor) -> torch.Tensor:
        return v - basis.T @ (basis @ v)

    def complement(v: torch.Tensor) -> torch.Tensor:
        return project(matvec(project(v)))

    spent = found.n_products
    rest = size - len(found.values)
    budget = max_products - spent
    step = None if on_step is None else (lambda done, _: on_step(spent + done, max_products))
    floor = float(np.abs(found.values).max())
    other = _search(
        complement, size, min(k, rest), ends, tol, capacity, budget, like, generator, step, enough, floor=floor
    )
    stacked = torch.cat([basis, project(other.vectors.T).T])
    q = torch.linalg.qr(stacked.T.double())[0].to(like.dtype)
    products = matvec(q).detach()
    small = (q.T.double() @ products.double()).cpu().numpy()
    values, coordinates = np.linalg.eigh((small + small.T) / 2)
    pick = wanted(len(values), k, ends)
    weights = torch.as_tensor(coordinates[:, pick].copy()).to(dtype=like.dtype, device=like.device)
    vectors = (q @ weights).T
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    spent += other.n_products + q.shape[1]
    restarts, breakdowns = found.n_restarts + other.n_restarts, found.breakdowns + other.breakdowns
    return _measured(matvec, vectors, tol, spent, restarts, breakdowns)
