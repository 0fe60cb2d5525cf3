"""Critical points: closed forms, dense checks, and what is said when a search fails."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators.core.saddles.critical import find_critical_points, kinks, signature
from estimators.core.saddles.critical_krylov import follow_with_lanczos
from estimators.core.saddles.test_functions import SURFACES, surface_objective
from tests.estimators.small_nets import blobs, objective_of, quadratic, small_objective, tanh_mlp


@pytest.fixture(scope="module")
def searched():
    objective = small_objective()
    generator = torch.Generator().manual_seed(0)
    starts = 0.5 * torch.randn(5, objective.size, generator=generator, dtype=torch.float64)
    return objective, {k: find_critical_points(objective, starts, k, max_steps=100) for k in (0, 1, 3)}


def test_gradient_and_index_hold_by_independent_derivatives(searched):
    objective, by_index = searched
    found = [p for points in by_index.values() for p in points if p.found]
    assert len(found) >= 9
    for point in found:
        gradient = torch.autograd.functional.jacobian(objective, point.theta)
        hessian = torch.autograd.functional.hessian(objective, point.theta)
        assert float(gradient.norm()) <= 1e-9
        assert int((torch.linalg.eigvalsh(hessian) < 0).sum()) == point.asked == point.index
        torch.testing.assert_close(point.eigenvalues, torch.linalg.eigvalsh(hessian), rtol=0, atol=1e-10)
        curvature = point.modes @ hessian @ point.modes.T
        torch.testing.assert_close(curvature.diagonal(), point.eigenvalues[[0, -1]], rtol=0, atol=1e-10)


def test_polishing_reaches_rounding(searched):
    _, by_index = searched
    norms = [p.gradient_norm for points in by_index.values() for p in points if p.found]
    assert np.median(norms) <= 1e-14


def test_loss_rises_with_the_index_on_average(searched):
    _, by_index = searched
    means = [np.mean([p.loss for p in by_index[k] if p.found]) for k in (0, 1, 3)]
    assert means[0] < means[1] < means[2]


def test_quadratic_is_solved_in_its_only_critical_point():
    objective = quadratic([-2.0, -0.5, 1.0, 3.0])
    (point,) = find_critical_points(objective, torch.full((1, 4), 0.2, dtype=torch.float64), 2)
    assert point.found and point.index == 2
    torch.testing.assert_close(point.theta, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_an_index_that_does_not_exist_is_not_called_found():
    objective = quadratic([1.0, 2.0, 3.0])
    (point,) = find_critical_points(objective, torch.ones(1, 3, dtype=torch.float64), 1, max_steps=30)
    assert not point.found
    assert not point.converged and point.gradient_norm > 1e-3 and point.steps == 30


def test_zero_eigenvalues_are_counted_apart():
    assert signature(torch.tensor([-1.0, -1e-12, 0.0, 2.0])) == (1, 2)
    objective = surface_objective("degenerate_valley")
    (point,) = find_critical_points(objective, torch.zeros(1, 2, dtype=torch.float64), 1)
    assert point.converged and point.n_zero == 1 and not point.found


def test_search_can_be_cancelled_and_reports_progress():
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    objective = small_objective()
    with pytest.raises(KeyboardInterrupt):
        find_critical_points(objective, torch.zeros(1, objective.size, dtype=torch.float64) + 0.1, 1, on_step=stop)
    assert seen == [(1, 200), (2, 200), (3, 200)]


def test_same_starts_same_points(searched):
    objective, by_index = searched
    generator = torch.Generator().manual_seed(0)
    starts = 0.5 * torch.randn(5, objective.size, generator=generator, dtype=torch.float64)
    again = find_critical_points(objective, starts, 1, max_steps=100)
    assert all(torch.equal(a.theta, b.theta) for a, b in zip(again, by_index[1], strict=True))


@pytest.mark.parametrize(
    ("activation", "named"),
    [
        (nn.ReLU(), "relu"),
        (nn.LeakyReLU(), "leaky_relu"),
        (nn.Hardtanh(), "hardtanh"),
        (nn.Tanh(), None),
        (nn.GELU(), None),
    ],
)
def test_kinks_are_named(activation, named):
    inputs, _ = blobs()
    net = nn.Sequential(nn.Linear(4, 3), activation, nn.Linear(3, 2)).double()
    assert kinks(lambda: net(inputs)) == ((named,) if named else ())


def test_kinks_sees_functional_calls_and_pooling():
    x = torch.randn(1, 1, 4, 4)
    assert "max_pool2d" in kinks(lambda: torch.nn.functional.max_pool2d(x, 2))
    assert kinks(lambda: torch.relu(x)) == ("relu",)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_lanczos_variant_agrees_with_the_dense_hessian(index):
    inputs, targets = blobs()
    objective = objective_of(tanh_mlp(hidden=6), inputs, targets, 1e-2)

    def value_and_gradient(theta):
        values, gradients = objective.values_and_gradients(theta[None])
        return float(values[0]), gradients[0]

    kept = {}

    def hvp(v, theta):
        if kept.get("theta") is not theta:
            kept.update(theta=theta, hessian=objective.hessians(theta[None])[0])
        return kept["hessian"] @ v

    generator = torch.Generator().manual_seed(1)
    start = 0.5 * torch.randn(objective.size, generator=generator, dtype=torch.float64)
    point = follow_with_lanczos(value_and_gradient, hvp, start, index, tol=1e-6, max_steps=80)
    assert point.converged and point.gradient_norm <= 1e-6
    exact = torch.linalg.eigvalsh(objective.hessians(point.theta[None])[0])
    assert int((exact < 0).sum()) == index == point.index
    assert float(point.eigenvalues[0]) == pytest.approx(float(exact[0]), abs=1e-3 * float(exact[-1]))
    assert float(point.eigenvalues[-1]) == pytest.approx(float(exact[-1]), rel=0.02)


def test_lanczos_variant_says_when_it_is_not_stationary():
    objective = quadratic([1.0, 2.0])
    point = follow_with_lanczos(
        lambda t: (float(objective(t)), torch.tensor([1.0, 2.0]).double() * t),
        lambda v, t: (torch.tensor([1.0, 2.0]).double() * v.T).T,
        torch.tensor([3.0, 3.0]).double(),
        0,
        max_steps=1,
    )
    assert not point.converged and point.gradient_norm > 1.0


def strict_surface_gradient(theta: torch.Tensor) -> torch.Tensor:
    """(x, y³ − y)."""
    x, y = theta.unbind(-1)
    return torch.stack([x, y**3 - y], -1)


def monkey_saddle_gradient(theta: torch.Tensor) -> torch.Tensor:
    """(3x² − 3y² + x(x² + y²), −6xy + y(x² + y²))."""
    x, y = theta.unbind(-1)
    square = x**2 + y**2
    return torch.stack([3 * x**2 - 3 * y**2 + x * square, -6 * x * y + y * square], -1)


def degenerate_valley_gradient(theta: torch.Tensor) -> torch.Tensor:
    """(x, y⁵ − y³)."""
    x, y = theta.unbind(-1)
    return torch.stack([x, y**5 - y**3], -1)


GRADIENTS = {
    "strict_surface": strict_surface_gradient,
    "monkey_saddle": monkey_saddle_gradient,
    "degenerate_valley": degenerate_valley_gradient,
}


@pytest.mark.parametrize("name", list(SURFACES))
def test_surfaces_have_their_written_gradients(name):
    surface, gradient = SURFACES[name], GRADIENTS[name]
    points = torch.randn(5, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for point in points:
        torch.testing.assert_close(
            torch.autograd.functional.jacobian(surface.value, point), gradient(point), rtol=0, atol=1e-12
        )
    assert float(surface.value(torch.zeros(2))) == 0.0 and not gradient(torch.zeros(2)).any()
