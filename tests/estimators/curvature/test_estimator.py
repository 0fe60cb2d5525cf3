"""Curvature of explicit networks in float64 against their dense Hessians, and what is said about bad points."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.func import functional_call, hessian

from estimators import Cancelled, checks, load_model, train
from estimators.curvature import _steps as work
from estimators.curvature._estimator import CurvatureEstimator, CurvatureResult
from estimators.curvature._tracker import CurvatureHistoryResult, CurvatureTracker, scheduled_rates
from estimators.results import Result


class Attention(nn.Module):
    """One head over four tokens of width 4."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.head(nn.functional.scaled_dot_product_attention(q, k, v).mean(1))


def seeded(make, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def mlp(seed=0, widths=(5, 7, 3)):
    def make():
        layers = []
        for a, b in pairwise(widths[:-1]):
            layers += [nn.Linear(a, b), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))

    return seeded(make, seed)


def cnn(seed=0):
    def make():
        net = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(64, 3)
        )
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2)
        return net

    return seeded(make, seed).eval()


def examples(shape, n=30, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape, generator=g), torch.randint(0, 3, (n,), generator=g)


NETS = {
    "mlp": (lambda seed=0: mlp(seed), (5,)),
    "deep": (lambda seed=0: mlp(seed, (4, 6, 5, 3)), (4,)),
    "cnn": (cnn, (2, 6, 6)),
    "attention": (lambda seed=0: seeded(Attention, seed), (4, 4)),
}


def dense_hessian(model, data):
    """The Hessian of the mean cross-entropy by torch.func, in float64, in parameters_to_vector order."""
    model = copy.deepcopy(model).double().eval()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    buffers = dict(model.named_buffers())
    x, y = data[0].double(), data[1]

    def loss(theta):
        pieces = theta.split([s.numel() for s in shapes])
        state = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)} | buffers
        return nn.functional.cross_entropy(functional_call(model, state, (x,)), y)

    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return hessian(loss)(theta).detach().numpy()


def true_fractions(values, tol=1e-3):
    threshold = tol * np.abs(values).max()
    return np.array([(values <= -threshold).mean(), (np.abs(values) < threshold).mean(), (values >= threshold).mean()])


@pytest.mark.parametrize("batch_size", [512, 7])
@pytest.mark.parametrize("name", NETS)
def test_exact_spectrum_is_the_dense_hessians(name, batch_size):
    make, shape = NETS[name]
    model, data = make(), examples(shape)
    matrix = dense_hessian(model, data)
    values = np.linalg.eigvalsh(matrix)[::-1]
    found = CurvatureEstimator(batch_size=batch_size, compare_traces=False).fit(model, data).result_
    assert found.method == "exact"
    np.testing.assert_allclose(found.spectrum, values, rtol=1e-6, atol=1e-9 * values[0])
    np.testing.assert_allclose(found.eigenvalues, np.r_[values[:5], values[-5:]], rtol=1e-6)
    assert found.trace == pytest.approx(np.trace(matrix), rel=1e-6)
    np.testing.assert_array_equal(found.fractions, true_fractions(values))
    assert found.saddle_index == true_fractions(values)[0]
    assert found.trace_stderr == 0 and found.saddle_index_stderr == 0
    assert (found.residuals < 1e-9 * values[0]).all() and found.asymmetry < 1e-9
    grid, density = found.density
    assert abs(np.trapezoid(density, grid) - 1) < 1e-6


@pytest.mark.parametrize("name", NETS)
def test_iterative_path_agrees_with_the_dense_hessian(name):
    make, shape = NETS[name]
    model, data = make(), examples(shape)
    values = np.linalg.eigvalsh(dense_hessian(model, data))[::-1]
    found = CurvatureEstimator(
        exact_below=0, precision="float64", n_eigenvalues=3, tol=1e-5, n_lanczos=60, compare_traces=False
    )
    found = found.fit(model, data).result_
    assert found.method == "iterative"
    np.testing.assert_allclose(found.eigenvalues, np.r_[values[:3], values[-3:]], rtol=1e-6)
    assert found.converged.all() and (found.residuals <= 1e-5 * np.abs(found.eigenvalues)).all()
    assert abs(np.trapezoid(found.density[1], found.density[0]) - 1) < 1e-6
    assert found.spectrum.size == 0


def test_index_and_trace_within_three_standard_errors_on_ten_nets():
    hits = []
    for seed in range(10):
        make, shape = list(NETS.values())[seed % 4]
        model, data = make(seed), examples(shape, seed=seed)
        values = np.linalg.eigvalsh(dense_hessian(model, data))
        est = CurvatureEstimator(exact_below=0, n_lanczos=25, n_eigenvalues=2, compare_traces=False, random_state=seed)
        found = est.fit(model, data).result_
        index = abs(found.saddle_index - true_fractions(values)[0]) <= 3 * found.saddle_index_stderr + 1e-9
        trace = abs(found.trace - values.sum()) <= 3 * found.trace_stderr + 1e-6
        hits.append((index, trace, found.saddle_index_stderr < 0.15))
    assert np.array(hits).all()


def test_linear_network_with_squared_loss_has_a_closed_form():
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(40, 6, generator=g), torch.randn(40, 1, generator=g)
    model = seeded(lambda: nn.Linear(6, 1, bias=False), 0)
    found = CurvatureEstimator(loss="mse", compare_traces=False).fit(model, (x, y)).result_
    expected = np.linalg.eigvalsh((2 / 40 * x.double().T @ x.double()).numpy())[::-1]
    np.testing.assert_allclose(found.spectrum, expected, rtol=1e-6)
    assert found.saddle_index == 0
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x.double(), y.double()).solution.T)
    at_minimum = CurvatureEstimator(loss="mse").fit(model, (x, y)).result_
    assert at_minimum.point_kind == "minimum"
    assert at_minimum.gradient_norm < 1e-6
    iterative = CurvatureEstimator(loss="mse", exact_below=0, precision="float64", tol=1e-4).fit(model, (x, y))
    assert iterative.point_kind_ == "minimum"


class Surface(nn.Module):
    """Output = a quadratic form of the weights, so that the loss has chosen curvatures at 0."""

    def __init__(self, curvatures):
        super().__init__()
        self.register_buffer("curvatures", torch.tensor(curvatures))
        self.w = nn.Parameter(torch.zeros(len(curvatures)))

    def forward(self, x):
        return x * 0 + 0.5 * (self.curvatures * self.w**2).sum()


def first_output(outputs, targets):
    return outputs[:, 0]


@pytest.mark.parametrize("exact_below", [2000, 0])
@pytest.mark.parametrize(
    "curvatures,kind",
    [
        ([3.0, 2.0, 1.0], "minimum"),
        ([-3.0, -2.0, -1.0], "maximum"),
        ([3.0, 1.0, -2.0], "saddle"),
        ([3.0, 1.0, 0.0], "degenerate"),
        ([0.0, 0.0, 0.0], "degenerate"),
        ([3.0, 0.0, -1e-5], "degenerate"),
    ],
)
def test_kinds_of_points(curvatures, kind, exact_below):
    data = torch.zeros(4, 1), torch.zeros(4, dtype=torch.long)
    est = CurvatureEstimator(
        loss=first_output, n_eigenvalues=1, exact_below=exact_below, precision="float64", compare_traces=False
    )
    found = est.fit(Surface(curvatures), data).result_
    assert found.gradient_norm == 0
    assert found.point_kind == kind
    np.testing.assert_allclose(found.lambda_max, max(curvatures), atol=1e-9)
    np.testing.assert_allclose(found.fractions, true_fractions_or_zero(np.array(curvatures)), atol=0.35)


def true_fractions_or_zero(values):
    return true_fractions(values) if np.abs(values).max() else np.array([0.0, 1.0, 0.0])


def test_a_slope_is_not_a_saddle():
    model = Surface([3.0, 1.0, -2.0])
    with torch.no_grad():
        model.w.fill_(1.0)
    data = torch.zeros(4, 1), torch.zeros(4, dtype=torch.long)
    est = CurvatureEstimator(loss=first_output, n_eigenvalues=1, compare_traces=False).fit(model, data)
    assert est.gradient_norm_ == pytest.approx(np.sqrt(14))
    assert est.point_kind_ == "not stationary"
    assert any("not a stationary point" in note for note in est.notes_)
    assert est.gradient_step_drop_ == pytest.approx(14**2 / (2 * (27 + 1 - 8)))
    assert clone(est).set_params(gradient_tol=10.0).fit(model, data).point_kind_ == "saddle"


def test_traces_side_by_side():
    model, data = mlp(), examples((5,))
    est = CurvatureEstimator(n_probes=30).fit(model, data)
    traces = est.traces_
    assert list(traces) == ["hessian", "ggn", "fisher", "empirical_fisher"]
    double = copy.deepcopy(model).double()
    x, y = data[0].double(), data[1]
    ggn, empirical = 0.0, 0.0
    for xi, yi in zip(x, y, strict=True):
        z = double(xi[None])[0]
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(z[c], double.parameters(), retain_graph=True)])
            for c in range(3)
        ]
        jacobian, p = torch.stack(rows), z.softmax(0).detach()
        ggn += float(torch.trace(jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian)) / len(x)
        empirical += float((jacobian.T @ (p - nn.functional.one_hot(yi, 3))).pow(2).sum()) / len(x)
    assert abs(traces["ggn"]["value"] - ggn) <= 3 * traces["ggn"]["stderr"] + 1e-9
    assert abs(traces["empirical_fisher"]["value"] - empirical) <= 3 * traces["empirical_fisher"]["stderr"] + 1e-9
    assert traces["fisher"] == traces["ggn"]
    exact = CurvatureEstimator(kind="ggn", compare_traces=False).fit(model, data)
    assert exact.trace_ == pytest.approx(ggn, rel=1e-6)
    assert exact.spectrum_.min() > -1e-9 * exact.lambda_max_
    assert exact.point_kind_ == "not stationary"


def test_per_layer_blocks_match_the_dense_matrix():
    model, data = mlp(), examples((5,))
    matrix = dense_hessian(model, data)
    exact = CurvatureEstimator(compare_traces=False).fit(model, data).layers_
    rough = CurvatureEstimator(exact_below=0, precision="float64", per_layer=True, n_lanczos=0, n_probes=40)
    rough = rough.fit(model, data).layers_
    assert [row["group"] for row in exact] == [row["group"] for row in rough] == ["0", "2"]
    for row, estimate, index in zip(exact, rough, (slice(0, 42), slice(42, 66)), strict=True):
        block = matrix[index, index]
        assert row["lambda_max"] == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-6)
        assert row["trace"] == pytest.approx(np.trace(block), rel=1e-6)
        assert estimate["lambda_max"] == pytest.approx(row["lambda_max"], rel=1e-4)
        assert abs(estimate["trace"] - row["trace"]) <= 3.5 * estimate["trace_stderr"]


def test_a_filter_on_names_gives_the_block():
    model, data = mlp(), examples((5,))
    found = CurvatureEstimator(parameters=r"^2\.", compare_traces=False).fit(model, data)
    expected = np.linalg.eigvalsh(dense_hessian(model, data)[42:, 42:])[::-1]
    np.testing.assert_allclose(found.spectrum_, expected, rtol=1e-6, atol=1e-12)


def test_frozen_parameters_are_left_out():
    model, data = mlp(), examples((5,))
    for p in model[0].parameters():
        p.requires_grad_(False)
    found = CurvatureEstimator(compare_traces=False).fit(model, data)
    assert found.n_parameters_ == 24


def test_agrees_with_curvlinops_and_arpack_on_a_timm_network(digits):
    curvlinops = pytest.importorskip("curvlinops")
    from scipy.sparse.linalg import eigsh

    few = digits.subset(24, random_state=0)
    model = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    model = train(model, few, epochs=2, lr=0.05, random_state=0).model
    found = CurvatureEstimator(n_eigenvalues=1, n_probes=2, n_lanczos=0, compare_traces=False).fit(model, few)
    operator = curvlinops.HessianLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        list(model.parameters()),
        [(few.inputs, few.targets)],
        check_deterministic=False,
    )
    peer = eigsh(operator.to_scipy(), k=1, which="LA", tol=1e-6, return_eigenvectors=False)[0]
    assert found.lambda_max_ == pytest.approx(peer, rel=1e-4)
    assert found.lambda_max_residual_ <= 1e-3 * found.lambda_max_


def test_fit_leaves_model_and_random_state_alone():
    model, data = cnn(), examples((2, 6, 6))
    model.train()
    model[0].weight.requires_grad_(True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    CurvatureEstimator(exact_below=0, n_lanczos=10, n_probes=2).fit(model, data)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])


def test_sklearn_manners(tmp_path):
    model, data = mlp(), examples((5,))
    est = CurvatureEstimator(n_eigenvalues=2, exact_below=0, n_lanczos=15, n_probes=3, compare_traces=False)
    with pytest.raises(NotFittedError):
        est.transform(model)
    assert clone(est).get_params() == est.get_params()
    first = est.fit(model, data).result_
    again = clone(est).fit(model, data).result_
    np.testing.assert_array_equal(first.eigenvalues, again.eigenvalues)
    np.testing.assert_array_equal(first.density[1], again.density[1])
    assert first.trace == again.trace
    table = est.set_output(transform="pandas").transform([model, mlp(1)])
    assert list(table.columns) == list(est.get_feature_names_out()) and table.shape == (2, 7)
    assert table["lambda_max"][0] == pytest.approx(est.lambda_max_, rel=1e-6)
    assert pickle.loads(pickle.dumps(est)).trace_ == est.trace_
    loaded = Result.load(first.save(tmp_path / "curvature.npz"))
    assert isinstance(loaded, CurvatureResult) and repr(loaded.layers) == repr(first.layers)
    np.testing.assert_array_equal(loaded.density[1], first.density[1])


def test_progress_partial_results_and_cancelling():
    model, data = mlp(), examples((5,))
    est = CurvatureEstimator(exact_below=0, n_lanczos=10, n_probes=2)
    seen, partial = [], []
    est.fit(model, data, on_progress=lambda *a: seen.append(a), on_partial=partial.append)
    assert seen[-1][0] == seen[-1][1] and all(0 <= done <= total for done, total, _ in seen)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert len(partial) >= 4 and np.isnan(partial[0].trace) and np.isfinite(partial[-1].trace)

    def stop(done, total, message):
        if done > 20:
            raise Cancelled

    with pytest.raises(Cancelled):
        CurvatureEstimator(exact_below=0).fit(model, data, on_progress=stop)


def test_the_cache_answers_a_second_fit(tmp_path, monkeypatch):
    model, data = mlp(), examples((5,))
    est = CurvatureEstimator(exact_below=0, n_lanczos=8, n_probes=2, memory=str(tmp_path), compare_traces=False)
    first = est.fit(model, data).result_

    def fail(*a, **k):
        raise AssertionError("computed again")

    monkeypatch.setattr(work, "lanczos_eigenpairs", fail)
    monkeypatch.setattr(work, "spectral_density", fail)
    monkeypatch.setattr(work, "hutchpp", fail)
    second = clone(est).fit(model, data).result_
    np.testing.assert_array_equal(first.eigenvalues, second.eigenvalues)
    np.testing.assert_array_equal(first.fractions, second.fractions)


class SingleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class NoDouble(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return SingleBackward.apply(self.layer(x))


def test_bad_input_says_what_is_wrong(monkeypatch):
    model, data = mlp(), examples((5,))
    with pytest.raises(ValueError, match=r"n_eigenvalues must be at most the number of parameters \(66\), got 67"):
        CurvatureEstimator(n_eigenvalues=67).fit(model, data)
    frozen = mlp()
    for p in frozen.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="at least one trainable parameter"):
        CurvatureEstimator().fit(frozen, data)
    broken = mlp()
    with torch.no_grad():
        broken[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="loss at the model's own weights must be finite, got nan"):
        CurvatureEstimator().fit(broken, data)
    for exact_below in (0, 2000):
        with pytest.raises(ValueError, match=r"double backward.*SingleBackward|SingleBackward.*double backward"):
            CurvatureEstimator(exact_below=exact_below).fit(NoDouble(), data)
    with pytest.raises(ValueError, match="'kind' parameter of CurvatureEstimator must be a str among"):
        CurvatureEstimator(kind="jacobian").fit(model, data)
    with pytest.raises(ValueError, match="'ends' parameter of CurvatureEstimator must be a str among"):
        CurvatureEstimator(ends="top").fit(model, data)
    for bad in ({"tol": 0}, {"tol": float("nan")}, {"gradient_tol": -1}, {"n_probes": 1}, {"n_lanczos": -1}):
        name = next(iter(bad))
        with pytest.raises(ValueError, match=f"'{name}' parameter of CurvatureEstimator must be"):
            CurvatureEstimator(**bad).fit(model, data)
    monkeypatch.setattr(checks, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match=r"Lanczos vectors must fit .* GiB.* Lower n_lanczos or n_eigenvalues"):
        CurvatureEstimator(exact_below=0).fit(model, data)
    monkeypatch.setattr(checks, "free_memory", lambda device: 200_000)
    with pytest.raises(ValueError, match=r"sketch of the trace must fit .* Lower n_probes"):
        CurvatureEstimator(exact_below=0, n_probes=1000).fit(model, data)
    monkeypatch.setattr(checks, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match=r"explicit matrix must fit .* Lower exact_below"):
        CurvatureEstimator().fit(model, data)


def test_not_converged_is_said():
    model, data = mlp(), examples((5,))
    est = CurvatureEstimator(exact_below=0, max_products=14, n_lanczos=0, compare_traces=False).fit(model, data)
    assert not est.converged_.all()
    assert any("have not converged" in note for note in est.notes_)


def test_tracker_follows_a_run(digits):
    few = digits.subset(64, random_state=0)
    inputs = (few.inputs[:, 0, ::4, ::4].flatten(1), few.targets)
    model = seeded(lambda: nn.Sequential(nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)), 0)
    run = train(model, inputs, epochs=2, lr=0.1, momentum=0.5, schedule="flat", random_state=0)
    partial = []
    tracker = CurvatureTracker(n_probes=3).fit(run, inputs, on_partial=partial.append)
    assert tracker.steps_.tolist() == [0, 1, 2] and len(partial) == 3
    np.testing.assert_allclose(tracker.edge_, 20)
    np.testing.assert_allclose(tracker.edge_momentum_, 30)
    last = CurvatureEstimator(n_eigenvalues=1, compare_traces=False).fit(run.model, inputs)
    assert tracker.lambda_max_[-1] == pytest.approx(last.lambda_max_, rel=1e-4)
    assert abs(tracker.traces_[-1] - last.trace_) <= 4 * tracker.trace_stderrs_[-1]
    assert tracker.converged_.all() and isinstance(tracker.result_, CurvatureHistoryResult)
    frame = tracker.set_output(transform="pandas").transform(run)
    assert frame["lambda_max"].tolist() == tracker.lambda_max_.tolist()


def test_tracker_uses_each_checkpoints_own_statistics():
    data = examples((2, 6, 6))
    one, two = cnn(0), cnn(0)
    two[1].running_var.mul_(4)
    tracker = CurvatureTracker(trace=False).fit([one.state_dict(), two.state_dict()], data, model=one, lr=[0.1, 0.0])
    for i, model in enumerate((one, two)):
        own = CurvatureEstimator(n_eigenvalues=1, compare_traces=False).fit(model, data)
        assert tracker.lambda_max_[i] == pytest.approx(own.lambda_max_, rel=1e-3)
    assert tracker.edge_.tolist() == [20, np.inf]


def test_tracker_bad_input():
    data = examples((5,))
    with pytest.raises(ValueError, match="checkpoints must hold at least one point"):
        CurvatureTracker().fit([], data)
    with pytest.raises(ValueError, match="model must be a network when checkpoints are files"):
        CurvatureTracker().fit([mlp().state_dict()], data)
    with pytest.raises(ValueError, match="lr must be one number or one for each of the 1 checkpoints, got 2"):
        CurvatureTracker().fit([mlp()], data, lr=[0.1, 0.2])
    with pytest.raises(ValueError, match="lr must be 0 or more"):
        CurvatureTracker().fit([mlp()], data, lr=-1)


def test_rates_of_a_training_from_its_arguments():
    rates, momentum = scheduled_rates({"epochs": 4, "lr": 0.2, "schedule": "flat", "momentum": 0.0}, [0, 2, 4])
    assert rates == [0.2, 0.2, 0.2] and momentum == 0
    rates, momentum = scheduled_rates({"epochs": 4, "lr": 0.2}, [0, 2, 4])
    assert rates == pytest.approx([0.2 * 0.5 * (1 + np.cos(np.pi / 4)), 0.1, 0]) and momentum == 0.9
    rates, _ = scheduled_rates({"optimizer": "adamw"}, [0, 1])
    assert np.isnan(rates).all()


def test_the_tracker_measures_what_it_is_given():
    one, two, three = (mlp(seed=s) for s in range(3))
    data = examples((5,))
    tracker = CurvatureTracker(n_probes=2).fit([one, two], data, lr=0.1)
    own, other = tracker.transform([one, two]), tracker.transform([three, one])
    names = tracker.get_feature_names_out().tolist()
    np.testing.assert_array_equal(own[:, names.index("lambda_max")], tracker.lambda_max_)
    assert other[1, names.index("lambda_max")] == own[0, names.index("lambda_max")]
    assert other[0, names.index("losses")] not in own[:, names.index("losses")]
    np.testing.assert_array_equal(tracker.losses_, own[:, names.index("losses")])  # the fit stays as it was
