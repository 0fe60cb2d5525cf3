"""Recording: what a recorder left in a folder, read from the files alone."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..models import load_model, read_metadata

_NAME = re.compile(r"step-(\d+)\.safetensors")
_OF_A_POINT = ("step", "loss", "metrics", "place")  # what a file says of itself beside the facts of its run


@dataclass(frozen=True)
class Recording:
    """A trajectory that a :class:`CheckpointRecorder` wrote, ready for every estimator that takes one.

    Attributes
    ----------
    folder : Path
    checkpoints : list of Path
        safetensors files in the order of their steps.
    history : dict of ndarray
        "step" and "loss", one value a checkpoint, and what else was noted; NaN where it was not.
    settings : dict
        What the recorder knew of the network: "architecture", "num_classes", "image_size", as far as it did.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from estimators import CheckpointRecorder, read_recording
    >>> model = torch.nn.Linear(4, 2)
    >>> with TemporaryDirectory() as folder:
    ...     with CheckpointRecorder(folder, every=2) as recorder:
    ...         for loss in (0.9, 0.5, 0.4, 0.2, 0.1):
    ...             _ = recorder(model, loss=loss)
    ...     recording = read_recording(folder)
    >>> recording.history["step"].tolist(), recording.history["loss"].tolist()
    ([2.0, 4.0, 5.0], [0.5, 0.2, 0.1])
    """

    folder: Path
    checkpoints: list[Path]
    history: dict[str, np.ndarray] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.checkpoints)

    @cached_property
    def model(self) -> nn.Module | None:
        """The network at the last checkpoint where its architecture is a name known here, otherwise None."""
        known = {name: self.settings[name] for name in ("num_classes", "image_size") if name in self.settings}
        if not self.settings.get("architecture"):
            return None
        return load_model(self.settings["architecture"], checkpoint=self.checkpoints[-1], **known)


def read_recording(folder: str | os.PathLike) -> Recording:
    """Open the folder of a :class:`CheckpointRecorder`, while it is still being written too.

    Raises
    ------
    ValueError
        Where the folder holds no recording.
    """
    path = Path(folder).expanduser()
    points = points_in(path) if path.is_dir() else []
    if not points:
        raise ValueError(
            f"A trajectory must be a folder that a CheckpointRecorder wrote, got {str(folder)!r} without any "
            "step-*.safetensors of its own. Check the path, or give a list of checkpoint files."
        )
    names = dict.fromkeys(name for point in points for name in point["metrics"])
    history = {
        "step": np.array([point["step"] for point in points], dtype=float),
        "loss": np.array([math.nan if point["loss"] is None else point["loss"] for point in points], dtype=float),
        **{name: np.array([point["metrics"].get(name, math.nan) for point in points], dtype=float) for name in names},
    }
    return Recording(path, [point["path"] for point in points], history, points[-1]["facts"])


def as_trajectory(source: Any) -> Any:
    """Open what stands for a recording: its folder; anything else stays as it is."""
    if isinstance(source, str | os.PathLike) and os.path.isdir(source):
        return read_recording(source)
    return source


def points_in(folder: Path) -> list[dict[str, Any]]:
    """Read what the recorded files of a folder say of themselves, in the order of their steps."""
    found = []
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            try:
                header = read_metadata(path)
                point = {name: header.pop(name) for name in _OF_A_POINT}
            except Exception:  # a damaged file, or one that no recorder wrote: no point of this trajectory
                continue
            found.append({**point, "path": path, "facts": header})
    return sorted(found, key=lambda point: point["step"])
