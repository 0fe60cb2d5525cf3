"""Intervals for a share of successes and for a rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


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
    """Spearman's rank correlation with the interval of Bonett & Wright (2000).

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
