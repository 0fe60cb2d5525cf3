"""Averaging against plain SGD over seeds: the data, the rows, the judgement, the cache."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators import SWAAverager, load_data
from estimators.experiments import noisy_digits, swa_experiment
from estimators.experiments.swa_comparison import QUANTITIES, judge
from estimators.results import Result


def tiny(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10))


def test_noisy_digits_have_the_stated_share_of_wrong_labels_and_true_held_out_ones():
    data, held_out = noisy_digits(3, n_samples=200, label_noise=0.25)
    clean = load_data("digits", n_samples=200, image_size=32, random_state=3)
    assert torch.equal(data.inputs, clean.inputs)
    assert int((data.targets != clean.targets).sum()) == 50
    assert torch.equal(held_out.targets, load_data("digits", split="test").targets)
    again, _ = noisy_digits(3, n_samples=200, label_noise=0.25)
    assert again.fingerprint == data.fingerprint != noisy_digits(4, n_samples=200, label_noise=0.25)[0].fingerprint
    noisy, _ = noisy_digits(3, n_samples=200, label_noise=0.0, pixel_noise=0.5)
    assert float((noisy.inputs - clean.inputs).std()) == pytest.approx(0.5, rel=0.02)
    assert torch.equal(noisy.targets, clean.targets)


@pytest.mark.parametrize(("name", "value"), [("label_noise", 1.5), ("pixel_noise", -1.0)])
def test_noise_that_is_not_allowed(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        noisy_digits(0, **{name: value})


def test_an_experiment_gives_three_rows_a_seed_and_resumes_from_its_cache(tmp_path):
    def data(seed):
        return noisy_digits(seed, n_samples=64)

    options = {"n_seeds": 2, "epochs": 4, "estimator": SWAAverager(start=0.5), "memory": str(tmp_path)}
    seen = []
    result = swa_experiment(tiny, data, on_partial=seen.append, **options)
    assert [(r["seed"], r["group"]) for r in result.rows] == [(s, g) for s in (0, 1) for g in ("sgd", "swa", "ema")]
    assert [len(r.rows) for r in seen] == [3, 6]
    assert len(result.claims) == 2 * len(QUANTITIES)
    assert all(c["n"] == 2 for c in result.claims)
    assert (result.values("sgd", "distance") == 0).all() and (result.values("swa", "distance") > 0).all()
    assert np.isfinite([[r[q.key] for q in QUANTITIES] for r in result.rows]).all()

    def broken(*args, **kwargs):
        raise AssertionError("a finished seed was computed again")

    from unittest import mock

    with mock.patch.object(SWAAverager, "train", broken):
        again = swa_experiment(tiny, data, **options)
    assert again.rows == result.rows
    back = Result.load(result.save(tmp_path / "r.npz"))
    assert back.rows == result.rows and back.summary()[0] == result.summary()[0]


def test_claims_are_judged_by_paired_differences():
    def row(seed, group, accuracy, top):
        common = {"train_loss": 0.1, "held_out_loss": 0.5, "average_sharpness": 0.1}
        return {"seed": seed, "group": group, "held_out_accuracy": accuracy, "lambda_max": top, **common}

    rows = []
    for seed in range(6):
        base, wiggle = 0.5 + 0.1 * seed, 0.001 * (-1) ** seed  # a spread far above the effect
        rows += [row(seed, "sgd", base, 10.0 * (seed + 1)), row(seed, "swa", base + 0.01 + wiggle, 20.0 * (seed + 1))]
        rows += [row(seed, "ema", base + wiggle, 5.0 * (seed + 1) * (1 + wiggle))]
    claims = {(c["group"], c["key"]): c for c in judge(rows)}
    assert claims["swa", "held_out_accuracy"]["verdict"] == "supported"
    assert claims["swa", "held_out_accuracy"]["effect"] == pytest.approx(0.01)
    assert claims["swa", "lambda_max"]["verdict"] == "not supported"
    assert claims["swa", "lambda_max"]["effect"] == pytest.approx(2.0)
    assert claims["ema", "held_out_accuracy"]["verdict"] == "not clear here"
    assert claims["ema", "lambda_max"]["verdict"] == "supported"


def test_seeds_have_to_be_a_number():
    with pytest.raises(ValueError, match="n_seeds must be a whole number from 1, got 0"):
        swa_experiment(tiny, n_seeds=0)
