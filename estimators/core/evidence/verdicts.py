"""What a measurement says about a claim, by one rule for every test.

A claim is *supported* where its test rejects "no effect" and the effect has the claimed sign; *not supported* where the
sign is the other one, or where a test of equivalence shows that the effect is smaller than the smallest that matters;
*not clear here* otherwise. `adjust` corrects the verdicts that stand in one table for their number (Holm 1979), so
that among rows without any effect the chance of any wrong clear word stays at 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from scipy import stats

from .intervals import student_interval, wilson_interval

SUPPORTED, NOT_SUPPORTED, NOT_CLEAR = "supported", "not supported", "not clear here"
NOT_COMPARABLE = "not comparable"  # the numbers say nothing about the claim, however many there are
NOT_TESTED = "not tested"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, NOT_CLEAR, NOT_COMPARABLE, NOT_TESTED)
CLAIMED = ("larger", "smaller", "equal")
LEVEL = 0.05
NAN = float("nan")


@dataclass(frozen=True)
class Judged:
    """What every judgement has.

    Attributes
    ----------
    verdict : str
        One of `VERDICTS`.
    reason : str
        Which rule decided, in words.
    p : float
        Two-sided p-value of the test that decided, or that could not; NaN where there was none.
    """

    verdict: str
    reason: str
    p: float = field(default=NAN, kw_only=True)


@dataclass(frozen=True)
class Verdict(Judged):
    """A verdict with the numbers it rests on.

    Attributes
    ----------
    difference : float
        Mean with the element less mean without it; for a rank correlation τ; NaN where unknown.
    low, high : float
        95 % interval of `difference`; NaN where the spread is unknown.
    n : tuple of int
        Runs on each side that gave a number.
    kind : {"difference", "ratio", "tau", "trend", "share"}, default="difference"
        What `difference` is; "ratio" is the geometric mean with the element over that without it, "share" a difference
        of shares of runs.
    """

    difference: float
    low: float
    high: float
    n: tuple[int, int]
    kind: str = "difference"


_J = TypeVar("_J", bound=Judged)


def decide(
    mean: float, error: float, freedom: float, claimed: str, smallest: float = 0.0, level: float = LEVEL
) -> tuple[str, str, float]:
    """Hold a mean with its standard error against a claim.

    Parameters
    ----------
    mean, error, freedom : float
        Estimate of the effect, its standard error and that error's degrees of freedom.
    claimed : {"larger", "smaller", "equal"}
        The claimed sign of the effect, or that it is smaller than `smallest`.
    smallest : float, default=0
        The smallest effect that matters, in the unit of `mean`; 0 knows none, and nothing is called equivalent.
    level : float, default=0.05
        Of the tests.

    Returns
    -------
    verdict, reason : str
    p : float
        Of the test that decided; where nothing is decided, of the test of the claim.

    Notes
    -----
    Student's test of the effect, and two one-sided tests of equivalence (Schuirmann 1987).
    """
    check_claimed(claimed)
    if claimed == "equal" and not smallest > 0:
        raise ValueError(f"smallest must be > 0 where the claim is 'equal', got {smallest!r}. Say what would matter.")
    differs = _tail(abs(mean), error, freedom) * 2
    same = max(_tail(smallest - mean, error, freedom), _tail(smallest + mean, error, freedom)) if smallest > 0 else 1.0
    if claimed == "equal":
        beyond = 2 * _tail(abs(mean) - smallest, error, freedom)
        if same < level:
            return SUPPORTED, "two one-sided tests find the effect smaller than the smallest that matters", same
        if beyond < level:
            return NOT_SUPPORTED, "the effect is larger than the smallest that matters", beyond
        return NOT_CLEAR, "neither equal nor different beyond what matters", same
    if same < level:
        return NOT_SUPPORTED, "equivalent: two one-sided tests find less than the smallest effect that matters", same
    if differs >= level:
        return NOT_CLEAR, "the interval holds no effect", differs
    if (mean > 0) == (claimed == "larger"):
        return SUPPORTED, "the interval lies on the claimed side of no effect", differs
    return NOT_SUPPORTED, "the interval lies on the other side of no effect", differs


def _tail(above: float, error: float, freedom: float) -> float:
    """P(T ≥ above/error); without spread it is decided."""
    return float(stats.t.sf(above / error, freedom)) if error > 0 else (0.0 if above > 0 else 0.5)


def compare_groups(
    with_it: Sequence[float], without_it: Sequence[float], claimed: str, smallest: float = 0.0
) -> Verdict:
    """Judge the claim that an element makes a quantity larger or smaller.

    The rule is Welch's 95 % interval for the difference of the means over seeds. Runs without a number
    (training failed) are left out: a claim about curvature is not decided by minima that were never reached.
    Where a failure is itself the worst outcome, use `compare_training`.

    Parameters
    ----------
    with_it, without_it : sequence of float
        The quantity for each seed, with and without the element.
    claimed : {"larger", "smaller", "equal"}
        What the claim says the element does to the quantity.
    smallest : float, default=0
        As in `decide`.

    Returns
    -------
    Verdict
        "not clear here" where either side has fewer than two numbers.
    """
    check_claimed(claimed)
    a, b = (np.asarray([v for v in side if np.isfinite(v)], dtype=float) for side in (with_it, without_it))
    n = (len(a), len(b))
    if min(n) == 0:
        return Verdict(NOT_CLEAR, "no run on one side gave a number", NAN, NAN, NAN, n)
    difference = float(a.mean() - b.mean())
    if min(n) == 1:
        return Verdict(NOT_CLEAR, "one seed: the spread is unknown", difference, NAN, NAN, n)
    variances = a.var(ddof=1) / n[0], b.var(ddof=1) / n[1]
    error = float(np.sqrt(sum(variances)))
    # Welch's degrees of freedom; stats.ttest_ind has the same interval, but none where all runs of a side are equal
    freedom = error**4 / sum(v**2 / (k - 1) for v, k in zip(variances, n, strict=True)) if error else 1.0
    verdict, reason, p = decide(difference, error, freedom, claimed, smallest)
    return Verdict(verdict, reason, difference, *student_interval(difference, error, freedom), n, p=p)


def compare_ratios(
    with_it: Sequence[float], without_it: Sequence[float], claimed: str, smallest: float = 1.0
) -> Verdict:
    """Judge as `compare_groups`, by the ratio of geometric means; for positive quantities that vary by factors.

    Parameters
    ----------
    with_it, without_it : sequence of float
        The quantity for each seed. Where one is not positive there is no ratio, and the difference is judged.
    claimed : {"larger", "smaller", "equal"}
    smallest : float, default=1
        The smallest factor that matters; 1 knows none.

    Returns
    -------
    Verdict
        `difference` is the ratio, `low` and `high` its interval (Welch's, of the logarithms).
    """
    a, b = (np.asarray([v for v in side if np.isfinite(v)], dtype=float) for side in (with_it, without_it))
    if (a <= 0).any() or (b <= 0).any():
        return compare_groups(with_it, without_it, claimed)
    logs = compare_groups(np.log(a).tolist(), np.log(b).tolist(), claimed, float(np.log(smallest)))
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
        Where a run failed, the shares that trained are compared (see `compare_shares`): means over those that are left
        would compare the best of one side with all of the other.
    """
    check_claimed(claimed)
    trained = [np.isfinite(np.asarray(side, dtype=float)) for side in (with_it, without_it)]
    if all(side.all() for side in trained):
        return compare_groups(with_it, without_it, claimed)
    a, b = ((int(side.sum()), len(side)) for side in trained)
    return replace(compare_shares(a, b, "larger"), n=(a[0], b[0]))


def compare_shares(with_it: tuple[int, int], without_it: tuple[int, int], claimed: str) -> Verdict:
    """Judge the claim that an element makes an outcome more or less frequent, by Fisher's exact test.

    Parameters
    ----------
    with_it, without_it : (successes, runs)
    claimed : {"larger", "smaller"}

    Returns
    -------
    Verdict
        `difference` is that of the shares. With fewer than four runs a side nothing can be clear: three successes
        against three failures happen by chance once in ten.
    """
    check_claimed(claimed)
    (a, n), (b, m) = with_it, without_it
    if min(n, m) == 0:
        return Verdict(NOT_CLEAR, "no run on one side", NAN, NAN, NAN, (n, m), "share")
    p = float(stats.fisher_exact([[a, n - a], [b, m - b]]).pvalue)
    difference = a / n - b / m
    said = f"{a} of {n} runs trained with it and {b} of {m} without"
    if p >= LEVEL:
        return Verdict(
            NOT_CLEAR, f"{said}, which chance gives too (p = {p:.2g})", difference, NAN, NAN, (n, m), "share", p=p
        )
    verdict = SUPPORTED if (difference > 0) == (claimed == "larger") else NOT_SUPPORTED
    return Verdict(verdict, f"{said} (p = {p:.2g})", difference, NAN, NAN, (n, m), "share", p=p)


def judge_share(successes: int, n: int) -> Verdict:
    """Judge the claim that something happens more often than not, by a sign test over independent runs.

    Parameters
    ----------
    successes, n : int
        Runs where it happened, of n.

    Returns
    -------
    Verdict
        `difference` is the share, `low` and `high` Wilson's interval. Supported or not supported at a one-sided 5 %
        each: five of five runs decide (one in 32), four of four don't.
    """
    share = successes / n if n else NAN
    low, high = wilson_interval(successes, n)
    often, seldom = (
        float(stats.binomtest(successes, n, alternative=s).pvalue) if n else 1.0 for s in ("greater", "less")
    )
    p = min(often, seldom)
    verdict = NOT_CLEAR if p >= LEVEL else SUPPORTED if often < seldom else NOT_SUPPORTED
    word = "not told from a coin" if verdict == NOT_CLEAR else "more often than not" if often < seldom else "seldom"
    return Verdict(
        verdict, f"{successes} of {n}: {word} (sign test, p = {p:.2g})", share, low, high, (n, n), "share", p=p
    )


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
    check_claimed(claimed)
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = np.isfinite(a) & np.isfinite(b)
    n = int(keep.sum())
    if n < 4 or np.ptp(a[keep]) == 0:
        return Verdict(NOT_CLEAR, "too few runs for a trend", NAN, NAN, NAN, (n, n), "trend")
    if np.ptp(b[keep]) == 0:
        return Verdict(NOT_CLEAR, "the quantity does not vary", NAN, NAN, NAN, (n, n), "trend")
    tau, p = (float(v) for v in stats.kendalltau(a[keep], b[keep]))
    if p >= LEVEL:
        return Verdict(NOT_CLEAR, f"no trend beyond chance (p = {p:.2g})", tau, NAN, NAN, (n, n), "trend", p=p)
    verdict = SUPPORTED if (tau > 0) == (claimed == "larger") else NOT_SUPPORTED
    return Verdict(verdict, f"a trend beyond chance (p = {p:.2g})", tau, NAN, NAN, (n, n), "trend", p=p)


def adjust(verdicts: Sequence[_J], level: float = LEVEL) -> list[_J]:
    """Correct the verdicts of one table for their number by Holm's step-down rule.

    Parameters
    ----------
    verdicts : sequence of Verdict or PairedComparison
        All rows of a table; those without a p-value keep their word and don't count.
    level : float, default=0.05
        Chance of any clear word where there is no effect in any row.

    Returns
    -------
    list
        In the order given; a clear verdict that does not survive becomes "not clear here", with the reason.

    References
    ----------
    Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    order = sorted((i for i, v in enumerate(verdicts) if np.isfinite(v.p)), key=lambda i: verdicts[i].p)
    adjusted, surviving = list(verdicts), True
    for rank, i in enumerate(order):
        surviving = surviving and verdicts[i].p < level / (len(order) - rank)
        if not surviving and verdicts[i].verdict in (SUPPORTED, NOT_SUPPORTED):
            reason = f"p = {verdicts[i].p:.2g} is not clear among {len(order)} rows (Holm)"
            adjusted[i] = replace(verdicts[i], verdict=NOT_CLEAR, reason=reason)
    return adjusted


def combine(verdicts: Sequence[str]) -> str:
    """Give one verdict for a claim measured in several ways: theirs if all that are clear agree.

    Parameters
    ----------
    verdicts : sequence of str
        Each one of `VERDICTS`, of measurements that were corrected for their number (`adjust`): any of many
        uncorrected ones is clear too often.

    Returns
    -------
    str
        "not clear here" where clear verdicts disagree or none is clear; "not comparable" or "not tested" where all are.
    """
    every, clear = set(verdicts), {v for v in verdicts if v in (SUPPORTED, NOT_SUPPORTED)}
    if len(every) == 1:
        return every.pop()
    return clear.pop() if len(clear) == 1 else NOT_CLEAR


def check_claimed(claimed: str) -> None:
    """Raise ValueError for a claim that is none of `CLAIMED`."""
    if claimed not in CLAIMED:
        raise ValueError(f"claimed must be 'larger' or 'smaller', got {claimed!r}. Say what the element should do.")
