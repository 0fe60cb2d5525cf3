"""The PAC-Bayes bound against its formula, and against a case where the true error is known."""

from math import erf, log, sqrt

import numpy as np
import pytest
import torch

from estimators.core.ball.pac_bayes import SIGMA_GRID, gaussian_kl, kl_inverse, mcallester, pac_bayes_bound


def test_kl_of_shifted_gaussians():
    a = torch.distributions.Normal(torch.tensor([1.0, -2.0]).double(), 0.3)
    b = torch.distributions.Normal(torch.tensor([0.0, 0.5]).double(), 0.3)
    exact = float(torch.distributions.kl_divergence(a, b).sum())
    assert gaussian_kl(sqrt(1 + 2.5**2), 0.3) == pytest.approx(exact, rel=1e-6)


def test_kl_inverse_inverts_and_has_known_values():
    for share, budget in ((0.0, 0.1), (0.03, 0.01), (0.5, 0.2), (0.9, 0.05)):
        p = kl_inverse(share, budget)
        left = share * log(share / p) if share else 0.0
        assert left + (1 - share) * log((1 - share) / (1 - p)) == pytest.approx(budget, abs=1e-9)
        assert p >= share
    assert kl_inverse(0.0, 0.1) == pytest.approx(1 - np.exp(-0.1), abs=1e-9)  # the closed form at 0 errors
    assert kl_inverse(1.0, 0.1) == 1.0
    assert kl_inverse(0.2, 0.0) == pytest.approx(0.2)


def test_mcallester_formula():
    exact = 0.1 + sqrt((50 + log(2 * sqrt(400) / 0.05)) / 800)
    assert mcallester(0.1, 50.0, 400, 0.05) == pytest.approx(exact, rel=1e-12)


def threshold(theta0, margin):
    """Error of a rule with one weight: wrong on every example when that weight is too far off."""
    return lambda t: float(abs(float(t[0]) - theta0) > margin)


def test_bound_is_made_of_its_parts():
    theta, prior = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    found = pac_bayes_bound(threshold(2.0, 0.5), theta, prior, 1000, n_search=200, n_draws=2000)
    assert found.distance == 1.0
    assert found.kl == pytest.approx(1 / (2 * found.sigma**2))
    assert found.sigma in SIGMA_GRID
    exact = 1 - erf(0.5 / found.sigma / sqrt(2))  # error of the blurred rule
    assert found.error == pytest.approx(exact, abs=4 * sqrt(max(exact, 1e-3) / 2000))
    assert found.error_upper == pytest.approx(kl_inverse(found.error, log(2 / 0.05) / 2000), abs=1e-9)
    share = 0.025 / len(SIGMA_GRID)
    assert found.bound == pytest.approx(mcallester(found.error_upper, found.kl, 1000, share))
    assert found.error <= found.error_upper <= found.bound_kl <= found.bound
    assert not found.vacuous
    # The chosen σ is the grid's best and not an end of it: noise is traded against KL.
    assert found.grid_bounds.min() == found.grid_bounds[np.searchsorted(found.grid, found.sigma)]
    assert SIGMA_GRID[0] < found.sigma < SIGMA_GRID[-1]


def test_flatter_rule_has_the_lower_bound_and_tolerates_more_noise():
    theta, prior = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    flat, sharp = (
        pac_bayes_bound(threshold(2.0, margin), theta, prior, 1000, n_search=100, n_draws=500) for margin in (0.5, 0.01)
    )
    assert flat.bound < sharp.bound
    assert flat.sigma_tolerated > sharp.sigma_tolerated > 0


def test_far_from_the_prior_is_vacuous_and_says_so():
    theta = torch.full((400,), 5.0).double()
    found = pac_bayes_bound(lambda t: float((t - theta).norm() > 0.5), theta, None, 100)
    assert found.distance == pytest.approx(100.0)  # prior at 0
    assert found.vacuous and found.bound >= 1.0
    assert found.bound_kl <= 1.0


def test_intolerant_rule_tolerates_nothing():
    theta = torch.zeros(3).double()
    found = pac_bayes_bound(lambda t: float(bool((t != 0).any())), theta, None, 100)
    assert found.sigma_tolerated == 0.0
    assert found.error == 1.0 and found.vacuous


def test_broken_networks_count_as_wrong():
    found = pac_bayes_bound(lambda t: float("nan") if bool((t != 0).any()) else 0.0, torch.zeros(2).double(), None, 50)
    assert found.error == 1.0


def test_equal_seeds_equal_bits_and_no_global_generator():
    theta, prior = torch.tensor([2.0]).double(), torch.tensor([1.0]).double()
    before = torch.random.get_rng_state()
    a, b = (pac_bayes_bound(threshold(2.0, 0.3), theta, prior, 500, random_state=3) for _ in range(2))
    assert (a.bound, a.sigma, a.error) == (b.bound, b.sigma, b.error)
    assert np.array_equal(a.grid_errors, b.grid_errors)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delta": 0.0}, "delta must be between 0 and 1"),
        ({"delta": 1.0}, "delta must be between 0 and 1"),
        ({"sigmas": (0.0, 0.1)}, "sigmas must be finite numbers > 0"),
        ({"sigmas": ()}, "sigmas must be finite numbers > 0"),
        ({"n_examples": 0}, "n_examples must be"),
        ({"n_draws": 0}, "n_draws must be"),
        ({"prior": torch.zeros(5)}, "prior must have the shape of θ"),
    ],
)
def test_bad_input_says_what_is_allowed(change, words):
    options = {"prior": None, "n_examples": 10, **change}
    prior, n_examples = options.pop("prior"), options.pop("n_examples")
    with pytest.raises(ValueError, match=words):
        pac_bayes_bound(lambda t: 0.0, torch.zeros(2), prior, n_examples, **options)
