import builtins

import numpy as np
import pytest
import torch

from estimators.core.planes.directions import random_directions
from estimators.core.planes.eigenvalue_ratio import eigenvalue_ratio, radii_to_level
from estimators.core.planes.topology import basins


def two_wells(depth=0.5):
    x, y = np.meshgrid(np.linspace(-2, 2, 41), np.linspace(-1, 1, 21), indexing="ij")
    return (x**2 - 1) ** 2 + y**2 + depth * (x > 0)


def test_two_wells_are_two_basins_with_the_height_of_the_pass():
    pytest.importorskip("gudhi")
    first, second = basins(two_wells())
    assert (first.row, first.column, first.birth, first.death) == (10, 10, 0.0, np.inf)
    assert (second.row, second.column, second.birth) == (30, 10, 0.5)
    # from the right well the way out leads over x = 0.1, where (x² − 1)² + 0.5 is highest on the grid
    assert second.death == pytest.approx((0.1**2 - 1) ** 2 + 0.5, rel=1e-12)
    assert second.persistence == pytest.approx(0.9801, rel=1e-9)
    assert len(basins(two_wells(), min_persistence=1.0)) == 1


def test_cells_that_are_not_finite_are_walls():
    pytest.importorskip("gudhi")
    values = np.add.outer(np.abs(np.arange(7) - 3.0), np.zeros(5))
    assert len(basins(values)) == 1
    values[3] = np.nan
    found = basins(values)
    assert [b.birth for b in found] == [1.0, 1.0]
    assert {b.row for b in found} == {2, 4}
    assert basins(np.full((4, 4), np.nan)) == []


def test_missing_library_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "gudhi":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"loss-atlas\[topology\]"):
        basins(np.zeros((3, 3)))


def test_convexity_ratio_of_a_known_matrix():
    values = torch.linspace(-2.0, 5.0, 40, dtype=torch.float64)
    found = eigenvalue_ratio(lambda v: torch.diag(values) @ v, 40, tol=1e-6)
    assert found.ratio == pytest.approx(0.4, rel=1e-6)
    assert found.residual < 1e-4
    positive = values.abs() + 0.1
    assert eigenvalue_ratio(lambda v: torch.diag(positive) @ v, 40, tol=1e-6).ratio == 0.0


def test_radius_to_a_level_of_a_quadratic_bowl():
    curvature = np.array([1.0, 4.0, 25.0, 0.0])

    def losses(rays, radii):
        return 0.3 + 0.5 * curvature[rays] * radii**2

    radii = radii_to_level(losses, 4, 0.8, n_bisections=20)
    np.testing.assert_allclose(radii[:3], 1.0 / np.sqrt(curvature[:3]), rtol=1e-5)
    assert np.isinf(radii[3])


def test_a_loss_that_is_not_finite_is_above_every_level():
    radii = radii_to_level(lambda rays, r: np.where(r > 0.5, np.nan, 0.0), 1, 1e9, n_bisections=20)
    assert radii[0] == pytest.approx(0.5, rel=1e-5)


def test_rays_are_unit_vectors_that_repeat():
    like = torch.zeros(50)
    first, again = (
        torch.cat([random_directions(like, [(50,)], ["weight"], generator, 1, None) for _ in range(3)])
        for generator in (torch.Generator().manual_seed(0), torch.Generator().manual_seed(0))
    )
    assert first.dtype == torch.float32
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))
    assert torch.equal(first, again)
