"""Whether there is a barrier between two networks, and a way around it."""

from ._connector import ModeConnector
from ._minima import MinimaMapper
from ._result import MapResult, PathResult

__all__ = [
    "MapResult",
    "MinimaMapper",
    "ModeConnector",
    "PathResult",
]
