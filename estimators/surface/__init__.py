"""What the loss looks like on a line, a plane or in a volume."""

from ._analysis import basin_radii, basins_of
from ._mapper import SurfaceMapper
from ._mesh import write_mesh
from ._result import SurfaceResult

__all__ = [
    "SurfaceMapper",
    "SurfaceResult",
    "basin_radii",
    "basins_of",
    "write_mesh",
]
