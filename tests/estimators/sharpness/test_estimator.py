"""SharpnessEstimator on explicit networks whose sharpness is known, and its manners."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from estimators.core.ball.average_case import filter_scale
from estimators.landscape import Landscape
from estimators.models import with_provenance
from estimators.progress import Cancelled
from estimators.sharpness._estimator import MEASURES, SharpnessEstimator, SharpnessResult
from estimators.sharpness._result import notes_on

EXACT = {"precision": "float64", "batch_size": 64}
VALUES = [f.name for f in dataclasses.fields(SharpnessResult) if f.name != "settings"]
QUICK = {**EXACT, "n_steps": 8, "n_draws": 4, "n_probes": 2, "n_posterior_draws": 4, "m": 16}


def linear_problem(seed=0):
    """Least squares: L is a quadratic whose Hessian is known."""
    gen = torch.Generator().manual_seed(seed)
    x, y = torch.randn(48, 5, generator=gen), torch.randn(48, 3, generator=gen)
    torch.manual_seed(seed)
    model = nn.Linear(5, 3, bias=False)
    per_input = x.double().T @ x.double() / 48
    hessian = torch.block_diag(*[2 * per_input / 3] * 3)  # mse is a mean over the three outputs
    return model, (x, y), hessian


def relu_pair(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def classes(n=64, shape=(6,), k=3, seed=1):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=gen), torch.randint(0, k, (n,), generator=gen)


class Normed(nn.Module):
    """Convolution, batch norm, activation, classifier; warm statistics."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 3, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 3)
            self.train()
            with torch.no_grad():
                for _ in range(60):
                    self(3 * torch.randn(32, 3, 8, 8))
                self.head.weight.mul_(6)  # so that the filters carry a good part of the curvature
        self.eval()

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def fit(model, data, **options):
    return SharpnessEstimator(**{**EXACT, **options}).fit(model, data)


# -- values ------------------------------------------------------------------------------------------------


def test_every_measure_agrees_with_the_closed_form_of_least_squares():
    model, data, hessian = linear_problem()
    rho, sigma = 0.5, 0.05
    est = fit(
        model,
        data,
        loss="mse",
        rho=rho,
        sigma=sigma,
        n_draws=400,
        n_steps=40,
        tol=1e-8,
        m=48,
        n_probes=8,
        measures=("sharpness", "average", "lambda_max", "trace", "m_sharpness", "profile"),
    )
    values, vectors = torch.linalg.eigh(hessian)
    assert est.lambda_max_ == pytest.approx(float(values[-1]), rel=1e-6)
    assert est.lambda_max_converged_
    assert est.lambda_max_residual_ <= 1e-7 * est.lambda_max_
    assert abs(est.trace_ - float(hessian.trace())) <= 3 * est.trace_stderr_ + 1e-9
    exact_average = sigma**2 * float(hessian.trace()) / 2
    assert abs(est.average_sharpness_ - exact_average) <= 3 * est.average_sharpness_stderr_
    assert est.quadratic_average_ == pytest.approx(sigma**2 * est.trace_ / 2)
    assert est.quadratic_rise_ == pytest.approx(rho**2 * float(values[-1]) / 2, rel=1e-6)
    # The exact worst case of a convex quadratic: minimise its dual over μ > λ_max.
    gradient = Landscape(model, data, loss="mse", **EXACT).gradient()
    slope = vectors.T @ gradient
    shifts = values[-1] + torch.logspace(-9, 3, 200001, dtype=torch.float64)
    duals = torch.stack([(slope[i] ** 2) / (shifts - values[i]) for i in range(len(values))]).sum(0)
    exact = float((0.5 * (duals + shifts * rho**2)).min())
    assert 0.99 * exact <= est.sharpness_ <= exact * (1 + 1e-6)
    assert est.gradient_norm_ == pytest.approx(float(gradient.norm()), rel=1e-10)
    assert 0 < est.one_step_ <= est.sharpness_
    assert est.m_sharpness_ == pytest.approx(est.sharpness_, rel=0.01)  # one batch of all examples
    assert est.profile_["radius"].tolist() == [rho * f for f in (0.125, 0.25, 0.5, 1, 2, 4)]
    assert np.all(np.diff(est.profile_["rise"]) > 0)
    assert est.profile_["rise"][3] == est.sharpness_
    np.testing.assert_allclose(est.profile_["average"] / est.profile_["sigma"] ** 2, exact_average / sigma**2, rtol=0.1)


def test_rescaling_a_relu_pair_moves_lambda_max_and_leaves_adaptive_sharpness():
    data, a = classes(), 10.0
    model = relu_pair()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(a)
        scaled[0].bias.mul_(a)
        scaled[2].weight.div_(a)
    x = data[0]
    torch.testing.assert_close(model(x), scaled(x), rtol=1e-4, atol=1e-5)  # the same function
    options = {"measures": ("sharpness", "lambda_max"), "adaptive": True, "rho": 0.5, "tol": 1e-6}
    one, other = (fit(m, data, **options) for m in (model, scaled))
    ratio = other.lambda_max_ / one.lambda_max_
    assert max(ratio, 1 / ratio) > 10
    assert other.sharpness_ == pytest.approx(one.sharpness_, rel=0.01)
    assert other.lambda_max_scaled_ == pytest.approx(one.lambda_max_scaled_, rel=0.01)
    plain, plain_scaled = (fit(m, data, measures=("sharpness",), rho=0.5) for m in (model, scaled))
    assert plain_scaled.sharpness_ != pytest.approx(plain.sharpness_, rel=0.1)


def test_rescaling_filters_before_batch_norm_moves_lambda_max_and_leaves_adaptive_sharpness():
    data, a = classes(shape=(3, 8, 8)), 10.0
    model = Normed()
    scaled = copy.deepcopy(model)
    with torch.no_grad():  # a smaller filter with its statistics is the same function and a sharper point
        scaled.conv.weight.div_(a)
        scaled.norm.running_mean.div_(a)
        scaled.norm.running_var.copy_((scaled.norm.running_var + scaled.norm.eps) / a**2 - scaled.norm.eps)
    torch.testing.assert_close(model(data[0]), scaled(data[0]), rtol=1e-4, atol=1e-5)
    options = {"measures": ("sharpness", "lambda_max"), "adaptive": True, "rho": 0.5, "tol": 1e-6}
    one, other = (fit(m, data, **options) for m in (model, scaled))
    assert other.lambda_max_ > 10 * one.lambda_max_
    assert other.sharpness_ == pytest.approx(one.sharpness_, rel=0.01)


def test_filter_normalised_noise_is_invariant_to_that_rescaling_too():
    data = classes(shape=(3, 8, 8))
    model = Normed()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled.conv.weight.div_(10)
        scaled.norm.running_mean.div_(10)
        scaled.norm.running_var.copy_((scaled.norm.running_var + scaled.norm.eps) / 100 - scaled.norm.eps)
    options = {"measures": ("average",), "noise": "filter", "sigma": 0.1}
    one, other = (fit(m, data, **options) for m in (model, scaled))
    assert other.average_sharpness_ == pytest.approx(one.average_sharpness_, rel=0.01)
    assert np.isnan(one.quadratic_average_)
    land = Landscape(model, data, **EXACT)
    assert float(filter_scale(land.theta, land.shapes, land.names)[land.slices["norm.weight"]].abs().max()) == 0


def test_pac_bayes_reports_its_parts_and_takes_the_prior_it_is_given():
    data, start = classes(), relu_pair()
    model = copy.deepcopy(start)
    with torch.no_grad():
        model[0].weight.add_(0.5)
    options = {"measures": ("pac_bayes",), "n_posterior_draws": 8}
    near = SharpnessEstimator(**EXACT, **options).fit(model, data, initial=start)
    far = fit(model, data, **options)
    assert near.pac_bayes_["prior"] == "initial weights" and far.pac_bayes_["prior"] == "zero"
    assert near.pac_bayes_["distance"] == pytest.approx(0.5 * np.sqrt(48), rel=1e-6)
    norm = float(torch.cat([p.detach().flatten() for p in model.parameters()]).double().norm())
    assert far.pac_bayes_["distance"] == pytest.approx(norm, rel=1e-6)
    for found in (near, far):
        assert found.pac_bayes_["n_examples"] == 64
        assert found.pac_bayes_["delta"] == 0.05
        assert found.pac_bayes_["vacuous"] == (found.pac_bayes_bound_ >= 1)
        assert found.pac_bayes_["kl"] == pytest.approx(
            found.pac_bayes_["distance"] ** 2 / (2 * found.pac_bayes_["sigma"] ** 2)
        )
    forced = SharpnessEstimator(**EXACT, **options, prior="zero").fit(model, data, initial=start)
    assert forced.pac_bayes_["prior"] == "zero"


def test_only_the_chosen_parameters_move():
    data, model = classes(), relu_pair()
    whole = fit(model, data, measures=("sharpness", "trace"), rho=0.5)
    head = fit(model, data, measures=("sharpness", "trace"), rho=0.5, parameters="^2")
    assert head.result_.settings["n_parameters"] == 27
    assert head.sharpness_ <= whole.sharpness_


def test_a_minimum_has_rises_of_the_second_order_and_a_slope_is_said():
    model, (x, y), _ = linear_problem()
    data = (x, y)
    away = fit(model, data, loss="mse", rho=0.01, measures=("sharpness",))
    assert any("not stationary" in note for note in away.notes_)
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x.double(), y.double()).solution.T)
    est = fit(model, data, loss="mse", rho=0.5, measures=("sharpness", "lambda_max"), n_steps=40)
    assert est.gradient_norm_ < 1e-6
    assert est.sharpness_ == pytest.approx(est.quadratic_rise_, rel=0.01)
    assert not any("not stationary" in note for note in est.notes_)


# -- manners -----------------------------------------------------------------------------------------------


def test_fit_leaves_everything_as_it_was():
    model, data = Normed().train(), classes(shape=(3, 8, 8))
    model.head.bias.requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    needs = {k: p.requires_grad for k, p in model.named_parameters()}
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for policy in ("frozen", "recompute", "batch"):
        SharpnessEstimator(**QUICK, batch_norm=policy).fit(model, data)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert {k: p.requires_grad for k, p in model.named_parameters()} == needs
    assert all(p.grad is None for p in model.parameters())
    assert model.training and model.norm.training
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)


def test_equal_seeds_equal_bits_and_pickle():
    model, data = relu_pair(), classes()
    a, b = (SharpnessEstimator(**QUICK).fit(model, data) for _ in range(2))
    again = pickle.loads(pickle.dumps(a))
    for name in VALUES:
        for other in (b, again):
            np.testing.assert_equal(getattr(other, name + "_"), getattr(a, name + "_"))
    np.testing.assert_array_equal(a.transform(model), again.transform(model))


def test_sklearn_conventions():
    est = SharpnessEstimator(rho=0.2, measures=("sharpness", "trace"), **EXACT)
    twin = clone(est)
    assert twin.get_params() == est.get_params() and twin is not est
    assert clone(est.set_params(rho=0.3)).rho == 0.3
    with pytest.raises(NotFittedError):
        est.transform([relu_pair()])
    assert est.get_feature_names_out().tolist() == ["loss", "sharpness", "one_step", "trace"]


def test_transform_compares_models_of_different_architectures():
    data = classes()
    first, second = relu_pair(), nn.Sequential(nn.Linear(6, 3))
    est = SharpnessEstimator(measures=("sharpness", "trace"), **EXACT).set_output(transform="pandas")
    table = est.fit(first, data).transform([first, second])
    assert list(table.columns) == ["loss", "sharpness", "one_step", "trace"]
    assert table.shape == (2, 4)
    assert table["sharpness"][0] == est.sharpness_ and table["trace"][0] == est.trace_
    assert table["loss"][1] == pytest.approx(Landscape(second, data, **EXACT).loss())


def test_results_go_through_a_file(tmp_path):
    est = SharpnessEstimator(**QUICK).fit(relu_pair(), classes())
    est.result_.save(tmp_path / "sharpness.npz")
    loaded = type(est.result_).load(tmp_path / "sharpness.npz")
    for name in VALUES:
        np.testing.assert_equal(getattr(loaded, name), getattr(est.result_, name))
    assert loaded.settings == est.result_.settings
    rows = {row["measure"]: row for row in loaded.table()}
    assert rows["trace"]["value"] == est.trace_ and rows["trace"]["uncertainty"] == est.trace_stderr_


def test_progress_partial_results_and_cancelling_keep_what_is_done(tmp_path):
    model, data, seen, partial = relu_pair(), classes(), [], []
    est = SharpnessEstimator(**QUICK, memory=str(tmp_path))
    est.fit(model, data, on_progress=lambda *a: seen.append(a), on_partial=partial.append)
    done, totals = [s[0] for s in seen], {s[1] for s in seen}
    assert done == sorted(done) and len(totals) == 1 and done[-1] == totals.pop()
    assert len(partial) == len(MEASURES)
    assert np.isfinite(partial[0].sharpness) and np.isnan(partial[0].trace)

    fresh, products = tmp_path / "fresh", []

    def stop(done, total, message):
        if message == "trace":
            raise Cancelled

    est = SharpnessEstimator(**QUICK, memory=str(fresh))
    with pytest.raises(Cancelled):
        est.fit(model, data, on_progress=stop)
    est.fit(model, data, on_progress=lambda d, t, m: products.append(m))
    # What was finished before is loaded: it reports its start and its end only.
    assert products.count("sharpness") <= 2 and products.count("average") <= 2
    assert products.count("trace") > 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rho": 0.0}, r"The 'rho' parameter of SharpnessEstimator must be a float in the range \(0.0, inf\). Got 0.0"),
        ({"rho": -0.1}, "'rho' parameter of SharpnessEstimator must be"),
        ({"sigma": float("nan")}, "'sigma' parameter of SharpnessEstimator must be a float"),
        ({"measures": ("sharpness", "flatness")}, "measures must be 'all' or names among sharpness"),
        ({"measures": ()}, "measures must be"),
        ({"norm": "l1"}, "'norm' parameter of SharpnessEstimator must be a str among {.*'l2'.*}. Got 'l1'"),
        ({"noise": "layer"}, "'noise' parameter of SharpnessEstimator must be a str among {.*'filter'.*}. Got 'layer'"),
        ({"n_steps": 0}, r"'n_steps' parameter of SharpnessEstimator must be an int in the range \[1, inf\)"),
        ({"n_draws": 2}, r"'n_draws' parameter of SharpnessEstimator must be an int in the range \[3, inf\)"),
        ({"n_probes": 1}, "'n_probes' parameter of SharpnessEstimator must be"),
        ({"delta": 1.5}, r"'delta' parameter of SharpnessEstimator must be a float in the range \(0.0, 1.0\)"),
        ({"profile_radii": (0.1, -1.0)}, "profile_radii must be finite radii > 0"),
        ({"prior": "initial"}, "initial must be the weights training started from"),
        ({"prior": "elsewhere"}, "'prior' parameter of SharpnessEstimator must be a str among {.*'auto'.*}"),
    ],
)
def test_bad_settings_say_what_is_allowed(change, words):
    with pytest.raises(ValueError, match=words):
        fit(relu_pair(), classes(), **change)


def test_bad_points_say_what_to_do():
    broken = relu_pair()
    with torch.no_grad():
        broken[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the loss at the model's own weights must be finite, got nan"):
        fit(broken, classes())
    frozen = relu_pair().requires_grad_(False)
    with pytest.raises(ValueError, match=r"(?i)param"):
        fit(frozen, classes())


# -- saying what a number is not ---------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_loss_that_is_constant_in_the_ball_rises_by_nothing_and_says_so(adaptive):
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    inputs, targets = classes()
    if adaptive:  # every weight is 0, and a ball relative to them is a point
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
    else:
        inputs = torch.zeros_like(inputs)
    est = fit(model, (inputs, targets), adaptive=adaptive, measures=("sharpness", "m_sharpness", "profile"), m=16)
    assert est.sharpness_ == est.m_sharpness_ == 0.0 and not est.profile_["rise"].any()
    assert any("the same at every point of the ball" in note for note in est.notes_)


def test_a_radius_below_rounding_is_called_so():
    tiny = SharpnessEstimator(measures=("sharpness",), rho=1e-12).fit(relu_pair(), classes())
    assert any("below the rounding" in note for note in tiny.notes_)
    usual = SharpnessEstimator(measures=("sharpness",)).fit(relu_pair(), classes())
    assert not any("rounding" in note for note in usual.notes_)


def test_the_spread_of_the_starts_is_reported_and_a_lone_one_warned_of():
    est = fit(relu_pair(), classes(), measures=("sharpness",), rho=0.5)
    assert est.restart_kinds_[:3] == ["gradient", "eigenvector +", "eigenvector −"]
    assert len(est.restarts_) == len(est.restart_kinds_) == est.n_restarts
    assert 0 <= est.restart_spread_ <= 1
    alone = dataclasses.replace(est.result_, lone_start=True, restart_spread=0.4)
    assert any("lower bound" in note and "40%" in note for note in notes_on(alone, 0.5))
    assert not any("One start alone" in note for note in notes_on(dataclasses.replace(alone, lone_start=False), 0.5))


def learnt():
    """A network that follows its labels, and the examples."""
    inputs, _ = classes(n=128)
    model, targets = relu_pair(), inputs[:, :3].argmax(1)
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    return model, (inputs, targets)


def test_a_prior_that_has_seen_the_examples_gives_no_bound():
    model, data = learnt()
    options = {"measures": ("pac_bayes",), "n_posterior_draws": 64}
    for initial in (model, copy.deepcopy(model)):
        est = SharpnessEstimator(**EXACT, **options).fit(model, data, initial=initial)
        assert np.isnan(est.pac_bayes_bound_)
        assert "it has seen them" in est.pac_bayes_["prior_doubt"]
        assert any("not a valid prior" in note for note in est.notes_)
    fresh = relu_pair(seed=3)
    honest = SharpnessEstimator(**EXACT, **options).fit(model, data, initial=fresh)
    assert np.isfinite(honest.pac_bayes_bound_) and not honest.pac_bayes_["prior_doubt"]
    with_provenance(fresh, "pair", "trained 8 epochs (seed 0)", [])  # its history speaks against it
    told = SharpnessEstimator(**EXACT, **options).fit(model, data, initial=fresh)
    assert np.isnan(told.pac_bayes_bound_) and "trained 8 epochs" in told.pac_bayes_["prior_doubt"]


def test_uncharged_batch_norm_statistics_are_said():
    options = {**QUICK, "measures": ("pac_bayes",)}
    normed = SharpnessEstimator(**options).fit(Normed(), classes(shape=(3, 8, 8)))
    assert any("batch-norm statistics as given" in note for note in normed.notes_)
    plain = SharpnessEstimator(**options).fit(relu_pair(), classes())
    assert not any("batch-norm" in note for note in plain.notes_)


def test_targets_that_are_no_classes_have_no_bound():
    model, data, _ = linear_problem()
    est = fit(model, data, loss="mse", measures=("pac_bayes",))
    assert np.isnan(est.pac_bayes_bound_) and any("are no classes" in note for note in est.notes_)


def test_the_average_has_an_interval():
    est = fit(relu_pair(), classes(), measures=("average", "profile"))
    assert est.average_sharpness_low_ < est.average_sharpness_ < est.average_sharpness_high_
    assert np.all(est.profile_["average_low"] < est.profile_["average"])
    assert np.all(est.profile_["average"] < est.profile_["average_high"])
