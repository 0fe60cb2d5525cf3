"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""

from .architecture import ArchitectureComparer
from .averaging import SWAAverager
from .connectivity import ModeConnector
from .critical_points import CriticalPointFinder
from .curvature import CurvatureEstimator
from .curvature_training import CurvatureTracker
from .data import Examples, data_settings, load_data
from .escape import SaddleEscaper
from .landscape import Evaluation, Landscape
from .minima_map import MinimaMapper
from .models import load_model, read_checkpoint, save_checkpoint
from .progress import Cancelled
from .random_points import random_critical_points
from .results import Result
from .sharpness import SharpnessEstimator
from .small_net import pooled_digits, small_net
from .surface import SurfaceMapper
from .training import TrainingRun, train

__all__ = [
    "ArchitectureComparer",
    "Cancelled",
    "CriticalPointFinder",
    "CurvatureEstimator",
    "CurvatureTracker",
    "Evaluation",
    "Examples",
    "Landscape",
    "MinimaMapper",
    "ModeConnector",
    "Result",
    "SWAAverager",
    "SaddleEscaper",
    "SharpnessEstimator",
    "SurfaceMapper",
    "TrainingRun",
    "data_settings",
    "load_data",
    "load_model",
    "pooled_digits",
    "random_critical_points",
    "read_checkpoint",
    "save_checkpoint",
    "small_net",
    "train",
]
