import builtins

import numpy as np
import pytest

from estimators.surface._mesh import mesh_of, write_mesh
from estimators.surface._result import SurfaceResult


def result(holes=False):
    x, y = np.linspace(-1, 1, 5), np.linspace(-2, 2, 4)
    losses = np.exp(np.add.outer(x**2, y**2))
    if holes:
        losses[2, 1] = np.nan
    return SurfaceResult(axes=(x, y), losses=losses, accuracies=np.full(losses.shape, 0.5))


def test_points_are_the_nodes_and_triangles_face_up():
    points, triangles, kept = mesh_of(result(), height=2.0)
    assert len(points) == 20 and len(triangles) == 2 * 4 * 3
    assert kept.tolist() == list(range(20))
    assert points[:, 2].min() == 0.0 and points[:, 2].max() == pytest.approx(2.0)
    assert points[:, :2].min() == -1.0 and points[:, :2].max() == 1.0
    a, b, c = (points[triangles[:, k], :2] for k in range(3))
    area = np.cross(b - a, c - a)
    assert (area > 0).all()
    assert area.sum() / 2 == pytest.approx(4.0)


def test_cells_that_are_not_finite_are_holes():
    points, triangles, kept = mesh_of(result(holes=True))
    assert 2 * 4 + 1 not in kept
    assert np.isfinite(points).all()
    assert len(triangles) == 24 - 6
    with pytest.raises(ValueError, match="at least one cell"):
        mesh_of(SurfaceResult(axes=result().axes, losses=np.full((5, 4), np.nan)))


@pytest.mark.parametrize("ending", ["obj", "stl", "vtk"])
def test_files_read_back(tmp_path, ending):
    meshio = pytest.importorskip("meshio")
    file = write_mesh(result(), tmp_path / f"map.{ending}", log=False)
    mesh = meshio.read(file)
    cells = mesh.cells_dict["triangle"]
    assert len(cells) == 24
    corners = {tuple(np.round(p, 4)) for p in np.asarray(mesh.points)[np.unique(cells)]}
    expected = {tuple(np.round(p.astype(np.float32), 4)) for p in mesh_of(result(), log=False)[0]}
    if ending == "stl":
        assert len(corners) == len(expected)
    else:
        assert np.allclose(sorted(corners), sorted(expected), atol=1e-3)
    if ending == "vtk":
        np.testing.assert_allclose(mesh.point_data["losses"], result().losses.reshape(-1))
        np.testing.assert_allclose(mesh.point_data["coordinate_2"][:4], result().axes[1])


def test_messages(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"path must end in .obj, .stl or .vtk"):
        write_mesh(result(), tmp_path / "map.ply")
    with pytest.raises(ValueError, match="quantity must be one of"):
        write_mesh(result(), tmp_path / "map.obj", quantity="height")
    with pytest.raises(ValueError, match="n_dims=2"):
        mesh_of(SurfaceResult(axes=(np.arange(3.0),), losses=np.ones(3)))
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "meshio":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"loss-atlas\[mesh\]"):
        write_mesh(result(), tmp_path / "map.obj")
