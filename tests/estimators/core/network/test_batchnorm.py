"""Batch norm under "recompute": L is one function of θ, statistics included, and all derivatives are its own."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from estimators import CurvatureEstimator, CurvatureTracker, Landscape, SharpnessEstimator, load_model
from estimators import landscape as landscape_module
from estimators.core.network import batchnorm
from estimators.core.network import working_copy as network_module


def small_cnn(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh(),
            nn.Conv2d(2, 2, 3, stride=2), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(),
            nn.Linear(8, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3),
        ).eval()  # fmt: skip


def examples(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 6, 6, generator=generator), torch.randint(3, (n,), generator=generator)


def differences(function, theta, step):
    """Central differences of a function of θ, stacked along the last axis."""
    basis = step * torch.eye(len(theta), dtype=theta.dtype)
    columns = [
        torch.as_tensor(function(theta + e) - function(theta - e), dtype=theta.dtype) / (2 * step) for e in basis
    ]
    return torch.stack(columns, -1)


def second_differences(loss, theta, step=2e-4):
    """The Hessian of the reported loss from its values alone."""
    basis = step * torch.eye(len(theta), dtype=theta.dtype)
    hessian = torch.zeros(len(theta), len(theta), dtype=theta.dtype)
    for i, a in enumerate(basis):
        for j, b in enumerate(basis[: i + 1]):
            around = loss(theta + a + b) - loss(theta + a - b) - loss(theta - a + b) + loss(theta - a - b)
            hessian[i, j] = hessian[j, i] = around / (4 * step * step)
    return hessian


@pytest.fixture(params=["one block", "several blocks"])
def blocks(request, monkeypatch):
    """43 examples in one block, or in three of 15, 14 and 14."""
    if request.param == "several blocks":
        monkeypatch.setattr(batchnorm, "LARGEST_BLOCK", 16)
    return request.param


def test_derivatives_are_those_of_the_reported_loss(blocks):
    land = Landscape(small_cnn(), examples(43), batch_norm="recompute", precision="float64", batch_size=22)
    theta = land.theta
    loss, gradient = land.loss_and_gradient()
    assert loss == pytest.approx(land.loss(), rel=1e-13)
    torch.testing.assert_close(gradient, differences(land.loss, theta, 1e-6), rtol=0, atol=2e-9)
    identity = torch.eye(len(theta), dtype=theta.dtype)
    hessian = differences(land.gradient, theta, 1e-5)
    products = land.hvp(identity)
    torch.testing.assert_close(products, hessian, rtol=0, atol=2e-8)
    torch.testing.assert_close(land.hvp(identity[:, 0]), products[:, 0])  # from the graph that was kept
    torch.testing.assert_close(products, products.T, rtol=0, atol=1e-13)
    # Gauss-Newton and Fisher: all outputs are functions of θ through the statistics, too
    jacobians = differences(land.outputs, theta, 1e-6)
    p = land.outputs(theta).softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    gauss_newton = torch.einsum("nci,ncd,ndj->ij", jacobians, curvature, jacobians) / 43
    torch.testing.assert_close(land.ggn_vp(identity), gauss_newton, rtol=0, atol=1e-9)
    torch.testing.assert_close(land.fisher_vp(identity, kind="model"), gauss_newton, rtol=0, atol=1e-9)
    singles = torch.einsum("nc,nci->ni", p - F.one_hot(land.data.targets, 3), jacobians)
    torch.testing.assert_close(land.fisher_vp(identity), singles.T @ singles / 43, rtol=0, atol=1e-9)


def test_products_are_the_same_when_no_graph_is_kept(blocks, monkeypatch):
    kept = Landscape(small_cnn(), examples(43), batch_norm="recompute", precision="float64", batch_size=10)
    v = torch.randn(kept.n_parameters, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = kept.hvp(v), kept.ggn_vp(v)
    monkeypatch.setattr(network_module, "free_memory", lambda device: 0)
    streamed = Landscape(small_cnn(), examples(43), batch_norm="recompute", precision="float64", batch_size=10)
    torch.testing.assert_close(streamed.hvp(v), expected[0])
    torch.testing.assert_close(streamed.ggn_vp(v), expected[1])
    assert set().union(*streamed._network._graphs.values()) <= {"slope"}


def test_minibatches_and_other_examples_are_differentiated_through_the_same_statistics(blocks):
    land = Landscape(small_cnn(), examples(43), batch_norm="recompute", precision="float64")
    theta = land.theta
    halves = [land.minibatch_loss_and_gradient(np.arange(i, 43, 2)) for i in (0, 1)]
    torch.testing.assert_close((22 * halves[0][1] + 21 * halves[1][1]) / 43, land.gradient())
    assert (22 * halves[0][0] + 21 * halves[1][0]) / 43 == pytest.approx(land.loss(), rel=1e-12)
    other = land.on(examples(9, seed=2))
    torch.testing.assert_close(other.gradient(), differences(other.loss, theta, 1e-6), rtol=0, atol=2e-9)
    v = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along = (other.gradient(theta + 1e-5 * v) - other.gradient(theta - 1e-5 * v)) / 2e-5
    torch.testing.assert_close(other.hvp(v), along, rtol=1e-5, atol=1e-6)
    here = land.hvp(v)
    other.hvp(v)
    torch.testing.assert_close(land.hvp(v), here, rtol=0, atol=0)  # in turns, the graphs do not mix
    copied = pickle.loads(pickle.dumps(other))
    torch.testing.assert_close(copied.gradient(), other.gradient())


def test_parts_of_theta_beside_the_statistics(blocks):
    for chosen in ("^0", "^1[.]", "^10[.]"):  # before all statistics, a batch norm's own, after all of them
        land = Landscape(
            small_cnn(), examples(43), batch_norm="recompute", precision="float64", parameters=chosen, batch_size=20
        )
        torch.testing.assert_close(land.gradient(), differences(land.loss, land.theta, 1e-6), rtol=0, atol=2e-9)
        identity = torch.eye(land.n_parameters, dtype=torch.float64)
        torch.testing.assert_close(land.hvp(identity), differences(land.gradient, land.theta, 1e-5), rtol=0, atol=2e-8)
        torch.testing.assert_close(land.ggn_vp(identity), land.fisher_vp(identity, kind="model"))


def test_a_shared_layer_and_one_that_is_never_reached(blocks):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.spare = nn.Linear(36, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)
            self.spare.running_mean.fill_(3.0)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            hidden = self.norm(self.first(x.flatten(1)))
            return self.out(self.norm(torch.tanh(hidden)))

    torch.manual_seed(0)
    land = Landscape(Odd(), examples(43), batch_norm="recompute", precision="float64")
    torch.testing.assert_close(land.gradient(), differences(land.loss, land.theta, 1e-6), rtol=0, atol=2e-9)
    state = land.state_dict()
    assert (state["spare.running_mean"] == 3.0).all()


def test_the_numbers_on_a_page_agree_with_each_other(blocks):
    """λ_max, gradient norm, trace, worst case: all of the loss that stands beside them."""
    model, data = small_cnn(), examples(43)
    options = {"batch_norm": "recompute", "precision": "float64", "parameters": "^0"}
    land = Landscape(model, data, **options)
    hessian = second_differences(land.loss, land.theta)
    values = torch.linalg.eigvalsh(hessian)
    slope = float(differences(land.loss, land.theta, 1e-6).norm())
    curvature = CurvatureEstimator(**options, n_eigenvalues=2, compare_traces=False).fit(model, data)
    assert curvature.loss_ == pytest.approx(land.loss(), rel=1e-12)
    assert curvature.gradient_norm_ == pytest.approx(slope, rel=1e-6)
    assert curvature.eigenvalues_[0] == pytest.approx(float(values[-1]), rel=1e-5)
    assert curvature.eigenvalues_[-1] == pytest.approx(float(values[0]), abs=1e-5)
    tracker = CurvatureTracker(**options, trace=False).fit([model], data)
    assert tracker.lambda_max_[0] == pytest.approx(float(values[-1]), rel=1e-3)
    sharp = SharpnessEstimator(**options, measures=("sharpness", "lambda_max"), rho=0.3).fit(model, data)
    assert sharp.lambda_max_ == pytest.approx(float(values[-1]), rel=1e-3)
    assert sharp.gradient_norm_ == pytest.approx(slope, rel=1e-6)
    # no direction of a strong search by values alone beats what the ascent found
    epsilon = torch.zeros_like(land.theta)
    for _ in range(15):
        step = differences(land.loss, land.theta + epsilon, 1e-6)
        epsilon = epsilon + 0.3 * step / step.norm()
        epsilon = epsilon * min(1.0, 0.3 / float(epsilon.norm()))
    assert sharp.sharpness_ >= 0.99 * (land.loss(land.theta + epsilon) - land.loss())


def test_a_network_of_timm_in_both_precisions(digits):
    model, data = load_model("test_resnet", num_classes=10, image_size=32, random_state=0), digits.subset(88)
    land = Landscape(model, data, batch_norm="recompute", precision="float64")
    generator = torch.Generator().manual_seed(0)
    v, away = torch.randn(2, land.n_parameters, dtype=torch.float64, generator=generator)
    v /= v.norm()
    theta = land.theta + 0.02 * away  # at its start the network stands on kinks: timm's last weights of a block are 0
    gradient, product = land.gradient(theta), land.hvp(v, theta)
    slope = (land.loss(theta + 1e-5 * v) - land.loss(theta - 1e-5 * v)) / 2e-5
    assert float(gradient @ v) == pytest.approx(slope, rel=1e-6)
    bend = (land.gradient(theta + 1e-6 * v) - land.gradient(theta - 1e-6 * v)) / 2e-6
    assert float((product - bend).norm()) < 1e-4 * float(product.norm())
    single = Landscape(model, data, batch_norm="recompute")  # rounding takes some units to the other side of a kink
    loss, found = single.loss_and_gradient(theta)
    assert loss == pytest.approx(single.loss(theta), rel=1e-6)
    assert float((found.double() - gradient).norm()) < 2e-2 * float(gradient.norm())
    assert float((single.hvp(v, theta).double() - product).norm()) < 2e-2 * float(product.norm())


@pytest.mark.parametrize("n", [129, 514])
def test_statistics_do_not_depend_on_the_batch_size(n):
    model, data = small_cnn(), examples(n)
    found = {}
    for batch_size in (128, 512, 100, 7):
        land = Landscape(model, data, batch_norm="recompute", precision="float64", batch_size=batch_size)
        found[batch_size] = land.loss(), land.gradient(), land.state_dict()
    for loss, gradient, state in found.values():
        assert loss == pytest.approx(found[512][0], rel=1e-13)
        torch.testing.assert_close(gradient, found[512][1], rtol=1e-10, atol=1e-14)
        assert all(torch.equal(state[name], value) for name, value in found[512][2].items())


def test_blocks_are_near_equal_and_agree_with_update_bn():
    for n in (1, 2, 129, 512, 513, 514, 1025, 5000):
        sizes = [len(b) for b in batchnorm.statistics_blocks(torch.zeros(n, 2))]
        assert sum(sizes) == n and max(sizes) <= 512 and max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-n // 512)
    large = [len(b) for b in batchnorm.statistics_blocks(torch.zeros(1, 1).expand(512, 3 * 224 * 224))]
    assert max(large) <= 111 and min(large) >= 102
    assert len(batchnorm.statistics_blocks(torch.zeros(1, 1).expand(100, 3 * 2000 * 2000))[0]) == 50
    x, _ = examples(514)
    ours, theirs = small_cnn().double(), small_cnn().double()
    batchnorm.recompute_statistics(ours, batchnorm.statistics_blocks(x.double()))
    update_bn(x.double().split(257), theirs)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_every_example_weighs_the_same():
    """Blocks of 3 and 2: means weighted by 3 and 2, as if each example were counted once."""
    net, x = nn.Sequential(nn.BatchNorm1d(2)), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    batchnorm.recompute_statistics(net, [x[:3], x[3:]])
    torch.testing.assert_close(net[0].running_mean, x.mean(0))
    torch.testing.assert_close(net[0].running_var, (3 * x[:3].var(0) + 2 * x[3:].var(0)) / 5)


def test_overflowed_statistics_are_seen_in_values_and_derivatives():
    model = small_cnn()
    with torch.no_grad():
        model[0].weight.mul_(1e30)
    land = Landscape(model, examples(20), batch_norm="recompute")
    loss, gradient = land.loss_and_gradient()
    assert not np.isfinite(land.loss()) and not np.isfinite(loss)
    assert not torch.isfinite(gradient).all()


def test_derivatives_that_do_not_fit_are_refused_with_what_to_lower(monkeypatch):
    def refuse(needed, device, what, cure):
        raise ValueError(f"{what}: {needed} bytes. {cure}")

    monkeypatch.setattr(landscape_module, "check_memory_fits", refuse)
    land = Landscape(small_cnn(), examples(43), batch_norm="recompute")
    assert np.isfinite(land.loss())
    for compute in (land.gradient, lambda: land.hvp(land.theta)):
        with pytest.raises(ValueError, match=r"graph of the 43 examples .* Use fewer examples"):
            compute()
    Landscape(small_cnn(), examples(43)).gradient()  # frozen statistics are not asked


def test_the_landscape_says_who_chose_the_policy():
    model, data = small_cnn(), examples(20)
    assert Landscape(model, data).settings["batch_norm"] == "frozen"
    assert Landscape(model, data).settings["batch_norm_chosen_by"] == "auto"
    several = Landscape(model, data, several_networks=True)
    assert several.batch_norm == several.settings["batch_norm"] == "recompute"
    assert pickle.loads(pickle.dumps(several)).settings == several.settings
    assert several.fingerprint == Landscape(model, data, batch_norm="recompute").fingerprint
    frozen = Landscape(model, data, batch_norm="frozen", several_networks=True)
    assert frozen.settings["batch_norm"] == "frozen" and "batch_norm_chosen_by" not in frozen.settings
    assert Landscape(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), data).settings["batch_norm"] == "none in the model"
    assert copy.copy(several).batch_norm == "recompute"


def test_statistics_are_estimated_once_a_point_whoever_asks_and_again_at_the_next(monkeypatch):
    calls = []
    estimate = network_module.recompute_statistics
    monkeypatch.setattr(network_module, "recompute_statistics", lambda *a: calls.append(1) or estimate(*a))
    land = Landscape(small_cnn(), examples(43), batch_norm="recompute")
    other = land.on(examples(20, seed=2))
    away = land.theta + 0.1
    calls.clear()
    values = [at.loss(theta) for theta in (away, land.theta) for at in (land, other)]
    land.state_dict(land.theta)
    assert len(calls) == 2
    fresh = Landscape(small_cnn(), examples(43), batch_norm="recompute")
    assert values == [at.loss(theta) for theta in (away, land.theta) for at in (fresh, fresh.on(examples(20, seed=2)))]
