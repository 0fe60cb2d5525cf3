"""SaddleEscaper: what it finds, what it runs, and what it says when it cannot."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from estimators import Cancelled, EscapeResult, Result
from estimators.saddles import _race
from estimators.saddles._escaper import SaddleEscaper
from estimators.saddles._mechanisms import MECHANISMS, judge_mechanisms
from estimators.saddles._race import RaceSettings, SaddleRace
from estimators.saddles._result import COLUMNS
from estimators.saddles._small_net import pooled_digits, small_net
from estimators.saddles._start import analytic_saddle

QUICK = {"n_seeds": 2, "max_steps": 40, "n_starts": 6, "max_search": 80, "random_state": 1}


@pytest.fixture(scope="module")
def digits3():
    return pooled_digits(n_samples=60)


@pytest.fixture(scope="module")
def strict(digits3):
    parts = []
    escaper = SaddleEscaper(**QUICK, optimizers=("gd", "sgd", "momentum"), l2=1e-2)
    escaper.fit(small_net(), digits3, on_partial=parts.append)
    return escaper, parts


def test_a_strict_saddle_is_one(strict, digits3):
    escaper, _ = strict
    saddle = escaper.saddle_
    assert saddle["found"] and saddle["gradient_norm"] <= 1e-9 and saddle["index"] == 1
    assert saddle["eigenvalues"].shape == (35,) and (saddle["eigenvalues"] < 0).sum() == 1
    net = small_net()
    nn.utils.vector_to_parameters(torch.as_tensor(escaper._centre), net.parameters())
    loss = nn.functional.cross_entropy(net(digits3.inputs), digits3.targets)
    loss = loss + 0.005 * sum(p.square().sum() for p in net.parameters())
    assert float(loss) == pytest.approx(saddle["loss"], abs=1e-12)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    assert float(torch.cat([g.flatten() for g in gradients]).norm()) <= 1e-9


def test_shapes_paths_and_partial_results(strict):
    escaper, parts = strict
    shape = (3, 3, 2)
    assert escaper.escape_steps_.shape == escaper.alignment_.shape == escaper.theory_steps_.shape == shape
    assert escaper.losses_.shape == (3, 41, 3, 2) and escaper.trajectories_.shape == (3, 41, 3, 2, 2)
    assert [len(p.optimizers) for p in parts] == [0, 1, 2]
    start = escaper.trajectories_[:, 0]
    assert not start[:, 0].any() and np.abs(start[:, 2]).max() <= 1e-3
    assert (start[0] == start[1]).all() and (start[0] == start[2]).all()
    np.testing.assert_allclose(escaper.distances_[0, 0], [[0, 0], [1e-6, 1e-6], [1e-3, 1e-3]], rtol=1e-6)
    assert escaper.lr_ * escaper.saddle_["eigenvalues"][-1] <= 1.0 + 1e-9
    middle = escaper.plane_["losses"].shape[0] // 2
    assert escaper.plane_["losses"][middle, middle] == pytest.approx(escaper.saddle_["loss"], abs=1e-12)


def test_the_table_and_an_optimiser_run_later(strict):
    escaper, _ = strict
    table = escaper.set_output(transform="pandas").transform(["sgd", "sam", "gd"])
    assert table.shape == (3, 3 * len(COLUMNS)) and list(table.columns) == list(escaper.get_feature_names_out())
    assert table["share_left[r=0]"].iloc[2] == 0.0 and table["median_steps[r=0]"].iloc[2] == np.inf
    assert np.isnan(table["theory_steps[r=0.001]"].iloc[0]) and table["theory_steps[r=0.001]"].iloc[2] > 0
    again = SaddleEscaper(**QUICK, optimizers=("sam",), l2=1e-2).fit(small_net(), pooled_digits(n_samples=60))
    np.testing.assert_array_equal(again.transform("sam")[0], table.iloc[1].to_numpy())


def test_same_seed_same_numbers_and_the_model_is_left_alone(digits3):
    net = small_net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = SaddleEscaper(**QUICK, optimizers=("sgd", "perturbed_gd"), saddle="origin").fit(net, digits3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    second = SaddleEscaper(**QUICK, optimizers=("sgd", "perturbed_gd"), saddle="origin").fit(net, digits3)
    np.testing.assert_array_equal(first.losses_, second.losses_)
    np.testing.assert_array_equal(first.trajectories_, second.trajectories_)


def test_the_origin_is_stationary_and_curves_down(digits3):
    escaper = SaddleEscaper(**QUICK, optimizers=("gd",), saddle="origin").fit(small_net(), digits3)
    saddle = escaper.saddle_
    assert saddle["found"] and saddle["gradient_norm"] <= 1e-9 and saddle["settled"] == 3
    assert saddle["index"] > 0 and saddle["eigenvalues"][0] < 0


def test_an_embedded_unit_holds_sgd_bit_for_bit_and_noise_leaves(digits3):
    escaper = SaddleEscaper(
        saddle="embedding",
        unit=1,
        n_seeds=6,
        max_steps=300,
        lr=0.5,
        optimizers=("gd", "sgd", "perturbed_gd"),
        radii=(0.0,),
        threshold=1e-4,
    ).fit(small_net(), digits3)
    saddle = escaper.saddle_
    assert saddle["found"] and saddle["n_moving"] == 8 and saddle["gradient_norm"] == 0.0
    assert saddle["outputs_against_removed"] <= 1e-6 < saddle["outputs_against_original"]
    assert not escaper.moved_[:2].any() and escaper.moved_[2].all()
    assert np.isinf(escaper.escape_steps_[:2]).all() and np.isfinite(escaper.escape_steps_[2]).all()
    verdicts = {row["mechanism"]: row["verdict"] for row in escaper.mechanisms_}
    assert verdicts == {"sgd_noise": "not supported", "injected_noise": "supported"}


def test_embedding_the_mlp_of_a_transformer_block():
    from estimators import load_data, load_model

    model = load_model("test_vit", num_classes=10, image_size=32)
    data = load_data("digits", n_samples=8)
    escaper = SaddleEscaper(
        saddle="embedding", layer=1, n_seeds=1, max_steps=2, radii=(0.0,), optimizers=("sgd",), sgd_batch=4, lr=0.1
    ).fit(model, data)
    saddle = escaper.saddle_
    assert saddle["units"] == "blocks.1.mlp" and saddle["found"]
    assert saddle["outputs_against_removed"] <= 1e-6
    assert saddle["eigenvalues"][0] < 0 < saddle["eigenvalues"][-1] and not saddle["complete_spectrum"]
    assert not escaper.moved_.any()


def test_kinks_are_refused_with_advice(digits3):
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"model must be smooth .* operations relu\. Use activations such as Tanh"):
        SaddleEscaper(**QUICK).fit(net, digits3)
    ran = SaddleEscaper(**QUICK, saddle="embedding", optimizers=("gd",)).fit(net, digits3)
    assert ran.saddle_["found"]


def test_a_saddle_that_is_not_found_is_not_called_one(digits3):
    settings = {**QUICK, "max_search": 1, "n_starts": 2}
    escaper = SaddleEscaper(**settings).fit(small_net(), digits3)
    saddle = escaper.saddle_
    assert not saddle["found"] and saddle["gradient_norm"] > 1e-9
    assert "No saddle of index 1 was found" in saddle["note"]
    assert escaper.optimizers_ == () and escaper.escape_steps_.size == 0
    with pytest.raises(ValueError, match="saddle must be found"):
        escaper.transform("gd")


def test_a_step_too_large_is_diverged_and_not_left():
    escaper = SaddleEscaper(
        saddle="strict_surface", optimizers=("gd",), lr=3.0, n_seeds=2, max_steps=60, radii=(1e-1,)
    ).fit()
    assert escaper.diverged_.all() and np.isinf(escaper.escape_steps_).all()
    table = dict(zip(escaper.get_feature_names_out(), escaper.transform("gd")[0], strict=True))
    assert table["diverged_share[r=0.1]"] == 1.0 and table["share_left[r=0.1]"] == 0.0


def test_gd_on_the_strict_surface_follows_the_theory():
    escaper = SaddleEscaper(saddle="strict_surface", optimizers=("gd",), n_seeds=4, max_steps=600, lr=0.04).fit()
    assert np.isinf(escaper.escape_steps_[0, 0]).all() and not escaper.moved_[0, 0].any()
    np.testing.assert_allclose(escaper.escape_steps_[0, 1:], escaper.theory_steps_[0, 1:], rtol=0.1)
    assert escaper.growth_per_step_ == pytest.approx(1.04)


@pytest.mark.parametrize("name", ["monkey_saddle", "degenerate_valley"])
def test_saddles_without_a_negative_eigenvalue_have_no_theory(name):
    escaper = SaddleEscaper(saddle=name, optimizers=("gd",), n_seeds=2, max_steps=5).fit()
    assert escaper.saddle_["index"] == 0 and escaper.saddle_["n_zero"] >= 1
    assert np.isnan(escaper.theory_steps_).all() and np.isnan(escaper.alignment_).all()


def test_the_planes_first_index_runs_along_the_first_mode():
    escaper = SaddleEscaper(saddle="strict_surface", optimizers=("momentum",), n_seeds=2, max_steps=400).fit()
    plane, middle = escaper.plane_, 20
    assert plane["losses"].shape == (len(plane["x"]), len(plane["y"]))
    down, up = plane["losses"][-1, middle], plane["losses"][middle, -1]
    assert down < escaper.saddle_["loss"] < up


def test_the_plane_of_a_large_network_is_refined_where_it_matters(monkeypatch):
    settings = {"saddle": "monkey_saddle", "optimizers": ("gd",), "n_seeds": 1, "max_steps": 200}
    whole = SaddleEscaper(**settings).fit().plane_
    assert whole["n_evaluated"] == whole["losses"].size == 1681 and whole["largest_error"] == 0
    monkeypatch.setattr(_race, "DENSE_LIMIT", 0)
    refined = SaddleEscaper(**settings).fit().plane_
    assert refined["n_evaluated"] < 0.3 * 1681 and refined["largest_error"] < 0.01
    np.testing.assert_allclose(refined["losses"], whole["losses"], atol=0.02 * np.ptp(whole["losses"]))


def test_a_plane_of_the_former_version_is_turned_when_it_is_read(tmp_path, monkeypatch):
    made = SaddleEscaper(saddle="strict_surface", optimizers=("gd",), n_seeds=1, max_steps=5).fit().result_
    former = replace(made, plane={**made.plane, "losses": made.plane["losses"].T})
    with monkeypatch.context() as then:
        then.setattr(EscapeResult, "version", 1)
        file = former.save(tmp_path / "old.npz")
    for path in (file, _without_version(file), made.save(tmp_path / "new.npz")):
        np.testing.assert_array_equal(Result.load(path).plane["losses"], made.plane["losses"])
    assert Result.load(EscapeResult(saddle={"found": False}).save(tmp_path / "empty.npz")).plane == {}


def _without_version(file):
    """Write the file as it was when files named no version, and carried no checksum."""
    with np.load(file) as archive:
        content = dict(archive)
    header = json.loads(str(content["__header__"]))
    del header["version"], header["sha256"]
    np.savez(file, **(content | {"__header__": np.array(json.dumps(header))}))
    return file


def test_a_race_is_handed_its_saddle_and_its_settings():
    saddle = analytic_saddle("strict_surface", 0)
    settings = RaceSettings(0.04, 1e-3, 1e-4, (0.0, 1e-3), n_seeds=3, max_steps=400, sgd_batch=8, random_state=0)
    race = SaddleRace(saddle, settings)
    empty = race.empty({"seed": 0})
    assert empty.optimizers == () and empty.losses.shape == (0, 201, 2, 3) and empty.settings == {"seed": 0}
    np.testing.assert_allclose(race.directions.norm(dim=1), 1.0)
    result = race.add(empty, "gd", race.run("gd", lambda done, total: None))
    assert result.optimizers == ("gd",) and np.isinf(result.escape_steps[0, 0]).all()
    np.testing.assert_allclose(result.escape_steps[0, 1], race.theory("gd")[1], rtol=0.1)
    estimator = SaddleEscaper(
        saddle="strict_surface", optimizers="gd", lr=0.04, radii=(0.0, 1e-3), n_seeds=3, max_steps=400, sgd_batch=8
    ).fit()
    np.testing.assert_array_equal(estimator.losses_, result.losses)


def test_cancel_progress_and_result_file(tmp_path):
    seen = []

    def stop(done, total, message):
        seen.append((done, total, message))
        if len(seen) > 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        SaddleEscaper(saddle="strict_surface", max_steps=50).fit(on_progress=stop)
    assert all(0 <= done <= total == 1000 for done, total, _ in seen)
    done = []
    escaper = SaddleEscaper(saddle="strict_surface", max_steps=20, n_seeds=1, optimizers=("gd", "sam"))
    escaper.fit(on_progress=lambda d, t, m: done.append(d))
    assert done == sorted(done) and done[-1] == 1000
    loaded = Result.load(escaper.result_.save(tmp_path / "escape.npz"))
    np.testing.assert_array_equal(loaded.escape_steps, escaper.escape_steps_)
    assert loaded.optimizers == ("gd", "sam") and loaded.mechanisms == escaper.mechanisms_


def test_it_behaves_like_an_estimator(strict, tmp_path):
    escaper, _ = strict
    assert clone(escaper).get_params() == escaper.get_params()
    revived = pickle.loads(pickle.dumps(escaper))
    np.testing.assert_array_equal(revived.escape_steps_, escaper.escape_steps_)
    cached = SaddleEscaper(saddle="strict_surface", max_steps=20, n_seeds=1, memory=str(tmp_path))
    first = cached.fit().losses_
    steps = []
    second = clone(cached).fit(on_progress=lambda *a: steps.append(a)).losses_
    np.testing.assert_array_equal(first, second)
    assert len(steps) == 1  # nothing was run again


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"saddle": "pony"}, "The 'saddle' parameter of SaddleEscaper must be a str among .* Got 'pony' instead"),
        ({"optimizers": ("lion",)}, "optimizers must be one of"),
        ({"n_seeds": 0}, r"'n_seeds' parameter of SaddleEscaper must be an int in the range \[1, inf\). Got 0 instead"),
        ({"lr": -1.0}, r"'lr' parameter .* {'auto'} or a float in the range \(0.0, inf\). Got -1.0 instead"),
        ({"lr": "fast"}, r"'lr' parameter .* {'auto'} or a float in the range \(0.0, inf\). Got 'fast' instead"),
        ({"lr": float("inf")}, "'lr' parameter .* Got inf instead"),
        ({"adaptive_lr": float("nan")}, "'adaptive_lr' parameter .* Got nan instead"),
        ({"l2": -1.0}, "'l2' parameter .* Got -1.0 instead"),
        ({"start_scale": 0.0}, "'start_scale' parameter .* Got 0.0 instead"),
        ({"radii": (-1.0,)}, "radii must be distances of at least 0"),
        ({"threshold": 0.0}, r"'threshold' parameter .* a float in the range \(0.0, inf\). Got 0.0 instead"),
        ({"index": 0}, r"'index' parameter .* an int in the range \[1, inf\)"),
        ({"saddle": "strict"}, "model and data must be given for saddle='strict'"),
    ],
)
def test_bad_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        SaddleEscaper(**{"saddle": "strict_surface", **parameters}).fit()


def test_mechanisms_are_judged_by_their_rules():
    radii = np.array([0.0, 1e-3])
    stay, slow, fast = np.full((2, 10), np.inf), np.full((2, 10), np.inf), np.full((2, 10), np.inf)
    slow[1], fast[1] = 100.0, 20.0
    leave = np.full((2, 10), 50.0)
    never = np.zeros((2, 10), dtype=bool)
    steps = {"gd": slow, "sgd": leave, "momentum": fast, "large_step": stay, "perturbed_gd": slow}
    rows = {r["mechanism"]: r for r in judge_mechanisms(steps, dict.fromkeys(steps, never), radii)}
    verdicts = {k: r["verdict"] for k, r in rows.items()}
    assert verdicts == {
        "sgd_noise": "supported",
        "momentum": "supported",
        "inertia": "supported",
        "large_step": "not supported",
        "injected_noise": "not supported",
    }
    assert "0.20 × the control's steps" in rows["momentum"]["measured"]
    assert "sooner by 10% or more along 10 of 10 directions" in rows["momentum"]["measured"]
    assert "left from r = 0 in 10 of 10 runs, control stayed in its one" in rows["sgd_noise"]["measured"]
    few = {
        r["mechanism"]: r
        for r in judge_mechanisms({k: v[:, :4] for k, v in steps.items()}, dict.fromkeys(steps, never), radii)
    }
    assert few["momentum"]["verdict"] == "not clear here", "four directions: chance does it once in sixteen"
    both = judge_mechanisms({"gd": leave, "sgd": leave}, {"gd": never, "sgd": never}, radii)
    assert both[0]["verdict"] == "not clear here"
    assert len({m.key for m in MECHANISMS}) == len(MECHANISMS)
