import math

import numpy as np
import pytest
import timm
import torch
from sklearn.decomposition import PCA
from torch import nn

from estimators.core.planes.directions import (
    NORMALIZATIONS,
    Frame,
    largest_cosine,
    principal_directions,
    random_directions,
    random_walk_ratio,
    spanning_directions,
)


def flat(model: nn.Module):
    pairs = list(model.named_parameters())
    theta = torch.cat([p.detach().reshape(-1) for _, p in pairs])
    return theta, [tuple(p.shape) for _, p in pairs], [n for n, _ in pairs]


def draw(model, seed=0, **kwargs):
    theta, shapes, names = flat(model)
    out = random_directions(theta, shapes, names, torch.Generator().manual_seed(seed), **kwargs)
    split = [
        out[:, a : a + n] for a, n in zip(np.cumsum([0, *map(math.prod, shapes)]), map(math.prod, shapes), strict=False)
    ]
    return theta, out, dict(zip(names, split, strict=True))


@pytest.mark.parametrize(
    ("name", "kwargs"), [("test_resnet", {}), ("test_vit", {"img_size": 32}), ("test_convnext", {})]
)
def test_filter_normalisation_is_the_papers_filter_by_filter(name, kwargs):
    model = timm.create_model(name, num_classes=10, **kwargs)
    _, directions, parts = draw(model)
    for key, weight in model.named_parameters():
        for direction in parts[key]:
            piece = direction.reshape(weight.shape)
            if weight.ndim <= 1:
                assert torch.count_nonzero(piece) == 0, key
                continue
            tokens = key in ("pos_embed", "cls_token")
            filters = list(weight[0]) if tokens else list(weight)
            pieces = list(piece[0]) if tokens else list(piece)
            for f, d in zip(filters, pieces, strict=True):  # the plain loop of section 4 of the paper
                assert d.norm().item() == pytest.approx(f.detach().norm().item(), rel=1e-5)
        first, second = parts[key]
        if weight.ndim > 1:
            rows = weight.shape[1] if key == "pos_embed" else weight.shape[0]
            inner = (first.double() * second.double()).reshape(rows, -1).sum(1)
            sizes = first.double().reshape(rows, -1).square().sum(1).clamp_min(1e-30)
            assert (inner / sizes).abs().max() < 1e-6, key
    assert largest_cosine(directions) < 1e-6


def test_first_direction_is_the_plain_gaussian_rescaled():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(8, 2)).double()
    theta, _, parts = draw(model, seed=7)
    raw = torch.randn(theta.numel(), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    weight = model[0].weight.detach()
    expected = raw[: weight.numel()].reshape(weight.shape).clone()
    for i in range(len(weight)):
        expected[i] *= weight[i].norm() / expected[i].norm()
    torch.testing.assert_close(parts["0.weight"][0].reshape(weight.shape), expected, rtol=1e-12, atol=0)


def test_layer_model_and_no_normalisation_copy_the_stated_norms():
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)).double()
    for kind in NORMALIZATIONS:
        theta, directions, parts = draw(model, normalization=kind, n_directions=3)
        assert largest_cosine(directions) < 1e-12
        if kind == "layer":
            for direction in parts["0.weight"]:
                assert direction.norm().item() == pytest.approx(model[0].weight.norm().item(), rel=1e-12)
            assert torch.count_nonzero(parts["1.weight"]) == torch.count_nonzero(parts["2.bias"]) == 0
        if kind in ("model", "none"):
            length = theta.norm().item() if kind == "model" else 1.0
            assert directions.norm(dim=1).tolist() == pytest.approx([length] * 3, rel=1e-12)
            assert torch.count_nonzero(parts["1.weight"]) == parts["1.weight"].numel()


def test_norm_and_scale_parameters_with_several_axes_stay_still():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm((3, 4, 4))
            self.gamma = nn.Parameter(torch.ones(6, 1, 1))
            self.relative_position_bias_table = nn.Parameter(torch.ones(5, 2))
            self.single = nn.Linear(4, 1)

    _, _, parts = draw(Net())
    for name in ("norm.weight", "gamma", "single.bias"):
        assert torch.count_nonzero(parts[name]) == 0
    assert parts["relative_position_bias_table"][0].reshape(5, 2).norm(dim=1).tolist() == pytest.approx([2**0.5] * 5)
    assert parts["single.weight"][0].norm().item() > 0


def test_draws_repeat_and_do_not_depend_on_the_dtype_nor_touch_the_global_state():
    model = nn.Linear(6, 4)
    before = torch.get_rng_state()
    _, single, _ = draw(model, seed=3)
    _, again, _ = draw(model, seed=3)
    _, double, _ = draw(model.double(), seed=3)
    assert torch.equal(single, again)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-7)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(single, draw(model.float(), seed=4)[1])


def test_a_filter_too_small_for_a_second_direction_gets_none_and_a_zero_filter_stays_zero():
    model = nn.Linear(1, 3).double()
    with torch.no_grad():
        model.weight[1] = 0.0
    _, directions, _ = draw(model)
    assert directions[0, :3].abs().tolist() == pytest.approx(model.weight.detach().abs().reshape(-1).tolist())
    assert torch.count_nonzero(directions[1]) == 0


def test_unknown_normalisation_names_what_is_allowed():
    with pytest.raises(ValueError, match="normalization must be one of filter, layer, model, none"):
        draw(nn.Linear(2, 2), normalization="filters")


def test_principal_directions_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    points = torch.cumsum(torch.randn(9, 40, dtype=torch.float64, generator=generator), dim=0)
    directions, ratio = principal_directions(points, 3)
    pca = PCA(3).fit(points.numpy())
    np.testing.assert_allclose(ratio, pca.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose((directions.numpy() * pca.components_).sum(1).__abs__(), 1.0, rtol=1e-10)
    with pytest.raises(ValueError, match="span at least 2 directions, got 3 that span 1"):
        principal_directions(torch.stack([points[0], points[1], 0.5 * (points[0] + points[1])]), 2)


def test_plane_through_three_models_holds_all_three():
    points = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    directions = spanning_directions(points)
    frame = Frame(points[0], directions)
    torch.testing.assert_close(directions @ directions.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert frame.residual(points).max() < 1e-10
    torch.testing.assert_close(frame.point(frame.project(points)), points)
    coordinates = frame.project(points)
    assert coordinates[0].abs().max() < 1e-12
    assert abs(coordinates[1, 1].item()) < 1e-10
    with pytest.raises(ValueError, match="copy of another one or on a line"):
        spanning_directions(torch.stack([points[0], points[1], 0.3 * points[0] + 0.7 * points[1]]))


def test_frame_handles_oblique_directions_and_measures_distance_from_the_plane():
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(2, 30, generator=generator)
    directions[1] += 3 * directions[0]
    frame = Frame(torch.randn(30, generator=generator), directions)
    coordinates = torch.tensor([[0.5, -2.0], [0.0, 0.0], [1.0, 0.25]], dtype=torch.float64)
    points = frame.point(coordinates)
    torch.testing.assert_close(frame.project(points), coordinates, rtol=0, atol=1e-5)
    assert torch.equal(points[1], frame.origin)
    away = torch.linalg.qr(directions.double().T, mode="complete").Q[:, 5]
    assert frame.residual((points[:1].double() + 4.0 * away).float())[0].item() == pytest.approx(4.0, rel=1e-5)


@pytest.mark.parametrize("n_points", [4, 12, 60])
def test_the_shares_of_a_random_walk_are_those_of_simulated_ones(n_points):
    generator = torch.Generator().manual_seed(n_points)
    walks = [torch.randn(n_points, 20_000, generator=generator).double().cumsum(0) for _ in range(4)]
    measured = torch.stack([principal_directions(w, 2)[1] for w in walks]).mean(0)
    np.testing.assert_allclose(random_walk_ratio(n_points, 2), measured, rtol=0.04)
    assert float(random_walk_ratio(n_points, n_points - 1).sum()) == pytest.approx(1.0)


def test_a_long_random_walk_shows_three_quarters_of_its_variance_in_a_plane():
    np.testing.assert_allclose(random_walk_ratio(5000, 2), [6 / np.pi**2, 1.5 / np.pi**2], rtol=1e-3)
