"""Sharpness by ascent against exact maxima of quadratics, computed here by another method."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from estimators.core.ball.ascent import adaptive_scale, ascend, m_sharpness, rise_profile
from estimators.core.ball.ascent_starts import lone_winner
from estimators.core.ball.trust_region import VisitedPoints, maximise_in_ball


def quadratic(linear, hessian, centre=None):
    g, h = torch.as_tensor(linear), torch.as_tensor(hessian)
    c = torch.zeros_like(g) if centre is None else torch.as_tensor(centre)

    def function(point):
        step = point - c
        return float(g @ step + step @ (h @ step) / 2), g + h @ step

    return function


def exact_maximum(linear, hessian, rho):
    """Value of the trust-region problem through its dual, which has no gap (strong duality)."""
    values, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ linear
    top = max(values[-1], 0.0)

    def dual(log_shift):
        shift = np.exp(log_shift)
        with np.errstate(divide="ignore"):
            return 0.5 * (np.sum(slope**2 / (top + shift - values)) + (top + shift) * rho**2)

    grid = np.linspace(-34, 12, 4001)
    start = grid[np.argmin([dual(t) for t in grid])]
    found = minimize_scalar(dual, bounds=(start - 0.1, start + 0.1), method="bounded", options={"xatol": 1e-10})
    return min(found.fun, dual(start))


def problem(kind, n, seed):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, n))
    hessian, linear = (a + a.T) / np.sqrt(2 * n), 0.1 * rng.normal(size=n)
    if kind == "convex":
        hessian = a @ a.T / n
    elif kind == "concave":
        hessian = -a @ a.T / n - 0.1 * np.eye(n)
    elif kind == "hard":
        _, vectors = np.linalg.eigh(hessian)
        linear = 0.3 * (linear - vectors[:, -1] * (vectors[:, -1] @ linear))
    elif kind == "outliers":
        q = np.linalg.qr(a)[0]
        hessian = (q * np.concatenate([[30.0, 20.0], 0.3 * rng.normal(size=n - 2)])) @ q.T
    elif kind == "saddle":
        linear = np.zeros(n)
    elif kind == "flat":
        hessian = np.zeros((n, n))
    return linear, hessian


KINDS = ("indefinite", "convex", "concave", "hard", "outliers", "saddle", "flat")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "n_steps"), [(6, 20), (60, 20), (200, 40)])
def test_reaches_the_exact_maximum_of_quadratics(kind, n, n_steps):
    for seed, rho in itertools.product(range(3), (0.05, 1.0, 10.0)):
        linear, hessian = problem(kind, n, seed)
        exact = exact_maximum(linear, hessian, rho)
        found = ascend(quadratic(linear, hessian), torch.zeros(n, dtype=torch.float64), rho, n_steps=n_steps)
        assert found.rise >= 0.99 * exact
        assert found.rise <= exact * (1 + 1e-8)  # a lower bound never exceeds the maximum
        assert float(found.epsilon.norm()) <= rho * (1 + 1e-12)
        assert found.n_gradients <= n_steps + 2


def test_the_default_budget_in_float32():
    for kind in ("indefinite", "convex", "outliers", "hard"):
        linear, hessian = (x.astype(np.float32) for x in problem(kind, 200, 0))
        exact = exact_maximum(linear.astype(float), hessian.astype(float), 1.0)
        assert ascend(quadratic(linear, hessian), torch.zeros(200), 1.0).rise >= 0.99 * exact


def test_small_ball_problem_is_solved_exactly_in_the_hard_case():
    hessian = np.diag([2.0, 2.0, -1.0, 0.5])
    linear = np.array([0.0, 0.0, 0.3, 0.1])
    point, multiplier = maximise_in_ball(linear, hessian, 3.0)
    assert multiplier == pytest.approx(2.0, abs=1e-12)
    assert np.linalg.norm(point) == pytest.approx(3.0, rel=1e-12)
    value = linear @ point + point @ hessian @ point / 2
    assert value == pytest.approx(exact_maximum(linear, hessian, 3.0), rel=1e-9)
    inside, multiplier = maximise_in_ball(linear, -np.eye(4), 3.0)
    assert multiplier == 0.0
    np.testing.assert_allclose(inside, linear, rtol=1e-12)
    nothing, _ = maximise_in_ball(np.zeros(2), np.zeros((2, 2)), 1.0)
    assert not nothing.any()


def test_one_step_value_is_sams():
    linear, hessian = problem("indefinite", 10, 1)
    function, rho = quadratic(linear, hessian), 0.2
    step = torch.as_tensor(rho * linear / np.linalg.norm(linear))
    found = ascend(function, torch.zeros(10, dtype=torch.float64), rho)
    assert found.one_step == pytest.approx(function(step)[0], rel=1e-12)
    assert found.rise >= found.one_step
    signs = ascend(function, torch.zeros(10, dtype=torch.float64), rho, norm="linf")
    assert signs.one_step == pytest.approx(function(torch.as_tensor(rho * np.sign(linear)))[0], rel=1e-12)


def test_maximum_norm_ball_closed_forms():
    rng = np.random.default_rng(3)
    linear = rng.normal(size=30)
    zero = torch.zeros(30, dtype=torch.float64)
    flat = ascend(quadratic(linear, np.zeros((30, 30))), zero, 0.3, norm="linf")
    assert flat.rise == pytest.approx(0.3 * np.abs(linear).sum(), rel=1e-12)
    # Separable: convex coordinates end at ±ρ on the side of the gradient, concave ones at g/|h| when inside.
    curvature = np.where(np.arange(30) % 2 == 0, 2.0, -3.0)
    best = np.where(curvature > 0, 0.3 * np.sign(linear), np.clip(linear / 3.0, -0.3, 0.3))
    exact = float(linear @ best + (curvature * best**2).sum() / 2)
    separable = ascend(quadratic(linear, np.diag(curvature)), zero, 0.3, norm="linf", n_steps=40)
    assert 0.99 * exact <= separable.rise <= exact * (1 + 1e-12)
    assert float(separable.epsilon.abs().max()) <= 0.3 * (1 + 1e-12)


def test_maximum_norm_ball_against_all_corners_with_restarts():
    for seed in range(5):
        linear, hessian = problem("convex", 8, seed)
        corners = np.array(list(itertools.product((-0.5, 0.5), repeat=8)))
        exact = (corners @ linear + np.einsum("ij,jk,ik->i", corners, hessian, corners) / 2).max()
        found = ascend(quadratic(linear, hessian), torch.zeros(8, dtype=torch.float64), 0.5, norm="linf", n_restarts=16)
        assert 0.99 * exact <= found.rise <= exact * (1 + 1e-12)
        assert len(found.restarts) == 16
        assert found.rise == max(found.restarts)


def test_adaptive_ball_is_the_plain_ball_of_rescaled_weights():
    linear, hessian = problem("indefinite", 20, 2)
    theta = torch.as_tensor(np.random.default_rng(0).normal(size=20))
    theta[3] = 0.0
    scale = adaptive_scale(theta)
    s = scale.numpy()
    exact = exact_maximum(s * linear, s[:, None] * hessian * s, 0.7)
    found = ascend(quadratic(linear, hessian, theta), theta, 0.7, scale=scale, n_steps=40)
    assert 0.99 * exact <= found.rise <= exact * (1 + 1e-8)
    assert float(found.epsilon[3]) == 0.0  # a weight that is zero has no relative size to change by
    kept = scale > 0
    assert float((found.epsilon[kept] / scale[kept]).norm()) <= 0.7 * (1 + 1e-12)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_profile_never_falls_and_matches_single_radii(norm):
    gen = torch.Generator().manual_seed(0)
    w = torch.randn(12, 5, generator=gen, dtype=torch.float64)

    def wavy(point):  # many local maxima, so that an unguarded search would fall between radii
        x = point.clone().requires_grad_()
        loss = torch.sin(3 * w @ x).sum() + 0.1 * (x**2).sum()
        return float(loss.detach()), torch.autograd.grad(loss, x)[0]

    radii = [2.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6]
    for seed in range(3):
        profile = rise_profile(
            wavy, torch.zeros(5, dtype=torch.float64), radii, norm=norm, n_steps=10, random_state=seed
        )
        assert [a.rho for a in profile] == sorted(radii)
        rises = np.array([a.rise for a in profile])
        assert np.all(np.diff(rises) >= 0)
        for answer in profile:  # the reported perturbation really gives the reported rise
            start = wavy(torch.zeros(5, dtype=torch.float64))[0]
            assert wavy(answer.epsilon)[0] - start == pytest.approx(answer.rise, rel=1e-10)


def test_a_maximum_reports_zero_not_a_negative_rise():
    found = ascend(quadratic(np.zeros(6), -np.eye(6)), torch.zeros(6, dtype=torch.float64), 0.5)
    assert found.rise == 0.0
    assert not bool(found.epsilon.any())


def test_memory_limit_keeps_the_search_right(monkeypatch):
    monkeypatch.setattr("estimators.core.ball.trust_region.HISTORY_BYTES", 1)
    linear, hessian = problem("outliers", 60, 0)
    assert VisitedPoints(torch.zeros(60), 50).capacity == 3
    found = ascend(quadratic(linear, hessian), torch.zeros(60, dtype=torch.float64), 1.0, n_steps=40)
    assert found.rise >= 0.99 * exact_maximum(linear, hessian, 1.0)


def test_points_with_infinite_loss_are_counted_and_never_the_answer():
    def wall(point):
        length = float(point.norm())
        return (float("inf") if length > 0.5 else length**2), 2 * point + 1.0

    found = ascend(wall, torch.zeros(4, dtype=torch.float64), 1.0, n_steps=20)
    assert found.n_nonfinite >= 1
    assert np.isfinite(found.rise)
    assert 0 < found.rise <= 0.25 + 1e-12
    assert np.isnan(found.one_step)


def test_m_sharpness_is_the_mean_over_batches():
    linear, _ = problem("flat", 5, 0)
    functions = [quadratic(k * linear, np.zeros((5, 5))) for k in (1.0, 2.0, 3.0)]
    mean, stderr, rises = m_sharpness(functions, torch.zeros(5, dtype=torch.float64), 0.5)
    one = 0.5 * np.linalg.norm(linear)
    np.testing.assert_allclose(rises, one * np.array([1, 2, 3]), rtol=1e-12)
    assert mean == pytest.approx(2 * one)
    assert stderr == pytest.approx(one / np.sqrt(3))
    # The mean of the maxima is at least the maximum of the mean.
    assert mean >= ascend(quadratic(2 * linear, np.zeros((5, 5))), torch.zeros(5).double(), 0.5).rise - 1e-12
    assert np.isnan(m_sharpness(functions[:1], torch.zeros(5, dtype=torch.float64), 0.5)[1])


def test_equal_seeds_give_equal_bits_and_the_global_generator_rests():
    linear, hessian = problem("indefinite", 40, 5)
    before = torch.random.get_rng_state()
    zero, function = torch.zeros(40, dtype=torch.float64), quadratic(linear, hessian)
    a, b = (ascend(function, zero, 1.0, n_restarts=3, random_state=7) for _ in range(2))
    assert a.rise == b.rise and torch.equal(a.epsilon, b.epsilon) and a.restarts == b.restarts
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rho": 0.0}, "rho must be"),
        ({"rho": -1.0}, "rho must be"),
        ({"rho": float("nan")}, "rho must be"),
        ({"norm": "l1"}, "norm must be one of l2, linf, got 'l1'"),
        ({"n_steps": 0}, "n_steps must be"),
        ({"n_restarts": 0}, "n_restarts must be"),
        ({"origin": (float("nan"), torch.zeros(3))}, "the loss at θ must be finite"),
        ({"origin": (1.0, torch.full((3,), float("nan")))}, "the gradient at θ must be finite"),
    ],
)
def test_bad_input_says_what_is_allowed(change, words):
    options = {"rho": 0.1, **change}
    with pytest.raises(ValueError, match=words):
        ascend(quadratic(np.ones(3), np.eye(3)), torch.zeros(3, dtype=torch.float64), **options)


def test_a_callback_can_stop_the_work():
    class Stop(Exception):
        pass

    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:
            raise Stop

    linear, hessian = problem("indefinite", 40, 0)
    with pytest.raises(Stop):
        ascend(quadratic(linear, hessian), torch.zeros(40, dtype=torch.float64), 1.0, on_step=stop)
    assert len(calls) == 3


def constant(point):
    return 1.25, torch.zeros_like(point)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("n_restarts", [1, 12])
def test_a_constant_loss_rises_by_nothing_and_says_so(norm, n_restarts):
    found = ascend(constant, torch.zeros(5, dtype=torch.float64), 0.5, norm=norm, n_restarts=n_restarts)
    assert found.rise == 0.0 and found.constant and not found.lone
    scaled = ascend(quadratic(np.ones(5), np.eye(5)), torch.zeros(5).double(), 0.5, scale=torch.zeros(5).double())
    assert scaled.rise == 0.0 and scaled.constant
    assert not ascend(quadratic(np.ones(5), np.eye(5)), torch.zeros(5).double(), 0.5, norm=norm).constant


def test_starts_differ_in_kind_and_share_the_budget():
    linear, hessian = problem("indefinite", 40, 5)
    found = ascend(quadratic(linear, hessian), torch.zeros(40, dtype=torch.float64), 1.0, n_restarts=12)
    assert found.kinds == ("gradient", "eigenvector +", "eigenvector −", *["random"] * 9)
    assert found.n_gradients <= 300  # 12 whole climbs would take 500
    assert 0 <= found.spread < 0.01 and not found.lone  # a quadratic has one maximum, which both finalists find
    assert found.rise >= 0.99 * exact_maximum(linear, hessian, 1.0)


def test_one_start_alone_is_told_from_two_that_agree():
    assert lone_winner([0.5, 1.0])
    assert not lone_winner([0.96, 1.0]) and not lone_winner([0.0, 0.0]) and not lone_winner([1.0])
