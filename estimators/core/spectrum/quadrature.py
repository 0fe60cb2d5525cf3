"""Spectral density and fractions of negative, zero and positive eigenvalues, by Lanczos quadrature.

Each probe's Jacobi matrix knows the first 2m moments of that probe's spectral measure and nothing else. The share of
eigenvalues below a threshold is therefore known only up to a bracket, and the sharpest bracket is the weight that the
Gauss-Radau rule puts on the threshold itself (Chebyshev-Markov-Stieltjes). The estimate is the middle of the bracket.
The bracket is for the worst measure, and most spectra are kinder: how far the middle moves between half the steps and
all of them, as a share of the bracket at half the steps, says how kind this one is, and that share of the final bracket
is the error of the quadrature. Where too few steps were taken for the middle to mean anything, the whole bracket is
taken as a uniform error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from .lanczos import Matvec, random_unit
from .tridiagonal import Tridiagonal, lanczos_tridiagonal

LOOSE = 0.15  # half-width of a bracket above which its middle means nothing


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
        Standard errors: spread over probes and error of the quadrature together.
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
    fractions, spread, bracket, error = _fractions(jacobis, known, size, threshold)
    grid, density, density_stderr, sigma = _density(rules, known, size, n_grid)
    return SpectralDensity(
        grid=grid,
        density=density,
        density_stderr=density_stderr,
        sigma=sigma,
        fractions=fractions,
        fractions_stderr=np.hypot(spread, error),
        fractions_spread=spread,
        fractions_bracket=bracket,
        threshold=threshold,
        extremes=(float(rest.min()), float(rest.max())),
        n_products=done,
    )


def _fractions(
    jacobis: list[Tridiagonal], known: np.ndarray, size: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fractions, their spread over probes, the half-width of their brackets and its standard error, each (3,)."""
    exact = np.array([(known <= -threshold).sum(), (np.abs(known) < threshold).sum(), (known >= threshold).sum()])
    if not jacobis:
        return exact / size, np.zeros(3), np.zeros(3), np.zeros(3)
    n = size - len(known)
    middle, half = _middles(jacobis, threshold)
    mean = middle.mean(axis=0)
    rest = n / size
    # Shares of a random unit vector in a fraction f of n directions vary by 2f(1−f)/(n+2); the spread seen over a few
    # probes estimates the same number less surely, but also what the quadrature adds to it.
    known_variance = 2 * np.clip(mean * (1 - mean), 0.0, None) / (n + 2)
    spread = np.sqrt((middle.var(axis=0, ddof=1) + known_variance) / 2 / len(jacobis))
    error = _quadrature_error(jacobis, threshold, middle, half)
    # The narrow band around zero holds a whole number of eigenvalues (Poisson, one added), the quadrature a smooth
    # density.
    error[1] = max(error[1], min(half[1] / np.sqrt(3), np.sqrt((max(mean[1], 0.0) + 1 / n) / n)))
    return exact / size + rest * mean, rest * spread, rest * half, rest * error


def _middles(jacobis: list[Tridiagonal], threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the brackets of each probe's three shares (n_probes, 3), and their mean half-widths (3,)."""
    below = np.array([share_below(jacobi, -threshold) for jacobi in jacobis])
    above = np.array([share_below(jacobi, threshold) for jacobi in jacobis])
    low, high = below.mean(axis=1), above.mean(axis=1)
    half = np.array([np.ptp(below, axis=1).mean(), 0.0, np.ptp(above, axis=1).mean()]) / 2
    half[1] = half.sum()
    return np.stack([low, high - low, 1 - high], axis=1), half


def _quadrature_error(jacobis: list[Tridiagonal], threshold: float, middle: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Estimate the error of the three shares that is common to all probes, (3,)."""
    uniform = half / np.sqrt(3)
    fewer = [_shortened(jacobi) for jacobi in jacobis]
    if any(jacobi is None for jacobi in fewer):
        return uniform
    before, half_before = _middles([jacobi for jacobi in fewer if jacobi is not None], threshold)
    moved = middle - before
    drift = np.sqrt(np.maximum(moved.mean(axis=0) ** 2 - moved.var(axis=0, ddof=1) / len(jacobis), 0.0))
    kindness = drift / np.maximum(half_before, np.finfo(float).tiny)
    return np.where(half > LOOSE, uniform, uniform * np.minimum(1.0, 2 * kindness))


def _shortened(jacobi: Tridiagonal) -> Tridiagonal | None:
    """Give the same probe after half the steps; None where there are too few to halve."""
    m = len(jacobi.alphas) // 2
    return replace(jacobi, alphas=jacobi.alphas[:m], betas=jacobi.betas[:m]) if m >= 2 else None


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
