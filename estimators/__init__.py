"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""

from .architecture import ArchitectureComparer
from .average_result import AverageResult
from .averaging import SWAAverager
from .comparison import ComparisonResult
from .connectivity import ModeConnector
from .curvature import CurvatureEstimator
from .curvature_result import CurvatureHistoryResult, CurvatureResult, MinimumProbabilityResult
from .curvature_training import CurvatureTracker
from .data import Examples, data_settings, load_data
from .landscape import Evaluation, Landscape
from .minima_map import MapResult, MinimaMapper
from .models import load_model, read_checkpoint, save_checkpoint
from .path_result import PathResult
from .progress import Cancelled
from .random_points import random_critical_points
from .results import Result
from .sharpness import SharpnessEstimator
from .sharpness_result import SharpnessResult
from .surface import SurfaceMapper
from .surface_result import SurfaceResult
from .training import TrainingRun, train
from .variants import Variant

__all__ = [
    "ArchitectureComparer",
    "AverageResult",
    "Cancelled",
    "ComparisonResult",
    "CurvatureEstimator",
    "CurvatureHistoryResult",
    "CurvatureResult",
    "CurvatureTracker",
    "Evaluation",
    "Examples",
    "Landscape",
    "MapResult",
    "MinimaMapper",
    "MinimumProbabilityResult",
    "ModeConnector",
    "PathResult",
    "Result",
    "SWAAverager",
    "SharpnessEstimator",
    "SharpnessResult",
    "SurfaceMapper",
    "SurfaceResult",
    "TrainingRun",
    "Variant",
    "data_settings",
    "load_data",
    "load_model",
    "random_critical_points",
    "read_checkpoint",
    "save_checkpoint",
    "train",
]
