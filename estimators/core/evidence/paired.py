"""Paired comparison of two treatments over the same seeds, and what it says about a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .intervals import student_interval
from .verdicts import NOT_CLEAR, NOT_SUPPORTED, SUPPORTED


@dataclass(frozen=True)
class PairedComparison:
    """The mean effect of a treatment over pairs, with an interval.

    Attributes
    ----------
    verdict : str
        "supported", "not supported" (the interval lies on the other side) or "not clear here".
    effect, low, high : float
        Mean of the paired differences and its interval; a ratio of geometric means when ``ratio``.
    ratio : bool
        Whether the effect is a ratio (1 is no effect) or a difference (0 is no effect).
    n : int
        Pairs with a number on both sides.
    confidence : float
        Level of the interval.
    """

    verdict: str
    effect: float
    low: float
    high: float
    ratio: bool
    n: int
    confidence: float


def compare_pairs(
    treated: Sequence[float],
    control: Sequence[float],
    claimed: str,
    *,
    confidence: float = 0.95,
    ratio: bool = False,
) -> PairedComparison:
    """Judge the claim that a treatment makes a quantity larger or smaller, pair by pair.

    Student's interval for the mean of the paired differences. Pairing by seed takes the spread between
    initialisations out of the comparison.

    Parameters
    ----------
    treated, control : sequence of float
        The quantity with and without the treatment; entry i of both is one pair. Pairs with a value that is
        not finite are left out.
    claimed : {"larger", "smaller"}
        What the claim says the treatment does.
    confidence : float, default=0.95
    ratio : bool, default=False
        Compare logarithms, for positive quantities that spread over orders of magnitude. Where a value is not
        positive the differences themselves are compared, and the answer says so.

    Returns
    -------
    PairedComparison
        "not clear here" with fewer than two pairs.
    """
    if claimed not in ("larger", "smaller"):
        raise ValueError(f"claimed must be 'larger' or 'smaller', got {claimed!r}. Say what the claim says.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}. Use for example 0.95.")
    a, b = np.asarray(treated, dtype=float), np.asarray(control, dtype=float)
    if a.shape != b.shape:
        raise ValueError(
            f"treated and control must have the same length, got {a.size!r} and {b.size!r}. Give one pair a seed."
        )
    kept = np.isfinite(a) & np.isfinite(b)
    a, b = a[kept], b[kept]
    ratio = bool(ratio and a.size and (a > 0).all() and (b > 0).all())
    differences = np.log(a / b) if ratio else a - b
    n, nan = int(differences.size), float("nan")
    shown = np.exp if ratio else np.asarray
    if n == 0:
        return PairedComparison(NOT_CLEAR, nan, nan, nan, ratio, 0, confidence)
    mean = float(differences.mean())
    if n == 1:
        return PairedComparison(NOT_CLEAR, float(shown(mean)), nan, nan, ratio, 1, confidence)
    low, high = student_interval(mean, float(stats.sem(differences)), n - 1, confidence)
    sign = 1 if claimed == "larger" else -1
    verdict = NOT_CLEAR
    if low > 0 or high < 0:
        verdict = SUPPORTED if sign * mean > 0 else NOT_SUPPORTED
    return PairedComparison(verdict, float(shown(mean)), float(shown(low)), float(shown(high)), ratio, n, confidence)
