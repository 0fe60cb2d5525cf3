"""Whether a point is a minimum, a saddle, or not stationary at all."""

from ._estimator import CurvatureEstimator
from ._random_points import random_critical_points
from ._result import CurvatureHistoryResult, CurvatureResult, MinimumProbabilityResult
from ._tracker import CurvatureTracker, scheduled_rates

__all__ = [
    "CurvatureEstimator",
    "CurvatureHistoryResult",
    "CurvatureResult",
    "CurvatureTracker",
    "MinimumProbabilityResult",
    "random_critical_points",
    "scheduled_rates",
]
