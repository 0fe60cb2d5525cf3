"""Intervals for a mean, for a share of successes and for a rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def student_interval(mean: float, error: float, freedom: float, level: float = 0.95) -> tuple[float, float]:
    """Give Student's interval of a mean, or of a difference, with a standard error.

    Parameters
    ----------
    mean, error : float
        The estimate and its standard error; 0 gives an interval without width.
    freedom : float
        Degrees of freedom of the error.
    level : float, default=0.95
        Coverage.

    Returns
    -------
    low, high : float
    """
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(level, freedom, loc=mean, scale=error)
    return float(low), float(high)


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Give an interval for the mean of skewed draws that keeps its coverage with few of them.

    The union of Student's interval and of Hall's, which transforms the same t statistic by a cubic that removes its
    skewness (Hall 1992). Rises of the loss under noise are skewed like χ² or a log-normal: Student's interval
    alone misses the mean from below twice as often as it says.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Independent draws.
    level : float, default=0.95
        Coverage.

    Returns
    -------
    low, high : float
        NaN for fewer than two draws, or where one is not finite.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return float("nan"), float("nan")
    mean, error = float(np.mean(values)), float(stats.sem(values))
    low, high = student_interval(mean, error, n - 1, level)
    if n < 3 or error <= 1e-12 * abs(mean):
        return low, high
    skewness = float(stats.skew(values, bias=False)) / np.sqrt(n)
    if abs(skewness) > 1e-6:
        # Hall's g(t) = t + a t²/3 + a² t³/27 + a/6 is (3/a)((1 + a t/3)³ − 1)/3 + a/6, so its inverse is a cube root.
        ends = stats.t.interval(level, n - 1)
        turned = [3 / skewness * (np.cbrt(1 + skewness * (q - skewness / 6)) - 1) for q in reversed(ends)]
        low, high = min(low, mean - error * turned[0]), max(high, mean - error * turned[1])
    return float(low), float(high)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Give Wilson's score interval for a share (Wilson 1927), which keeps its coverage near 0 and 1.

    Parameters
    ----------
    successes, n : int
        Successes among n trials; n = 0 gives (0, 1).
    level : float, default=0.95
        Coverage.

    Returns
    -------
    low, high : float
    """
    if n == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def spearman(x: np.ndarray, y: np.ndarray, level: float = 0.95) -> dict[str, Any]:
    """Spearman's rank correlation with the interval of Bonett & Wright (2000), which scipy does not have.

    Parameters
    ----------
    x, y : ndarray of shape (n,)
        Pairs.
    level : float, default=0.95
        Coverage.

    Returns
    -------
    dict
        value, low, high, n; NaN where there are fewer than four pairs or one side is constant.
    """
    n = len(x)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": n}
    value = float(stats.spearmanr(x, y).statistic)
    half = stats.norm.ppf(0.5 + level / 2) * np.sqrt((1 + value**2 / 2) / (n - 3))
    centre = np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    return {"value": value, "low": float(np.tanh(centre - half)), "high": float(np.tanh(centre + half)), "n": n}
