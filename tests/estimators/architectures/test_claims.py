"""The lecture's statements are judged on exactly the rows that differ in their element."""

from __future__ import annotations

import json

import numpy as np
import pytest

from estimators.architectures._claims import CLAIMS, judge_claims, rank_measures, width_factor
from estimators.core.evidence.verdicts import compare_ratios

TRAINING = {"batch_size": 64, "lr": 0.1, "epochs": 8}


def row(changes=(), seed=0, status="ok", **values):
    training = {**TRAINING, **values.pop("training", {})}
    base = dict.fromkeys(
        (
            "train_loss",
            "train_accuracy",
            "held_out_accuracy",
            "lambda_max",
            "trace",
            "sharpness",
            "average_sharpness",
            "basin_width",
            "convex_share",
            "gap",
            "accuracy_gap",
        ),
        0.5,
    )
    if status != "ok":
        base = dict.fromkeys(base)
    return {
        "architecture": "net",
        "changes": list(changes),
        "training": training,
        "seed": seed,
        "status": status,
        **base,
        **values,
    }


def verdict(rows, key):
    return next((c["verdict"] for c in judge_claims(rows) if c["key"] == key), None)


def test_skips_are_judged_on_equal_variants_only():
    rows = [row(seed=s, basin_width=1.0 + 0.01 * s, lambda_max=5 + 0.1 * s, convex_share=0.9) for s in range(3)]
    rows += [
        row(("without_skips",), s, basin_width=0.2 + 0.01 * s, lambda_max=50 + s, convex_share=0.5) for s in range(3)
    ]
    assert verdict(rows, "skips_smooth") == "supported"
    other = [{**r, "training": {**r["training"], "lr": 0.01}} if r["changes"] else r for r in rows]
    assert verdict(other, "skips_smooth") is None, "another learning rate is another comparison"


def test_a_net_that_did_not_train_is_neither_flat_nor_sharp():
    rows = [row(seed=s, lambda_max=5 + s, train_accuracy=1.0, train_loss=0.01 + s / 1000) for s in range(3)]
    rows += [
        row(("without_skips",), s, lambda_max=500 + s, train_accuracy=0.3, train_loss=1.7 + s / 100) for s in range(3)
    ]
    judged = {c["key"]: c for c in judge_claims(rows)}
    curvature = next(m for m in judged["skips_smooth"]["measurements"] if m["measure"] == "lambda_max")
    assert curvature["verdict"] == "not comparable"
    assert "can't be compared" in curvature["reason"]
    ratio = (5 * 6 * 7 / (500 * 501 * 502)) ** (1 / 3)  # of geometric means
    assert curvature["kind"] == "ratio" and curvature["difference"] == pytest.approx(ratio)
    assert next(m for m in judged["skips_trainable"]["measurements"])["verdict"] == "supported"


def test_failures_decide_trainability():
    rows = [row(seed=s, train_loss=0.1, training={"lr": lr}) for s in range(5) for lr in (0.01, 0.3)]
    rows += [row(("without_norm",), s, "failed: not finite", training={"lr": 0.3}) for s in range(5)]
    rows += [row(("without_norm",), s, train_loss=0.1, training={"lr": 0.01}) for s in range(5)]
    assert verdict(rows, "norm_learning_rate") == "supported"
    two = [r for r in rows if r["seed"] < 2]
    assert verdict(two, "norm_learning_rate") == "not clear here", "chance does it once in six"
    assert verdict(two, "norm_curvature") == "not clear here"


def test_a_rate_is_allowed_only_where_a_lower_one_trains_without_norm():
    rates = [(s, {"lr": lr}) for s in range(3) for lr in (0.01, 0.3)]
    rows = [row(("without_norm",), s, train_loss=2.3, train_accuracy=0.1, training=lr) for s, lr in rates]
    rows += [row(seed=s, train_loss=0.1 + s / 100, training=lr) for s, lr in rates]
    assert verdict(rows, "norm_learning_rate") == "not comparable", "it trains at no rate: that is not about the rate"
    one_rate = [r for r in rows if r["training"]["lr"] == 0.3]
    assert verdict(one_rate, "norm_learning_rate") == "not tested"


def test_seeds_of_one_variant_are_not_independent_evidence():
    rows = []
    for changes, level in (((), 1.0), (("without_norm",), 9.0)):
        rows += [
            row(changes, s, lambda_max=level + s / 9, average_sharpness=level, gap=level + s / 9) for s in range(5)
        ]
    judged = {c["key"]: c for c in judge_claims(rows)}["flat_generalises"]
    assert judged["verdict"] == "not clear here" and "2 independent units" in judged["measurements"][0]["reason"]


def test_many_rows_without_effect_are_seldom_clear():
    rng, wrong = np.random.default_rng(0), 0
    names = ("train_loss", "held_out_accuracy", "lambda_max", "trace", "average_sharpness", "basin_width", "gap")
    for _ in range(60):
        rows = [
            row(changes, s, **dict(zip(names, rng.normal(10, 1, len(names)), strict=True)))
            for changes in ((), ("without_skips",), ("without_norm",), ("with_dropout=0.3",))
            for s in range(4)
        ]
        wrong += any(c["verdict"] == "supported" for c in judge_claims(rows))
    assert wrong <= 5


def test_norm_is_judged_at_the_largest_learning_rate():
    rows = []
    for lr, bare_loss in ((0.01, 0.05), (0.3, 2.3)):
        rows += [row(seed=s, training={"lr": lr}, train_loss=0.1 + s / 100) for s in range(3)]
        rows += [row(("without_norm",), s, training={"lr": lr}, train_loss=bare_loss + s / 100) for s in range(3)]
    judged = {c["key"]: c for c in judge_claims(rows)}["norm_learning_rate"]
    losses = [m for m in judged["measurements"] if m["measure"] == "train_loss"]
    assert [m["verdict"] for m in losses] == ["supported"]


def test_batch_sizes_are_compared_at_their_extremes_whatever_the_epochs():
    rows = [
        row(
            seed=s,
            training={"batch_size": size, "epochs": epochs},
            lambda_max=value + s,
            sharpness=value + s,
            held_out_accuracy=0.9 - value / 1000 + s / 1e4,
        )
        for size, epochs, value in ((16, 4, 10), (128, 8, 20), (512, 40, 90))
        for s in range(3)
    ]
    judged = {c["key"]: c for c in judge_claims(rows)}
    ratio = (90 * 91 * 92 / (10 * 11 * 12)) ** (1 / 3)
    sharp, worse = judged["batch_sharp"], judged["batch_generalises"]
    assert sharp["verdict"] == worse["verdict"] == "supported"
    first, last = sharp["measurements"][0], worse["measurements"][-1]
    assert first["kind"] == "ratio" and first["difference"] == pytest.approx(ratio)
    assert first["low"] < ratio < first["high"] and first["low"] > 1
    assert last["kind"] == "difference" and last["difference"] == pytest.approx(-0.08)
    for r in rows:
        r.update(held_out_accuracy=0.9 + r["seed"] / 100)
    judged = {c["key"]: c for c in judge_claims(rows)}
    assert judged["batch_sharp"]["verdict"] == "supported", "sharper is one statement"
    assert judged["batch_generalises"]["verdict"] == "not clear here", "and generalising worse another"


def test_width_is_judged_by_its_trend():
    rows = [
        row((f"with_width={f}",), s, train_loss=1 / f + s / 100, held_out_accuracy=0.8 + f / 100)
        for f in (0.25, 0.5, 2, 4)
        for s in range(2)
    ]
    assert verdict(rows, "width_easy") == "supported"
    assert width_factor(row()) == 1.0
    assert width_factor(row(("with_width=0.25",))) == 0.25
    assert verdict([r for r in rows if width_factor(r) < 1], "width_easy") is None


def test_dropout_zero_is_no_dropout():
    rows = [row(("with_dropout=0.0",), s, lambda_max=50 + s, sharpness=5 + s / 10, basin_width=0.1) for s in range(3)]
    rows += [row(("with_dropout=0.3",), s, lambda_max=5 + s, sharpness=1 + s / 10, basin_width=0.5) for s in range(3)]
    assert verdict(rows, "dropout_flat") == "supported"


def test_one_seed_is_never_clear():
    rows = [row(lambda_max=1.0), row(("without_norm",), lambda_max=100.0)]
    judged = {c["key"]: c for c in judge_claims(rows)}["norm_curvature"]
    assert judged["verdict"] == "not clear here"
    assert "spread is unknown" in judged["measurements"][0]["reason"]


def test_measures_are_ranked_over_trained_runs_only():
    rows = [row(seed=s, lambda_max=float(s), basin_width=-float(s), gap=float(s)) for s in range(8)]
    rows.append(row(seed=9, status="failed: not finite"))
    ranked = {r["measure"]: r for r in rank_measures(rows)}
    assert (ranked["lambda_max"]["tau"], ranked["lambda_max"]["n"]) == (1.0, 8)
    assert ranked["basin_width"]["tau"] == -1.0
    assert verdict(rows, "flat_generalises") == "supported"


def test_claims_are_json_and_keyed_once():
    assert len({c.key for c in CLAIMS}) == len(CLAIMS)
    rows = [row(seed=s, lambda_max=float(s), gap=float(s)) for s in range(5)]
    json.dumps(judge_claims(rows))


def test_ratios_fall_back_to_differences_where_a_value_is_not_positive():
    found = compare_ratios([-1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "larger")
    assert found.kind == "difference" and found.difference == pytest.approx(-2 / 3)
    assert compare_ratios([2.0, 4.0], [1.0, 2.0], "larger").difference == pytest.approx(2.0)
