"""Batched optimisers against torch.optim, and how they leave saddles of three kinds."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators.core.saddles.critical import find_critical_points
from estimators.core.saddles.optimizers import OPTIMIZERS, Settings
from estimators.core.saddles.race import leaving_steps, race
from estimators.core.saddles.saddles import hidden_units, linear_leaving_step
from estimators.core.saddles.test_functions import surface_objective
from tests.estimators.core.saddles.test_saddles import slices_of
from tests.estimators.small_nets import blobs, objective_of, quadratic, small_objective, tanh_mlp

N_STEPS = 200


def run(objective, name, starts, lr=0.05, n_steps=N_STEPS, axes=None, seeds=None, settings=None, **kwargs):
    axes = torch.eye(objective.size, dtype=torch.float64)[:2] if axes is None else axes
    return race(
        objective,
        name,
        starts,
        settings=settings or Settings(lr=lr),
        n_steps=n_steps,
        axes=axes,
        centre=kwargs.pop("centre", torch.zeros(objective.size, dtype=torch.float64)),
        seeds=list(range(len(starts))) if seeds is None else seeds,
        **kwargs,
    )


TORCH = {
    "gd": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "momentum": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "large_step": lambda p, lr: torch.optim.SGD(p, lr=10 * lr),
}


@pytest.mark.parametrize("name", list(TORCH))
def test_agrees_with_torch_optim(name):
    objective = small_objective()
    starts = 0.3 * torch.randn(3, objective.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    ours = run(objective, name, starts, lr=0.02, n_steps=50).final[1]
    theirs = starts[1].clone().requires_grad_()
    optimizer = TORCH[name]([theirs], 0.02)
    for _ in range(50):
        optimizer.zero_grad()
        objective(theirs).backward()
        optimizer.step()
    assert float((ours - theirs.detach()).abs().max()) <= 1e-10


def test_sam_takes_the_gradient_uphill():
    objective = small_objective()
    theta = 0.3 * torch.ones(1, objective.size, dtype=torch.float64)
    ours = run(objective, "sam", theta, lr=0.1, n_steps=1).final[0]
    g = torch.autograd.functional.jacobian(objective, theta[0])
    uphill = torch.autograd.functional.jacobian(objective, theta[0] + 0.05 * g / g.norm())
    torch.testing.assert_close(ours, theta[0] - 0.1 * uphill, rtol=0, atol=1e-12)


def test_sgd_averages_to_the_full_gradient_and_repeats_with_its_seed():
    objective = small_objective()
    starts = torch.full((400, objective.size), 0.2, dtype=torch.float64)
    moved = run(objective, "sgd", starts, lr=1.0, n_steps=1).final - starts
    exact = -torch.autograd.functional.jacobian(objective, starts[0])
    error = (moved.mean(0) - exact).abs() / (moved.std(0) / 20 + 1e-12)
    assert float(error.median()) < 1.5 and float(moved.std(0).max()) > 0.01
    pair = run(objective, "sgd", starts[:3], seeds=[7, 7, 8], n_steps=20).final
    assert torch.equal(pair[0], pair[1]) and not torch.equal(pair[0], pair[2])


@pytest.fixture(scope="module")
def strict():
    """A strict saddle of a small net, with a step that grows e^20 over 2,000 steps."""
    objective = small_objective()
    starts = 0.5 * torch.randn(6, objective.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = [p for p in find_critical_points(objective, starts, 1, max_steps=80) if p.found]
    return objective, min(found, key=lambda p: float(p.eigenvalues[0] / p.eigenvalues[-1]))


@pytest.fixture(scope="module")
def leaving(strict):
    """GD from r = 0, 1e-6 and 1e-4 in one race, and SGD from r = 0."""
    objective, saddle = strict
    lr = min(20 / 2000 / abs(float(saddle.eigenvalues[0])), 1.0 / float(saddle.eigenvalues[-1]))
    draws = torch.randn(6, objective.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    offsets = torch.tensor([0.0, 1e-6, 1e-6, 1e-4, 1e-4, 1e-4])[:, None] * draws / draws.norm(dim=1, keepdim=True)
    kwargs = {"lr": lr, "centre": saddle.theta, "axes": saddle.modes}
    gd = run(objective, "gd", saddle.theta + offsets, n_steps=2000, **kwargs)
    sgd = run(objective, "sgd", saddle.theta.repeat(2, 1), n_steps=1500, **kwargs)
    return saddle, lr, offsets, gd, sgd


def test_gd_follows_the_theory_near_the_saddle(leaving):
    saddle, lr, offsets, gd, _ = leaving
    curvature, drop = float(saddle.eigenvalues[0]), 1e-5
    steps = leaving_steps(gd.losses, saddle.loss, drop, gd.diverged).numpy()
    delta = (2 * drop / abs(curvature)) ** 0.5
    growth = OPTIMIZERS["gd"].growth(Settings(lr=lr), curvature)
    theory = np.array([linear_leaving_step(growth, abs(float(d @ saddle.modes[0])), delta) for d in offsets])
    inside = theory < 1800
    assert inside.sum() >= 4
    np.testing.assert_allclose(steps[inside], theory[inside], rtol=0.10)


def test_gd_stays_at_a_strict_saddle_and_minibatch_noise_leaves(leaving):
    saddle, _, _, gd, sgd = leaving
    assert leaving_steps(gd.losses, saddle.loss, 1e-5, gd.diverged)[0] == np.inf
    assert float(gd.distances[:, 0].max()) < 1e-5
    assert leaving_steps(sgd.losses, saddle.loss, 1e-4, sgd.diverged).isfinite().all()


@pytest.fixture(scope="module")
def embedded():
    inputs, targets = blobs()
    net = tanh_mlp(hidden=5)
    full = objective_of(net, inputs, targets)
    units = hidden_units(net, slices_of(net), unit=1)
    theta = nn.utils.parameters_to_vector(net.parameters()).detach()
    return full.restrict(theta, units.coordinates)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "perturbed_gd"])
def test_nothing_but_injected_noise_leaves_an_embedded_saddle(embedded, name):
    starts = torch.zeros(2, embedded.size, dtype=torch.float64)
    result = run(embedded, name, starts, lr=0.2, n_steps=100)
    assert not result.moved.any() and torch.equal(result.final, starts)
    assert result.first_moves.isnan().all()


def test_injected_noise_leaves_an_embedded_saddle(embedded):
    starts = torch.zeros(2, embedded.size, dtype=torch.float64)
    result = run(embedded, "perturbed_gd", starts, lr=0.5, n_steps=800)
    assert result.moved.all()
    assert leaving_steps(result.losses, float(result.losses[0, 0]), 1e-4, result.diverged).isfinite().all()


def test_gd_at_rest_on_each_surface_stays_bit_for_bit():
    for name in ("strict_surface", "monkey_saddle", "degenerate_valley"):
        result = run(surface_objective(name), "gd", torch.zeros(1, 2, dtype=torch.float64))
        assert not result.moved.any()


def test_a_step_too_large_is_diverged_and_not_left():
    objective = surface_objective("strict_surface")
    starts = torch.tensor([[0.1, 0.1], [0.0, 0.0]], dtype=torch.float64)
    result = run(objective, "gd", starts, lr=3.0)
    assert result.diverged.tolist() == [True, False]
    steps = leaving_steps(result.losses, 0.0, 1e-3, result.diverged)
    assert steps.isinf().all()
    assert result.final.isfinite().all()


def test_losses_coordinates_and_distances_are_those_of_the_path():
    objective = quadratic([-0.5, 2.0, 1.0])
    start = torch.tensor([[1e-3, 0.3, 0.2]], dtype=torch.float64)
    result = run(objective, "gd", start, lr=0.1, n_steps=10)
    for t in (0, 4, 10):
        point = start[0] * (1 - 0.1 * torch.tensor([-0.5, 2.0, 1.0], dtype=torch.float64)) ** t
        torch.testing.assert_close(result.coordinates[t, 0], point[:2], rtol=1e-10, atol=1e-14)
        assert float(result.distances[t, 0]) == pytest.approx(float(point.norm()), rel=1e-10)
        assert float(result.losses[t, 0]) == pytest.approx(float(objective(point)), rel=1e-10)


def test_race_can_be_cancelled():
    def stop(done, total):
        assert total == 50
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(quadratic([-1.0, 1.0]), "adam", torch.zeros(1, 2, dtype=torch.float64), n_steps=50, on_step=stop)
