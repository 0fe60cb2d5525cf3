"""Trace estimates against explicit matrices: unbiased, and honest about their error."""

from functools import partial

import numpy as np
import pytest
import torch

from estimators.core.spectrum.trace import hutchpp, rademacher
from tests.estimators.core.spectrum.test_lanczos import network_like, rotated

hutchinson = partial(hutchpp, n_sketch=0)


def test_a_diagonal_matrix_is_exact_with_signs():
    d = torch.arange(1.0, 41.0, dtype=torch.float64)
    found = hutchinson(lambda v: d * v, 40, n_probes=3)
    assert found.value == pytest.approx(820, rel=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-9)


def test_low_rank_is_exact_with_hutchpp():
    values = np.concatenate([[30.0, -4.0, 2.0], np.zeros(100)])
    a = rotated(values)
    found = hutchpp(lambda v: a @ v, len(values), n_probes=6)
    assert found.value == pytest.approx(28, rel=1e-10)
    assert found.stderr < 1e-10


def test_a_sketch_as_wide_as_the_space_is_exact():
    a = rotated(np.linspace(-1, 2, 9))
    found = hutchpp(lambda v: a @ v, 9, n_probes=20)
    assert found.value == pytest.approx(4.5, rel=1e-10)
    assert found.stderr == 0 and found.n_products == 18


@pytest.mark.parametrize("method", [hutchinson, hutchpp])
def test_coverage_is_honest(method):
    values = network_like(200)
    a = rotated(values)
    runs = [method(lambda v: a @ v, 200, n_probes=10, random_state=seed) for seed in range(200)]
    inside = [abs(run.value - values.sum()) <= 2 * run.stderr for run in runs]
    assert np.mean(inside) >= 0.85
    # Unbiased: the mean over 200 runs is within 4 of its own standard errors.
    estimates = np.array([run.value for run in runs])
    assert abs(estimates.mean() - values.sum()) < 4 * estimates.std() / np.sqrt(200)
    # The standard error has the right size, not just a safe one.
    assert 0.7 < np.sqrt(np.mean([run.stderr**2 for run in runs])) / estimates.std() < 1.4


def test_hutchpp_beats_hutchinson_on_outliers_at_equal_cost():
    values = network_like(300)
    a = rotated(values)
    plus = [hutchpp(lambda v: a @ v, 300, n_probes=10, random_state=s) for s in range(30)]
    plain = [hutchinson(lambda v: a @ v, 300, n_probes=30, random_state=s) for s in range(30)]
    assert plus[0].n_products == plain[0].n_products == 30

    def error(runs):
        return np.sqrt(np.mean([(run.value - values.sum()) ** 2 for run in runs]))

    assert error(plus) < 0.6 * error(plain)


def test_reproducible_counted_and_cancellable():
    a = rotated(network_like(100))
    one, two = (hutchpp(lambda v: a @ v, 100, random_state=1) for _ in range(2))
    assert one.value == two.value and one.stderr == two.stderr
    seen = []
    hutchpp(lambda v: a @ v, 100, n_probes=4, n_sketch=3, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 10) for i in range(1, 11)]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hutchpp(lambda v: a @ v, 100, on_step=stop)


def test_bad_probe_counts():
    with pytest.raises(ValueError, match="n_probes must be at least 2, got 1"):
        hutchpp(lambda v: v, 5, n_probes=1)
    with pytest.raises(ValueError, match="n_sketch must be 0 or more, got -1"):
        hutchpp(lambda v: v, 5, n_sketch=-1)


def test_signs_are_signs_and_balanced():
    signs = rademacher(1000, 5, torch.Generator().manual_seed(0), torch.empty(0))
    assert signs.dtype == torch.float32
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean(dim=0).abs().max() < 0.15
