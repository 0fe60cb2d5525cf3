"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""

from .architectures import ArchitectureComparer, ComparisonResult
from .averaging import AverageResult, SWAAverager
from .cache import CacheInfo, cache_info, clear_cache, reduce_cache
from .card import LayerCard, ModelCard, model_card
from .checks import choose_device
from .connectivity import MapResult, MinimaMapper, ModeConnector, PathResult
from .core.evidence.sampling import SamplingError
from .curvature import (
    CurvatureEstimator,
    CurvatureHistoryResult,
    CurvatureResult,
    CurvatureTracker,
    MinimumProbabilityResult,
    random_critical_points,
    scheduled_rates,
)
from .data import DataList, Examples, data_settings, list_data, load_data
from .known import KNOWN_LANDSCAPES, CheckResult, KnownLandscape, Problem, check_installation
from .landscape import Evaluation, Landscape
from .memory import Footprint, footprint, free_memory, return_freed_memory
from .models import (
    CheckpointError,
    CheckpointInfo,
    count_parameters,
    describe_checkpoint,
    load_model,
    read_checkpoint,
    save_checkpoint,
)
from .pace import Work, pace_of
from .progress import Cancelled
from .recorder import CheckpointRecorder, Recording, read_recording
from .results import Result
from .saddles import CriticalPointFinder, CriticalPointsResult, EscapeResult, SaddleEscaper, pooled_digits, small_net
from .sharpness import MEASURES as SHARPNESS_MEASURES
from .sharpness import SharpnessEstimator, SharpnessResult
from .surface import SliceTrust, SurfaceMapper, SurfaceResult, basins_of, trust_of_slice, write_mesh
from .training import TrainingRun, train

__all__ = [
    "KNOWN_LANDSCAPES",
    "SHARPNESS_MEASURES",
    "ArchitectureComparer",
    "AverageResult",
    "CacheInfo",
    "Cancelled",
    "CheckResult",
    "CheckpointError",
    "CheckpointInfo",
    "CheckpointRecorder",
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
    "Footprint",
    "KnownLandscape",
    "Landscape",
    "LayerCard",
    "MapResult",
    "MinimaMapper",
    "MinimumProbabilityResult",
    "ModeConnector",
    "ModelCard",
    "PathResult",
    "Problem",
    "Recording",
    "Result",
    "SWAAverager",
    "SaddleEscaper",
    "SamplingError",
    "SharpnessEstimator",
    "SharpnessResult",
    "SliceTrust",
    "SurfaceMapper",
    "SurfaceResult",
    "TrainingRun",
    "Work",
    "basins_of",
    "cache_info",
    "check_installation",
    "choose_device",
    "clear_cache",
    "count_parameters",
    "data_settings",
    "describe_checkpoint",
    "footprint",
    "free_memory",
    "list_data",
    "load_data",
    "load_model",
    "model_card",
    "pace_of",
    "pooled_digits",
    "random_critical_points",
    "read_checkpoint",
    "read_recording",
    "reduce_cache",
    "return_freed_memory",
    "save_checkpoint",
    "scheduled_rates",
    "small_net",
    "train",
    "trust_of_slice",
    "write_mesh",
]
