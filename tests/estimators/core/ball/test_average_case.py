"""Average-case sharpness against σ²·tr(H)/2 and other closed forms."""

import numpy as np
import pytest
import torch

from estimators.core.ball.average_case import average_rise, filter_scale, noise_profile
from estimators.core.evidence.intervals import mean_interval


def quadratic(linear, hessian):
    return lambda x: float(linear @ x + x @ (hessian @ x) / 2)


@pytest.fixture
def bowl():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 40))
    return torch.as_tensor(rng.normal(size=40)), torch.as_tensor(a @ a.T / 40)


def test_mean_rise_is_half_sigma_squared_trace(bowl):
    linear, hessian = bowl
    zero = torch.zeros(40, dtype=torch.float64)
    for sigma in (0.01, 0.3):
        exact = sigma**2 * float(hessian.trace()) / 2
        found = average_rise(quadratic(linear, hessian), zero, sigma, n_draws=4000)
        assert abs(found.mean - exact) <= 3 * found.stderr
        assert found.stderr < 0.02 * exact
        assert found.rises.shape == (4000,)


def test_small_noise_on_a_network_loss_agrees_with_the_trace():
    gen = torch.Generator().manual_seed(0)
    x = torch.randn(30, 3, generator=gen, dtype=torch.float64)
    y = torch.randn(30, 2, generator=gen, dtype=torch.float64)
    theta = 0.5 * torch.randn(3 * 4 + 4 * 2, generator=gen, dtype=torch.float64)

    def loss(t):
        hidden = torch.tanh(x @ t[:12].reshape(3, 4))
        return (hidden @ t[12:].reshape(4, 2) - y).pow(2).mean()

    trace = float(torch.autograd.functional.hessian(loss, theta).trace())
    found = average_rise(lambda t: float(loss(t)), theta, 0.01, n_draws=4000)
    assert abs(found.mean - 0.01**2 * trace / 2) <= 3 * found.stderr
    assert found.stderr < 0.05 * abs(found.mean)


def test_antithetic_pairs_cancel_the_gradient(bowl):
    linear, _ = bowl
    zero = torch.zeros(40, dtype=torch.float64)
    slope_only = quadratic(linear, torch.zeros(40, 40, dtype=torch.float64))
    paired = average_rise(slope_only, zero, 0.1, n_draws=8)
    assert paired.mean == pytest.approx(0.0, abs=1e-12)
    assert paired.stderr < 1e-12
    single = average_rise(slope_only, zero, 0.1, n_draws=8, antithetic=False)
    assert single.stderr > 0.01
    np.testing.assert_allclose(paired.rises[0::2], -paired.rises[1::2])


def test_standard_error_is_honest(bowl):
    """A ± 2 standard error interval holds the true mean in at least 85 % of 200 repeats."""
    linear, hessian = bowl
    zero, exact = torch.zeros(40, dtype=torch.float64), 0.1**2 * float(hessian.trace()) / 2
    for antithetic in (True, False):
        inside = 0
        for seed in range(200):
            found = average_rise(
                quadratic(linear, hessian), zero, 0.1, n_draws=32, antithetic=antithetic, random_state=seed
            )
            inside += abs(found.mean - exact) <= 2 * found.stderr
        assert inside >= 170


def test_filter_scale_is_the_rms_of_each_filter():
    conv = torch.arange(1.0, 13.0, dtype=torch.float64).reshape(3, 2, 2, 1)
    bias, norm = torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    token = torch.tensor([[[3.0, 4.0], [6.0, 8.0]]], dtype=torch.float64)
    theta = torch.cat([t.reshape(-1) for t in (conv, bias, norm, token)])
    shapes = [conv.shape, bias.shape, norm.shape, token.shape]
    scale = filter_scale(theta, shapes, ["conv.weight", "conv.bias", "bn.weight", "pos_embed"])
    for k in range(3):
        rms = float(conv[k].pow(2).mean().sqrt())
        np.testing.assert_allclose(scale[4 * k : 4 * k + 4], rms)
    assert not bool(scale[12:18].any())
    np.testing.assert_allclose(scale[18:], np.sqrt([12.5, 12.5, 50.0, 50.0]))


def test_filter_normalised_noise_has_the_scaled_trace(bowl):
    linear, hessian = bowl
    scale = torch.linspace(0.0, 2.0, 40, dtype=torch.float64)
    exact = 0.05**2 * float((scale**2 * hessian.diagonal()).sum()) / 2
    found = average_rise(
        quadratic(linear, hessian), torch.zeros(40, dtype=torch.float64), 0.05, scale=scale, n_draws=4000
    )
    assert abs(found.mean - exact) <= 3 * found.stderr


def test_rescaling_a_filter_leaves_the_normalised_value(bowl):
    """L(θ) = f(aᵢθᵢ): dividing the filter by a and the loss's view of it by 1/a is the same network."""
    theta = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64).reshape(-1)
    hidden = torch.tensor([10.0, 10.0, 1.0, 1.0], dtype=torch.float64)
    _, hessian = bowl
    small = hessian[:4, :4]

    def value(factor):
        shift, names = theta * factor, ["w"]
        scale = filter_scale(shift, [(2, 2)], names)
        return average_rise(
            lambda t: float((t / factor) @ (small @ (t / factor))), shift, 0.1, scale=scale, n_draws=8
        ).mean

    assert value(hidden) == pytest.approx(value(torch.ones_like(hidden)), rel=1e-6)


def test_profile_uses_the_same_noise_stretched(bowl):
    linear, hessian = bowl
    zero = torch.zeros(40, dtype=torch.float64)
    profile = noise_profile(quadratic(linear, hessian), zero, [0.2, 0.05, 0.1], n_draws=8)
    assert [p.sigma for p in profile] == [0.05, 0.1, 0.2]
    # On a quadratic the paired mean is exactly ∝ σ² when the noise is the same.
    np.testing.assert_allclose([p.mean / p.sigma**2 for p in profile], profile[0].mean / 0.05**2, rtol=1e-9)


def test_infinite_losses_stay_and_are_counted():
    calls = iter([0.0, 1.0, float("inf"), 1.0, 1.0])
    found = average_rise(lambda _: next(calls), torch.zeros(3), 0.1, n_draws=4)
    assert found.n_nonfinite == 1
    assert not np.isfinite(found.mean)


def test_equal_seeds_equal_bits_and_no_global_generator(bowl):
    linear, hessian = bowl
    before = torch.random.get_rng_state()
    a, b, c = (
        average_rise(quadratic(linear, hessian), torch.zeros(40, dtype=torch.float64), 0.1, n_draws=6, random_state=s)
        for s in (1, 1, 2)
    )
    assert np.array_equal(a.rises, b.rises)
    assert not np.array_equal(a.rises, c.rises)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigma": 0.0}, "sigma must be"),
        ({"sigma": float("inf")}, "sigma must be"),
        ({"n_draws": 2}, "n_draws must be ≥ 3 with antithetic"),
        ({"n_draws": 1, "antithetic": False}, "n_draws must be ≥ 2"),
        ({"base": float("nan")}, "the loss at θ must be finite"),
    ],
)
def test_bad_input_says_what_is_allowed(change, words):
    options = {"sigma": 0.1, **change}
    with pytest.raises(ValueError, match=words):
        average_rise(lambda x: float(x.sum()), torch.zeros(3), **options)


def one_sharp_direction(hessian=20.0):
    """Rises distributed like χ² with one degree of freedom: the shape of a network with one large eigenvalue."""
    diagonal = torch.cat([torch.tensor([hessian]), torch.full((39,), 0.02)]).double()
    return lambda x: float((diagonal * x * x).sum()) / 2, 0.3**2 * float(diagonal.sum()) / 2


def log_normal():
    """Rises that grow exponentially in one direction."""
    return lambda x: float(torch.exp(4 * x[0])), float(np.exp(8 * 0.3**2)) - 1


@pytest.mark.parametrize("problem", [one_sharp_direction, log_normal])
def test_the_default_interval_covers_skewed_rises(problem):
    """At least 93 % of 200 repeats at a nominal 95 %; ± 2 standard errors of 16 draws covered 85 to 88 %."""
    loss, exact = problem()
    zero = torch.zeros(40, dtype=torch.float64)
    found = [average_rise(loss, zero, 0.3, random_state=seed) for seed in range(200)]
    assert np.mean([f.low <= exact <= f.high for f in found]) >= 0.93
    # Not by being wide without bound: Student's interval from the same draws is no shorter than a third of it.
    assert np.median([(f.high - f.low) / (2 * 2.13 * f.stderr) for f in found]) < 3


def test_interval_of_a_mean_is_students_without_skew_and_nan_without_numbers():
    even = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    reach = 2.7764451 * even.std(ddof=1) / np.sqrt(5)
    assert mean_interval(even) == pytest.approx((-reach, reach))
    low, high = mean_interval(np.array([0.0, 0.1, 0.2, 0.1, 5.0]))
    assert high - 1.08 > 1.08 - low  # towards the long tail
    assert mean_interval(np.full(4, 3.0)) == (3.0, 3.0)
    assert np.isnan(mean_interval(np.array([1.0]))).all() and np.isnan(mean_interval(np.array([1.0, np.inf]))).all()
