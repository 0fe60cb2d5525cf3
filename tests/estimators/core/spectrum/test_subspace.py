"""Few products with an operator, helped by a cheap one that is like it."""

import numpy as np
import pytest
import torch

from estimators.core.spectrum.lanczos import lanczos_eigenpairs
from estimators.core.spectrum.subspace import Subspace


@pytest.fixture(scope="module")
def matrices():
    """A network-like matrix of 300 weights, and one that is like it, as that of a part of the examples is."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(300, 300)))
    values = np.concatenate([[120, 80, 30], rng.normal(size=290) * 0.3, [-3, -2, -1.5, -1.3, -1.2, -1.1, -1]])
    other = rng.normal(size=(300, 300))
    whole = (basis * values) @ basis.T
    return torch.from_numpy(whole), torch.from_numpy(0.8 * whole + 0.02 * (other + other.T))


def counted(matrix):
    def product(v):
        product.count += 1
        return matrix @ v

    product.count = 0
    return product


def test_the_corrected_matrix_agrees_where_both_are_known_and_is_symmetric(matrices):
    whole, part = matrices
    space = Subspace(counted(whole), counted(part), whole[0])
    vectors = torch.randn(3, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert all(space.add(v) for v in vectors)
    assert not space.add(vectors.sum(0)) and space.n == 3  # nothing new: no product is spent on it
    corrected = torch.stack([space.corrected(column) for column in torch.eye(300, dtype=torch.float64)])
    torch.testing.assert_close(corrected @ vectors.T, whole @ vectors.T)
    torch.testing.assert_close(corrected, corrected.T)
    elsewhere = torch.linalg.svd(vectors).Vh[3:]
    torch.testing.assert_close(elsewhere @ corrected @ elsewhere.T, elsewhere @ part @ elsewhere.T)


def test_pairs_are_bounds_on_the_ends_with_true_residuals(matrices):
    whole, part = matrices
    space, truth = Subspace(counted(whole), counted(part), whole[0]), np.linalg.eigvalsh(whole.numpy())
    for vector in torch.linalg.eigh(part)[1].T[[-1, 0, 1]]:
        space.add(vector)
    pairs = space.pairs(1, "both", 1e-3)
    assert truth[0] <= pairs.values[1] < 0 < pairs.values[0] <= truth[-1] and pairs.n_products == 3
    for value, vector, residual in zip(pairs.values, pairs.vectors, pairs.residuals, strict=True):
        assert float((whole @ vector - value * vector).norm()) == pytest.approx(residual)
        assert float(vector @ whole @ vector) == pytest.approx(value)
    assert len(space.pairs(5, "smallest", 1e-3).values) == 3  # all that it has


def test_a_second_look_at_the_corrected_matrix_finds_what_the_part_missed(matrices):
    whole, part = matrices
    truth, product = np.linalg.eigvalsh(whole.numpy()), counted(whole)
    space, operator, off = Subspace(product, counted(part), whole[0]), counted(part), []
    for _ in range(3):
        found = lanczos_eigenpairs(operator, 300, 1, tol=1e-2, like=whole[0])
        for vector in found.vectors:
            space.add(vector)
        pairs, operator = space.pairs(1, "both", 1e-3), space.corrected
        off.append(np.abs(pairs.values - truth[[-1, 0]]))
    assert product.count == space.n <= 6  # what is known already costs nothing
    assert (off[0] > off[1]).all() and (off[1] > off[2]).all() and (off[2] < 0.05 * off[0]).all()
    alone = lanczos_eigenpairs(counted(whole), 300, 1, max_products=8, like=whole[0])
    assert off[2].sum() < 0.01 * np.abs(alone.values - truth[[-1, 0]]).sum()
