"""Paired comparison of two treatments over the same seeds, and what it says about a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .intervals import student_interval
from .verdicts import NAN, NOT_CLEAR, Judged, check_claimed, decide


@dataclass(frozen=True)
class PairedComparison(Judged):
    """The mean effect of a treatment over pairs, with an interval.

    Attributes
    ----------
    effect, low, high : float
        Mean of the paired differences and its interval; a ratio of geometric means when ``ratio``.
    ratio : bool
        Whether the effect is a ratio (1 is no effect) or a difference (0 is no effect).
    n : int
        Pairs with a number on both sides.
    confidence : float
        Level of the interval and of the test.
    """

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
    smallest: float | None = None,
) -> PairedComparison:
    """Judge the claim that a treatment makes a quantity larger or smaller, pair by pair.

    Student's interval for the mean of the paired differences. Pairing by seed takes the spread between
    initialisations out of the comparison.

    Parameters
    ----------
    treated, control : sequence of float
        The quantity with and without the treatment; entry i of both is one pair. Pairs with a value that is
        not finite are left out.
    claimed : {"larger", "smaller", "equal"}
        What the claim says the treatment does.
    confidence : float, default=0.95
    ratio : bool, default=False
        Compare logarithms, for positive quantities that spread over orders of magnitude. Where a value is not
        positive the differences themselves are compared, and the answer says so.
    smallest : float, optional
        The smallest effect that matters, a difference or with ``ratio`` a factor; see `decide`. A factor says nothing
        of differences: where those are compared after all, nothing is called equivalent.

    Returns
    -------
    PairedComparison
        "not clear here" with fewer than two pairs.
    """
    check_claimed(claimed)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}. Use for example 0.95.")
    a, b = np.asarray(treated, dtype=float), np.asarray(control, dtype=float)
    if a.shape != b.shape:
        raise ValueError(
            f"treated and control must have the same length, got {a.size!r} and {b.size!r}. Give one pair a seed."
        )
    kept = np.isfinite(a) & np.isfinite(b)
    a, b = a[kept], b[kept]
    margin = smallest or 0.0
    if ratio and not (a.size and (a > 0).all() and (b > 0).all()):
        ratio, margin = False, 0.0
    elif ratio:
        margin = float(np.log(smallest or 1.0))
    differences = np.log(a / b) if ratio else a - b
    n = int(differences.size)
    shown = np.exp if ratio else np.asarray
    if n < 2:
        effect = float(shown(differences[0])) if n else NAN
        reason = "fewer than two pairs: the spread is unknown"
        return PairedComparison(NOT_CLEAR, reason, effect, NAN, NAN, ratio, n, confidence)
    mean, error = float(differences.mean()), float(stats.sem(differences))
    low, high = student_interval(mean, error, n - 1, confidence)
    if claimed == "equal" and not margin > 0:
        verdict, reason, p = NOT_CLEAR, "without a ratio of positive values no factor can be told from one", NAN
    else:
        verdict, reason, p = decide(mean, error, n - 1, claimed, margin, 1 - confidence)
    effect, low, high = (float(shown(v)) for v in (mean, low, high))
    return PairedComparison(verdict, reason, effect, low, high, ratio, n, confidence, p=p)


def compare_crossed(
    treated: np.ndarray, control: np.ndarray, claimed: str, *, confidence: float = 0.95, smallest: float | None = None
) -> PairedComparison:
    """Judge pairs of networks that were all scored on the same examples, for the population of both.

    Five pairs on one test set are five draws of networks but one draw of examples: the spread between pairs leaves out
    that other examples would have moved all of them together.

    Parameters
    ----------
    treated, control : ndarray of shape (n_pairs, n_examples)
        Score of each network on each example (1 for a right answer, or its loss). Pairs with a value that is not finite
        are left out.
    claimed : {"larger", "smaller", "equal"}
    confidence : float, default=0.95
    smallest : float, optional
        The smallest difference of the mean score that matters.

    Returns
    -------
    PairedComparison
        ``n`` counts pairs; the interval is for another draw of networks and of examples.

    Notes
    -----
    With d the differences, the variance of their mean over two crossed random factors is estimated without bias by
    the mean squares of rows and columns less that of the rest, over the number of entries; freedom by Satterthwaite
    (1946). Where that estimate falls below the rows' own, the rows' is taken.
    """
    check_claimed(claimed)
    d = np.asarray(treated, dtype=float) - np.asarray(control, dtype=float)
    if d.ndim != 2:
        raise ValueError(
            f"treated and control must have shape (n_pairs, n_examples), got {d.shape!r}. Stack the pairs."
        )
    d = d[np.isfinite(d).all(axis=1)]
    n, m = d.shape
    if n < 2 or m < 2:
        reason = "fewer than two pairs: the spread is unknown"
        return PairedComparison(NOT_CLEAR, reason, float(d.mean()) if n else NAN, NAN, NAN, False, n, confidence)
    mean, rows, columns = float(d.mean()), d.mean(axis=1), d.mean(axis=0)
    by_row = m * float(rows.var(ddof=1))
    by_column = n * float(columns.var(ddof=1))
    rest = float(((d - rows[:, None] - columns + mean) ** 2).sum()) / ((n - 1) * (m - 1))
    squares, freedoms = np.array([by_row, by_column, -rest]), np.array([n - 1, m - 1, (n - 1) * (m - 1)])
    if squares.sum() <= by_row:
        squares, freedoms = squares[:1], freedoms[:1]
    variance = float(squares.sum()) / (n * m)
    freedom = float(squares.sum() ** 2 / (squares**2 / freedoms).sum()) if variance else float(n - 1)
    error = float(np.sqrt(variance))
    low, high = student_interval(mean, error, freedom, confidence)
    verdict, reason, p = decide(mean, error, freedom, claimed, smallest or 0.0, 1 - confidence)
    return PairedComparison(verdict, reason, mean, low, high, False, n, confidence, p=p)
