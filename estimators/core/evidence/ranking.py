"""Rank correlation between a measure and the generalisation gap, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 4  # with three models τ takes four values and an interval says nothing


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's τ-b and a bootstrap interval.

    Attributes
    ----------
    tau : float
        In [-1, 1]; NaN where fewer than four finite pairs are left or one side is constant.
    low, high : float
        Percentile interval; NaN where `tau` is.
    n : int
        Finite pairs used.
    """

    tau: float
    low: float
    high: float
    n: int


def kendall(
    x: np.ndarray, y: np.ndarray, *, level: float = 0.95, n_resamples: int = 2000, random_state: int = 0
) -> RankCorrelation:
    """Rank correlation of x and y in the manner of Jiang et al. (2020), "Fantastic Generalization Measures".

    τ-b counts the pairs of models that both quantities order alike, less those they order differently, over
    those that neither ties. The interval resamples models with replacement; a pair made of one model and its
    own duplicate is left out as a tie, so that duplicates don't pull τ towards zero.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        A measure and what it should rank. Pairs with a non-finite member are left out.
    level : float, default=0.95
        Coverage of the interval.
    n_resamples : int, default=2000
        Bootstrap resamples.
    random_state : int, default=0
        Seed of the resampling.

    Returns
    -------
    RankCorrelation
        τ-b, its interval and the number of pairs.

    Raises
    ------
    ValueError
        If x and y differ in shape.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(
            f"x and y must be vectors of one length, got shapes {x.shape!r} and {y.shape!r}. Give one value a model."
        )
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    nan = float("nan")
    order_x, order_y = (np.sign(v[:, None] - v[None, :]).astype(np.int8) for v in (x, y))
    tau = float(_tau_b(order_x, order_y, np.arange(len(x))[None])[0]) if len(x) >= FEWEST else nan
    if not np.isfinite(tau):
        return RankCorrelation(nan, nan, nan, len(x))
    draws = np.random.default_rng(random_state).integers(0, len(x), size=(n_resamples, len(x)))
    taus = _tau_b(order_x, order_y, draws)
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(taus, [tail, 100 - tail])
    return RankCorrelation(tau, float(low), float(high), len(x))


def _tau_b(order_x: np.ndarray, order_y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """τ-b of each row of drawn indices, from the signs of all pairwise differences."""
    rows, columns = draws[:, :, None], draws[:, None, :]
    sx, sy = order_x[rows, columns].astype(np.int64), order_y[rows, columns].astype(np.int64)
    agreement = (sx * sy).sum((1, 2))
    untied = np.sqrt((sx != 0).sum((1, 2)) * (sy != 0).sum((1, 2)).astype(float))
    return np.where(untied > 0, agreement / np.where(untied > 0, untied, 1), np.nan)
