"""How fast the loss rises around a point."""

from ._estimator import SharpnessEstimator
from ._measures import MEASURES, SharpnessSettings, average_case, lambda_max, trace, worst_case
from ._result import SharpnessResult

__all__ = [
    "MEASURES",
    "SharpnessEstimator",
    "SharpnessResult",
    "SharpnessSettings",
    "average_case",
    "lambda_max",
    "trace",
    "worst_case",
]
