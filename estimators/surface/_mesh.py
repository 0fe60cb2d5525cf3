"""Surfaces as meshes for Blender (OBJ, STL) and ParaView (VTK), written by the library meshio (extra ``mesh``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..writing import whole
from ._result import SurfaceResult

FORMATS = ("obj", "stl", "vtk")
_QUANTITIES = ("losses", "accuracies", "held_out_losses", "held_out_accuracies")


def write_mesh(
    result: SurfaceResult,
    path: str | os.PathLike,
    *,
    quantity: str = "losses",
    log: bool = True,
    height: float = 1.0,
) -> Path:
    """Write a two-dimensional map as a triangle mesh.

    Parameters
    ----------
    result : SurfaceResult
    path : path
        Ending in .obj, .stl or .vtk. VTK files also carry every measured quantity at the nodes.
    quantity : {"losses", "accuracies", "held_out_losses", "held_out_accuracies"}, default="losses"
        What the height shows.
    log : bool, default=True
        Use the natural log of losses.
    height : float, default=1.0
        Height of the highest point over the lowest; x and y span [-1, 1] (VTK keeps their coordinates, too).

    Returns
    -------
    Path
        The file. Triangles with a node that is not finite are left out: a hole, not a number.

    Raises
    ------
    ImportError
        When meshio is not installed.
    ValueError
        For another ending, a result that is not a plane, or one without four finite neighbours.
    """
    file = Path(path)
    if file.suffix.lower().lstrip(".") not in FORMATS:
        raise ValueError(f"path must end in .obj, .stl or .vtk, got {file.name!r}. Choose one of these.")
    if quantity not in _QUANTITIES:
        raise ValueError(f"quantity must be one of {_QUANTITIES}, got {quantity!r}. Choose one of these.")
    meshio = _meshio()
    points, triangles, kept = mesh_of(result, quantity=quantity, log=log, height=height)
    data: dict[str, NDArray[Any]] = {}
    if file.suffix.lower() == ".vtk":
        x, y = np.meshgrid(*result.axes, indexing="ij")
        data = {"coordinate_1": x.reshape(-1)[kept], "coordinate_2": y.reshape(-1)[kept]}
        for name in _QUANTITIES:
            values = np.asarray(getattr(result, name))
            if values.size:
                data[name] = values.reshape(-1)[kept]
    mesh = meshio.Mesh(points, [("triangle", triangles)], point_data=data)
    kind = file.suffix.lower().lstrip(".")
    with whole(file) as temporary:
        meshio.write(temporary, mesh, file_format=kind, **({"binary": True} if kind == "stl" else {}))
    return file


def mesh_of(
    result: SurfaceResult, *, quantity: str = "losses", log: bool = True, height: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Give points (n, 3), triangles (m, 3) seen from above counter-clockwise, and each point's grid node (n,)."""
    values = np.asarray(getattr(result, quantity), dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"result must hold {quantity} of a plane to become a mesh, got shape {values.shape}. Fit with n_dims=2."
        )
    if log and quantity.endswith("losses"):
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(values)
    finite = np.isfinite(values)
    first, second = np.meshgrid(*(_unit(a) for a in result.axes), indexing="ij")
    low = values[finite].min() if finite.any() else 0.0
    tall = (values[finite].max() - low) if finite.any() else 0.0
    third = np.where(finite, (values - low) * (height / tall if tall > 0 else 0.0), 0.0)
    index = np.arange(values.size).reshape(values.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    triangles = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    triangles = triangles[finite.reshape(-1)[triangles].all(axis=1)]
    if not len(triangles):
        raise ValueError(f"result must hold finite {quantity} in at least one cell, got none. Map a smaller span.")
    kept, triangles = np.unique(triangles, return_inverse=True)
    points = np.stack([first, second, third], axis=-1).reshape(-1, 3)[kept]
    return points, triangles.reshape(-1, 3), kept


def _unit(axis: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2 * (axis - axis[0]) / (axis[-1] - axis[0]) - 1


def _meshio() -> Any:
    try:
        import meshio
    except ImportError as error:
        raise ImportError(
            "Writing meshes needs the library meshio. Install it with: pip install 'loss-atlas[mesh]'"
        ) from error
    return meshio
