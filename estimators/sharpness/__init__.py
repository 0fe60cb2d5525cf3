"""How fast the loss rises around a point."""

from ._estimator import SharpnessEstimator
from ._measures import MEASURES
from ._result import SharpnessResult

__all__ = [
    "MEASURES",
    "SharpnessEstimator",
    "SharpnessResult",
]
