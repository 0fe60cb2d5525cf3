"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""

from .data import Examples, data_settings, load_data
from .landscape import Evaluation, Landscape
from .models import load_model, read_checkpoint, save_checkpoint
from .progress import Cancelled
from .results import Result
from .training import TrainingRun, train

__all__ = [
    "Cancelled",
    "Evaluation",
    "Examples",
    "Landscape",
    "Result",
    "TrainingRun",
    "data_settings",
    "load_data",
    "load_model",
    "read_checkpoint",
    "save_checkpoint",
    "train",
]
