"""Whether there is a barrier between two networks, and a way around it."""

from ._connector import ModeConnector
from ._minima import MapResult, MinimaMapper
from ._result import PathResult

__all__ = [
    "MapResult",
    "MinimaMapper",
    "ModeConnector",
    "PathResult",
]
