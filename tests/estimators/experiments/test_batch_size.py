"""Small against large batches: the paired comparison, and a whole experiment on a tiny problem."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from estimators import load_data
from estimators.core.evidence.paired import compare_pairs
from estimators.experiments.batch_size import QUANTITIES, batch_size_experiment, judge, train_to_loss
from estimators.landscape import Landscape
from estimators.progress import Cancelled
from estimators.sharpness._estimator import SharpnessEstimator

QUICK = SharpnessEstimator(n_steps=3, n_draws=4, n_probes=2, n_lanczos=6, n_posterior_draws=2)


# ---- the comparison ----


def test_paired_interval_is_students():
    a, b = np.array([3.0, 4.0, 6.0, 5.0]), np.array([1.0, 2.5, 3.0, 3.5])
    exact = stats.ttest_rel(a, b).confidence_interval(0.9)
    found = compare_pairs(a, b, "larger", confidence=0.9)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.effect == pytest.approx((a - b).mean())
    assert found.verdict == "supported"
    assert compare_pairs(a, b, "smaller").verdict == "not supported"
    logs = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    ratio = compare_pairs(a, b, "larger", ratio=True)
    assert ratio.ratio
    assert (ratio.low, ratio.high) == pytest.approx((np.exp(logs.low), np.exp(logs.high)))


def test_pairing_sees_what_the_spread_between_seeds_would_hide():
    base = np.array([1.0, 10.0, 100.0])
    assert compare_pairs(base + np.array([1.0, 1.1, 0.9]), base, "larger").verdict == "supported"


def test_no_verdict_without_evidence():
    assert compare_pairs([1.0, -1.0, 0.5], [0.0, 0.0, 0.0], "larger").verdict == "not clear here"
    one = compare_pairs([2.0], [1.0], "larger")
    assert one.verdict == "not clear here" and np.isnan(one.low) and one.effect == 1.0
    none = compare_pairs([np.nan, np.inf], [1.0, 1.0], "larger")
    assert none.verdict == "not clear here" and none.n == 0
    # A value that is not positive has no logarithm: the differences are compared, and it says so.
    assert not compare_pairs([1.0, -0.1], [0.5, 0.4], "larger", ratio=True).ratio


def test_coverage_of_the_interval_is_honest():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        b = rng.normal(size=5)
        found = compare_pairs(b + 0.3 + 0.5 * rng.normal(size=5), b, "larger")
        inside += found.low <= 0.3 <= found.high
    assert 0.92 <= inside / 400 <= 0.98


@pytest.mark.parametrize(
    ("change", "words"),
    [({"claimed": "more"}, "claimed must be"), ({"confidence": 1.0}, "confidence must be between 0 and 1")],
)
def test_bad_comparisons_say_what_is_allowed(change, words):
    options = {"claimed": "larger", **change}
    with pytest.raises(ValueError, match=words):
        compare_pairs([1.0, 2.0], [1.0, 2.0], options.pop("claimed"), **options)
    with pytest.raises(ValueError, match="the same length"):
        compare_pairs([1.0], [1.0, 2.0], "larger")


# ---- the experiment ----


def make_model(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture(scope="module")
def halves():
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(128, 6, generator=gen)
    y = (x[:, :3] + 0.3 * torch.randn(128, 3, generator=gen)).argmax(1)
    return load_data((x[:64], y[:64])), load_data((x[64:], y[64:]))


def test_training_stops_at_the_loss_measured_in_evaluation_mode(halves):
    data, _ = halves
    model = make_model(0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    network, epochs, reached = train_to_loss(model, data, 0.3, epochs=100, batch_size=8, lr=0.05)
    assert reached and 0 < epochs < 100
    loss = Landscape(network, data).loss()
    assert 0.2 < loss <= 0.3 + 1e-6
    assert not network.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    _, epochs, reached = train_to_loss(model, data, 1e-9, epochs=2, batch_size=32, lr=0.05)
    assert not reached and epochs == 2


def test_experiment_pairs_seeds_at_one_training_loss(halves):
    data, held_out = halves
    partial = []
    result = batch_size_experiment(
        make_model, data, held_out, small=4, large=32, n_seeds=3, target_loss=0.3, estimator=QUICK,
        on_partial=partial.append,
    )  # fmt: skip
    assert [(row["seed"], row["group"]) for row in result.rows] == [
        (seed, group) for seed in range(3) for group in ("small", "large")
    ]
    assert [len(p.rows) for p in partial] == [1, 2, 3, 4, 5, 6]
    assert any("One learning rate for both batch sizes" in note for note in result.notes)
    for row in result.rows:
        assert row["reached"] and row["train_loss"] <= 0.3 + 1e-6
        assert row["gap_loss"] == pytest.approx(row["held_out_loss"] - row["train_loss"])
        assert row["batch_size"] == {"small": 4, "large": 32}[row["group"]]
    claims = {claim["key"]: claim for claim in result.claims}
    assert set(claims) == {q.key for q in QUANTITIES} | {"flat_generalises"}
    for quantity in QUANTITIES:  # each verdict is that of its interval
        claim = claims[quantity.key]
        if quantity.key == "pac_bayes_bound" and all(row[quantity.key] >= 1 for row in result.rows):
            assert claim["verdict"] == "not comparable" and claim["n"] == 0  # vacuous on both sides
            continue
        if quantity.bound:
            assert claim["verdict"] == "not comparable" and "lower bounds" in claim["reason"]
            continue
        no_effect = 1.0 if claim["ratio"] else 0.0
        holds = claim["low"] <= no_effect <= claim["high"]
        assert (claim["verdict"] == "not clear here") == (holds or "among" in claim["reason"])
        assert claim["n"] == 3
    summary = {row["quantity"]: row for row in result.summary()}
    assert summary["trace"]["small_mean"] == pytest.approx(result.values("small", "trace").mean())


def test_a_cancelled_experiment_goes_on_where_it_was(halves, tmp_path):
    data, held_out = halves
    built = []

    def counted(seed):
        built.append(seed)
        return make_model(seed)

    options = {"small": 8, "large": 32, "n_seeds": 2, "target_loss": 0.5, "estimator": QUICK}
    options["memory"] = str(tmp_path)

    def stop(result):
        if len(result.rows) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        batch_size_experiment(counted, data, held_out, on_partial=stop, **options)
    messages = []
    again = batch_size_experiment(counted, data, held_out, on_progress=lambda d, t, m: messages.append(m), **options)
    # Finished runs report their end only; the last one reports its work.
    assert messages.count("seed 0, batch 8") == 1
    assert messages.count("seed 1, batch 8") == 1
    assert messages.count("seed 1, batch 32") > 2
    fresh = batch_size_experiment(make_model, data, held_out, **{**options, "memory": None})
    assert fresh.rows == again.rows  # equal seeds, equal bits, from the cache or not


def test_what_is_not_reached_is_said(halves):
    data, held_out = halves
    result = batch_size_experiment(
        make_model, data, held_out, small=8, large=32, n_seeds=1, target_loss=1e-6, epochs=1, estimator=QUICK
    )
    assert not any(row["reached"] for row in result.rows)
    assert any("Not at the target training loss" in note for note in result.notes)
    # One pair settles nothing, and two vacuous bounds say nothing about the claim however many pairs there are.
    vacuous = all(row["pac_bayes_bound"] >= 1 for row in result.rows)
    verdicts = {claim["key"]: claim["verdict"] for claim in judge(result.rows)}
    assert verdicts.pop("pac_bayes_bound") == ("not comparable" if vacuous else "not clear here")
    assert verdicts.pop("sharpness") == "not comparable"  # two lower bounds
    assert set(verdicts.values()) == {"not clear here"}


def test_results_go_through_a_file(halves, tmp_path):
    data, held_out = halves
    result = batch_size_experiment(
        make_model, data, held_out, small=8, large=32, n_seeds=1, target_loss=1.0, estimator=QUICK
    )
    loaded = type(result).load(result.save(tmp_path / "batch.npz"))
    assert loaded.rows == result.rows and loaded.settings == result.settings
    np.testing.assert_equal(loaded.claims, result.claims)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"small": 32, "large": 8}, "small and large must be batch sizes with small < large"),
        ({"small": 64, "large": 128}, "small must be below the number of examples"),
        ({"n_seeds": 0}, "n_seeds must be"),
        ({"target_loss": 0.0}, "target_loss must be"),
        ({"lr_rule": "sqrt"}, "lr_rule must be 'same' or 'linear'"),
    ],
)
def test_bad_settings_say_what_is_allowed(halves, change, words):
    data, held_out = halves
    options = {"small": 4, "large": 32, **change}
    with pytest.raises(ValueError, match=words):
        batch_size_experiment(make_model, data, held_out, **options)


def test_two_vacuous_bounds_are_not_comparable():
    def rows(small, large):
        zero = {q.key: 1.0 for q in QUANTITIES}
        return [
            {**zero, "seed": seed, "group": group, "pac_bayes_bound": values[seed]}
            for seed in range(4)
            for group, values in (("small", small), ("large", large))
        ]

    def verdict(small, large):
        return next(claim for claim in judge(rows(small, large)) if claim["key"] == "pac_bayes_bound")

    vacuous = verdict([1.2, 1.3, 1.25, 1.22], [1.6, 1.7, 1.65, 1.61])
    assert vacuous["verdict"] == "not comparable" and vacuous["n"] == 0
    assert verdict([0.2, 0.3, 0.25, 0.22], [1.2, 1.3, 1.25, 1.22])["verdict"] == "supported"
    assert verdict([0.2, 1.3, 1.25, 1.22], [0.3, 1.7, 1.65, 1.61])["verdict"] == "not clear here"  # one pair is left
    assert verdict([np.nan] * 4, [np.nan] * 4)["verdict"] == "not comparable"


def test_training_to_a_loss_uses_the_loss_that_is_measured(halves):
    data, _ = halves
    outputs = nn.functional.one_hot(data.targets, 3).float()
    regression = load_data((data.inputs, outputs))
    model, _, reached = train_to_loss(make_model(0), regression, 0.12, epochs=100, batch_size=8, loss="mse", lr=0.05)
    assert reached and Landscape(model, regression, loss="mse").loss() <= 0.12 * (1 + 1e-4)
