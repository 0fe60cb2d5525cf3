import numpy as np
import pytest
import torch
from torch import nn

from estimators.experiments.connectivity_cases import CASES, ConnectivityCases, judge, summarise
from estimators.training import train


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(60) % 3
    inputs = torch.randn(60, 6, generator=generator)
    inputs[torch.arange(60), targets] += 3.0
    return inputs, targets


OPTIONS = {"n_seeds": 1, "train_epochs": 3, "train_batch_size": 20, "fine_tune_epochs": 1, "epochs": 1, "n_points": 5}


def test_each_case_and_path_has_a_row(data):
    partial = []
    found = ConnectivityCases(joints=("linear", "aligned", "bezier"), **OPTIONS).fit(
        build, data, held_out=data, on_partial=partial.append
    )
    assert [(r["case"], r["path"]) for r in found.rows_] == [
        (case, path) for case in CASES for path in ("linear", "aligned", "bezier")
    ]
    assert found.profiles_.shape == (9, 5)
    by = {(r["case"], r["path"]): r for r in found.rows_}
    assert by["fine-tuned", "linear"]["distance"] < by["different starts", "linear"]["distance"]
    assert by["same start", "linear"]["distance"] < by["different starts", "linear"]["distance"]
    assert by["different starts", "aligned"]["distance"] < by["different starts", "linear"]["distance"]
    assert np.isfinite(by["same start", "bezier"]["held_out_barrier"])
    assert [len(p.rows) for p in partial] == [3, 6, 9]
    assert {v["verdict"] for v in found.verdicts_} == {"not clear here"}  # one seed decides nothing


def test_parting_later_leaves_the_two_closer(data):
    distances = []
    for split in (0, 7):  # 3 steps an epoch: two epochs and one step
        rows = ConnectivityCases(joints=("linear",), split_steps=split, **OPTIONS).fit(build, data).rows_
        distances.append(next(r["distance"] for r in rows if r["case"] == "same start"))
    assert distances[1] < distances[0]


def test_trained_networks_and_paths_are_kept(data, tmp_path, monkeypatch):
    options = {"joints": ("linear",), "memory": str(tmp_path), **OPTIONS}
    first = ConnectivityCases(**options).fit(build, data)
    monkeypatch.setattr("estimators.experiments.connectivity_cases.train", None)
    assert ConnectivityCases(**options).fit(build, data).rows_ == first.rows_


def row(case, path, barrier, seed):
    return {"case": case, "path": path, "seed": seed, "barrier": barrier, "rise": barrier}


def test_summary_is_mean_and_spread_over_seeds():
    (found,) = summarise([row("same start", "linear", b, i) for i, b in enumerate((0.0, 0.1, 0.5))], 0.1)
    assert found["mean"] == pytest.approx(0.2)
    assert found["std"] == pytest.approx(np.std([0.0, 0.1, 0.5], ddof=1))
    assert (found["low"], found["high"], found["n"]) == (0.0, 0.5, 3)
    assert found["joined"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "straight, curved, verdict",
    [
        ((2.0,) * 5, (0.0,) * 5, "supported"),
        ((2.0,) * 5, (1.0,) * 5, "not supported"),
        ((0.0,) * 5, (0.0,) * 5, "not clear here"),  # no curve was needed
        ((2.0,) * 5, (0.0, 1.0, 0.0, 0.0, 0.0), "not clear here"),
        ((2.0,) * 4, (0.0,) * 4, "not clear here"),  # four seeds: chance does it once in sixteen
        ((np.nan,) * 5, (np.nan,) * 5, "not clear here"),  # no number says nothing
        ((np.nan,) * 5, (0.0,) * 5, "not clear here"),  # whether the straight lines fail is not known
        ((2.0,) * 5 + (np.nan,), (0.0,) * 6, "supported"),
    ],
)
def test_verdict_on_different_starts(straight, curved, verdict):
    rows = [row("different starts", "linear", b, i) for i, b in enumerate(straight)]
    rows += [row("different starts", "bezier", b, i) for i, b in enumerate(curved)]
    (found,) = judge(summarise(rows, 0.1))
    assert found["verdict"] == verdict


def test_three_statements_of_one_table_take_six_pairs():
    def verdicts(n):
        rows = [row(case, "linear", 0.0, i) for case in ("same start", "fine-tuned") for i in range(n)]
        rows += [row("different starts", "linear", 2.0, i) for i in range(n)]
        rows += [row("different starts", "bezier", 0.0, i) for i in range(n)]
        return {found["verdict"] for found in judge(summarise(rows, 0.1))}

    assert verdicts(5) == {"not clear here"}, "one in 32, three times"
    assert verdicts(6) == {"supported"}
    assert ConnectivityCases().n_seeds == 6


def test_bad_settings_are_said(data):
    with pytest.raises(
        ValueError, match=r"'n_seeds' parameter of ConnectivityCases must be an int in .*\[1, inf\). Got 0"
    ):
        ConnectivityCases(n_seeds=0).fit(build, data)
    with pytest.raises(
        ValueError, match=r"'split_steps' parameter of ConnectivityCases must be an int in .*\[0, inf\)"
    ):
        ConnectivityCases(split_steps=-1).fit(build, data)
    with pytest.raises(ValueError, match="joints must be some of linear, aligned, bezier, polychain"):
        ConnectivityCases(joints=("geodesic",)).fit(build, data)


def test_networks_are_trained_with_the_loss_that_is_measured(data, monkeypatch):
    losses = []

    def spy(model, data, **options):
        losses.append(options["loss"])
        return train(model, data, **options)

    monkeypatch.setattr("estimators.experiments.connectivity_cases.train", spy)
    inputs, targets = data
    outputs = nn.functional.one_hot(targets, 3).float()
    ConnectivityCases(cases=("fine-tuned",), joints=("linear",), loss="mse", **OPTIONS).fit(build, (inputs, outputs))
    assert losses and set(losses) == {"mse"}


def test_a_pair_without_a_number_is_left_out_and_said():
    rows = [row("same start", "linear", b, i) for i, b in enumerate((0.0, np.nan, 0.0))]
    (found,) = summarise(rows, 0.1)
    assert (found["n"], found["joined"], found["mean"]) == (2, 1.0, 0.0)
    (none,) = judge(summarise([row("same start", "linear", np.nan, i) for i in range(3)], 0.1))
    assert none["verdict"] == "not clear here" and "no barrier could be measured" in none["reason"]
