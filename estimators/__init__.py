"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""

from .connectivity import ModeConnector
from .data import Examples, data_settings, load_data
from .landscape import Evaluation, Landscape
from .minima_map import MapResult, MinimaMapper
from .models import load_model, read_checkpoint, save_checkpoint
from .path_result import PathResult
from .progress import Cancelled
from .results import Result
from .sharpness import SharpnessEstimator
from .sharpness_result import SharpnessResult
from .surface import SurfaceMapper
from .surface_result import SurfaceResult
from .training import TrainingRun, train

__all__ = [
    "Cancelled",
    "Evaluation",
    "Examples",
    "Landscape",
    "MapResult",
    "MinimaMapper",
    "ModeConnector",
    "PathResult",
    "Result",
    "SharpnessEstimator",
    "SharpnessResult",
    "SurfaceMapper",
    "SurfaceResult",
    "TrainingRun",
    "data_settings",
    "load_data",
    "load_model",
    "read_checkpoint",
    "save_checkpoint",
    "train",
]
