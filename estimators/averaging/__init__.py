"""What averaging weights does: SWA, exponential means, soups."""

from ._averager import SWAAverager
from ._result import AverageResult

__all__ = [
    "AverageResult",
    "SWAAverager",
]
