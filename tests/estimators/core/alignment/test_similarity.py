import numpy as np
import pytest
import timm
import torch
from torch import nn

from estimators.core.alignment.similarity import (
    classical_scaling,
    connected_groups,
    features,
    find_classifier,
    linear_cka,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_cka_ignores_rotation_and_scale_and_notices_difference():
    x = normal(60, 8)
    rotation = torch.linalg.qr(normal(8, 8, seed=1))[0]
    assert linear_cka(x, 3.0 * x @ rotation + 5.0) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, normal(60, 8, seed=2)) < 0.3


def test_cka_is_the_same_by_features_and_by_examples():
    x, y = normal(30, 5), normal(30, 7, seed=1)
    wide = torch.cat([y, torch.zeros(30, 40, dtype=torch.float64)], 1)  # forces the N × N form
    assert linear_cka(x, y) == pytest.approx(linear_cka(x, wide), rel=1e-12)


def test_random_features_are_not_alike_however_few_the_examples():
    """The plain estimate gives 0.76 and more here."""
    values = [linear_cka(normal(16, 96, seed=2 * i), normal(16, 96, seed=2 * i + 1)) for i in range(40)]
    assert abs(sum(values) / 40) < 0.05 and max(values) < 0.35
    x = normal(16, 96)
    assert linear_cka(x, x @ torch.linalg.qr(normal(96, 96, seed=1))[0]) == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, x + 0.1 * normal(16, 96, seed=5)) > 0.9


def test_cka_is_that_of_the_definition():
    """Against HSIC₁ written with N × N matrices, as in the paper."""
    x, y, n = normal(9, 5), normal(9, 4, seed=1) + 3.0, 9

    def hsic(k, m):
        k, m = k - torch.diag(k.diag()), m - torch.diag(m.diag())
        return (k @ m).trace() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()

    k, m = x @ x.T, y @ y.T
    assert linear_cka(x, y) == pytest.approx(float(hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()), rel=1e-9)
    assert np.isnan(linear_cka(x[:3], y[:3]))  # there is no unbiased estimate from three
    assert np.isnan(linear_cka(x, torch.ones(9, 2)))


def test_features_are_what_enters_the_classifier():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = normal(10, 4)
    torch.testing.assert_close(features(net, [x[:7], x[7:]]), net[:2](x))
    assert not net[2]._forward_pre_hooks
    resnet = timm.create_model("test_resnet", num_classes=10)
    assert find_classifier(resnet) is resnet.fc
    assert features(nn.Conv2d(3, 4, 1), [torch.ones(2, 3, 4, 4)]) is None


def test_classical_scaling_returns_a_flat_arrangement_as_it_is():
    points = normal(7, 2).numpy()
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found, share = classical_scaling(distances)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found[None], axis=-1), distances, atol=1e-12)
    assert share == pytest.approx(1.0)
    _, of_simplex = classical_scaling(1.0 - np.eye(6))  # a regular simplex needs five dimensions
    assert of_simplex == pytest.approx(2 / 5)


def test_two_points_lie_on_a_line():
    found, share = classical_scaling(np.array([[0.0, 3.0], [3.0, 0.0]]))
    assert abs(found[0, 0] - found[1, 0]) == pytest.approx(3.0)
    np.testing.assert_allclose(found[:, 1], 0.0, atol=1e-12)
    assert share == pytest.approx(1.0)


def test_groups_are_joined_in_steps_and_nan_joins_nothing():
    barriers = np.full((5, 5), 9.0)
    np.fill_diagonal(barriers, 0.0)
    for i, j in ((0, 2), (2, 4)):
        barriers[i, j] = barriers[j, i] = 0.01
    barriers[1, 3] = barriers[3, 1] = np.nan
    assert connected_groups(barriers, 0.1).tolist() == [0, 1, 0, 2, 0]
