"""What the loss looks like on a line, a plane or in a volume."""

from ._analysis import basin_radii, basins_of
from ._mapper import SurfaceMapper
from ._mesh import write_mesh
from ._result import SurfaceResult
from ._trust import SliceTrust, trust_of_slice

__all__ = [
    "SliceTrust",
    "SurfaceMapper",
    "SurfaceResult",
    "basin_radii",
    "basins_of",
    "trust_of_slice",
    "write_mesh",
]
