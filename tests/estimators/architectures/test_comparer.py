"""Comparing architectures: rows, maps, failures, resuming, and what scikit-learn expects. Tiny budgets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from estimators.architectures import _run as comparison_run
from estimators.architectures._claims import SHARPNESS_MEASURES
from estimators.architectures._comparer import ArchitectureComparer
from estimators.architectures._result import MEASURED, ComparisonResult, summarise
from estimators.architectures._run import with_label_noise
from estimators.data._load import load_data
from estimators.experiments import width_sweep
from estimators.experiments.width_sweep import judge_width, summarise_widths
from estimators.progress import Cancelled
from estimators.results import Result
from estimators.variants import Variant, check_variants, presets

THIN = ("with_width=0.25",)
TIMES = ("seconds_training", "seconds_measuring")
VARIANTS = (
    Variant("thin", "test_resnet", THIN),
    Variant("thin, no skips", "test_resnet", (*THIN, "without_skips")),
)


@pytest.fixture(scope="module")
def small():
    return load_data("digits", n_samples=80, split="train"), load_data("digits", n_samples=40, split="test")


def comparer(**options):
    return ArchitectureComparer(**{"n_seeds": 2, "epochs": 2, "resolution": 5, "batch_size": 80, **options})


@pytest.fixture(scope="module")
def fitted(small, tmp_path_factory):
    partial = []
    folder = tmp_path_factory.mktemp("cache")
    estimator = comparer(memory=str(folder))
    estimator.fit(VARIANTS, small[0], held_out=small[1], on_partial=partial.append)
    return estimator, partial, folder


def without_times(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_every_variant_and_seed_is_a_row_with_every_quantity(fitted):
    estimator, _, _ = fitted
    assert [(r["variant"], r["seed"]) for r in estimator.table_] == [
        ("thin", 0),
        ("thin, no skips", 0),
        ("thin", 1),
        ("thin, no skips", 1),
    ]
    for row in estimator.table_:
        assert row["status"] == "ok"
        assert set(MEASURED) <= set(row)
        assert all(np.isfinite(row[m]) for m in MEASURED if m != "convex_share")
        assert row["gap"] == pytest.approx(row["held_out_loss"] - row["train_loss"])
        assert row["parameters_per_example"] == pytest.approx(row["n_parameters"] / 80)
    json.dumps(estimator.table_)
    wide = {r["variant"]: r["n_parameters"] for r in estimator.table_}
    assert wide["thin, no skips"] < wide["thin"], "the projections on the shortcuts are gone"


def test_maps_share_axes_and_their_centre_is_the_training_loss(fitted):
    estimator, _, _ = fitted
    assert estimator.surfaces_.shape == (2, 5, 5)
    assert estimator.axes_.tolist() == [[-1.0, -0.5, 0.0, 0.5, 1.0]] * 2
    for index, name in enumerate(estimator.names_):
        row = next(r for r in estimator.table_ if r["variant"] == name and r["seed"] == 0)
        assert estimator.surfaces_[index, 2, 2] == row["train_loss"]
        assert row["convex_share"] is not None
    assert all(r["convex_share"] is None for r in estimator.table_ if r["seed"] == 1), "one map a variant"


def test_summary_is_mean_and_standard_deviation_over_seeds(fitted):
    estimator, _, _ = fitted
    values = [r["lambda_max"] for r in estimator.table_ if r["variant"] == "thin"]
    line = estimator.summary_[0]
    assert line["lambda_max"] == pytest.approx(np.mean(values))
    assert line["lambda_max_spread"] == pytest.approx(np.std(values, ddof=1))
    assert (line["n"], line["n_failed"]) == (2, 0)
    assert line["convex_share_spread"] is None, "one map: its spread is unknown"


def test_partial_results_grow_row_by_row(fitted):
    _, partial, _ = fitted
    assert [len(p.table) for p in partial] == [1, 2, 3]
    assert np.isnan(partial[0].surfaces[1]).all()
    assert not np.isnan(partial[0].surfaces[0]).any()


def test_every_measure_is_ranked_and_claims_are_judged(fitted):
    estimator, _, _ = fitted
    assert [c["measure"] for c in estimator.correlations_] == list(SHARPNESS_MEASURES)
    assert estimator.correlations_[0]["n"] == 4
    assert {"flat_generalises", "skips_trainable", "skips_smooth"} <= {c["key"] for c in estimator.claims_}


def test_result_survives_a_file(fitted, tmp_path):
    estimator, _, _ = fitted
    loaded = Result.load(estimator.result_.save(tmp_path / "comparison.npz"))
    assert isinstance(loaded, ComparisonResult)
    assert loaded.table == estimator.table_
    assert loaded.claims == estimator.claims_
    np.testing.assert_array_equal(loaded.surfaces, estimator.surfaces_)


def test_a_repeat_comes_from_the_cache_and_is_equal(fitted, small, monkeypatch):
    estimator, _, folder = fitted

    def refuse(*args, **kwargs):
        raise AssertionError("nothing may be computed again")

    monkeypatch.setattr(comparison_run, "train", refuse)
    monkeypatch.setattr(comparison_run, "measure", refuse)
    start = time.perf_counter()
    again = comparer(memory=str(folder)).fit(VARIANTS, small[0], held_out=small[1])
    assert time.perf_counter() - start < 15
    assert again.table_ == estimator.table_
    np.testing.assert_array_equal(again.surfaces_, estimator.surfaces_)


def test_without_a_cache_a_fit_gives_the_same_numbers(fitted, small):
    estimator, _, _ = fitted
    fresh = comparer(n_seeds=1).fit(VARIANTS[:1], small[0], held_out=small[1])
    assert without_times(fresh.table_) == without_times(estimator.table_[:1])


def test_cancelling_keeps_the_finished_runs(small, tmp_path, monkeypatch):
    trained = []
    original = comparison_run.train
    monkeypatch.setattr(comparison_run, "train", lambda *a, **k: trained.append(1) or original(*a, **k))
    done = []

    def stop(at, total, message):
        if len(done) == 2:
            raise Cancelled("stop")

    options = {"memory": str(tmp_path), "maps": "none", "n_seeds": 2, "epochs": 1}
    with pytest.raises(Cancelled):
        comparer(**options).fit(
            VARIANTS, small[0], held_out=small[1], on_progress=stop, on_partial=lambda r: done.append(r)
        )
    assert len(trained) == 2
    comparer(**options).fit(VARIANTS, small[0], held_out=small[1])
    assert len(trained) == 4, "the two finished runs are not trained again"


def test_a_killed_process_goes_on_where_it_was(tmp_path):
    program = (
        "import sys; from estimators import ArchitectureComparer as A, load_data\n"
        "from estimators.architectures import _run as c\n"
        "n=[0]; t=c.train\n"
        "def count(*a, **k): n[0] += 1; return t(*a, **k)\n"
        "c.train = count\n"
        "d = load_data('digits', n_samples=60); v = [dict(name=f'lr {x}', changes=('with_width=0.25',),"
        " training=dict(lr=x)) for x in (0.1, 0.05, 0.02)]\n"
        f"e = A(n_seeds=1, epochs=1, maps='none', memory={str(tmp_path)!r})\n"
        "e.fit(v, d, held_out=d, on_partial=lambda r: print('row', flush=True))\n"
        "print('trained', n[0], len(e.table_), flush=True)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "row"
        process.send_signal(signal.SIGKILL)
    again = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    trained, rows = map(int, again.stdout.strip().splitlines()[-1].split()[1:])
    assert rows == 3
    assert trained <= 2


def test_a_training_that_explodes_is_a_row(small):
    variants = [VARIANTS[0], Variant("explodes", "test_resnet", (*THIN, "without_norm"), {"lr": 1e6})]
    found = comparer(n_seeds=1, epochs=1).fit(variants, small[0], held_out=small[1])
    bad = found.table_[1]
    assert bad["status"].startswith("failed: not finite after epoch 1")
    assert all(bad[m] is None for m in MEASURED)
    assert bad["seconds_training"] > 0
    assert np.isnan(found.surfaces_[1]).all() and np.isfinite(found.surfaces_[0]).all()
    assert (found.summary_[1]["n_failed"], found.summary_[1]["train_loss"]) == (1, None)


def test_one_seed_leaves_the_spread_unknown(fitted):
    rows = [r for r in fitted[0].table_ if r["seed"] == 0]
    summary = summarise(rows, ["thin", "thin, no skips", "not run yet"])
    assert len(summary) == 2
    assert all(line["train_loss_spread"] is None for line in summary)


def test_training_settings_reach_the_training(small, monkeypatch):
    seen = []
    original = comparison_run.train

    def watch(model, data, **options):
        seen.append((options, len(data)))
        return original(model, data, **options)

    monkeypatch.setattr(comparison_run, "train", watch)
    training = {"batch_size": 16, "lr": 0.02, "optimizer": "adamw", "sam_rho": 0.05, "weight_decay": 0.0}
    comparer(n_seeds=1, epochs=1, maps="none", stop_at_loss=9.0).fit(
        [Variant("v", "test_resnet", THIN, training)], small[0], held_out=small[1]
    )
    options, _ = seen[0]
    assert {k: options[k] for k in training} == training
    assert (options["epochs"], options["stop_at_loss"], options["random_state"]) == (1, 9.0, 0)


def test_label_noise_changes_exactly_its_share(small):
    data = small[0]
    noisy = with_label_noise(data, 0.25, 0)
    changed = (noisy.targets != data.targets).sum()
    assert int(changed) == 20
    assert torch.equal(noisy.inputs, data.inputs)
    assert noisy.fingerprint != data.fingerprint
    assert torch.equal(with_label_noise(data, 0.25, 0).targets, noisy.targets)
    assert not torch.equal(with_label_noise(data, 0.25, 1).targets, noisy.targets)
    assert with_label_noise(data, 0.0, 0) is data


def test_examples_are_held_out_when_none_are_given(small):
    found = comparer(n_seeds=1, epochs=1, maps="none").fit(VARIANTS[:1], small[0])
    assert (found.result_.settings["n_examples"], found.result_.settings["n_held_out"]) == (60, 20)
    with pytest.raises(ValueError, match=r"enough examples of each class to hold out 1%, got 80"):
        comparer(held_out_share=0.01).fit(VARIANTS[:1], small[0])


def test_transform_measures_trained_networks(fitted, small):
    estimator, _, _ = fitted
    model = VARIANTS[0].build(10, 32, random_state=0).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    numbers = estimator.transform([model])
    assert numbers.shape == (1, len(estimator.get_feature_names_out()))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    frame = clone(estimator).set_output(transform="pandas")
    frame.__dict__.update({k: v for k, v in estimator.__dict__.items() if k.endswith("_") or k.startswith("_d")})
    frame._held_out = estimator._held_out
    table = frame.transform([model])
    assert isinstance(table, pd.DataFrame)
    assert table["train_loss"].iloc[0] == numbers[0, 0]


def test_scikit_learn_conventions(small):
    estimator = comparer(rho=0.1)
    assert clone(estimator).get_params() == estimator.get_params()
    assert "rho=0.1" in repr(estimator)
    with pytest.raises(NotFittedError):
        estimator.transform([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_seeds": 0}, r"'n_seeds' parameter of ArchitectureComparer must be an int in the range \[1, inf\). Got 0"),
        ({"epochs": 1.5}, r"'epochs' parameter of ArchitectureComparer must be an int in .*\[1, inf\). Got 1.5"),
        ({"resolution": 2}, r"'resolution' parameter of ArchitectureComparer must be an int in .*\[3, inf\). Got 2"),
        ({"span": 0}, r"'span' parameter of ArchitectureComparer must be a float in the range \(0.0, inf\). Got 0"),
        ({"held_out_share": 1.0}, r"'held_out_share' parameter of .* must be a float in .*\(0.0, 1.0\). Got 1.0"),
        ({"maps": "some"}, r"'maps' parameter of ArchitectureComparer must be a str among .*Got 'some'"),
        ({"measures": ("trace", "flatness")}, r"measures must be names among .*got \('trace', 'flatness'\)"),
        ({"gap": "loss"}, r"'gap' parameter of .* must be a str among .*'accuracy_gap'.* Got 'loss'"),
    ],
)
def test_parameters_are_checked_in_fit(small, options, message):
    with pytest.raises(ValueError, match=message):
        comparer(**options).fit(VARIANTS, small[0])


def test_variants_are_checked_before_anything_is_trained(small, monkeypatch):
    monkeypatch.setattr(comparison_run, "train", lambda *a, **k: pytest.fail("trained"))
    with pytest.raises(ValueError, match="at least one variant"):
        comparer().fit([], small[0])
    with pytest.raises(ValueError, match="names of their own, got 'thin' twice"):
        comparer().fit([VARIANTS[0], VARIANTS[0]], small[0])
    with pytest.raises(ValueError, match=r"change must be one of .*got 'no_skips'"):
        comparer().fit([Variant("v", changes=("no_skips",))], small[0])
    with pytest.raises(ValueError, match=r"training must hold settings among .*got 'learning_rate' in 'v'"):
        comparer().fit([Variant("v", training={"learning_rate": 1})], small[0])
    with pytest.raises(ValueError, match="label_noise must be a share"):
        comparer().fit([Variant("v", training={"label_noise": 1.5})], small[0])
    with pytest.raises(TypeError, match="variants must be Variant, dict or str, got 3"):
        comparer().fit([3], small[0])
    with pytest.raises(ValueError, match="got 'EfficientNet' without any"):
        comparer().fit([VARIANTS[0], Variant("b", "test_efficientnet", ("without_skips",))], small[0])
    with pytest.raises(ValueError, match=r"timm architecture, got 'resnet_18'"):
        comparer().fit(["resnet_18"], small[0])


def test_presets_are_valid_variants_with_one_difference():
    for name, variants in presets("test_resnet").items():
        checked = check_variants(variants)
        assert len(checked) >= 2, name
        for variant in checked:
            variant.build(10, 32)
    assert check_variants("test_vit")[0].architecture == "test_vit"
    assert check_variants({"name": "x", "changes": ["without_norm"]})[0].changes == ("without_norm",)


# --- width sweep ---


def test_width_sweep_measures_widths_and_the_lines_between_seeds(small, tmp_path):
    partial = []
    sweep = width_sweep.WidthSweep(
        factors=(0.25, 0.125), n_seeds=2, epochs=2, n_points=5, batch_size=80, memory=str(tmp_path)
    )
    sweep.fit("test_resnet", small[0], held_out=small[1], on_partial=partial.append)
    assert sweep.factors_.tolist() == [0.125, 0.25]
    assert [(r["factor"], r["seed"]) for r in sweep.table_] == [(0.125, 0), (0.125, 1), (0.25, 0), (0.25, 1)]
    assert sweep.summary_[0]["n_parameters"] < sweep.summary_[1]["n_parameters"]
    assert [(b["factor"], b["seeds"]) for b in sweep.barriers_] == [(0.125, [0, 1]), (0.25, [0, 1])]
    assert all(np.isfinite(b["barrier"]) for b in sweep.barriers_)
    assert [len(p.table) for p in partial] == [1, 2, 3, 4, 4]
    assert {c["key"] for c in sweep.claims_} == {"width_easy", "width_connected", "width_equal"}
    assert Result.load(sweep.result_.save(tmp_path / "w.npz")).summary == sweep.summary_


def test_width_sweep_summary_and_claims_follow_their_rules():
    rows, barriers = [], []
    for factor in (0.25, 0.5, 1.0, 2.0):
        for seed in (0, 1):
            base = dict.fromkeys(("train_accuracy", "held_out_loss", "gap", "lambda_max"), 1.0)
            rows.append(
                {
                    "factor": factor,
                    "seed": seed,
                    "status": "ok",
                    "n_parameters": 100 * factor,
                    "parameters_per_example": factor,
                    "train_loss": 0.02 / factor + seed / 1000,
                    "held_out_accuracy": 0.9 + seed * 0.01 / factor,
                    **base,
                }
            )
        barriers.append({"factor": factor, "seeds": [0, 1], "barrier": 2 / factor, "why": ""})
    summary = summarise_widths(rows, barriers, zero_level=0.0105)
    assert [line["zero_share"] for line in summary] == [0.0, 0.0, 0.0, 0.5]
    assert summary[0]["barrier"] == 8.0
    assert summary[0]["barrier_spread"] is None
    judged = {c["key"]: c["verdict"] for c in judge_width(rows, summary)}
    assert judged == {
        "width_easy": "supported",
        "width_connected": "not clear here",
        "width_equal": "not clear here",
    }, "four widths alone can't beat chance at p < 0.05"
    failed = [{**rows[0], "status": "failed: x", "train_loss": None}]
    assert summarise_widths(failed, [], 0.01)[0]["n_failed"] == 1


def test_width_sweep_refuses():
    for factors in ((), (0, 1), (1, 1)):
        with pytest.raises(ValueError, match="factors must be distinct numbers above 0"):
            width_sweep.WidthSweep(factors=factors).fit("test_resnet", None, held_out=None)
    with pytest.raises(ValueError, match=r"'n_points' parameter of WidthSweep must be an int in .*\[3, inf\). Got 2"):
        width_sweep.WidthSweep(n_points=2).fit("test_resnet", None, held_out=None)
