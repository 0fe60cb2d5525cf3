"""The trajectory of anybody's training, on disk: written by one line in the loop, read by every estimator."""

from ._recorder import CheckpointRecorder
from ._recording import Recording, as_trajectory, read_recording

__all__ = ["CheckpointRecorder", "Recording", "as_trajectory", "read_recording"]
