"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""

from .architecture import ArchitectureComparer
from .average_result import AverageResult
from .averaging import SWAAverager
from .cache import CacheInfo, cache_info, clear_cache, reduce_cache
from .comparison import ComparisonResult
from .connectivity import ModeConnector
from .critical_points import CriticalPointFinder, CriticalPointsResult
from .curvature import CurvatureEstimator
from .curvature_result import CurvatureHistoryResult, CurvatureResult, MinimumProbabilityResult
from .curvature_training import CurvatureTracker
from .data import DataList, Examples, data_settings, list_data, load_data
from .escape import SaddleEscaper
from .escape_result import EscapeResult
from .landscape import Evaluation, Landscape
from .minima_map import MapResult, MinimaMapper
from .models import load_model, read_checkpoint, save_checkpoint
from .path_result import PathResult
from .progress import Cancelled
from .random_points import random_critical_points
from .results import Result
from .sharpness import SharpnessEstimator
from .sharpness_result import SharpnessResult
from .small_net import pooled_digits, small_net
from .surface import SurfaceMapper
from .surface_result import SurfaceResult
from .training import TrainingRun, train

__all__ = [
    "ArchitectureComparer",
    "AverageResult",
    "CacheInfo",
    "Cancelled",
    "ComparisonResult",
    "CriticalPointFinder",
    "CriticalPointsResult",
    "CurvatureEstimator",
    "CurvatureHistoryResult",
    "CurvatureResult",
    "CurvatureTracker",
    "DataList",
    "EscapeResult",
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
    "SaddleEscaper",
    "SharpnessEstimator",
    "SharpnessResult",
    "SurfaceMapper",
    "SurfaceResult",
    "TrainingRun",
    "cache_info",
    "clear_cache",
    "data_settings",
    "list_data",
    "load_data",
    "load_model",
    "pooled_digits",
    "random_critical_points",
    "read_checkpoint",
    "reduce_cache",
    "save_checkpoint",
    "small_net",
    "train",
]
