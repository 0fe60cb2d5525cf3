"""What a measurement says about a claim: supported, not supported, or not clear here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from .intervals import student_interval

SUPPORTED, NOT_SUPPORTED, NOT_CLEAR = "supported", "not supported", "not clear here"
NOT_COMPARABLE = "not comparable"  # the numbers say nothing about the claim, however many there are
VERDICTS = (SUPPORTED, NOT_SUPPORTED, NOT_CLEAR, NOT_COMPARABLE)


@dataclass(frozen=True)
class Verdict:
    """A verdict with the numbers it rests on.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    reason : str
        Which rule decided, in words.
    difference : float
        Mean with the element less mean without it; for a rank correlation τ; NaN where unknown.
    low, high : float
        95 % interval of `difference`; NaN where the spread is unknown.
    n : tuple of int
        Runs on each side that gave a number.
    kind : {"difference", "ratio", "tau", "trend"}, default="difference"
        What `difference` is; "ratio" is the geometric mean with the element over that without it.
    """

    verdict: str
    reason: str
    difference: float
    low: float
    high: float
    n: tuple[int, int]
    kind: str = "difference"


def _interval(low: float, high: float, sign: int) -> tuple[str, str]:
    if sign * low > 0 and sign * high > 0:
        return SUPPORTED, "the 95 % interval lies on the claimed side of no effect"
    if sign * low < 0 and sign * high < 0:
        return NOT_SUPPORTED, "the 95 % interval lies on the other side of no effect"
    return NOT_CLEAR, "the 95 % interval holds no effect"


def compare_groups(with_it: Sequence[float], without_it: Sequence[float], claimed: str) -> Verdict:
    """Judge the claim that an element makes a quantity larger or smaller.

    The rule is Welch's 95 % interval for the difference of the means over seeds. Runs without a number
    (training failed) are left out: a claim about curvature is not decided by minima that were never reached.
    Where a failure is itself the worst outcome, use `compare_training`.

    Parameters
    ----------
    with_it, without_it : sequence of float
        The quantity for each seed, with and without the element.
    claimed : {"larger", "smaller"}
        What the claim says the element does to the quantity.

    Returns
    -------
    Verdict
        "not clear here" where either side has fewer than two numbers.
    """
    sign = _sign(claimed)
    a, b = (np.asarray([v for v in side if np.isfinite(v)], dtype=float) for side in (with_it, without_it))
    n = (len(a), len(b))
    nan = float("nan")
    if min(n) == 0:
        return Verdict(NOT_CLEAR, "no run on one side gave a number", nan, nan, nan, n)
    difference = float(a.mean() - b.mean())
    if min(n) == 1:
        return Verdict(NOT_CLEAR, "one seed: the spread is unknown", difference, nan, nan, n)
    variances = a.var(ddof=1) / n[0], b.var(ddof=1) / n[1]
    error = float(np.sqrt(sum(variances)))
    # Welch's degrees of freedom; stats.ttest_ind has the same interval, but none where all runs of a side are equal
    freedom = error**4 / sum(v**2 / (k - 1) for v, k in zip(variances, n, strict=True)) if error else 1.0
    low, high = student_interval(difference, error, freedom)
    verdict, reason = _interval(low, high, sign)
    return Verdict(verdict, reason, difference, low, high, n)


def compare_ratios(with_it: Sequence[float], without_it: Sequence[float], claimed: str) -> Verdict:
    """Judge as `compare_groups`, by the ratio of geometric means; for positive quantities that vary by factors.

    Parameters
    ----------
    with_it, without_it : sequence of float
        The quantity for each seed. Where one is not positive there is no ratio, and the difference is judged.
    claimed : {"larger", "smaller"}

    Returns
    -------
    Verdict
        `difference` is the ratio, `low` and `high` its interval (Welch's, of the logarithms).
    """
    a, b = (np.asarray([v for v in side if np.isfinite(v)], dtype=float) for side in (with_it, without_it))
    if (a <= 0).any() or (b <= 0).any():
        return compare_groups(with_it, without_it, claimed)
    logs = compare_groups(np.log(a).tolist(), np.log(b).tolist(), claimed)
    ratio, low, high = (float(np.exp(v)) for v in (logs.difference, logs.low, logs.high))
    return replace(logs, difference=ratio, low=low, high=high, kind="ratio")


def compare_training(with_it: Sequence[float], without_it: Sequence[float], claimed: str) -> Verdict:
    """Judge as `compare_groups`, for quantities where a run that fails to train counts as the worst.

    Parameters
    ----------
    with_it, without_it : sequence of float
        The quantity (training loss, held-out accuracy) for each seed; non-finite where training failed.
    claimed : {"larger", "smaller"}
        What the claim says the element does to the quantity.

    Returns
    -------
    Verdict
        Decided by failure where all runs of one side failed and all of the other (two at least) did not.
    """
    _sign(claimed)
    good = [int(np.isfinite(np.asarray(side, dtype=float)).sum()) for side in (with_it, without_it)]
    total = [len(with_it), len(without_it)]
    nan = float("nan")
    if good[0] == total[0] >= 2 and good[1] == 0 and total[1] >= 2:
        return Verdict(SUPPORTED, "every run without it failed to train", nan, nan, nan, (good[0], 0))
    if good[1] == total[1] >= 2 and good[0] == 0 and total[0] >= 2:
        return Verdict(NOT_SUPPORTED, "every run with it failed to train", nan, nan, nan, (0, good[1]))
    return compare_groups(with_it, without_it, claimed)


def judge_correlation(tau: float, low: float, high: float, n: int, claimed: str = "larger") -> Verdict:
    """Judge the claim that a rank correlation is positive ("larger") or negative ("smaller").

    Parameters
    ----------
    tau, low, high : float
        Kendall's τ and its interval.
    n : int
        Models it rests on.
    claimed : {"larger", "smaller"}, default="larger"
        The claimed sign.

    Returns
    -------
    Verdict
        "not clear here" where τ is unknown or the interval holds zero.
    """
    sign = _sign(claimed)
    if not all(np.isfinite(v) for v in (tau, low, high)):
        return Verdict(NOT_CLEAR, "too few models to rank", tau, low, high, (n, n), "tau")
    verdict, reason = _interval(low, high, sign)
    return Verdict(verdict, reason, tau, low, high, (n, n), "tau")


def judge_trend(x: Sequence[float], y: Sequence[float], claimed: str) -> Verdict:
    """Judge the claim that y rises ("larger") or falls ("smaller") with x, by Kendall's τ and its p-value.

    Parameters
    ----------
    x, y : sequence of float
        One pair a run, such as a width and a loss. Non-finite pairs are left out.
    claimed : {"larger", "smaller"}
        The claimed direction.

    Returns
    -------
    Verdict
        `difference` is τ; decided where p < 0.05, "not clear here" otherwise or with fewer than four pairs.
    """
    sign = _sign(claimed)
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = np.isfinite(a) & np.isfinite(b)
    nan, n = float("nan"), int(keep.sum())
    if n < 4 or np.ptp(a[keep]) == 0:
        return Verdict(NOT_CLEAR, "too few runs for a trend", nan, nan, nan, (n, n), "trend")
    if np.ptp(b[keep]) == 0:
        return Verdict(NOT_CLEAR, "the quantity does not vary", nan, nan, nan, (n, n), "trend")
    tau, p = stats.kendalltau(a[keep], b[keep])
    if p >= 0.05:
        return Verdict(NOT_CLEAR, f"no trend beyond chance (p = {p:.2g})", float(tau), nan, nan, (n, n), "trend")
    verdict = SUPPORTED if sign * tau > 0 else NOT_SUPPORTED
    return Verdict(verdict, f"a trend beyond chance (p = {p:.2g})", float(tau), nan, nan, (n, n), "trend")


def combine(verdicts: Sequence[str]) -> str:
    """Give one verdict for a claim measured in several ways: theirs if all that are clear agree.

    Parameters
    ----------
    verdicts : sequence of str
        Each one of `VERDICTS`.

    Returns
    -------
    str
        "not clear here" where clear verdicts disagree or none is clear.
    """
    clear = {v for v in verdicts if v not in (NOT_CLEAR, NOT_COMPARABLE)}
    return clear.pop() if len(clear) == 1 else NOT_CLEAR


def _sign(claimed: str) -> int:
    if claimed not in ("larger", "smaller"):
        raise ValueError(f"claimed must be 'larger' or 'smaller', got {claimed!r}. Say what the element should do.")
    return 1 if claimed == "larger" else -1
