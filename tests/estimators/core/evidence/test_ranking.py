"""Rank correlation and the rules that turn measurements into verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from estimators.core.evidence.ranking import RankCorrelation, judge_correlation, kendall
from estimators.core.evidence.verdicts import (
    NOT_CLEAR,
    NOT_SUPPORTED,
    SUPPORTED,
    combine,
    compare_groups,
    compare_training,
    judge_trend,
)


def test_tau_equals_scipy_with_and_without_ties():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    assert kendall(x, y).tau == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    x, y = rng.integers(0, 4, 30).astype(float), rng.integers(0, 3, 30).astype(float)
    assert kendall(x, y).tau == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_interval_of_a_perfect_order_is_one():
    result = kendall(np.arange(8.0), np.arange(8.0) ** 3)
    assert (result.tau, result.low, result.high, result.n) == (1.0, 1.0, 1.0, 8)


def test_interval_covers_independent_quantities_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        result = kendall(rng.normal(size=20), rng.normal(size=20), n_resamples=300)
        covered += result.low <= 0 <= result.high
    assert 87 <= covered <= 100


def test_tau_is_reproducible_and_leaves_failures_out():
    x = np.array([1.0, 2.0, np.inf, 4.0, 5.0, np.nan, 7.0])
    y = np.array([1.0, 3.0, 3.0, 2.0, 5.0, 1.0, 9.0])
    assert kendall(x, y) == kendall(x, y)
    assert kendall(x, y).n == 5


@pytest.mark.parametrize(("x", "y"), [([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), ([1.0] * 6, list(range(6)))])
def test_tau_is_unknown_where_nothing_can_be_ranked(x, y):
    result = kendall(np.array(x), np.array(y, dtype=float))
    assert np.isnan([result.tau, result.low, result.high]).all()


def test_kendall_refuses_different_lengths():
    with pytest.raises(ValueError, match=r"vectors of one length, got shapes \(3,\) and \(2,\)"):
        kendall(np.zeros(3), np.zeros(2))


def test_compare_groups_equals_welch():
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 5), rng.normal(1, 3, 7)
    verdict = compare_groups(a, b, "smaller")
    interval = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (verdict.low, verdict.high) == pytest.approx((interval.low, interval.high))
    assert verdict.difference == pytest.approx(a.mean() - b.mean())


@pytest.mark.parametrize(
    ("a", "b", "claimed", "expected"),
    [
        ([1.0, 1.1, 0.9], [5.0, 5.2, 4.8], "smaller", SUPPORTED),
        ([1.0, 1.1, 0.9], [5.0, 5.2, 4.8], "larger", NOT_SUPPORTED),
        ([1.0, 5.0, 3.0], [2.0, 4.0, 3.1], "smaller", NOT_CLEAR),
        ([1.0], [5.0, 5.1], "smaller", NOT_CLEAR),
        ([np.nan, np.nan], [5.0, 5.1], "smaller", NOT_CLEAR),
        ([2.0, 2.0], [3.0, 3.0], "smaller", SUPPORTED),
        ([2.0, 2.0], [2.0, 2.0], "smaller", NOT_CLEAR),
    ],
)
def test_compare_groups_follows_its_rule(a, b, claimed, expected):
    assert compare_groups(a, b, claimed).verdict == expected


def test_one_seed_says_that_the_spread_is_unknown():
    verdict = compare_groups([1.0], [2.0], "smaller")
    assert "spread is unknown" in verdict.reason
    assert verdict.difference == -1.0
    assert np.isnan(verdict.low)


def test_failing_to_train_decides_only_what_it_can():
    failed, trained = [np.nan, np.inf] * 2, [0.1, 0.2] * 2
    assert compare_training(trained, failed, "smaller").verdict == SUPPORTED
    assert compare_training(failed, trained, "smaller").verdict == NOT_SUPPORTED
    assert compare_training(failed, failed, "smaller").verdict == NOT_CLEAR
    assert compare_training([0.1, np.nan] * 2, failed, "smaller").verdict == NOT_CLEAR
    few = compare_training(trained[:3], failed[:3], "smaller")
    assert few.verdict == NOT_CLEAR and few.p == pytest.approx(0.1), "one in ten by chance"
    assert compare_training([0.1, 0.2], [1.0, 1.1], "smaller").verdict == SUPPORTED


def test_correlations_and_trends():
    def ranked(tau, low, high, n, p):
        return judge_correlation(RankCorrelation(tau, low, high, n, p, n)).verdict

    assert ranked(0.6, 0.2, 0.8, 12, 0.006) == SUPPORTED
    assert ranked(-0.6, -0.8, -0.2, 12, 0.006) == NOT_SUPPORTED
    assert ranked(0.3, -0.1, 0.6, 12, 0.2) == NOT_CLEAR
    assert ranked(0.9, 0.8, 1.0, 4, 0.08) == NOT_CLEAR, "the test decides, not the bootstrap"
    assert ranked(np.nan, np.nan, np.nan, 2, np.nan) == NOT_CLEAR
    widths = [0.25, 0.5, 1, 2, 4, 8]
    assert judge_trend(widths, [6, 5, 4, 3, 2, 1], "smaller").verdict == SUPPORTED
    assert judge_trend(widths, [6, 5, 4, 3, 2, 1], "larger").verdict == NOT_SUPPORTED
    assert judge_trend(widths, [3, 1, 2, 3, 1, 2], "smaller").verdict == NOT_CLEAR
    assert judge_trend(widths, [1] * 6, "smaller").verdict == NOT_CLEAR
    assert judge_trend(widths[:3], [3, 2, 1], "smaller").verdict == NOT_CLEAR


def test_verdicts_combine_only_when_they_agree():
    assert combine([SUPPORTED, NOT_CLEAR]) == SUPPORTED
    assert combine([SUPPORTED, NOT_SUPPORTED]) == NOT_CLEAR
    assert combine([NOT_CLEAR, NOT_CLEAR]) == NOT_CLEAR
    assert combine([]) == NOT_CLEAR


def test_claimed_direction_is_checked():
    with pytest.raises(ValueError, match="claimed must be 'larger' or 'smaller', got 'better'"):
        compare_groups([1.0], [2.0], "better")
