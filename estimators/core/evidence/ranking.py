"""Rank correlation between a measure and the generalisation gap, with an interval and a permutation test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from .verdicts import LEVEL, NOT_CLEAR, NOT_SUPPORTED, SUPPORTED, Verdict, check_claimed

FEWEST = 4  # with three models τ takes four values and an interval says nothing
ALL_ORDERS = 7  # up to here every order is tried (5,040), beyond a sample of as many


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's τ-b with a bootstrap interval and a permutation test.

    Attributes
    ----------
    tau : float
        In [-1, 1]; NaN where fewer than four finite pairs are left or one side is constant.
    low, high : float
        Percentile interval; NaN where `tau` is. It shows the spread; it does not decide: with few models it is too
        narrow (at four it misses nine times in a hundred).
    n : int
        Finite pairs used.
    p : float
        Two-sided p-value of "no association" by permutation; NaN where `tau` is.
    units : int
        Independent units the test permutes.
    """

    tau: float
    low: float
    high: float
    n: int
    p: float = float("nan")
    units: int = 0


def kendall(
    x: np.ndarray,
    y: np.ndarray,
    *,
    units: Sequence[object] | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    random_state: int = 0,
) -> RankCorrelation:
    """Rank correlation of x and y in the manner of Jiang et al. (2020), "Fantastic Generalization Measures".

    τ-b counts the pairs of models that both quantities order alike, less those they order differently, over
    those that neither ties. The interval resamples models with replacement; a pair made of one model and its
    own duplicate is left out as a tie, so that duplicates don't pull τ towards zero.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        A measure and what it should rank. Pairs with a non-finite member are left out.
    units : sequence of length n, optional
        What each model belongs to, where models of one unit are not independent evidence (seeds of one variant differ
        from another variant together). The interval resamples whole units, the test permutes the units' means. A
        single unit is no grouping.
    level : float, default=0.95
        Coverage of the interval.
    n_resamples : int, default=2000
        Bootstrap resamples.
    random_state : int, default=0
        Seed of the resampling and of the permutations.

    Returns
    -------
    RankCorrelation

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
    group = np.arange(len(x)) if units is None else np.unique([str(u) for u in units], return_inverse=True)[1]
    x, y, group = x[finite], y[finite], group[finite]
    if len(np.unique(group)) < 2:
        group = np.arange(len(x))
    nan = float("nan")
    order_x, order_y = _signs(x), _signs(y)
    tau = float(_tau_b(order_x, order_y, np.arange(len(x))[None])[0]) if len(x) >= FEWEST else nan
    names, group = np.unique(group, return_inverse=True)
    if not np.isfinite(tau):
        return RankCorrelation(nan, nan, nan, len(x), nan, len(names))
    generator = np.random.default_rng(random_state)
    members = [np.flatnonzero(group == k) for k in range(len(names))]
    drawn = generator.integers(0, len(names), size=(n_resamples, len(names)))
    if len({len(m) for m in members}) == 1:
        taus = _tau_b(order_x, order_y, np.stack(members)[drawn].reshape(n_resamples, -1))
    else:  # units of unequal size give draws of unequal length
        taus = np.array([_tau_b(order_x, order_y, np.concatenate([members[k] for k in row])[None])[0] for row in drawn])
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(taus, [tail, 100 - tail]) if np.isfinite(taus).any() else (nan, nan)
    p = _permutation_p(*(np.array([v[m].mean() for m in members]) for v in (x, y)), generator=generator)
    return RankCorrelation(tau, float(low), float(high), len(x), p, len(names))


def judge_correlation(found: RankCorrelation, claimed: str = "larger") -> Verdict:
    """Judge the claim that a rank correlation is positive ("larger") or negative ("smaller").

    Parameters
    ----------
    found : RankCorrelation
    claimed : {"larger", "smaller"}, default="larger"
        The claimed sign.

    Returns
    -------
    Verdict
        Decided by the permutation test; "not clear here" where τ is unknown.
    """
    check_claimed(claimed)

    def judged(verdict: str, reason: str) -> Verdict:
        return Verdict(verdict, reason, found.tau, found.low, found.high, (found.n, found.n), "tau", p=found.p)

    if not np.isfinite(found.tau):
        return judged(NOT_CLEAR, "too few models to rank")
    said = f"{found.units} independent units, p = {found.p:.2g} by permutation"
    if found.p >= LEVEL:
        return judged(NOT_CLEAR, f"no order beyond chance ({said})")
    verdict = SUPPORTED if (found.tau > 0) == (claimed == "larger") else NOT_SUPPORTED
    return judged(verdict, f"an order beyond chance ({said})")


def _permutation_p(x: np.ndarray, y: np.ndarray, *, generator: np.random.Generator) -> float:
    """Two-sided p-value of τ-b under every order of y, or a sample of orders that counts the one seen."""
    n, identity = len(x), np.arange(len(x))[None]
    seen = abs(_tau_b(_signs(x), _signs(y), identity)[0])
    if not np.isfinite(seen):
        return 1.0
    if n <= ALL_ORDERS:
        orders, seen_too = np.array(list(permutations(range(n)))), 0
    else:
        orders, seen_too = np.argsort(generator.random((5040, n)), axis=1), 1
    taus = np.abs(_tau_b(_signs(x), _signs(y), identity, orders))
    return float((np.count_nonzero(taus >= seen - 1e-12) + seen_too) / (len(orders) + seen_too))


def _signs(v: np.ndarray) -> np.ndarray:
    return np.sign(v[:, None] - v[None, :]).astype(np.int8)


def _tau_b(order_x: np.ndarray, order_y: np.ndarray, draws: np.ndarray, other: np.ndarray | None = None) -> np.ndarray:
    """τ-b of each row of drawn indices, from the signs of all pairwise differences; `other` draws y apart."""
    other = draws if other is None else other
    sx = order_x[draws[:, :, None], draws[:, None, :]]
    sy = order_y[other[:, :, None], other[:, None, :]]
    agreement = (sx * sy).sum((1, 2))
    untied = np.sqrt((sx != 0).sum((1, 2)) * (sy != 0).sum((1, 2)).astype(float))
    return np.where(untied > 0, agreement / np.where(untied > 0, untied, 1), np.nan)
