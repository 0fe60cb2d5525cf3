"""Spectral density and fractions against explicit spectra, with the coverage of their standard errors."""

import numpy as np
import pytest
import torch

from estimators.core.spectrum.lanczos import lanczos_eigenpairs
from estimators.core.spectrum.quadrature import exact_density, gauss_rule, share_below, spectral_density
from estimators.core.spectrum.tridiagonal import lanczos_tridiagonal
from tests.estimators.core.spectrum.test_lanczos import network_like, rotated

N = 160


def _spectra():
    rng = np.random.default_rng(0)
    outliers = [100, 50, 30, 20, 10]
    return {
        "network": np.concatenate([outliers, rng.normal(size=N - 5) * np.exp(2 * rng.normal(size=N - 5) - 3)]),
        "many_zeros": np.concatenate([outliers, np.zeros(N - 55), rng.normal(size=50)]),
        "gaussian": rng.normal(size=N),
        "shifted": rng.uniform(-0.3, 1, N),
        "semidefinite": np.abs(rng.normal(size=N)) ** 3,
        "near_zero": 10 ** rng.uniform(-8, 1, N) * rng.choice([-1, 1], N),
        "two_clusters": np.concatenate([np.full(N // 3, -1.0), np.full(N - N // 3, 2.0)]),
    }


SPECTRA = _spectra()


def diagonal(values):
    """Lanczos from a random direction cannot tell a diagonal matrix from a rotated one, and this is fast."""
    d = torch.tensor(values)
    return lambda v: d[:, None] * v if v.ndim == 2 else d * v


def true_fractions(values, threshold):
    return np.array([(values <= -threshold).mean(), (np.abs(values) < threshold).mean(), (values >= threshold).mean()])


@pytest.mark.parametrize("name,n_steps", [*((name, 12) for name in SPECTRA), ("network", 40), ("near_zero", 40)])
def test_two_standard_errors_cover_in_200_repeats(name, n_steps):
    values = SPECTRA[name]
    threshold = 1e-3 * np.abs(values).max()
    truth = true_fractions(values, threshold)
    inside = []
    for seed in range(200):
        found = spectral_density(
            diagonal(values),
            N,
            n_probes=4,
            n_steps=n_steps,
            threshold=threshold,
            random_state=seed,
            n_grid=64,
        )
        inside.append(np.abs(found.fractions - truth) <= 2 * found.fractions_stderr + 1e-9)
    assert (np.mean(inside, axis=0) >= 0.85).all()


def test_standard_errors_shrink_with_steps_and_probes():
    values = SPECTRA["network"]
    few = spectral_density(diagonal(values), N, n_steps=15)
    many = spectral_density(diagonal(values), N, n_steps=100)
    assert (many.fractions_bracket < 0.2 * few.fractions_bracket).all()
    assert (many.fractions_stderr < 0.05).all()
    more = spectral_density(diagonal(values), N, n_steps=100, n_probes=40)
    assert (more.fractions_spread < 0.75 * many.fractions_spread).all()


def test_brackets_always_hold_the_probe_measure():
    rng = np.random.default_rng(3)
    for name, values in SPECTRA.items():
        for n_steps in (3, 10, 40):
            start = torch.tensor(rng.normal(size=N))
            jacobi = lanczos_tridiagonal(diagonal(values), start, n_steps)
            weights = (start / start.norm()).numpy() ** 2
            for x in (-0.5, -0.01, 0.0123, 0.7, 5.0):
                low, high = share_below(jacobi, x)
                truth = weights[values < x].sum()
                assert low - 1e-9 <= truth <= high + 1e-9, (name, n_steps, x)


def test_closed_krylov_space_is_exact():
    values = SPECTRA["two_clusters"]
    start = torch.ones(N, dtype=torch.float64)
    jacobi = lanczos_tridiagonal(diagonal(values), start, 40)
    assert jacobi.breakdown and len(jacobi.alphas) == 2
    third = (N // 3) / N
    nodes, weights = gauss_rule(jacobi)
    np.testing.assert_allclose(nodes, [-1, 2], atol=1e-12)
    np.testing.assert_allclose(weights, [third, 1 - third], atol=1e-12)
    assert share_below(jacobi, 0.0) == pytest.approx((third, third))


@pytest.mark.parametrize("name", SPECTRA)
def test_density_integrates_to_one_and_matches_the_broadened_spectrum(name):
    values = SPECTRA[name]
    found = spectral_density(diagonal(values), N, n_steps=100, n_probes=20)
    assert abs(np.trapezoid(found.density, found.grid) - 1) < 1e-6
    assert (found.density >= 0).all()
    z = (found.grid[:, None] - values) / found.sigma
    exact = np.exp(-0.5 * z**2).mean(axis=1) / (found.sigma * np.sqrt(2 * np.pi))
    # Compared as distributions: their cumulative curves are never 5 % of the eigenvalues apart.
    step = found.grid[1] - found.grid[0]
    assert np.abs(np.cumsum(found.density - exact) * step).max() < 0.05


def test_exact_density_is_the_histogram_broadened():
    values = SPECTRA["gaussian"]
    grid, density, sigma = exact_density(values)
    assert abs(np.trapezoid(density, grid) - 1) < 1e-6
    assert np.trapezoid(density * grid, grid) == pytest.approx(values.mean(), abs=1e-6)
    assert sigma == pytest.approx(4 * (grid[1] - grid[0]))


def test_known_eigenpairs_are_counted_exactly_and_sharpen_the_rest():
    values = network_like(N)
    a = rotated(values)
    pairs = lanczos_eigenpairs(lambda v: a @ v, N, 5, tol=1e-6)
    kwargs = {"n_steps": 15, "threshold": 0.05, "random_state": 1}
    plain = spectral_density(lambda v: a @ v, N, **kwargs)
    known = spectral_density(lambda v: a @ v, N, known_values=pairs.values, known_vectors=pairs.vectors, **kwargs)
    assert known.fractions_stderr.sum() < 0.5 * plain.fractions_stderr.sum()
    truth = true_fractions(values, 0.05)
    assert (np.abs(known.fractions - truth) <= 3 * known.fractions_stderr).all()
    assert abs(np.trapezoid(known.density, known.grid) - 1) < 1e-6
    assert known.extremes[1] < pairs.values[4]


def test_everything_known_needs_no_products():
    values = np.linspace(-1, 2, 6)
    a = rotated(values)
    pairs = lanczos_eigenpairs(lambda v: a @ v, 6, 6, tol=1e-12)
    found = spectral_density(lambda v: a @ v, 6, known_values=pairs.values, known_vectors=pairs.vectors)
    assert found.n_products == 0
    np.testing.assert_allclose(found.fractions, true_fractions(values, 2e-3))
    assert (found.fractions_stderr == 0).all()


def test_fractions_sum_to_one_and_runs_repeat():
    values = SPECTRA["network"]
    one, two = (spectral_density(diagonal(values), N, n_steps=20, random_state=4) for _ in range(2))
    assert one.fractions.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(one.fractions, two.fractions)
    np.testing.assert_array_equal(one.density, two.density)
    assert one.n_products == 200


def test_zero_operator_is_all_zero_fraction():
    found = spectral_density(lambda v: 0 * v, 30, threshold=1e-9)
    np.testing.assert_array_equal(found.fractions, [0, 1, 0])
    assert abs(np.trapezoid(found.density, found.grid) - 1) < 1e-6


def test_bad_counts():
    with pytest.raises(ValueError, match="n_probes must be at least 2, got 1"):
        spectral_density(lambda v: v, 5, n_probes=1)
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        spectral_density(lambda v: v, 5, n_steps=0)


def _smooth_with_outliers(n=300):
    rng = np.random.default_rng(5)
    return np.concatenate(
        [[60.0, 30.0, 20.0, 10.0], 0.3 * rng.normal(size=n - 4) * np.exp(1.5 * rng.normal(size=n - 4) - 1)]
    )


@pytest.mark.parametrize(
    ("values", "n_steps", "n_known"),
    [(SPECTRA["gaussian"], 12, 0), (_smooth_with_outliers(), 60, 4)],
    ids=["smooth", "network"],
)
def test_the_bar_of_the_saddle_index_is_neither_too_short_nor_too_long(values, n_steps, n_known):
    """± 2 standard errors hold the truth in 90 to 99 % of 70 repeats, and are at most 1.5 times the spread."""
    threshold = 1e-3 * np.abs(values).max()
    values = np.sort(values)[: len(values) - n_known]
    errors, bars = [], []
    for seed in range(70):
        found = spectral_density(
            diagonal(values),
            len(values),
            n_probes=10,
            n_steps=n_steps,
            threshold=threshold,
            random_state=seed,
            n_grid=64,
        )
        errors.append(found.fractions[0] - (values <= -threshold).mean())
        bars.append(2 * found.fractions_stderr[0])
    errors, bars = np.array(errors), np.array(bars)
    print(np.mean(np.abs(errors) <= bars), bars.mean() / (1.96 * np.sqrt((errors**2).mean())))
    assert 0.90 <= np.mean(np.abs(errors) <= bars) <= 0.99
    assert bars.mean() <= 1.5 * 1.96 * np.sqrt((errors**2).mean())
