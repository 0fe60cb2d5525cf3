"""No rule calls a claim supported more than 6 times in 100 without an effect; `measure_verdicts` makes the table."""

import numpy as np
import pytest

from estimators.core.evidence.paired import compare_crossed, compare_pairs
from estimators.core.evidence.verdicts import (
    NOT_CLEAR,
    NOT_SUPPORTED,
    SUPPORTED,
    Verdict,
    adjust,
    combine,
    decide,
    judge_share,
)
from tests.benchmarks.measure_verdicts import NOISE, RULES, share_supported

DRAWS = 400
SLACK = 2.6 * (0.05 * 0.95 / DRAWS) ** 0.5  # of so few draws


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_without_effect_a_claim_is_seldom_supported(rule):
    for number, noise in enumerate(NOISE.values()):
        assert share_supported(rule, noise, 0.0, DRAWS // 2, number) <= 0.05 + 1.4 * SLACK


@pytest.mark.parametrize("rule", [r for r in RULES if "4 models" not in r.name], ids=lambda rule: rule.name)
def test_an_effect_is_found_more_often_than_none(rule):
    assert share_supported(rule, NOISE["normal"], rule.size, 150) > 0.12


def test_an_effect_too_small_to_matter_is_not_supported():
    base, little = np.arange(6.0), np.array([0.1, 0.11, 0.09, 0.1, 0.1, 0.1])
    found = compare_pairs(base + little, base, "larger", smallest=1.0)
    assert found.verdict == NOT_SUPPORTED and "equivalent" in found.reason
    assert compare_pairs(base + little, base, "larger").verdict == SUPPORTED
    assert compare_pairs(base * 1.01, base, "equal", smallest=0.5).verdict == SUPPORTED
    assert compare_pairs(base + 3, base, "equal", smallest=0.5).verdict == NOT_SUPPORTED
    with pytest.raises(ValueError, match="smallest must be > 0 where the claim is 'equal'"):
        decide(1.0, 1.0, 3, "equal")


def test_the_examples_that_all_pairs_share_widen_the_interval():
    rng = np.random.default_rng(0)
    lean = rng.normal(size=(1, 200))  # examples that favour one side, for every network
    a, b = (side * lean + 0.3 * rng.normal(size=(6, 200)) for side in (0.5, -0.5))
    over_both = compare_crossed(a, b, "larger")
    over_networks = compare_pairs(a.mean(axis=1), b.mean(axis=1), "larger")
    assert over_both.effect == pytest.approx(over_networks.effect)
    assert over_both.high - over_both.low > 1.5 * (over_networks.high - over_networks.low)
    alone = compare_crossed(np.ones((4, 9)), np.zeros((4, 9)), "larger")
    assert (alone.verdict, alone.low, alone.high) == (SUPPORTED, 1.0, 1.0)


def test_intervals_over_both_cover_the_population():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        rows, columns, rest = 0.3 * rng.normal(size=(5, 1)), rng.normal(size=(1, 60)), rng.normal(size=(5, 60))
        found = compare_crossed(0.5 + rows + columns + rest, np.zeros((5, 60)), "larger")
        inside += found.low <= 0.5 <= found.high
    assert 0.92 <= inside / 400 <= 0.985


def test_holm_is_the_step_down_rule():
    rows = [Verdict(SUPPORTED, "", 1.0, 0.5, 1.5, (3, 3), p=p) for p in (0.01, 0.04, 0.02)]
    assert [v.verdict for v in adjust(rows)] == [SUPPORTED, SUPPORTED, SUPPORTED]
    rows = [Verdict(SUPPORTED, "", 1.0, 0.5, 1.5, (3, 3), p=p) for p in (0.01, 0.04, 0.03)]
    assert [v.verdict for v in adjust(rows)] == [SUPPORTED, NOT_CLEAR, NOT_CLEAR]
    assert "among 3 rows" in adjust(rows)[1].reason
    unknown = Verdict(NOT_CLEAR, "one seed", 1.0, float("nan"), float("nan"), (1, 1))
    assert adjust([*rows[:1], *[unknown] * 9])[0].verdict == SUPPORTED, "rows without a test don't count"


def test_words_combine():
    assert combine(["not tested", "not tested"]) == "not tested"
    assert combine(["not comparable", "supported"]) == "supported"
    assert combine(["not comparable", "not clear here"]) == "not clear here"


def test_more_often_than_not_takes_five_of_five():
    assert judge_share(4, 4).verdict == NOT_CLEAR
    assert judge_share(5, 5).verdict == SUPPORTED
    assert judge_share(0, 5).verdict == NOT_SUPPORTED
    assert judge_share(0, 0).verdict == NOT_CLEAR
