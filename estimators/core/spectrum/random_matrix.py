"""How likely a random critical point is a minimum: independent signs, the GOE law, and a live Monte-Carlo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..evidence.intervals import wilson_interval

GOE_RATE = np.log(3) / 4


@dataclass(frozen=True, eq=False, kw_only=True)
class MinimumProbability:
    """Monte-Carlo counts of random symmetric matrices, with intervals.

    Attributes
    ----------
    dimensions : ndarray of shape (n,), int
        Sizes d of the matrices.
    n_samples : ndarray of shape (n,), int
        Matrices drawn so far at each size.
    n_minima : ndarray of shape (n,), int
        Those with every eigenvalue positive.
    probability : ndarray of shape (n,)
        ``n_minima / n_samples``.
    low, high : ndarray of shape (n,)
        Wilson interval. Where no minimum was seen the upper end is what the draws can exclude.
    confidence : float
        Coverage of the interval.
    independent : ndarray of shape (n,)
        (1/2)^d, if the signs were independent.
    goe : ndarray of shape (n,)
        exp(−(ln 3 / 4) d²), the leading law for GOE matrices.
    index_mean, index_std : ndarray of shape (n,)
        Mean and deviation of the fraction of negative eigenvalues.
    shift : float
        Multiple of the identity that was added.
    """

    dimensions: np.ndarray
    n_samples: np.ndarray
    n_minima: np.ndarray
    probability: np.ndarray
    low: np.ndarray
    high: np.ndarray
    confidence: float = 0.95
    independent: np.ndarray
    goe: np.ndarray
    index_mean: np.ndarray
    index_std: np.ndarray
    shift: float = 0.0


def p_minimum_independent(d: int | np.ndarray) -> float | np.ndarray:
    """Return (1/2)^d: the chance that d eigenvalues are all positive if their signs were independent coins.

    Parameters
    ----------
    d : int or ndarray
        Dimension, at least 1.

    Returns
    -------
    float or ndarray
    """
    return 0.5 ** np.asarray(d, dtype=float)[()]


def p_minimum_goe(d: int | np.ndarray) -> float | np.ndarray:
    """Return exp(−(ln 3 / 4) d²): the leading law for all eigenvalues of a d × d GOE matrix being positive.

    Eigenvalues of a random symmetric matrix repel each other, so having them all on one side is far rarer than
    independent coins. The law gives the exponent for large d; at small d the exact value differs by a factor
    (0.146 against 0.333 at d = 2).

    Parameters
    ----------
    d : int or ndarray
        Dimension, at least 1.

    Returns
    -------
    float or ndarray

    References
    ----------
    Dean & Majumdar 2006, "Large deviations of extreme eigenvalues of random matrices".
    """
    return np.exp(-GOE_RATE * np.asarray(d, dtype=float) ** 2)[()]


def sample_goe(d: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw GOE matrices scaled so that the spectrum fills [−2, 2] as d grows.

    Parameters
    ----------
    d : int
        Size.
    n : int
        How many.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of shape (n, d, d)
        Symmetric; off-diagonal variance 1/d, diagonal variance 2/d.
    """
    a = rng.standard_normal((n, d, d))
    return (a + a.transpose(0, 2, 1)) / np.sqrt(2 * d)


def minimum_probability(
    dimensions: Sequence[int] = (1, 2, 3, 4, 5, 6, 7),
    *,
    n_samples: int = 20_000,
    shift: float = 0.0,
    confidence: float = 0.95,
    chunk: int = 2_000,
    random_state: int = 0,
    on_step: Callable[[int, int], None] | None = None,
    on_partial: Callable[[MinimumProbability], None] | None = None,
) -> MinimumProbability:
    """Draw random symmetric matrices and count how often all eigenvalues are positive.

    Parameters
    ----------
    dimensions : sequence of int, default=(1, ..., 7)
        Sizes d, each at least 1.
    n_samples : int, default=20000
        Matrices at each size.
    shift : float, default=0
        ``shift · I`` is added. The spectrum fills [−2, 2], so a shift above 2 makes nearly every point a minimum:
        low-loss critical points behave like this (Bray & Dean 2007).
    confidence : float, default=0.95
        Coverage of the Wilson interval.
    chunk : int, default=2000
        Matrices drawn at once, the same number at each size in turn, so that partial results grow evenly.
    random_state : int, default=0
    on_step : callable, default=None
        ``on_step(done, total)`` in matrices, after each chunk; raising ends the work.
    on_partial : callable, default=None
        Receives the counts so far.

    Returns
    -------
    MinimumProbability

    Raises
    ------
    ValueError
        If a dimension is not a positive integer or ``n_samples`` is below 1.
    """
    dims = [int(d) for d in dimensions]
    if not dims or any(d < 1 or d != original for d, original in zip(dims, dimensions, strict=True)):
        raise ValueError(f"dimensions must be positive integers, got {list(dimensions)!r}. Try (1, 2, 3, 4, 5).")
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples!r}. 20000 takes about a second.")
    rngs = [np.random.default_rng((random_state, d)) for d in dims]
    drawn, minima = np.zeros(len(dims), int), np.zeros(len(dims), int)
    first, second = np.zeros(len(dims)), np.zeros(len(dims))

    def result() -> MinimumProbability:
        n = np.maximum(drawn, 1)
        low, high = np.transpose([wilson_interval(k, m, confidence) for k, m in zip(minima, n, strict=True)])
        mean = first / n
        sizes = np.array(dims)
        return MinimumProbability(
            dimensions=sizes,
            n_samples=drawn.copy(),
            n_minima=minima.copy(),
            probability=minima / n,
            low=low,
            high=high,
            confidence=confidence,
            independent=np.asarray(p_minimum_independent(sizes)),
            goe=np.asarray(p_minimum_goe(sizes)),
            index_mean=mean,
            index_std=np.sqrt(np.maximum(second / n - mean**2, 0.0)),
            shift=float(shift),
        )

    total = n_samples * len(dims)
    while drawn[-1] < n_samples:
        for i, d in enumerate(dims):
            n = min(chunk, n_samples - int(drawn[i]))
            negative = (np.linalg.eigvalsh(sample_goe(d, n, rngs[i])) + shift < 0).sum(axis=1)
            minima[i] += int((negative == 0).sum())
            first[i] += (negative / d).sum()
            second[i] += ((negative / d) ** 2).sum()
            drawn[i] += n
            if on_step is not None:
                on_step(int(drawn.sum()), total)
        if on_partial is not None:
            on_partial(result())
    return result()
