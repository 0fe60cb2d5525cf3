"""The grid tells the ratio rate/batch and the batch size apart, and says which runs it could not use."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators import Result, SharpnessEstimator, load_data
from estimators.experiments import rate_batch_experiment
from estimators.experiments.rate_batch import judge

BATCHES, RATIOS = (16, 64, 256), (1e-4, 4e-4, 1.6e-3)


def made_up(power_of_ratio, power_of_batch, accuracy=lambda b, r: 0.9, n_seeds=5, reached=lambda b, r, s: True):
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(n_seeds):
        for b in BATCHES:
            for r in RATIOS:
                sharp = 10 * (r / 1e-4) ** power_of_ratio * (b / 16) ** power_of_batch * np.exp(0.1 * rng.normal())
                correct = (rng.random(300) < accuracy(b, r)).astype(int).tolist()
                rows.append(
                    {"batch_size": b, "ratio": r, "seed": seed, "reached": reached(b, r, seed), "train_loss": 0.05}
                    | dict.fromkeys(("lambda_max", "trace", "average_sharpness"), sharp)
                    | {"held_out_correct": correct, "held_out_accuracy": float(np.mean(correct))}
                )
    return rows


def claims(rows):
    judged, _ = judge(rows, BATCHES, RATIOS)
    return {(c["contrast"], c["key"]): c for c in judged}


def test_where_the_ratio_decides_the_batch_is_equivalent():
    found = claims(made_up(-0.6, 0.0))
    ratio, batch, both = (found[name, "lambda_max"] for name in ("ratio", "batch", "both"))
    assert ratio["verdict"] == "supported" and ratio["effect"] == pytest.approx(16**0.6, rel=0.15)
    assert batch["verdict"] == "supported" and batch["claimed"] == "equal"
    assert both["verdict"] == "supported" and both["effect"] == pytest.approx(16**0.6, rel=0.2), "the confounded one"
    a, b = (found[f"exponent of the {name}", "trace"] for name in ("ratio", "batch"))
    assert a["verdict"] == b["verdict"] == "supported"
    assert a["effect"] == pytest.approx(-0.6, abs=0.05) and a["low"] < -0.6 < a["high"]


def test_where_the_batch_decides_the_ratio_is_not_supported():
    found = claims(made_up(0.0, 0.6))
    assert found["ratio", "lambda_max"]["verdict"] == "not supported"
    assert "equivalent" in found["ratio", "lambda_max"]["reason"]
    assert found["batch", "lambda_max"]["verdict"] == "not supported"
    assert found["exponent of the batch", "lambda_max"]["verdict"] == "not supported"


def test_accuracy_has_an_interval_over_seeds_and_examples():
    row = claims(made_up(0.0, 0.0, accuracy=lambda b, r: 0.9 - 0.1 * (r == RATIOS[0])))["ratio", "held_out_accuracy"]
    assert row["verdict"] == "supported" and row["effect"] == pytest.approx(-0.1, abs=0.03)
    assert row["high"] - row["low"] > 2 * 1.96 * (2 * 0.09 / 300 / 5 / 3) ** 0.5, "of 300 shared examples"


def test_runs_that_did_not_train_leave_their_pair_out_and_are_said():
    rows = made_up(-0.6, 0.0, reached=lambda b, r, s: not (b == 256 and r == RATIOS[-1]))
    found, notes = judge(rows, BATCHES, RATIOS)
    assert "batch 256, rate/batch 0.0016 (5)" in notes[0]
    batch = next(c for c in found if (c["contrast"], c["key"]) == ("batch", "lambda_max"))
    assert batch["n"] == 0 and batch["verdict"] == "not clear here", "no other cell stands for the one that is missing"


def test_the_grid_is_trained_measured_and_resumed(tmp_path):
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(128, 6, generator=gen)
    y = (x[:, :3] + 0.3 * torch.randn(128, 3, generator=gen)).argmax(1)
    data, held_out = load_data((x[:64], y[:64])), load_data((x[64:], y[64:]))

    def make_model(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    quick = SharpnessEstimator(n_draws=4, n_probes=2, n_lanczos=6)
    grid = {"batches": (8, 32), "ratios": (1e-3, 4e-3), "n_seeds": 2, "target_loss": 0.5, "estimator": quick}
    result = rate_batch_experiment(make_model, data, held_out, memory=str(tmp_path), **grid)
    assert [(r["seed"], r["batch_size"], r["ratio"]) for r in result.rows] == [
        (s, b, q) for s in (0, 1) for b in (8, 32) for q in (1e-3, 4e-3)
    ]
    for row in result.rows:
        assert row["lr"] == row["batch_size"] * row["ratio"] and row["reached"] and row["train_loss"] <= 0.5
        assert np.mean(row["held_out_correct"]) == pytest.approx(row["held_out_accuracy"])
    assert {c["contrast"] for c in result.claims} == {
        "ratio", "batch", "both", "exponent of the ratio", "exponent of the batch",
    }  # fmt: skip
    messages = []
    again = rate_batch_experiment(
        make_model, data, held_out, memory=str(tmp_path), on_progress=lambda d, t, m: messages.append(m), **grid
    )
    np.testing.assert_equal(again.rows, result.rows)
    assert len(messages) == 8, "nothing was trained again"
    np.testing.assert_equal(Result.load(result.save(tmp_path / "grid.npz")).claims, result.claims)


def test_a_run_that_diverges_is_a_row_without_curvature():
    gen = torch.Generator().manual_seed(0)
    data = load_data((torch.randn(32, 4, generator=gen), torch.arange(32) % 2))
    result = rate_batch_experiment(
        lambda seed: nn.Linear(4, 2), data, data, batches=(8, 32), ratios=(1e-3, 1e37), n_seeds=1, epochs=3
    )
    wild = [row for row in result.rows if row["ratio"] > 1]
    assert not any(row["reached"] for row in wild) and np.isnan([row["lambda_max"] for row in wild]).all()
    assert "batch 8, rate/batch 1e+37 (1)" in result.notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batches": (16,)}, "batches must be two or more sizes"),
        ({"batches": (16, 999)}, r"from 1 to the number of examples \(8\)"),
        ({"ratios": (0.0, 1.0)}, "ratios must be two or more numbers above 0"),
        ({"n_seeds": 0}, "n_seeds must be"),
        ({"target_loss": 0.0}, "target_loss must be"),
    ],
)
def test_bad_settings_say_what_is_allowed(change, words):
    data = load_data((torch.randn(8, 4), torch.arange(8) % 2))
    with pytest.raises(ValueError, match=words):
        rate_batch_experiment(lambda seed: nn.Linear(4, 2), data, data, **{"batches": (2, 4), **change})
