"""What a slice says about the whole, where the whole is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from estimators import Examples, Landscape, Result, SurfaceMapper, SurfaceResult, train, trust_of_slice

CURVATURES = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, -1.0], dtype=torch.float64)
PLACE = torch.tensor([0.5, 1.0, 0.0, 0.0, 2.0, 0.0], dtype=torch.float64)


class Bowl(nn.Module):
    """½ Σ λ θ² + ¼ c θ₁⁴."""

    def __init__(self, place=PLACE, quartic=0.0):
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(place, dtype=torch.float64).clone())
        self.quartic = quartic

    def forward(self, x):
        value = 0.5 * (CURVATURES * self.theta**2).sum() + 0.25 * self.quartic * self.theta[0] ** 4
        return value.expand(len(x), 1)


def output(outputs, targets):
    return outputs[:, 0]


DATA = Examples(torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))


def land(**options):
    return Landscape(Bowl(**options), DATA, loss=output, precision="float64")


def axes(*rows):
    return torch.eye(6, dtype=torch.float64)[list(rows)]


def mapped(n_dims=2, span=1.0, side=5, **more):
    return SurfaceResult(axes=tuple(np.linspace(-span, span, side) for _ in range(n_dims)), **more)


def test_the_shares_of_a_quadratic_are_those_of_its_axes():
    skew = torch.stack([3 * axes(0)[0], axes(0)[0] + 2 * axes(4)[0]])  # spans axes 0 and 4, at an angle
    trust = trust_of_slice(mapped(), land(), skew, n_eigenvectors=3, n_draws=2)
    gradient = CURVATURES * PLACE
    assert trust.gradient_norm == pytest.approx(float(gradient.norm()))
    assert trust.gradient_share == pytest.approx(float((gradient[[0, 4]] ** 2).sum() / (gradient**2).sum()))
    np.testing.assert_allclose(trust.eigenvalues, (8, 4, 2), rtol=1e-6)
    np.testing.assert_allclose(trust.eigenvector_shares, (1, 0, 0), atol=1e-6)
    assert trust.space_share == pytest.approx(0.5) and trust.chance == pytest.approx(1 / 3)
    unit = np.array([1.0, 2.0]) / np.sqrt(5)
    np.testing.assert_allclose(trust.hessian_curvatures, (8, 8 * unit[0] ** 2 + 0.5 * unit[1] ** 2))
    np.testing.assert_allclose(trust.slice_curvatures, trust.hessian_curvatures)


def test_the_step_of_the_grid_shows_where_the_loss_is_not_quadratic():
    at = torch.zeros(6)
    exact = trust_of_slice(mapped(side=3), land(place=at, quartic=6.0), axes(0, 1), n_eigenvectors=0, n_draws=1)
    np.testing.assert_allclose(exact.hessian_curvatures, (8, 4))
    np.testing.assert_allclose(exact.slice_curvatures, (8 + 6 / 2, 4))  # over a step h: λ + c h² / 2
    assert not len(exact.eigenvalues) and np.isnan(exact.space_share)


def test_the_band_is_the_loss_along_other_directions_of_the_same_length():
    trust = trust_of_slice(mapped(n_dims=1, span=2.0), land(place=torch.zeros(6)), 3 * axes(0), n_draws=40, n_points=5)
    np.testing.assert_allclose(trust.band_t, (-2, -1, 0, 1, 2))
    np.testing.assert_allclose(trust.band_own, 4 * (3 * trust.band_t) ** 2)
    assert trust.band_losses.shape == (40, 5) and (trust.band_losses[:, 2] == 0).all()
    edge = trust.band_losses[:, -1] / 6**2 * 2  # curvature along each draw
    assert (edge <= 8).all() and (edge >= -1).all() and edge.std() > 0.3  # between the ends of the spectrum
    again = trust_of_slice(mapped(n_dims=1, span=2.0), land(place=torch.zeros(6)), 3 * axes(0), n_draws=40, n_points=5)
    np.testing.assert_array_equal(trust.band_losses, again.band_losses)


def test_the_share_of_the_trajectory_counts_what_lies_outside():
    path = {"label": "run", "x": [0.0, 3.0], "y": [0.0, 0.0], "distance": [0.0, 8.0]}
    trust = trust_of_slice(mapped(trajectories=[path]), land(), 2 * axes(0, 1), n_eigenvectors=0, n_draws=1)
    assert trust.trajectory_share == pytest.approx(36 / 100)
    assert "36 % of the way of the training" in trust.sentence


def test_one_sentence_says_what_the_picture_cannot_show():
    sharp = trust_of_slice(mapped(), land(), axes(4, 5), n_eigenvectors=2, n_draws=1)
    assert sharp.sentence == (
        "Of 6 directions the picture shows 2, holds 3.03 % of the gradient and less than 0.01 % of the room it has for "
        "the 2 sharpest eigenvectors, and curves at most 6.25 % as much as the sharpest one: a way down, a wall or "
        "another basin outside them does not show in it."
    )


def test_a_mapper_knows_its_plane_and_the_result_is_kept(digits, tmp_path):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    run = train(model, digits, epochs=3, random_state=0)
    followed = SurfaceMapper(directions="trajectory", resolution=5).fit(run, digits).trust(n_draws=2)
    assert followed.trajectory_share > 0.99  # four checkpoints span three directions, the plane holds nearly all
    drawn = SurfaceMapper(resolution=5, normalization=None, random_state=3).fit(run.model, digits).trust(n_draws=2)
    assert drawn.n_parameters == 130 and 0 < drawn.gradient_share < 0.2 and drawn.space_share < 0.2
    sharp = SurfaceMapper(directions="hessian", resolution=5).fit(run.model, digits).trust(n_eigenvectors=2, n_draws=2)
    assert sharp.space_share > 0.999
    np.testing.assert_allclose(sharp.hessian_curvatures, sharp.eigenvalues, rtol=1e-3)
    again = Result.load(sharp.save(tmp_path / "trust.npz"))
    assert again.sentence == sharp.sentence and again.uncertainty_of("eigenvalues")[0] == "residual"
    assert {row["quantity"] for row in again.table()} >= {"gradient_share", "eigenvector 2 share", "slice curvature 1"}


def test_wrong_settings_are_refused(digits):
    mapper = SurfaceMapper(resolution=3).fit(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), digits)
    with pytest.raises(ValueError, match="n_draws must be an integer of at least 1, got 0"):
        mapper.trust(n_draws=0)
