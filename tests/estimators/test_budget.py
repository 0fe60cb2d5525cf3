"""Fits with a budget of time, by a clock that goes on with the work and with nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

import estimators.budget
import estimators.pace
import estimators.points
import estimators.training
from estimators import (
    CurvatureEstimator,
    Landscape,
    ModeConnector,
    Result,
    SharpnessEstimator,
    SurfaceMapper,
    SWAAverager,
    Work,
    load_data,
    pace_of,
    train,
)
from estimators.budget import Budget, TimeUp
from estimators.curvature import _ends

COSTS = {"evaluations": 0.25, "gradients": 1.0, "products": 4.0, "epochs": 1.5}  # seconds of the clock


class Clock:
    """Counts what a landscape does, and the seconds that takes."""

    def __init__(self):
        self.now, self.done = 0.0, Work()

    def __call__(self):
        return self.now

    def spend(self, kind, count=1.0):
        self.now += count * COSTS[kind]
        self.done = self.done + Work(**{kind: count})


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    for module in (estimators.budget, estimators.pace, _ends):
        monkeypatch.setattr(module, "clock", fake)
    monkeypatch.setattr(estimators.points, "_PIECE", 0.0)  # a report after each point
    evaluate, multiply, gradient = Landscape.evaluate, Landscape._product, Landscape.loss_and_gradient
    of_a_batch, step = Landscape.minibatch_loss_and_gradient, estimators.training._Step.__call__
    whole = 64  # examples; work on fewer costs less

    def evaluated(self, anchors, coefficients, **more):
        fake.spend("evaluations", len(coefficients) * self.n_examples / whole)
        return evaluate(self, anchors, coefficients, **more)

    def product(self, kind, v, theta, apply):
        fake.spend("products", (1 if v.dim() == 1 else v.shape[1]) * self.n_examples / whole)
        return multiply(self, kind, v, theta, apply)

    def differentiated(self, theta=None):
        fake.spend("gradients", self.n_examples / whole)
        return gradient(self, theta)

    def batch_differentiated(self, indices, theta=None):
        fake.spend("epochs", len(indices) / whole)
        return of_a_batch(self, indices, theta)

    def stepped(self, x, y, rate):
        fake.spend("epochs", len(y) / whole)
        return step(self, x, y, rate)

    monkeypatch.setattr(Landscape, "minibatch_loss_and_gradient", batch_differentiated)
    monkeypatch.setattr(estimators.training._Step, "__call__", stepped)
    monkeypatch.setattr(Landscape, "evaluate", evaluated)
    monkeypatch.setattr(Landscape, "_product", product)  # of every matrix
    monkeypatch.setattr(Landscape, "loss_and_gradient", differentiated)
    return fake


@pytest.fixture(scope="module")
def problem():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh(), nn.Linear(12, 10))
    return model, load_data("digits", image_size=8, n_samples=64)


def curvature(**settings):
    return CurvatureEstimator(**{"exact_below": 0, "n_eigenvalues": 2, "compare_traces": False, **settings})


# -- the budget itself --------------------------------------------------------------------------------------


def test_a_budget_counts_and_says_what_fits(clock):
    budget, endless = Budget(10.0), Budget(None)
    clock.now = 4.0
    assert (budget.used, budget.left, endless.left) == (4.0, 6.0, float("inf"))
    assert budget.most(3, 2.0) == 3 and budget.most(5, 2.0) == 3 and budget.most(5, 2.0, least=4) == 0
    assert endless.most(5, 1e9) == 5
    watch = budget.watch(reserved=1.0)
    clock.now = 6.5
    watch()  # 3.5 s left, 1 reserved, and the last piece took 2.5
    clock.now = 8.5
    with pytest.raises(TimeUp):
        watch()
    clock.now = 100.0
    endless.watch()()
    assert budget.most(1, 1e-9) == 0


def test_the_setting_is_one_and_wrong_values_are_refused(problem):
    for estimator in (CurvatureEstimator, SharpnessEstimator, SurfaceMapper):
        for wrong in (0, -1.0, float("nan"), "one minute"):
            with pytest.raises(ValueError, match=f"'time_budget' parameter of {estimator.__name__} must be"):
                estimator(time_budget=wrong).fit(*problem)
    assert "time_budget" not in ModeConnector().get_params()


def test_a_pace_is_that_of_the_kinds_asked_for(clock, problem):
    land = Landscape(*problem)
    assert pace_of(land, Work(evaluations=1, products=3)) == Work(evaluations=0.25, products=4.0)
    assert Work(evaluations=4, gradients=2, products=1).seconds(Work(**COSTS)) == 7.0


# -- curvature ----------------------------------------------------------------------------------------------


def test_the_best_ends_that_fit_are_given_and_said_to_be_open(clock, problem, tmp_path):
    whole = CurvatureEstimator(exact_below=10_000, n_eigenvalues=2, compare_traces=False).fit(*problem)
    clock.now = 0.0
    cut = curvature(time_budget=100.0).fit(*problem)
    assert clock.now <= 100.0 and cut.seconds_ == clock.now
    assert not cut.converged_.all() and len(cut.eigenvalues_) == 4
    for value, residual in zip(cut.eigenvalues_, cut.residuals_, strict=True):  # what a residual promises
        assert np.abs(whole.spectrum_ - value).min() <= residual * 1.01
    assert cut.unfinished_[0].startswith("ends of the spectrum (ended after")
    assert cut.notes_[0].startswith("The time budget of 100 s was too short for: ends of the spectrum")
    assert np.isfinite(cut.trace_) and "trace (3 of 10 probes)" in cut.unfinished_
    assert np.isnan(cut.saddle_index_) and "spectral density" in cut.unfinished_
    again = Result.load(cut.result_.save(tmp_path / "cut.npz"))
    assert (again.seconds, again.unfinished, again.settings["time_budget"]) == (cut.seconds_, cut.unfinished_, 100.0)


def test_too_few_products_tell_no_end(clock, problem):
    hardly = curvature(time_budget=15.0).fit(*problem)
    assert len(hardly.eigenvalues_) == 0 and np.isnan(hardly.lambda_max_)
    assert "too few to tell an end" in hardly.unfinished_[0] and "spectral density" in hardly.unfinished_


def test_an_end_that_is_still_open_is_a_bound(clock, problem):
    whole = CurvatureEstimator(exact_below=10_000, n_eigenvalues=2, compare_traces=False).fit(*problem)
    clock.now = 0.0
    cut = curvature(time_budget=100.0).fit(*problem).result_
    assert whole.result_.bound_on("lambda_max") == whole.result_.bound_on("lambda_min") == ""
    assert not cut.converged[-1] and cut.bound_on("lambda_min") == "≤"
    assert whole.spectrum_[-1] <= cut.lambda_min


def test_more_time_gives_narrower_brackets(clock, problem):
    short, long = (curvature(time_budget=t).fit(*problem) for t in (40.0, 80.0))
    assert short.lambda_min_ > long.lambda_min_ and short.lambda_max_ < long.lambda_max_
    assert short.lambda_min_residual_ > long.lambda_min_residual_


def test_a_search_that_will_not_end_begins_on_a_part_of_the_examples(clock, problem, monkeypatch):
    data = load_data("digits", image_size=8, n_samples=256)
    model = train(problem[0], data, epochs=20, random_state=0).model
    settings, clock.now = {"n_eigenvalues": 1, "time_budget": 200.0}, 0.0  # products of 16 s
    begun = curvature(**settings).fit(model, data)
    assert clock.now <= 200.0 and "begun on 81 examples" in begun.unfinished_[0]
    monkeypatch.setattr(_ends, "_FEWEST", 10**6)
    plain = curvature(**settings).fit(model, data)
    assert "begun" not in plain.unfinished_[0]
    assert begun.n_products_ < 0.5 * plain.n_products_
    whole = curvature(n_eigenvalues=1, n_lanczos=0).fit(model, data)
    assert 0.98 * whole.lambda_max_ < begun.lambda_max_ <= whole.lambda_max_ * 1.001
    assert whole.lambda_min_ * 1.001 <= begun.lambda_min_


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_the_part_that_a_search_begins_on_is_the_one_that_weighs_most(problem, loss):
    land = Landscape(*problem, loss=loss)
    few, share = _ends.weighty(land, 16)
    assert few.n_examples == 16
    if loss == "mse":  # a small loss has no small derivatives there: every fourth stands for all
        assert share == 1.0 and torch.equal(few.data.targets, land.data.targets[::4])
        return
    weights = land.per_example_weights().sort().values
    assert share == 0.25 and torch.equal(few.per_example_weights().sort().values, weights[48:])


@pytest.mark.parametrize("seconds", [1.0, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0])
@pytest.mark.parametrize("estimator", [CurvatureEstimator, SharpnessEstimator])
def test_nothing_is_begun_that_does_not_fit(clock, problem, estimator, seconds):
    data = load_data("digits", image_size=8, n_samples=256)  # a product of 16 s, a gradient of 4 s, a loss of 1 s
    asked = {"exact_below": 0} if estimator is CurvatureEstimator else {}
    found = estimator(time_budget=seconds, **asked).fit(problem[0], data)
    ahead = 1.0 + (2 * 32 + 2 * 16) / 64 * (4.0 + 1.0)  # the loss, and passes on a few examples that time the others
    assert clock.now <= max(seconds, ahead), found.unfinished_
    assert found.unfinished_


def test_without_time_for_the_gradient_a_point_is_not_judged(clock, problem):
    found = curvature(time_budget=1.0).fit(*problem)
    assert found.unfinished_ == ["everything beyond the loss"] and found.point_kind_ == "undecided"
    assert np.isfinite(found.loss_) and np.isnan(found.gradient_norm_)


def test_a_budget_that_suffices_changes_nothing(clock, problem):
    free, bound = curvature(), curvature(time_budget=1e6)
    for estimator in (free, bound):
        estimator.fit(*problem)
    assert np.array_equal(free.eigenvalues_, bound.eigenvalues_) and free.trace_ == bound.trace_
    assert np.array_equal(free.density_[1], bound.density_[1])
    assert free.n_products_ == bound.n_products_
    assert bound.unfinished_ == [] and not any("time budget" in note for note in bound.notes_)
    assert np.isnan(free.seconds_) and bound.seconds_ < 1e6


def test_what_the_clock_has_cut_is_never_the_answer_to_another_request(clock, problem, tmp_path):
    fresh = curvature().fit(*problem)
    kept = str(tmp_path)
    cut = curvature(time_budget=100.0, memory=kept).fit(*problem)
    longer = curvature(time_budget=400.0, memory=kept).fit(*problem)
    assert longer.lambda_min_ < cut.lambda_min_
    whole = curvature(memory=kept).fit(*problem)
    assert np.array_equal(whole.eigenvalues_, fresh.eigenvalues_) and np.array_equal(whole.fractions_, fresh.fractions_)
    assert whole.trace_ == fresh.trace_
    np.testing.assert_equal(whole.layers_, fresh.layers_)
    clock.now = 0.0
    known = curvature(time_budget=10.0, memory=kept).fit(*problem)  # what is known takes no time
    assert np.array_equal(known.eigenvalues_, fresh.eigenvalues_) and known.saddle_index_ == fresh.saddle_index_
    assert known.unfinished_ == []


def test_an_explicit_matrix_that_does_not_fit_gives_way_to_products(clock, problem):
    found = CurvatureEstimator(n_eigenvalues=1, exact_below=10_000, compare_traces=False, time_budget=200.0)
    found.fit(*problem)
    assert found.method_ == "iterative" and np.isfinite(found.lambda_max_)
    assert found.unfinished_[0] == "explicit matrix (products instead)"
    assert clock.now <= 200.0


# -- sharpness ----------------------------------------------------------------------------------------------


def test_measures_share_the_time_and_say_what_they_did_without(clock, problem):
    free = SharpnessEstimator().fit(*problem)
    needed, clock.now = clock.now, 0.0
    est = SharpnessEstimator(time_budget=needed / 3).fit(*problem)
    assert needed / 6 < clock.now <= needed / 3
    assert 0 < est.sharpness_ <= free.sharpness_ * 1.001
    assert len(est.restarts_) < 10 and any(s.startswith("sharpness (") for s in est.unfinished_)
    assert len(est.average_rises_) < 32 and est.average_sharpness_stderr_ > 0
    assert not est.converged_ and free.converged_
    clock.now = 0.0
    tiny = SharpnessEstimator(time_budget=20.0).fit(*problem)
    assert clock.now <= 20.0 and "trace" in tiny.unfinished_ and np.isnan(tiny.trace_)
    assert not any("targets are no classes" in note for note in tiny.notes_)


def test_lowered_measures_are_kept_as_what_they_are(clock, problem, tmp_path):
    names = ("sharpness", "average", "lambda_max", "profile")
    fresh = SharpnessEstimator(measures=names).fit(*problem)
    SharpnessEstimator(measures=names, time_budget=120.0, memory=str(tmp_path)).fit(*problem)
    whole = SharpnessEstimator(measures=names, memory=str(tmp_path)).fit(*problem)
    for name in ("sharpness_", "average_sharpness_", "lambda_max_", "lambda_max_residual_"):
        assert getattr(whole, name) == getattr(fresh, name), name
    assert np.array_equal(whole.profile_rise_, fresh.profile_rise_)
    clock.now = 0.0
    known = SharpnessEstimator(measures=names, time_budget=5.0, memory=str(tmp_path)).fit(*problem)
    assert known.sharpness_ == fresh.sharpness_ and known.converged_


def test_the_search_for_the_largest_eigenvalue_is_ended_not_lost(clock, problem):
    est = SharpnessEstimator(measures=("lambda_max",), time_budget=50.0).fit(*problem)
    whole = SharpnessEstimator(measures=("lambda_max",), n_lanczos=300).fit(*problem)
    assert not est.lambda_max_converged_ and est.n_products_ < 16
    assert 0 < whole.lambda_max_ - est.lambda_max_ <= est.lambda_max_residual_
    assert est.result_.bound_on("lambda_max") == est.result_.bound_on("quadratic_rise") == "≥"
    assert whole.result_.bound_on("lambda_max") == est.result_.bound_on("loss") == ""
    assert est.unfinished_ == [f"lambda_max (ended after {est.n_products_} products)"]


# -- maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["exact", "adaptive"])
def test_a_map_is_as_fine_as_fits_and_goes_on_where_it_stopped(clock, problem, tmp_path, mode):
    settings = {"resolution": 21, "mode": mode, "tolerance": 0.002, "memory": str(tmp_path)}
    cut = SurfaceMapper(time_budget=30.0, **settings).fit(*problem)
    assert clock.now <= 30.0 and cut.seconds_ == pytest.approx(clock.now, abs=1.0)
    assert not cut.converged_ and 100 <= cut.n_evaluated_ < 130
    assert cut.unfinished_ == [f"map ({cut.n_evaluated_} of 441 points)"]
    assert np.isfinite(cut.losses_).all() and cut.notes_[0].startswith("The time budget of 30 s was too short for: map")
    before = clock.done.evaluations
    whole = SurfaceMapper(**settings).fit(*problem)
    taken = clock.done.evaluations - before
    fresh = SurfaceMapper(**{**settings, "memory": None}).fit(*problem)
    assert taken == whole.n_evaluated_ - cut.n_evaluated_
    assert np.array_equal(whole.losses_, fresh.losses_) and whole.converged_ and whole.unfinished_ == []
    cut.finish()
    assert cut.converged_ and cut.evaluated_.all() and cut.unfinished_ == []


def test_eigenvectors_of_a_map_take_at_most_half(clock, problem):
    cut = SurfaceMapper(directions="hessian", resolution=9, time_budget=60.0).fit(*problem)
    assert cut.converged_ and clock.now <= 60.0
    assert cut.unfinished_ == ["Hessian eigenvectors"] and any("has not converged" in note for note in cut.notes_)


def test_models_on_a_map_have_time_kept_for_them(clock, problem):
    model, data = problem
    others = [{k: v + 0.1 for k, v in model.state_dict().items()} for _ in range(2)]
    cut = SurfaceMapper(resolution=21, time_budget=30.0).fit(model, data, marked=others)
    assert clock.now <= 30.0 and not cut.converged_
    assert all(np.isfinite(m["loss"]) for m in cut.markers_)
    clock.now = 0.0
    late = SurfaceMapper(resolution=21, time_budget=30.0).fit(model, data, marked=others * 30)
    assert clock.now <= 33.0 and "models on the map" in late.unfinished_
    late.finish()
    assert all(np.isfinite(m["loss"]) for m in late.markers_)


# -- what is announced --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        curvature(n_eigenvalues=1, n_lanczos=20, n_probes=4),
        curvature(n_eigenvalues=5, n_lanczos=20, n_probes=4, compare_traces=True),
        SharpnessEstimator(measures=("sharpness", "average", "m_sharpness"), m=64),
        SharpnessEstimator(measures=("lambda_max", "trace", "profile")),
        SurfaceMapper(resolution=9),
        SurfaceMapper(resolution=7, directions="hessian"),
    ],
    ids=["ends", "spectrum", "ascent", "quadratic", "map", "eigenvector map"],
)
def test_what_is_announced_is_within_a_half_of_what_is_done(clock, problem, estimator):
    estimator.fit(*problem)
    announced, done = estimator.cost().seconds(Work(**COSTS)), clock.done.seconds(Work(**COSTS))
    assert done / 1.5 <= announced <= done * 1.5, (announced, done)


@pytest.mark.parametrize(
    ("settings", "held_out"),
    [
        ({"path": "linear", "n_points": 21}, 0.0),
        ({"path": "bezier", "n_points": 21, "epochs": 10, "plane_resolution": 9, "ensemble_points": 3}, 0.25),
        ({"path": "polychain", "n_points": 41, "epochs": 3, "sampling": True}, 0.0),
    ],
    ids=["line", "curve", "chain"],
)
def test_what_is_announced_of_a_path_is_within_a_half_of_what_is_done(clock, problem, settings, held_out):
    from app.pages.connectivity.page import taken

    (model, data), other = problem, load_data("digits", image_size=8, n_samples=16, random_state=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        second = nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.Tanh(), nn.Linear(12, 10))
    connector = ModeConnector(**settings)
    connector.fit((model, second), data, held_out=other if held_out else None)
    asked = taken(settings) if held_out else connector.cost()
    assert asked.epochs == clock.done.epochs
    announced, done = asked.seconds(Work(**COSTS)), clock.done.seconds(Work(**COSTS))
    assert done / 1.5 <= announced <= done * 1.5, (announced, done)


def test_what_is_announced_of_averaging_is_within_a_half_of_what_is_done(clock, problem, tmp_path):
    from app.pages.averaging.page import taken

    training, extras = {"epochs": 6, "batch_size": 16}, {"plane_resolution": 9, "sharpness": True}
    other = load_data("digits", image_size=8, n_samples=16, random_state=1)
    SWAAverager().train(*problem, held_out=other, compare=True, checkpoint_dir=tmp_path, **training, **extras)
    asked = taken(training, extras)
    assert asked.epochs == clock.done.epochs
    for name in ("evaluations", "gradients", "products"):
        announced, done = getattr(asked, name), getattr(clock.done, name)
        assert done / 1.5 <= announced <= done * 1.5, (name, announced, done)
