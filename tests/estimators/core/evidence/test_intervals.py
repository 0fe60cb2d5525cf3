"""Intervals against scipy, and that a claim is judged in one place only."""

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import estimators
from estimators.core.evidence.intervals import student_interval, wilson_interval
from estimators.core.evidence.paired import compare_pairs


def test_student_is_scipys_and_has_no_width_without_spread():
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = student_interval(values.mean(), stats.sem(values), 6, 0.9)
    assert found == pytest.approx((expected.low, expected.high))
    assert student_interval(2.0, 0.0, 3) == (2.0, 2.0)


def test_pairs_have_scipys_interval():
    a, b = np.random.default_rng(1).normal(size=(2, 6)) + 3
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    found = compare_pairs(a, b, "larger")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    found = compare_pairs(a, b, "larger", ratio=True)
    assert (found.low, found.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))


def test_wilson_takes_numpy_counts_and_gives_plain_numbers():
    low, high = wilson_interval(np.int64(3), np.int64(10), 0.99)
    assert type(low) is type(high) is float and 0 < low < 0.3 < high < 1


@pytest.mark.parametrize("name", ["Verdict", "wilson_interval", "student_interval", "mean_interval", "spearman"])
def test_what_judges_is_defined_once(name):
    places = [
        path
        for path in Path(estimators.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
    ]
    assert [path.parent.name for path in places] == ["evidence"]
