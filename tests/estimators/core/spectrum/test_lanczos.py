"""Extreme eigenvalues against explicit matrices in float64."""

import numpy as np
import pytest
import torch

from estimators.core.spectrum.lanczos import lanczos_eigenpairs, products_to_see, wanted
from estimators.core.spectrum.tridiagonal import lanczos_tridiagonal


def rotated(values, seed=0, dtype=torch.float64):
    """A dense symmetric matrix with the given eigenvalues."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return torch.tensor((q * values) @ q.T).to(dtype)


def expected(values, k, ends):
    ordered = np.sort(values)
    return ordered[wanted(len(values), k, ends)][::-1]


def network_like(n=400, seed=0):
    """A bulk around zero, a few large outliers and a few negative ones."""
    rng = np.random.default_rng(seed)
    bulk = rng.normal(size=n - 10) * 0.3
    return np.concatenate([[120, 55, 31, 18, 9], bulk, [-4, -2.5, -2, -1.6, -1.4]])


SPECTRA = {
    "network": network_like(),
    "gaussian": np.random.default_rng(1).normal(size=300),
    "geometric": np.concatenate([100 * 0.7 ** np.arange(60), -(0.7 ** np.arange(60)), np.zeros(200)]),
    "clustered": np.concatenate([5 + 1e-4 * np.arange(5), np.random.default_rng(2).normal(size=200)]),
    "definite": np.linspace(1, 50, 120),
    "negative": -np.linspace(1, 50, 120),
}


@pytest.mark.parametrize("ends", ["both", "largest", "smallest"])
@pytest.mark.parametrize("name", SPECTRA)
def test_eigenvalues_match_the_dense_spectrum(name, ends):
    values = SPECTRA[name]
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, len(values), 5, ends=ends, tol=1e-8, max_products=4000)
    scale = np.abs(values).max()
    np.testing.assert_allclose(found.values, expected(values, 5, ends), rtol=1e-6, atol=1e-9 * scale)
    settled = found.converged | found.negligible
    assert settled.all()
    assert (np.diff(found.values) <= 0).all()


def test_residual_is_the_true_one_and_vectors_are_orthonormal():
    values = network_like()
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, len(values), 3, tol=1e-3)
    for value, vector, residual in zip(found.values, found.vectors, found.residuals, strict=True):
        assert torch.linalg.norm(a @ vector - value * vector).item() == pytest.approx(residual, abs=1e-10)
        assert residual <= 1e-3 * abs(value)
        assert np.abs(values - value).min() <= residual + 1e-10
    gram = found.vectors @ found.vectors.T
    torch.testing.assert_close(gram, torch.eye(6, dtype=torch.float64), atol=1e-10, rtol=0)


def test_products_are_counted():
    values = network_like()
    a = rotated(values)
    calls = 0

    def matvec(v):
        nonlocal calls
        calls += 1 if v.ndim == 1 else v.shape[1]
        return a @ v

    found = lanczos_eigenpairs(matvec, len(values), 5, verify=True)
    assert found.n_products == calls


def power_iteration_products(a, k, tol, limit=20_000):
    """Products that power iteration with deflation needs for the k largest at the same residual."""
    generator = torch.Generator().manual_seed(0)
    n, products, basis = a.shape[0], 0, torch.zeros(0, a.shape[0], dtype=a.dtype)
    for _ in range(k):
        v = torch.randn(n, generator=generator, dtype=a.dtype)
        while products < limit:
            v = v - basis.T @ (basis @ v)
            v = v / v.norm()
            w = a @ v
            products += 1
            value = v @ w
            if (w - value * v).norm() <= tol * value.abs():
                break
            v = w
        basis = torch.cat([basis, v[None]])
    return products


def test_fewer_products_than_power_iteration_with_deflation():
    a = rotated(network_like())
    found = lanczos_eigenpairs(lambda v: a @ v, a.shape[0], 5, ends="largest", tol=1e-3)
    assert found.converged.all()
    assert found.n_products < 0.5 * power_iteration_products(a, 5, 1e-3)


def test_restarts_give_the_same_answer_as_a_long_run():
    values = np.linspace(-1, 1, 400) ** 3
    a = rotated(values)
    short = lanczos_eigenpairs(lambda v: a @ v, 400, 3, tol=1e-9, basis_size=20, max_products=5000)
    assert short.n_restarts > 2
    np.testing.assert_allclose(short.values, expected(values, 3, "both"), rtol=1e-8)


def test_a_negative_eigenvalue_is_not_passed_over_for_the_null_space():
    noise = np.random.default_rng(0).normal(0, 1e-3, 20_000)
    values = torch.tensor(np.concatenate([np.geomspace(100, 1, 40), noise, [-5, -2, -1.5, -1.2]]))
    for seed in (0, 6):  # starts whose smallest Ritz value is tiny, with a tiny residual, after about ten products
        found = lanczos_eigenpairs(
            lambda v: torch.einsum("p,p...->p...", values, v), len(values), 1, tol=1e-2, random_state=seed
        )
        assert found.values[-1] == pytest.approx(-5, rel=1e-3) and found.converged[-1]


def test_nothing_is_called_negligible_before_it_was_looked_for():
    noise = np.random.default_rng(0).uniform(0, 1e-3, 20_000)
    values = torch.tensor(np.concatenate([np.geomspace(100, 1, 40), noise]))
    few = lanczos_eigenpairs(
        lambda v: torch.einsum("p,p...->p...", values, v), len(values), 1, tol=1e-2, max_products=20
    )
    assert abs(few.values[-1]) < 1e-2 and not few.negligible[-1]
    many = lanczos_eigenpairs(lambda v: torch.einsum("p,p...->p...", values, v), len(values), 1, tol=1e-2)
    assert many.negligible[-1] and products_to_see(len(values), 1e-2) <= many.n_products < 100


def test_low_rank_breaks_down_and_ends():
    values = np.concatenate([[3.0, 2.0, 1.0], np.zeros(150)])
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, len(values), 5)
    assert found.breakdowns >= 1
    assert found.n_products < 60
    np.testing.assert_allclose(found.values[:3], [3, 2, 1], rtol=1e-10)
    np.testing.assert_allclose(found.values[3:], 0, atol=1e-12)
    assert found.negligible[3:].all() and not found.negligible[:3].any()


def test_zero_and_scaled_identity_operators():
    zero = lanczos_eigenpairs(lambda v: 0 * v, 50, 2)
    np.testing.assert_array_equal(zero.values, 0)
    assert zero.converged.all()
    eye = lanczos_eigenpairs(lambda v: 2.5 * v, 50, 2)
    np.testing.assert_allclose(eye.values, 2.5, rtol=1e-12)


def test_every_copy_of_a_repeated_eigenvalue_in_a_closed_space():
    values = np.concatenate([[3, 3, 3, 2], np.ones(100), -np.ones(20)]).astype(float)
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, len(values), 4, ends="largest")
    np.testing.assert_allclose(found.values, [3, 3, 3, 2], rtol=1e-9)


def test_verify_finds_copies_that_one_start_vector_cannot_see():
    values = np.concatenate([[3.0, 3.0, 3.0], np.random.default_rng(0).uniform(-1, 1, 300)])
    a = torch.diag(torch.tensor(values))
    found = lanczos_eigenpairs(lambda v: a @ v, len(values), 3, ends="largest", tol=1e-4, verify=True)
    np.testing.assert_allclose(found.values, 3, rtol=1e-6)
    assert found.converged.all()


@pytest.mark.parametrize("size,k", [(1, 1), (2, 1), (3, 3), (7, 5)])
def test_tiny_operators_give_the_whole_spectrum(size, k):
    values = np.linspace(-2, 3, size)
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, size, k)
    np.testing.assert_allclose(found.values, expected(values, k, "both"), atol=1e-12)


def test_too_few_products_is_said():
    values = np.linspace(-1, 1, 400) ** 3
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, 400, 4, tol=1e-9, max_products=30)
    assert found.n_products <= 30
    assert not found.converged.all()
    assert (found.residuals[~found.converged] > 0).all()


def test_float32_noise_is_not_called_converged():
    values = np.concatenate([[2e4], np.linspace(-1e-3, 1e-3, 300)])
    a = rotated(values, dtype=torch.float32)
    found = lanczos_eigenpairs(lambda v: a @ v, len(values), 2, like=torch.empty(0), tol=1e-3, max_products=200)
    assert found.converged[0]
    assert found.values[0] == pytest.approx(2e4, rel=1e-5)
    assert found.negligible[1:].all()


def test_float32_agrees_with_float64():
    values = network_like()
    a = rotated(values)
    single = a.float()
    double = lanczos_eigenpairs(lambda v: a @ v, len(values), 5)
    rough = lanczos_eigenpairs(lambda v: single @ v, len(values), 5, like=torch.empty(0))
    np.testing.assert_allclose(rough.values, double.values, rtol=1e-4)


def test_same_seed_same_bits_and_another_seed_same_values():
    a = rotated(network_like())
    one, two, other = (lanczos_eigenpairs(lambda v: a @ v, a.shape[0], 4, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.values, two.values)
    assert torch.equal(one.vectors, two.vectors)
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5)


def test_global_generator_is_left_alone():
    a = rotated(np.arange(1.0, 30.0))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    lanczos_eigenpairs(lambda v: a @ v, 29, 2)
    assert torch.equal(before, torch.get_rng_state())


def test_callback_cancels():
    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 7:
            raise Stop

    a = rotated(network_like())
    with pytest.raises(Stop):
        lanczos_eigenpairs(lambda v: a @ v, a.shape[0], 5, on_step=stop)


@pytest.mark.parametrize("k", [0, 11, -1])
def test_bad_k_names_the_limit(k):
    with pytest.raises(ValueError, match="k must be an integer between 1 and the size of the operator \\(10\\)"):
        lanczos_eigenpairs(lambda v: v, 10, k)


def test_bad_ends_and_non_finite_products():
    with pytest.raises(ValueError, match="ends must be one of"):
        lanczos_eigenpairs(lambda v: v, 10, 1, ends="middle")
    with pytest.raises(ValueError, match="finite products"):
        lanczos_eigenpairs(lambda v: v * float("nan"), 10, 1)
    with pytest.raises(ValueError, match="finite products"):
        lanczos_tridiagonal(lambda v: v * float("inf"), torch.ones(10, dtype=torch.float64), 3)


def test_jacobi_matrix_is_the_projection():
    values = network_like(60)
    a = rotated(values)
    start = torch.ones(60, dtype=torch.float64)
    jacobi = lanczos_tridiagonal(lambda v: a @ v, start, 60)
    t = np.diag(jacobi.alphas) + np.diag(jacobi.betas[:-1], 1) + np.diag(jacobi.betas[:-1], -1)
    assert jacobi.breakdown and jacobi.betas[-1] == 0
    np.testing.assert_allclose(np.linalg.eigvalsh(t), np.sort(values), atol=1e-8)
    v = start / start.norm()
    moments = [float(v @ torch.linalg.matrix_power(a, p) @ v) for p in range(1, 4)]
    np.testing.assert_allclose([np.linalg.matrix_power(t, p)[0, 0] for p in range(1, 4)], moments, rtol=1e-10)


def test_jacobi_matrix_stays_in_the_complement_of_known_vectors():
    values = network_like(80)
    a = rotated(values)
    found = lanczos_eigenpairs(lambda v: a @ v, 80, 5, tol=1e-10)
    start = torch.randn(80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    jacobi = lanczos_tridiagonal(lambda v: a @ v, start, 70, deflate=found.vectors)
    t = np.diag(jacobi.alphas) + np.diag(jacobi.betas[:-1], 1) + np.diag(jacobi.betas[:-1], -1)
    np.testing.assert_allclose(np.linalg.eigvalsh(t), np.sort(values)[5:-5], atol=1e-7)
