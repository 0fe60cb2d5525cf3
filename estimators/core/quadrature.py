"""Spectral density and fractions of negative, zero and positive eigenvalues, by Lanczos quadrature.

Each probe's Jacobi matrix knows the first 2m moments of that probe's spectral measure and nothing else. The share of
eigenvalues below a threshold is therefore known only up to a bracket, and the sharpest bracket is the weight that the
Gauss-Radau rule puts on the threshold itself (Chebyshev-Markov-Stieltjes). The estimate is the middle of the bracket;
its standard error adds the spread over probes and the bracket taken as a uniform error. When too few steps were taken
to tell eigenvalues near zero apart, the standard error says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .lanczos import Matvec, Tridiagonal, lanczos_tridiagonal, random_unit


@dataclass(frozen=True)
class SpectralDensity:
    """A smoothed spectrum and three fractions, each with its uncertainty.

    Attributes
    ----------
    grid : ndarray of shape (G,)
        Eigenvalue axis.
    density : ndarray of shape (G,)
        Density per unit eigenvalue, Gaussian-broadened; integrates to 1.
    density_stderr : ndarray of shape (G,)
        Standard error over probes.
    sigma : float
        Width of the broadening, in units of the eigenvalue.
    fractions : ndarray of shape (3,)
        Shares of eigenvalues below −threshold, between, and above threshold; they sum to 1.
    fractions_stderr : ndarray of shape (3,)
        Standard errors: spread over probes and quadrature bracket together.
    fractions_spread : ndarray of shape (3,)
        The part of the standard error that comes from the probes alone; more probes lower it.
    fractions_bracket : ndarray of shape (3,)
        Half-width of the bracket the quadrature leaves; more steps lower it.
    threshold : float
        Half-width of the band that counts as zero, in units of the eigenvalue.
    extremes : tuple of two floats
        Smallest and largest quadrature node (inside the spectrum's ends), known eigenvalues left out.
    n_products : int
        Products with the operator spent.
    """

    grid: np.ndarray
    density: np.ndarray
    density_stderr: np.ndarray
    sigma: float
    fractions: np.ndarray
    fractions_stderr: np.ndarray
    fractions_spread: np.ndarray
    fractions_bracket: np.ndarray
    threshold: float
    extremes: tuple[float, float]
    n_products: int


def gauss_rule(jacobi: Tridiagonal) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights of the Gauss rule of a Jacobi matrix.

    Parameters
    ----------
    jacobi : Tridiagonal

    Returns
    -------
    nodes : ndarray of shape (m,)
        Eigenvalues of the Jacobi matrix, ascending.
    weights : ndarray of shape (m,)
        Squared first components of its eigenvectors; they sum to 1.
    """
    return _rule(jacobi.alphas, jacobi.betas[:-1])


def _rule(alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nodes, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1))
    return nodes, vectors[0] ** 2


def share_below(jacobi: Tridiagonal, x: float) -> tuple[float, float]:
    """Bracket the share of a probe's spectral measure that lies below ``x``.

    Parameters
    ----------
    jacobi : Tridiagonal
    x : float

    Returns
    -------
    low, high : float
        The sharpest bounds that the Jacobi matrix allows. Equal when the Krylov space closed: the rule is then exact.

    References
    ----------
    Golub & Meurant 2010, "Matrices, Moments and Quadrature", ch. 6 (Gauss-Radau); Karlin & Studden 1966
    (Chebyshev-Markov-Stieltjes inequalities).
    """
    alphas, betas = jacobi.alphas, jacobi.betas
    if betas[-1] == 0.0:
        nodes, weights = gauss_rule(jacobi)
        below = float(weights[nodes < x].sum())
        return below, below
    # Gauss-Radau: choose the last diagonal entry so that x is a node. Eliminating row by row from the bottom keeps
    # it a one-line recurrence for p_m(x)/p_{m+1}(x).
    scale = max(np.abs(alphas).max(), np.abs(betas).max())
    ratio = alphas[0] - x
    for j in range(1, len(alphas)):
        ratio = (alphas[j] - x) - betas[j - 1] ** 2 / (ratio if ratio != 0 else np.finfo(float).eps * scale)
    ratio = ratio if ratio != 0 else np.finfo(float).eps * scale
    last = x + betas[-1] ** 2 / ratio
    nodes, weights = _rule(np.append(alphas, last), betas)
    at = int(np.argmin(np.abs(nodes - x)))
    low = float(weights[:at].sum())
    return low, low + float(weights[at])


def spectral_density(
    matvec: Matvec,
    size: int,
    *,
    n_probes: int = 10,
    n_steps: int = 80,
    threshold: float | None = None,
    tol: float = 1e-3,
    known_values: Sequence[float] | np.ndarray = (),
    known_vectors: torch.Tensor | None = None,
    n_grid: int = 1024,
    random_state: int = 0,
    like: torch.Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> SpectralDensity:
    """Estimate the density of eigenvalues and the fractions of negative, zero and positive ones.

    Parameters
    ----------
    matvec : callable
        ``v -> A v``, for v of shape (P,).
    size : int
        P.
    n_probes : int, default=10
        Random start vectors, at least 2.
    n_steps : int, default=80
        Lanczos steps a probe. Eigenvalues closer than about π/2 · (width of the spectrum) / n_steps are not
        told apart, and the standard errors of the fractions grow accordingly.
    threshold : float, default=None
        Eigenvalues in (−threshold, threshold) count as zero; None takes ``tol`` times the largest magnitude seen.
    tol : float, default=1e-3
        Used when ``threshold`` is None.
    known_values : array-like of shape (j,), default=()
        Eigenvalues already known. They are counted exactly, and the probes are kept orthogonal to their vectors,
        which narrows the spectrum the quadrature has to resolve.
    known_vectors : tensor of shape (j, P), default=None
        Their orthonormal eigenvectors.
    n_grid : int, default=1024
        Points of the grid; the broadening is four grid steps wide.
    random_state : int, default=0
        Seed of the probes.
    like : tensor, default=None
        Gives dtype and device; None means float64 on the CPU.
    on_step : callable, default=None
        ``on_step(done, total)`` after each product; raising ends the work.

    Returns
    -------
    SpectralDensity

    Raises
    ------
    ValueError
        If ``n_probes`` is below 2 or ``n_steps`` below 1.

    References
    ----------
    Ghorbani, Krishnan & Xiao 2019, "An investigation into neural net optimization via Hessian eigenvalue density";
    Ubaru, Chen & Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature".
    """
    if n_probes < 2:
        raise ValueError(f"n_probes must be at least 2, got {n_probes!r}. A standard error needs two or more probes.")
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps!r}. 80 resolves most spectra.")
    like = torch.empty(0, dtype=torch.float64) if like is None else like
    known = np.asarray(known_values, dtype=float)
    generator = torch.Generator().manual_seed(int(random_state))
    total = n_probes * min(n_steps, size - len(known))
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, total)

    jacobis = []
    if len(known) < size:
        for _ in range(n_probes):
            start = random_unit(size, generator, like)
            jacobis.append(lanczos_tridiagonal(matvec, start, n_steps, deflate=known_vectors, on_step=count))
    rules = [gauss_rule(jacobi) for jacobi in jacobis]
    seen = np.concatenate([known, *(nodes for nodes, _ in rules)])
    threshold = tol * float(np.abs(seen).max()) if threshold is None else float(threshold)
    threshold = max(threshold, float(np.finfo(float).tiny))  # so that the zero operator counts as zero
    rest = np.concatenate([nodes for nodes, _ in rules]) if rules else known
    fractions, spread, bracket = _fractions(jacobis, known, size, threshold)
    grid, density, density_stderr, sigma = _density(rules, known, size, n_grid)
    return SpectralDensity(
        grid=grid,
        density=density,
        density_stderr=density_stderr,
        sigma=sigma,
        fractions=fractions,
        fractions_stderr=np.sqrt(spread**2 + bracket**2 / 3),
        fractions_spread=spread,
        fractions_bracket=bracket,
        threshold=threshold,
        extremes=(float(rest.min()), float(rest.max())),
        n_products=done,
    )


def _fractions(
    jacobis: list[Tridiagonal], known: np.ndarray, size: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fractions, their spread over probes and the half-width of their brackets, each (3,)."""
    exact = np.array([(known <= -threshold).sum(), (np.abs(known) < threshold).sum(), (known >= threshold).sum()])
    if not jacobis:
        return exact / size, np.zeros(3), np.zeros(3)
    below = np.array([share_below(jacobi, -threshold) for jacobi in jacobis])
    above = np.array([share_below(jacobi, threshold) for jacobi in jacobis])
    low = np.stack([below[:, 0], np.maximum(above[:, 0] - below[:, 1], 0.0), 1 - above[:, 1]], axis=1)
    high = np.stack([below[:, 1], above[:, 1] - below[:, 0], 1 - above[:, 0]], axis=1)
    middle = np.stack([below.mean(axis=1), above.mean(axis=1) - below.mean(axis=1), 1 - above.mean(axis=1)], axis=1)
    rest = 1 - len(known) / size
    fractions = exact / size + rest * middle.mean(axis=0)
    spread = rest * middle.std(axis=0, ddof=1) / np.sqrt(len(jacobis))
    half = np.maximum(high.mean(axis=0) - middle.mean(axis=0), middle.mean(axis=0) - low.mean(axis=0))
    return fractions, spread, rest * half


def _density(
    rules: list[tuple[np.ndarray, np.ndarray]], known: np.ndarray, size: int, n_grid: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Gaussian-broadened density on a grid wide enough that it integrates to 1."""
    seen = np.concatenate([known, *(nodes for nodes, _ in rules)])
    low, high = float(seen.min()), float(seen.max())
    width = high - low if high > low else max(abs(high), 1.0)
    # Four steps a sigma and six sigma beyond the ends: the trapezoid rule is then exact to about 1e-9.
    steps = n_grid - 1 - 48
    step = width / steps
    sigma = 4 * step
    grid = low - 24 * step + step * np.arange(n_grid)
    spikes = _broaden(grid, known, np.full(len(known), 1 / size), sigma)
    if not rules:
        return grid, spikes, np.zeros(n_grid), sigma
    rest = 1 - len(known) / size
    curves = np.stack([rest * _broaden(grid, nodes, weights, sigma) for nodes, weights in rules])
    stderr = curves.std(axis=0, ddof=1) / np.sqrt(len(curves))
    return grid, spikes + curves.mean(axis=0), stderr, sigma


def _broaden(grid: np.ndarray, nodes: np.ndarray, weights: np.ndarray, sigma: float) -> np.ndarray:
    scaled = (grid[:, None] - nodes[None, :]) / sigma
    return np.exp(-0.5 * scaled**2) @ weights / (sigma * np.sqrt(2 * np.pi))


def exact_density(values: np.ndarray, n_grid: int = 1024) -> tuple[np.ndarray, np.ndarray, float]:
    """Broaden a full list of eigenvalues the way :func:`spectral_density` does.

    Parameters
    ----------
    values : ndarray of shape (P,)
        Every eigenvalue.
    n_grid : int, default=1024

    Returns
    -------
    grid, density : ndarray of shape (n_grid,)
    sigma : float
    """
    grid, density, _, sigma = _density([], np.asarray(values, dtype=float), len(values), n_grid)
    return grid, density, sigma
